package websocket_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// An asyncAPI is docs/asyncapi.yaml: a schema for each of its messages, which
// allow no fields that the document does not have.
type asyncAPI struct {
	document map[string]any
	messages map[string]*jsonschema.Schema
}

const asyncAPIFile = "../../../docs/asyncapi.yaml"

// theAsyncAPI is read once, by the first message of any test.
var theAsyncAPI = sync.OnceValues(func() (api asyncAPI, err error) {
	text, err := os.ReadFile(asyncAPIFile)
	if err != nil {
		return api, err
	}
	if err := yaml.Unmarshal(text, &api.document); err != nil {
		return api, err
	}
	var document any
	data, err := json.Marshal(api.document)
	if err != nil {
		return api, err
	}
	if document, err = jsonschema.UnmarshalJSON(bytes.NewReader(data)); err != nil {
		return api, err
	}
	forbidUnknown(document.(map[string]any)["components"].(map[string]any)["schemas"])
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft7) // which is what AsyncAPI 3.0 builds on
	if err := compiler.AddResource("asyncapi.json", document); err != nil {
		return api, err
	}
	api.messages = map[string]*jsonschema.Schema{}
	for name := range api.at("components", "messages") {
		schema, err := compiler.Compile("asyncapi.json#/components/messages/" + name + "/payload")
		if err != nil {
			return api, err
		}
		api.messages[name] = schema
	}
	return api, nil
})

// at returns an object of the document.
func (api asyncAPI) at(path ...string) map[string]any {
	node := api.document
	for _, key := range path {
		node, _ = node[key].(map[string]any)
	}
	return node
}

// forbidUnknown makes every schema of an object with fields one of no others.
func forbidUnknown(node any) {
	switch n := node.(type) {
	case map[string]any:
		if _, ok := n["properties"].(map[string]any); ok && n["additionalProperties"] == nil {
			n["additionalProperties"] = false
		}
		for _, child := range n {
			forbidUnknown(child)
		}
	case []any:
		for _, child := range n {
			forbidUnknown(child)
		}
	}
}

// conforms checks that a message is one that the document has. Those of streams
// of several views and of version 1 have other names than those of one view.
func conforms(text string) error {
	api, err := theAsyncAPI()
	if err != nil {
		return err
	}
	var kind struct {
		Type  string
		Views json.RawMessage
	}
	if err := json.Unmarshal([]byte(text), &kind); err != nil {
		return err
	}
	name := kind.Type
	switch {
	case name == "":
		name = "change1"
	case kind.Views != nil:
		name = "cut" + strings.ToUpper(name[:1]) + name[1:]
	}
	schema := api.messages[name]
	if schema == nil {
		return fmt.Errorf("docs/asyncapi.yaml has no message %s: %.200s", name, text)
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err == nil {
		err = schema.Validate(value)
	}
	if err != nil {
		return fmt.Errorf("not a message %s of docs/asyncapi.yaml: %w: %.300s", name, err, text)
	}
	return nil
}

// conforming checks each message of a stream that a test reads.
func conforming(next func() (string, error)) func() (string, error) {
	return func() (string, error) {
		text, err := next()
		if err == nil && text != "" {
			err = conforms(text)
		}
		return text, err
	}
}

// The document and its schemas say the same as the protocol: the examples are
// messages, what is none is refused, and the errors are those of the table.
func TestAsyncAPI(t *testing.T) {
	api, err := theAsyncAPI()
	if err != nil {
		t.Fatal(err)
	}
	for name := range api.messages {
		examples, _ := api.at("components", "messages", name)["examples"].([]any)
		for _, e := range examples {
			text, err := json.Marshal(e.(map[string]any)["payload"])
			if err == nil {
				err = conforms(string(text))
			}
			if err != nil {
				t.Errorf("the example of %s: %v", name, err)
			}
		}
	}
	for _, e := range examplesOf(t, document(t)) {
		for _, line := range e.want {
			if strings.HasPrefix(line, `{"type"`) {
				if err := conforms(line); err != nil {
					t.Error(err)
				}
			}
		}
	}
	for _, text := range []string{
		`{"type":"base","view":"v","timestamp":"1","token":"1-a","inserted":[],"deleted":[]}`,
		`{"type":"base","view":"v","timestamp":"1","token":"1-a","inserted":[],"deleted":[],"checksum":"0000000000000000","more":true}`,
		`{"type":"base","view":"v","timestamp":1,"token":"1-a","inserted":[],"deleted":[],"checksum":"0000000000000000"}`,
		`{"type":"delta","view":"v","timestamp":"1","token":"1-a","inserted":[],"deleted":[],"checksum":"0000000000000000"}`,
		`{"type":"delta","view":"v","from":"1-a","timestamp":"1","token":"1-a","inserted":[1],"deleted":[],"checksum":"0000000000000000"}`,
		`{"type":"progress","view":"v","timestamp":"1","token":"1-A","checksum":"0000000000000000"}`,
		`{"type":"progress","view":"v","timestamp":"1","token":"1-a","checksum":"0","extra":1}`,
		`{"type":"error","code":"bad_weather","message":"rain"}`,
		`{"inserted":[[1]],"deleted":[],"timestamp":"1"}`,
	} {
		if conforms(text) == nil {
			t.Errorf("%s is taken for a message", text)
		}
	}
	var codes []string
	for _, code := range api.at("components", "schemas", "error", "properties", "code")["enum"].([]any) {
		codes = append(codes, code.(string))
	}
	if got, want := codes, codesOf(document(t)); !slices.Equal(got, want) {
		t.Errorf("codes of errors: got %v, want those of docs/protocol.md, %v", got, want)
	}
}

// codesOf returns the codes in the table of errors, in order.
func codesOf(text string) []string {
	codes := map[string]bool{}
	_, table, _ := strings.Cut(text, "| code | status | when | the stream |")
	table, _, _ = strings.Cut(table, "\n\n")
	for line := range strings.Lines(table) {
		cell, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
		for word := range strings.SplitSeq(cell, ", ") {
			if code, ok := strings.CutPrefix(word, "`"); ok {
				codes[strings.TrimSuffix(code, "`")] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(codes))
}

// The bodies of errors are messages, too.
func TestErrorsConform(t *testing.T) {
	f := newFeed(t, "later")
	s := serve(t, websocket.Settings{}, f)
	for _, request := range [][]string{
		{"/api/stream/x"}, {"/api/stream"}, {"/api/views/x"}, {"/api/nothing"}, {"/api/views/later"}, {"/api/stream/later?since=x"},
		{"/api/views/later?format=x"}, {"/api/stream/later?interval=x"}, {"/api/v1/stream/x"}, {"/api/views/later", "Origin", "https://foreign.example"},
		{"/api/views/later", "Host", "foreign.example"},
	} {
		response, body := s.get(t, request[0], request[1:]...)
		if err := conforms(body); err != nil || response.StatusCode < 400 {
			t.Errorf("%v: %d %v", request, response.StatusCode, err)
		}
	}
}
