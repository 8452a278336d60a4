package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// What a schema that a stranger sends may cost.
const (
	maxSchemaBytes = 256 << 10
	maxSchemaDepth = 32
	maxSchemaNodes = 10_000 // counted at every place a $ref puts them
)

// safeKeywords are those that say nothing about which documents are good, or
// that only refuse more of them: whoever sent the schema does so itself. Those
// that are not here and not understood would make [Schema.Check] refuse what is
// good, or are mistakes.
var safeKeywords = map[string]bool{
	"$schema": true, "$id": true, "$anchor": true, "$comment": true, "$defs": true, "definitions": true, "$vocabulary": true,
	"title": true, "examples": true, "deprecated": true, "readOnly": true,
	"contentEncoding": true, "contentMediaType": true, "contentSchema": true,
	"pattern": true, "minLength": true, "maxLength": true, "exclusiveMinimum": true, "exclusiveMaximum": true, "multipleOf": true,
	"minItems": true, "maxItems": true, "uniqueItems": true, "contains": true, "minContains": true, "maxContains": true,
	"minProperties": true, "maxProperties": true, "propertyNames": true, "dependentRequired": true, "not": true,
}

// understood are the keywords that make a [Schema].
var understood = []string{
	"type", "properties", "required", "additionalProperties", "items", "enum", "const", "minimum", "maximum",
	"format", "writeOnly", "default", "description", "$ref", "anyOf", "oneOf",
}

// ParseJSONSchema reads a JSON Schema of draft 2020-12, such as a plugin in
// another language sends for its settings.
//
// Of the keywords it understands type, properties, required,
// additionalProperties, items, enum and const of strings, minimum, maximum,
// writeOnly (a secret), default, description, $ref into the schema's own $defs,
// anyOf and oneOf, and the formats mzd-duration and mzd-bytes. It reads them
// strictly: an object with properties has no other keys, and a text that is
// required is not empty. Where several types are allowed, any value is.
//
// Keywords that only describe, and those that only restrict further, such as
// pattern and minLength, are ignored: the plugin itself refuses what does not
// follow them. So is everything that begins with x-. All others are an error
// that names them and their place, as is a schema of more than 256 KiB, 32
// levels or 10,000 values.
//
// An empty schema, {} or nothing at all, is one of an object with any keys.
func ParseJSONSchema(data []byte) (*Schema, error) {
	if len(data) > maxSchemaBytes {
		return nil, fmt.Errorf("JSON Schema is larger than %s", Bytes(maxSchemaBytes))
	}
	if len(bytes.TrimSpace(data)) == 0 {
		data = []byte("{}")
	}
	r := reader{root: data}
	n, err := r.node(data, "", 0)
	if err != nil {
		return nil, fmt.Errorf("JSON Schema: %w", err)
	}
	switch n.schema.Kind {
	case Object, Map:
		return n.schema, nil
	case Anything:
		return &Schema{Kind: Map, Elem: n.schema}, nil
	}
	return nil, fmt.Errorf("JSON Schema: is of a %s, want one of an object", n.schema.Kind)
}

// A reader turns a JSON Schema into a [Schema].
type reader struct {
	root  json.RawMessage
	defs  map[string]keywords // of root, by the keyword that has them; nil: not read yet
	nodes int
}

// definitions returns what $ref may lead to, which is read once: there may be very
// many of either.
func (r *reader) definitions(home string) (keywords, error) {
	if r.defs == nil {
		var root struct {
			Defs        keywords `json:"$defs"`
			Definitions keywords `json:"definitions"`
		}
		if err := json.Unmarshal(r.root, &root); err != nil {
			return nil, err
		}
		r.defs = map[string]keywords{"$defs": root.Defs, "definitions": root.Definitions}
	}
	return r.defs[home], nil
}

// node is a schema with what belongs to the field that it is of.
type node struct {
	schema *Schema
	doc    string
	value  any // the default; nil: none
}

type keywords map[string]json.RawMessage

func (k keywords) has(keyword string) bool { _, ok := k[keyword]; return ok }

// get decodes the value of a keyword, if it is there.
func (k keywords) get(path Path, keyword string, into any) error {
	raw, ok := k[keyword]
	if !ok {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) {
			return Errorf(path.Key(keyword), "is a %s, want a %s", kind.Value, kind.Type.Kind())
		}
		return Errorf(path.Key(keyword), "%s", err)
	}
	return nil
}

