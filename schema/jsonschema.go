package schema

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
)

const (
	dialect = "https://json-schema.org/draft/2020-12/schema"

	// The formats of [Duration] and [Bytes]. JSON Schema's own "duration" is
	// that of ISO 8601, which nobody types.
	durationFormat = "mzd-duration"
	bytesFormat    = "mzd-bytes"

	durationPattern = `^\+?(0|((\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h))+)$`
	bytesPattern    = `^(\d+\.?\d*|\.\d+) *(([KMGTkmgt][Ii]?)?[Bb])?$`

	referencePattern = `\$\{[A-Za-z_][A-Za-z0-9_]*\}`
	secretPattern    = `^$|^file:|` + referencePattern
)

// JSONSchema returns the schema as a JSON Schema of draft 2020-12, on one line.
// [ParseJSONSchema] reads it back; what only Validate methods know is not in
// it.
func (s *Schema) JSONSchema() []byte {
	return writer{}.document(s)
}

// Choice says that the value of one key of an object decides how the value of
// another must look, as the name of a plugin does for its settings.
type Choice struct {
	Object  *Schema // as in the schema that the choice is a part of
	Key     string  // of the object: the one that decides
	Of      string  // of the object: the one that is decided about
	Schemas map[string]*Schema
}

// EditorSchema returns a JSON Schema of what people write into a file, for
// their editors: every text may contain ${NAME}, which may also stand for a
// number or a boolean, secrets are written only so or as file:PATH, and null is
// the same as absent. Values of the deciding key that a [Choice] does not list
// decide nothing.
func (s *Schema) EditorSchema(choices ...Choice) []byte {
	var out bytes.Buffer
	if err := json.Indent(&out, writer{file: true, choices: choices}.document(s), "", "  "); err != nil {
		panic("schema: " + err.Error()) // it was JSON
	}
	out.WriteByte('\n')
	return out.Bytes()
}

// A writer turns schemas into JSON Schemas.
type writer struct {
	file    bool // for the file that people write, see [Schema.EditorSchema]
	choices []Choice
}

func (w writer) document(s *Schema) []byte {
	doc := ordered{{"$schema", dialect}}
	doc = append(doc, w.node(s, false)...)
	if w.file {
		doc.add("$defs", ordered{{"reference", ordered{
			{"type", "string"},
			{"pattern", referencePattern},
			{"description", "The value of an environment variable."},
		}}})
	}
	return encode(doc)
}

// node returns the keywords for a value.
func (w writer) node(s *Schema, nullable bool) ordered {
	var n ordered
	switch s.Kind {
	case Object:
		n = ordered{{"type", w.types(nullable, "object")}}
		n = append(n, w.object(s)...)
	case Map:
		n = ordered{{"type", w.types(nullable, "object")}, {"additionalProperties", w.element(s.Elem)}}
	case List:
		n = ordered{{"type", w.types(nullable, "array")}, {"items", w.element(s.Elem)}}
	case String:
		n = w.text(s, nullable)
	case Bool:
		n = w.orReference(ordered{{"type", w.types(nullable, "boolean")}})
	case Integer, Number:
		n = ordered{{"type", w.types(nullable, string(s.Kind))}}
		if s.Min != "" {
			n.add("minimum", s.Min)
		}
		if s.Max != "" {
			n.add("maximum", s.Max)
		}
		n = w.orReference(n)
	case Time: // the number 0 needs no unit
		n = w.orReference(ordered{{"type", w.types(nullable, "string", "integer")}, {"format", durationFormat},
			{"pattern", durationPattern}, {"minimum", 0}, {"maximum", 0}})
	case Size:
		n = w.orReference(ordered{{"type", w.types(nullable, "string", "integer")}, {"format", bytesFormat},
			{"pattern", bytesPattern}, {"minimum", 0}})
	}
	return n
}

// element returns the schema of the values of a list or a map. Objects there
// may be null, which is to have no keys.
func (w writer) element(s *Schema) ordered { return w.node(s, s.Kind == Object) }

