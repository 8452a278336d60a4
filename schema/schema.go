package schema

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// Kind says what a value looks like in a document.
type Kind string

// The kinds of values.
const (
	String   Kind = "string"
	Bool     Kind = "bool"
	Integer  Kind = "integer"
	Number   Kind = "number"
	Time     Kind = "duration" // see [Duration]
	Size     Kind = "bytes"    // see [Bytes]
	List     Kind = "list"
	Map      Kind = "map"
	Object   Kind = "object"
	Anything Kind = "any" // any JSON value, for a struct's json.RawMessage or any
)

// Schema describes a value. It is immutable once made and may be shared.
type Schema struct {
	Kind   Kind
	Fields []Field  // of an object, in the order of the struct
	Elem   *Schema  // of a list or a map: its values
	Enum   []string // of a string: what it may be; empty: anything
	Secret bool     // of a string: it is written as a reference and never shown

	// Min and Max are the bounds of a number, both included; empty: none. A
	// whole number without them is one of 64 bits: without a sign if Min is not
	// negative, with one otherwise.
	Min, Max json.Number

	typ reflect.Type // nil: it was not made of a type
}

// Field is a key of an object.
type Field struct {
	Name     string
	Doc      string
	Schema   *Schema
	Required bool
	Optional bool // an object that stays absent when it is not given
	Default  any  // as in a document; nil: none
}

// Field returns the field of an object with that name, nil if it has none.
func (s *Schema) Field(name string) *Field {
	for i := range s.Fields {
		if s.Fields[i].Name == name {
			return &s.Fields[i]
		}
	}
	return nil
}

// Of returns the schema of the struct T. It panics on a struct that has no
// schema, such as one with a default that is not of its field's kind: that is a
// mistake in the program, and the first run of it shows the mistake.
func Of[T any]() *Schema {
	t := reflect.TypeFor[T]()
	s, err := of(t, nil)
	if err == nil && s.Kind != Object {
		err = fmt.Errorf("%s is not a struct", t)
	}
	if err != nil {
		panic("schema: " + err.Error())
	}
	return s
}

var (
	durationType  = reflect.TypeFor[Duration]()
	bytesType     = reflect.TypeFor[Bytes]()
	rawType       = reflect.TypeFor[json.RawMessage]()
	unmarshaler   = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshal = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// of makes the schema of a type; outer are the structs it is inside of.
func of(t reflect.Type, outer []reflect.Type) (*Schema, error) {
	s := &Schema{typ: t}
	switch t {
	case durationType:
		s.Kind = Time
		return s, nil
	case bytesType:
		s.Kind = Size
		return s, nil
	case rawType:
		s.Kind = Anything
		return s, nil
	}
	if p := reflect.PointerTo(t); p.Implements(unmarshaler) || p.Implements(textUnmarshal) {
		return nil, fmt.Errorf("%s decodes itself, which a schema cannot describe", t)
	}
	var err error
	switch t.Kind() {
	case reflect.String:
		s.Kind = String
	case reflect.Bool:
		s.Kind = Bool
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		s.Kind = Integer
		if bits := t.Bits(); bits < 64 {
			s.Min, s.Max = whole(int64(-1)<<(bits-1)), whole(int64(1)<<(bits-1)-1)
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		s.Kind = Integer
		s.Min = whole(0)
		if bits := t.Bits(); bits < 64 {
			s.Max = whole(int64(1)<<bits - 1)
		}
	case reflect.Float32, reflect.Float64:
		s.Kind = Number
	case reflect.Interface:
		if t.NumMethod() != 0 {
			return nil, fmt.Errorf("%s has no schema", t)
		}
		s.Kind = Anything
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return nil, fmt.Errorf("%s has no schema", t)
		}
		s.Kind = List
		s.Elem, err = of(t.Elem(), outer)
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			return nil, fmt.Errorf("%s has keys that are not strings", t)
		}
		s.Kind = Map
		s.Elem, err = of(t.Elem(), outer)
	case reflect.Struct:
		for _, o := range outer {
			if o == t {
				return nil, fmt.Errorf("%s contains itself", t)
			}
		}
		s.Kind = Object
		s.Fields, err = fieldsOf(t, append(outer, t))
	default:
		return nil, fmt.Errorf("%s has no schema", t)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

func fieldsOf(t reflect.Type, outer []reflect.Type) ([]Field, error) {
	var fields []Field
	for i := range t.NumField() {
		sf := t.Field(i)
		name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		if sf.Anonymous && name == "" && sf.Type.Kind() == reflect.Struct {
			inner, err := fieldsOf(sf.Type, append(outer, sf.Type))
			if err != nil {
				return nil, err
			}
			fields = append(fields, inner...)
			continue
		}
		if !sf.IsExported() || name == "-" {
			continue
		}
		f, err := fieldOf(sf, name, outer)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", t, sf.Name, err)
		}
		fields = append(fields, f)
	}
	return fields, nil
}

func fieldOf(sf reflect.StructField, name string, outer []reflect.Type) (Field, error) {
	if name == "" {
		return Field{}, fmt.Errorf("no json tag")
	}
	f := Field{Name: name, Doc: sf.Tag.Get("doc"), Required: sf.Tag.Get("required") == "true"}
	t := sf.Type
	if t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct {
		t, f.Optional = t.Elem(), true
	}
	var err error
	if f.Schema, err = of(t, outer); err != nil {
		return Field{}, err
	}
	leaf := f.Schema.leaf()
	if enum := sf.Tag.Get("enum"); enum != "" {
		leaf.Enum = strings.Split(enum, "|")
	}
	leaf.Secret = sf.Tag.Get("secret") == "true"
	if leaf.Kind != String && (leaf.Enum != nil || leaf.Secret) {
		return Field{}, fmt.Errorf("enum and secret are for strings")
	}
	text, ok := sf.Tag.Lookup("default")
	if !ok {
		return f, nil
	}
	f.Default, err = defaultOf(f.Schema, text)
	return f, err
}

// defaultOf reads the text of a default tag.
func defaultOf(s *Schema, text string) (any, error) {
	var doc any = text
	if s.Kind != String && s.Kind != Time && s.Kind != Size {
		var err error
		if doc, err = parse([]byte(text)); err != nil {
			return nil, fmt.Errorf("default %s: %w", text, err)
		}
	}
	v, errs := s.Check(doc)
	if len(errs) > 0 {
		return nil, fmt.Errorf("default %s: %w", text, errs[0])
	}
	return v, nil
}

// TypeName describes the schema's kind for people: "string", "list of string",
// "auto or json".
func (s *Schema) TypeName() string {
	switch {
	case s.Kind == List || s.Kind == Map:
		return string(s.Kind) + " of " + s.Elem.TypeName()
	case len(s.Enum) > 0:
		return alternatives(s.Enum)
	}
	return string(s.Kind)
}