func (r *reader) node(raw json.RawMessage, path Path, depth int) (node, error) {
	if r.nodes++; r.nodes > maxSchemaNodes {
		return node{}, Errorf(path, "the schema has more than %d parts here", maxSchemaNodes)
	}
	if depth > maxSchemaDepth {
		return node{}, Errorf(path, "is nested more than %d deep; a schema must not contain itself", maxSchemaDepth)
	}
	if string(bytes.TrimSpace(raw)) == "true" {
		return node{schema: &Schema{Kind: Anything}}, nil
	}
	var k keywords
	if err := json.Unmarshal(raw, &k); err != nil || k == nil {
		return node{}, Errorf(path, "is not a schema: want an object with keywords, or true")
	}
	for _, keyword := range slices.Sorted(maps.Keys(k)) {
		if !safeKeywords[keyword] && !slices.Contains(understood, keyword) && !strings.HasPrefix(keyword, "x-") {
			hint := "mzd cannot tell what it allows"
			if closest(keyword, understood) != "" {
				hint = Suggest(keyword, understood)
			}
			return node{}, Errorf(path.Key(keyword), "this keyword is not understood; %s", hint)
		}
	}
	n, err := r.shape(k, path, depth)
	if err != nil {
		return n, err
	}
	return n, r.annotate(&n, k, path)
}

// shape reads what a value must look like.
func (r *reader) shape(k keywords, path Path, depth int) (node, error) {
	for _, alternatives := range []string{"anyOf", "oneOf"} {
		if !k.has(alternatives) {
			continue
		}
		if k.has("type") || k.has("properties") || k.has("$ref") {
			return node{}, Errorf(path.Key(alternatives), "this keyword is not understood beside a type, properties or $ref")
		}
		return r.alternatives(k, path, alternatives, depth)
	}
	if k.has("$ref") {
		return r.reference(k, path, depth)
	}
	kind, err := kindOf(k, path)
	if err != nil {
		return node{}, err
	}
	s := &Schema{Kind: kind}
	switch kind {
	case Object:
		err = r.object(s, k, path, depth)
	case List:
		s.Elem, err = r.inner(k, path, "items", depth)
	case String:
		s.Enum, err = wordsOf(k, path)
	case Integer, Number:
		err = bounds(s, k, path)
	}
	return node{schema: s}, err
}

// alternatives reads anyOf and oneOf. One that is left when null is taken away
// is the schema; of several, anything may come.
func (r *reader) alternatives(k keywords, path Path, keyword string, depth int) (node, error) {
	var branches []json.RawMessage
	if err := k.get(path, keyword, &branches); err != nil {
		return node{}, err
	}
	branches = slices.DeleteFunc(branches, func(raw json.RawMessage) bool {
		var only struct {
			Type string `json:"type"`
		}
		return json.Unmarshal(raw, &only) == nil && only.Type == "null"
	})
	if len(branches) == 1 {
		return r.node(branches[0], path.Key(keyword).Index(0), depth+1)
	}
	return node{schema: &Schema{Kind: Anything}}, nil
}

// reference reads what $ref leads to.
func (r *reader) reference(k keywords, path Path, depth int) (node, error) {
	at := path.Key("$ref")
	var ref string
	if err := k.get(path, "$ref", &ref); err != nil {
		return node{}, err
	}
	for _, home := range []string{"$defs", "definitions"} {
		name, ok := strings.CutPrefix(ref, "#/"+home+"/")
		if !ok || strings.Contains(name, "/") {
			continue
		}
		name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
		defs, err := r.definitions(home)
		if err != nil {
			return node{}, Errorf(at, "%s", err)
		}
		if !defs.has(name) {
			return node{}, Errorf(at, "%q is not in the schema", ref)
		}
		return r.node(defs[name], Path("").Key(home).Key(name), depth+1)
	}
	return node{}, Errorf(at, "leads to %q; want #/$defs/NAME of the same schema", ref)
}

// kindOf reads the type of a value.
func kindOf(k keywords, path Path) (Kind, error) {
	var types []string
	if raw := k["type"]; len(raw) > 0 && raw[0] == '"' {
		types = make([]string, 1)
		if err := k.get(path, "type", &types[0]); err != nil {
			return "", err
		}
	} else if err := k.get(path, "type", &types); err != nil {
		return "", err
	}
	if len(types) > 0 {
		types = slices.DeleteFunc(types, func(t string) bool { return t == "null" })
		if len(types) == 0 {
			return "", Errorf(path.Key("type"), "allows nothing but null")
		}
	}
	var format string
	if err := k.get(path, "format", &format); err != nil {
		return "", err
	}
	if slices.Contains(types, "string") {
		switch format {
		case durationFormat:
			return Time, nil
		case bytesFormat:
			return Size, nil
		}
	}
	kinds := map[string]Kind{"string": String, "boolean": Bool, "integer": Integer, "number": Number, "array": List, "object": Object}
	for _, t := range types {
		if kinds[t] == "" {
			return "", Errorf(path.Key("type"), "%s is not a type; %s", quoted(t), Suggest(t, slices.Collect(maps.Keys(kinds))))
		}
	}
	switch {
	case len(types) == 1:
		return kinds[types[0]], nil
	case len(types) > 1:
		return Anything, nil
	case k.has("properties") || k.has("additionalProperties"):
		return Object, nil
	case k.has("items"):
		return List, nil
	}
	return Anything, nil
}

