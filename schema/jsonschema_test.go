package schema_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mzdio/mzd/schema"
)

var seeds = flag.Int("seeds", 20, "how many random documents to check, in hundreds")

// everything is what tags can say, but for Validate methods, which do not
// travel.
type everything struct {
	Listen   string                     `json:"listen" default:"127.0.0.1:8875" doc:"Address <here> & there."`
	Format   string                     `json:"format" default:"auto" enum:"auto|json|text"`
	Stream   string                     `json:"stream" required:"true"`
	Strict   bool                       `json:"strict" default:"true"`
	Wide     int                        `json:"wide"`
	Unsigned uint64                     `json:"unsigned" default:"18446744073709551615"`
	Port     uint16                     `json:"port" default:"80"`
	Small    int8                       `json:"small"`
	Ratio    float64                    `json:"ratio" default:"0.5"`
	Wait     schema.Duration            `json:"wait" default:"1m30s" doc:"how long"`
	Size     schema.Bytes               `json:"size" default:"64KiB"`
	Origins  []string                   `json:"origins" default:"[\"a\",\"b\"]"`
	Levels   []string                   `json:"levels" enum:"low|high"`
	Headers  map[string]string          `json:"headers"`
	Rooms    map[string]room            `json:"rooms" required:"true"`
	Matrix   map[string]map[string]int8 `json:"matrix"`
	Always   room                       `json:"always" doc:"is there"`
	Never    *room                      `json:"never"`
	Needed   *room                      `json:"needed" required:"true"`
	Routes   []room                     `json:"routes"`
	Raw      json.RawMessage            `json:"raw" default:"{\"a\":[1]}"`
	Any      any                        `json:"any"`
	Token    string                     `json:"token" secret:"true"`
	Tokens   map[string]string          `json:"tokens" secret:"true"`
	Nothing  struct{}                   `json:"nothing"`
}

type room struct {
	Name  string          `json:"name" required:"true"`
	Seats uint8           `json:"seats" default:"4"`
	Open  schema.Duration `json:"open"`
	Hall  struct {
		Doors []int8 `json:"doors" default:"[1,2]"`
	} `json:"hall"`
}

func parsed(t testing.TB, s *schema.Schema) *schema.Schema {
	t.Helper()
	text := s.JSONSchema()
	got, err := schema.ParseJSONSchema(text)
	if err != nil {
		t.Fatalf("parse %s: %v", text, err)
	}
	return got
}

func TestJSONSchemaRoundTrip(t *testing.T) {
	for _, want := range []*schema.Schema{schema.Of[everything](), schema.Of[settings](), schema.Of[struct{}]()} {
		got := parsed(t, want)
		if g, w := string(got.JSONSchema()), string(want.JSONSchema()); g != w {
			t.Errorf("JSON Schema:\ngot  %s\nwant %s", g, w)
		}
		if g, w := got.Markdown(), want.Markdown(); g != w {
			t.Errorf("Markdown:\ngot\n%s\nwant\n%s", g, w)
		}
	}
}

// TestParsedSchemaChecksAlike checks random documents, most of them nearly
// right, by the schema of a struct and by the same one after its journey.
func TestParsedSchemaChecksAlike(t *testing.T) {
	direct := schema.Of[everything]()
	travelled := parsed(t, direct)
	good, bad := 0, 0
	for seed := range *seeds * 100 {
		r := rand.New(rand.NewPCG(uint64(seed), 0))
		doc := document(r, direct, seed%2*4)
		gotDoc, got := travelled.Check(doc)
		wantDoc, want := direct.Check(doc)
		if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(gotDoc, wantDoc) {
			t.Fatalf("seed %d: document %v:\ngot  %v, %v\nwant %v, %v", seed, doc, gotDoc, got, wantDoc, want)
		}
		if len(want) == 0 {
			good++
		} else {
			bad++
		}
	}
	if good < *seeds || bad < *seeds {
		t.Errorf("%d good and %d bad documents do not say much", good, bad)
	}
}