func (w writer) text(s *Schema, nullable bool) ordered {
	n := ordered{{"type", w.types(nullable, "string")}}
	if len(s.Enum) > 0 {
		words := make([]any, 0, len(s.Enum)+1)
		for _, word := range s.Enum {
			words = append(words, word)
		}
		if w.file && nullable {
			words = append(words, nil)
		}
		n.add("enum", words)
	}
	if s.Secret {
		n.add("writeOnly", true)
		if w.file {
			n.add("pattern", secretPattern)
		}
	}
	if len(s.Enum) > 0 {
		return w.orReference(n)
	}
	return n
}

// types returns the value of the keyword "type".
func (w writer) types(nullable bool, types ...string) any {
	if w.file && nullable {
		types = append(types, "null")
	}
	if len(types) == 1 {
		return types[0]
	}
	return types
}

// orReference allows a reference in place of the value.
func (w writer) orReference(n ordered) ordered {
	if !w.file {
		return n
	}
	return ordered{{"anyOf", []ordered{n, {{"$ref", "#/$defs/reference"}}}}}
}

func (w writer) object(s *Schema) ordered {
	properties := ordered{}
	var required []string
	for _, f := range s.Fields {
		properties.add(f.Name, w.field(s, f))
		if f.Required {
			required = append(required, f.Name)
		}
	}
	n := ordered{{"properties", properties}}
	if required != nil {
		n.add("required", required)
	}
	n.add("additionalProperties", false)
	var cases []ordered
	for _, c := range w.choicesOf(s) {
		for _, name := range slices.Sorted(maps.Keys(c.Schemas)) {
			cases = append(cases, w.choice(c, name))
		}
	}
	if cases != nil {
		n.add("allOf", cases)
	}
	return n
}

func (w writer) field(object *Schema, f Field) ordered {
	n := w.node(f.Schema, !f.Required)
	if f.Required && f.Schema.Kind == String {
		n.add("minLength", 1)
	}
	for _, c := range w.choicesOf(object) {
		if c.Key == f.Name {
			n.add("anyOf", []any{ordered{{"enum", slices.Sorted(maps.Keys(c.Schemas))}}, true}) // for completion
		}
	}
	switch {
	case f.Default != nil:
		n.add("default", f.Default)
	case f.Schema.Kind == Object && !f.Optional:
		n.add("default", ordered{}) // it is always there
	}
	if f.Doc != "" {
		n.add("description", f.Doc)
	}
	return n
}

func (w writer) choicesOf(s *Schema) []Choice {
	return slices.DeleteFunc(slices.Clone(w.choices), func(c Choice) bool { return c.Object != s })
}

// choice returns what one value of the deciding key means.
func (w writer) choice(c Choice, name string) ordered {
	s := c.Schemas[name]
	needed := slices.ContainsFunc(s.Fields, func(f Field) bool { return f.Required })
	then := ordered{{"properties", ordered{{c.Of, w.node(s, !needed)}}}}
	if needed {
		then.add("required", []string{c.Of})
	}
	return ordered{
		{"if", ordered{{"properties", ordered{{c.Key, ordered{{"const", name}}}}}, {"required", []string{c.Key}}}},
		{"then", then},
	}
}

// ordered is a JSON object that keeps the order of its keys: that of a struct's
// fields is the one people are to see.
type ordered []member

type member struct {
	key   string
	value any
}

func (o *ordered) add(key string, value any) { *o = append(*o, member{key, value}) }

// MarshalJSON implements [json.Marshaler].
func (o ordered) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	out.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			out.WriteByte(',')
		}
		out.Write(encode(m.key))
		out.WriteByte(':')
		out.Write(encode(m.value))
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

// encode returns v as JSON, with <, > and & as they are. It panics on what has
// no JSON, which no schema contains.
func encode(v any) []byte {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("schema: " + err.Error())
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}