// object reads an object: one with properties, or a map.
func (r *reader) object(s *Schema, k keywords, path Path, depth int) (err error) {
	extra := string(bytes.TrimSpace(k["additionalProperties"]))
	if !k.has("properties") && extra != "false" {
		if k.has("required") {
			return Errorf(path.Key("required"), "names keys that are not among the properties; there are none")
		}
		s.Kind = Map
		s.Elem, err = r.inner(k, path, "additionalProperties", depth)
		return err
	}
	if extra != "" && extra != "false" {
		return Errorf(path.Key("additionalProperties"), "beside properties only false is understood; list every key, or leave properties out")
	}
	if s.Fields, err = r.fields(k["properties"], path.Key("properties"), depth); err != nil {
		return err
	}
	var required []string
	if err := k.get(path, "required", &required); err != nil {
		return err
	}
	for _, name := range required {
		i := slices.IndexFunc(s.Fields, func(f Field) bool { return f.Name == name })
		if i < 0 {
			return Errorf(path.Key("required"), "%s is not among the properties", quoted(name))
		}
		s.Fields[i].Required = true
	}
	return nil
}

// fields reads properties, in their order.
func (r *reader) fields(raw json.RawMessage, path Path, depth int) ([]Field, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, Errorf(path, "want an object with a schema for each key")
	}
	var fields []Field
	seen := make(map[string]bool)
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, Errorf(path, "%s", err)
		}
		name := t.(string) // keys are, in JSON
		at := path.Key(name)
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, Errorf(at, "%s", err)
		}
		if name == "" || seen[name] || !printable(name) {
			return nil, Errorf(at, "is not usable as a key: it is empty, is here twice, or does not print")
		}
		seen[name] = true
		n, err := r.node(value, at, depth+1)
		if err != nil {
			return nil, err
		}
		fields = append(fields, n.field(name))
	}
	return fields, nil
}

// field returns the node as the value of a key. A default without keys makes an
// object one that is always there.
func (n node) field(name string) Field {
	f := Field{Name: name, Doc: n.doc, Schema: n.schema, Default: n.value}
	if n.schema.Kind == Object && f.Default == nil {
		f.Optional = true
	} else if empty, ok := f.Default.(map[string]any); ok && n.schema.Kind == Object && len(empty) == 0 {
		f.Default = nil
	}
	return f
}

// inner reads the schema of the values of a list or a map.
func (r *reader) inner(k keywords, path Path, keyword string, depth int) (*Schema, error) {
	if !k.has(keyword) {
		return &Schema{Kind: Anything}, nil
	}
	n, err := r.node(k[keyword], path.Key(keyword), depth+1)
	return n.schema, err
}

// wordsOf reads enum and const of a string.
func wordsOf(k keywords, path Path) ([]string, error) {
	var words []*string
	if err := k.get(path, "enum", &words); err != nil {
		return nil, err
	}
	if k.has("const") {
		words = make([]*string, 1)
		if err := k.get(path, "const", &words[0]); err != nil {
			return nil, err
		}
	}
	var enum []string
	for _, word := range words {
		switch {
		case word == nil: // null is the same as absent
		case !printable(*word):
			return nil, Errorf(path.Key("enum"), "%s does not print", quoted(*word))
		default:
			enum = append(enum, *word)
		}
	}
	return enum, nil
}

// bounds reads minimum and maximum. Bounds of whole numbers that are not whole
// themselves are left to whoever sent the schema.
func bounds(s *Schema, k keywords, path Path) error {
	for keyword, bound := range map[string]*json.Number{"minimum": &s.Min, "maximum": &s.Max} {
		var n json.Number
		if err := k.get(path, keyword, &n); err != nil {
			return err
		}
		_, isFloat := n.Float64()
		switch {
		case n == "":
		case len(n) > maxDigits || isFloat != nil:
			return Errorf(path.Key(keyword), "is not a number that mzd can hold")
		case s.Kind == Number:
			*bound = n
		default:
			if i := bigInt(n); i != nil {
				*bound = json.Number(i.String())
			}
		}
	}
	return nil
}

// annotate reads what belongs to a field beside the shape of its value.
func (r *reader) annotate(n *node, k keywords, path Path) error {
	var doc string
	if err := k.get(path, "description", &doc); err != nil {
		return err
	}
	if doc != "" {
		n.doc = strings.Join(strings.FieldsFunc(doc, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	}
	var secret bool
	if err := k.get(path, "writeOnly", &secret); err != nil {
		return err
	}
	if secret {
		if n.schema.Kind != String {
			return Errorf(path.Key("writeOnly"), "makes a secret, which must be a string")
		}
		own := *n.schema // which a $ref may share with others
		own.Secret = true
		n.schema = &own
	}
	var value any
	if err := k.get(path, "default", &value); err != nil || value == nil {
		return err
	}
	checked, problems := n.schema.Check(value)
	if empty, ok := value.(map[string]any); ok && n.schema.Kind == Object && len(empty) == 0 {
		checked, problems = empty, nil // the object is always there, whatever it must have then
	}
	if len(problems) > 0 {
		return Errorf(path.Key("default"), "%s", problems[0])
	}
	n.value = checked
	return nil
}

// quoted shows a word of a schema in an error.
func quoted(word string) string { return show(word, false) }

func printable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}