// document makes a document that is right but for a chance of wrongs in a
// hundred values.
func document(r *rand.Rand, s *schema.Schema, wrongs int) any {
	odd := []any{nil, "", "x", true, json.Number("0"), json.Number("-1"), json.Number("300"), json.Number("70000"), json.Number("1.5"),
		json.Number("1e999"), json.Number("-9223372036854775809"), json.Number("18446744073709551616"), json.Number("9223372036854775808"),
		json.Number(strings.Repeat("9", 60)), schema.Text("12"), schema.Text("hidden"), []any{}, map[string]any{"zzz": nil}, []any{map[string]any{}}}
	if r.IntN(100) < wrongs {
		return odd[r.IntN(len(odd))]
	}
	pick := func(of ...any) any { return of[r.IntN(len(of))] }
	switch s.Kind {
	case schema.String:
		if s.Enum != nil {
			return s.Enum[r.IntN(len(s.Enum))]
		}
		return pick("text", schema.Text("secret"))
	case schema.Bool:
		return pick(true, false, schema.Text("true"))
	case schema.Integer:
		return pick(json.Number("0"), json.Number("100"), json.Number("-0"), schema.Text("7"))
	case schema.Number:
		return pick(json.Number("1e3"), json.Number("-0.5"))
	case schema.Time:
		return pick("10m", "1h0m0s", json.Number("0"))
	case schema.Size:
		return pick("1KB", json.Number("17"), "1.5GiB")
	case schema.List:
		list := make([]any, r.IntN(3))
		for i := range list {
			list[i] = document(r, s.Elem, wrongs)
		}
		return list
	case schema.Map:
		m := map[string]any{}
		for range r.IntN(3) {
			m[fmt.Sprintf("k.%d", r.IntN(9))] = document(r, s.Elem, wrongs)
		}
		return m
	case schema.Object:
		m := map[string]any{}
		for _, f := range s.Fields {
			if f.Required && r.IntN(100) >= wrongs || f.Schema.Kind == schema.Object && !f.Optional || r.IntN(2) == 0 {
				m[f.Name] = document(r, f.Schema, wrongs)
			}
		}
		if r.IntN(100) < wrongs {
			m["sreeam"] = true
		}
		return m
	}
	return pick("any", json.Number("1"), []any{schema.Text("t")})
}

// TestParseJSONSchema reads schemas as others write them.
func TestParseJSONSchema(t *testing.T) {
	const pydantic = `{
		"$defs": {"Auth": {"properties": {"user": {"title": "User", "type": "string"},
			"password": {"format": "password", "title": "Password", "type": "string", "writeOnly": true}},
			"required": ["user", "password"], "title": "Auth", "type": "object"}},
		"properties": {
			"url": {"format": "uri", "maxLength": 2083, "minLength": 1, "title": "Url", "type": "string", "description": "Where\n to go."},
			"auth": {"anyOf": [{"$ref": "#/$defs/Auth"}, {"type": "null"}], "default": null},
			"again": {"$ref": "#/$defs/Auth", "description": "another"},
			"retries": {"default": 3, "maximum": 10, "minimum": 0, "title": "Retries", "type": "integer"},
			"mode": {"default": "fast", "enum": ["fast", "safe"], "type": "string"},
			"tags": {"items": {"type": "string"}, "type": "array"},
			"id": {"anyOf": [{"type": "string"}, {"type": "integer"}]}
		}, "required": ["url"], "title": "Settings", "type": "object"}`
	tests := []struct {
		name, in string
		want     []string // lines of the table of its keys
	}{
		{"pydantic", pydantic, []string{
			"| `url` | string | *required* | Where to go. |",
			"| `auth` | object |  |  |",
			"| `auth.user` | string | *required* |  |",
			"| `auth.password` | string | *required* |  |",
			"| `again` | object |  | another |",
			"| `again.user` | string | *required* |  |",
			"| `again.password` | string | *required* |  |",
			"| `retries` | integer | `3` |  |",
			"| `mode` | fast or safe | `fast` |  |",
			"| `tags` | list of string |  |  |",
			"| `id` | any |  |  |",
		}},
		{"units", `{"properties": {"wait": {"type": "string", "format": "mzd-duration", "default": "90s"}, "max": {"type": ["string", "integer"], "format": "mzd-bytes"}}}`, []string{
			"| `wait` | duration | `1m30s` |  |",
			"| `max` | bytes |  |  |",
		}},
		{"null is absent", `{"properties": {"a": {"type": ["string", "null"], "enum": ["x", null]}, "b": {"oneOf": [{"type": "null"}, {"type": "boolean", "default": true}]}}}`, []string{
			"| `a` | x |  |  |",
			"| `b` | bool | `true` |  |",
		}},
		{"no types", `{"properties": {"a": {"items": {}}, "b": {"properties": {}}, "c": {"additionalProperties": {"type": "number"}}, "d": true, "e": {"x-own": 1}}}`, []string{
			"| `a` | list of any |  |  |",
			"| `b` | object |  |  |",
			"| `c` | map of number |  |  |",
			"| `d` | any |  |  |",
			"| `e` | any |  |  |",
		}},
		{"in order", `{"properties": {"z": {"const": "on", "type": "string"}, "a": {"$ref": "#/definitions/x~1y"}}, "definitions": {"x/y": {"type": "boolean"}}}`, []string{
			"| `z` | on |  |  |",
			"| `a` | bool | `false` |  |",
		}},
		{"nothing", ``, nil},
		{"anything", `{}`, nil},
		{"any object", `{"type": "object"}`, nil},
		{"no keys", `{"type": "object", "additionalProperties": false}`, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := schema.ParseJSONSchema([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Split(strings.TrimSpace(s.Markdown()), "\n")[2:]
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

func TestParsedBounds(t *testing.T) {
	s, err := schema.ParseJSONSchema([]byte(`{"properties": {
		"low": {"type": "integer", "minimum": 1}, "high": {"type": "integer", "maximum": -5}, "part": {"type": "integer", "minimum": 0.5},
		"ratio": {"type": "number", "minimum": 0, "maximum": 1}, "above": {"type": "number", "minimum": 0.5}, "below": {"type": "number", "maximum": 2}}}`))
	if err != nil {
		t.Fatal(err)
	}
	zero := json.Number("0")
	_, problems := s.Check(map[string]any{"low": zero, "high": zero, "part": zero, "ratio": json.Number("1.1"), "above": zero, "below": json.Number("2.5")})
	var got []string
	for _, p := range problems {
		got = append(got, p.Error())
	}
	want := []string{
		"low: want a whole number from 1 to 18446744073709551615, got the number 0",
		"high: want a whole number from -9223372036854775808 to -5, got the number 0",
		"ratio: want a number from 0 to 1, got the number 1.1",
		"above: want a number of at least 0.5, got the number 0",
		"below: want a number of at most 2, got the number 2.5",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestParseJSONSchemaRefuses(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"not JSON", `{`, "is not a schema"},
		{"not a schema", `[]`, "is not a schema"},
		{"null", `null`, "is not a schema"},
		{"false", `{"properties": {"a": false}}`, "properties.a: is not a schema"},
		{"not of an object", `{"type": "string"}`, "is of a string, want one of an object"},
		{"a slip", `{"properties": {"a": {"type": "object", "propertys": {}}}}`, `properties.a.propertys: this keyword is not understood; did you mean "properties"?`},
		{"a keyword that allows more", `{"properties": {}, "patternProperties": {"x": {}}}`, "patternProperties: this keyword is not understood; mzd cannot tell"},
		{"allOf", `{"allOf": [{}]}`, "allOf: this keyword is not understood"},
		{"anyOf beside properties", `{"properties": {}, "anyOf": [{}]}`, "anyOf: this keyword is not understood beside a type"},
		{"more keys", `{"properties": {}, "additionalProperties": true}`, "additionalProperties: beside properties only false"},
		{"a type", `{"properties": {"a": {"type": "int"}}}`, `properties.a.type: "int" is not a type; known: array, boolean, integer`},
		{"null alone", `{"properties": {"a": {"type": "null"}}}`, "properties.a.type: allows nothing but null"},
		{"no type", `{"properties": {"a": {"type": 7}}}`, "properties.a.type: is a number, want a"},
		{"a word that is none", `{"properties": {"a": {"type": "string", "enum": [1]}}}`, "properties.a.enum: is a number, want a string"},
		{"required, but where", `{"properties": {"a": {}}, "required": ["b"]}`, `required: "b" is not among the properties`},
		{"required of a map", `{"type": "object", "required": ["b"]}`, "required: names keys"},
		{"twice", `{"properties": {"a": {}, "a": {}}}`, "properties.a: is not usable as a key"},
		{"a key that does not print", `{"properties": {"\u001b[2J": {}}}`, "is not usable as a key"},
		{"a word that does not print", `{"properties": {"a": {"type": "string", "enum": ["\u001b"]}}}`, "does not print"},
		{"default of another kind", `{"properties": {"a": {"type": "integer", "default": "x"}}}`, `properties.a.default: want a whole number, got "x"`},
		{"default out of bounds", `{"properties": {"a": {"type": "integer", "maximum": 3, "default": 4}}}`, "properties.a.default: want a whole number from"},
		{"a secret that is none", `{"properties": {"a": {"type": "integer", "writeOnly": true}}}`, "properties.a.writeOnly: makes a secret, which must be a string"},
		{"a bound that is none", `{"properties": {"a": {"type": "number", "minimum": 1e999}}}`, "properties.a.minimum: is not a number"},
		{"a reference elsewhere", `{"properties": {"a": {"$ref": "https://example.com/a.json"}}}`, "want #/$defs/NAME"},
		{"a reference to nothing", `{"properties": {"a": {"$ref": "#/$defs/b"}}}`, `"#/$defs/b" is not in the schema`},
		{"itself", `{"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"a": {"$ref": "#/$defs/a"}}}}}`, "nested more than 32 deep; a schema must not contain itself"},
		{"far too much", `{"$ref": "#/$defs/a0", "$defs": {` + doubling(13) + `}}`, "the schema has more than 10000 parts"},
		{"deep", `{"properties": {"a": ` + strings.Repeat(`{"items":`, 40) + `{}` + strings.Repeat(`}`, 40) + `}}`, "nested more than 32 deep"},
		{"large", `{"description": "` + strings.Repeat("x", 256<<10) + `"}`, "larger than 256KiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := schema.ParseJSONSchema([]byte(tt.in)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want something with %q", err, tt.want)
			}
		})
	}
}

// doubling returns definitions of which each has the next one twice.
func doubling(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"a%d": {"properties": {"x": {"$ref": "#/$defs/a%d"}, "y": {"$ref": "#/$defs/a%d"}}}, `, i, i+1, i+1)
	}
	fmt.Fprintf(&b, `"a%d": {}`, n)
	return b.String()
}

// TestTextOfAStrangerPrints holds that nothing in a schema reaches a terminal
// that could move its cursor.
func TestTextOfAStrangerPrints(t *testing.T) {
	s, err := schema.ParseJSONSchema([]byte(`{"properties": {"a": {"description": "one\u001b[2Jtwo\u0085 three\n\n four"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Fields[0].Doc, "one [2Jtwo three four"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzParseJSONSchema(f *testing.F) {
	f.Add(schema.Of[everything]().JSONSchema(), []byte(`{"stream": "s", "rooms": {"a": {"name": "b"}}}`))
	f.Add([]byte(`{"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"b": {"anyOf": [{"type": "null"}, {"type": "string", "writeOnly": true}]}}}}}`), []byte(`{"b": 1}`))
	f.Add([]byte(`{"properties": {"a": {"type": "number", "minimum": 1e2, "default": 200}, "o": {"properties": {"x": {}}, "default": {}}}, "required": ["o"]}`), []byte(`{"a": 1e1}`))
	f.Fuzz(func(t *testing.T, text, doc []byte) {
		s, err := schema.ParseJSONSchema(text)
		if err != nil {
			return
		}
		once := s.JSONSchema()
		again, err := schema.ParseJSONSchema(once)
		if err != nil {
			if len(once) > 256<<10 || strings.Contains(err.Error(), "more than") {
				return // references are written out
			}
			t.Fatalf("of %s\nparse %s: %v", text, once, err)
		}
		if twice := again.JSONSchema(); !bytes.Equal(once, twice) {
			t.Fatalf("got  %s\nwant %s", twice, once)
		}
		s.Markdown()
		d := json.NewDecoder(bytes.NewReader(doc))
		d.UseNumber()
		var value any
		if d.Decode(&value) != nil {
			return
		}
		gotDoc, got := again.Check(value)
		wantDoc, want := s.Check(value)
		if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(gotDoc, wantDoc) {
			t.Fatalf("got  %v, %v\nwant %v, %v", gotDoc, got, wantDoc, want)
		}
	})
}
