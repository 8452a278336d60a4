package schema

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
)

// Text is a string in a document that came from outside of it, such as the
// value of an environment variable. It is taken for whatever kind is wanted, as
// nobody can put quotes around it or leave them out, and it is never shown.
type Text string

// Validator is implemented by structs that check what tags cannot say. The
// error is a [FieldError], or several that [errors.Join] joins.
type Validator interface{ Validate() error }

var validator = reflect.TypeFor[Validator]()

// Decode reads a JSON document as the struct T: strictly, with defaults, and
// with all its problems in one error (see [FieldErrors]). Of a key that occurs
// twice the last one counts, as in encoding/json.
func Decode[T any](data []byte) (T, error) {
	var v T
	doc, err := parse(data)
	if err != nil {
		return v, err
	}
	doc, problems := Of[T]().Check(doc)
	if len(problems) > 0 {
		errs := make([]error, len(problems))
		for i, p := range problems {
			errs[i] = p
		}
		return v, errors.Join(errs...)
	}
	return v, remarshal(doc, &v)
}

// Check checks a document made of map[string]any, []any, string, [Text], bool,
// [json.Number] and nil. It returns the document as [encoding/json] can decode
// it into the struct, with defaults filled in and without what has problems,
// and the problems: those of an object in the order of its fields, and then its
// unknown keys.
//
// A [Validator] is asked only about objects that have no other problem.
func (s *Schema) Check(doc any) (any, []FieldError) {
	var c checker
	v := c.value(s, "", doc)
	return v, c.problems
}

// A checker collects the problems of one document.
type checker struct{ problems []FieldError }

func (c *checker) report(path Path, format string, args ...any) {
	c.problems = append(c.problems, Errorf(path, format, args...))
}

func (c *checker) reportKey(path Path, format string, args ...any) {
	c.report(path, format, args...)
	c.problems[len(c.problems)-1].Key = true
}

// value returns the checked value, nil if it has a problem.
func (c *checker) value(s *Schema, path Path, v any) any {
	switch s.Kind {
	case Object:
		return c.object(s, path, v)
	case Map:
		return c.mapping(s, path, v)
	case List:
		return c.list(s, path, v)
	case Anything:
		return plain(v)
	}
	out, err := s.scalar(v)
	if err != nil {
		c.report(path, "%s", err)
		return nil
	}
	return out
}

func (c *checker) object(s *Schema, path Path, v any) any {
	in, ok := v.(map[string]any)
	if !ok && v != nil {
		c.report(path, "want an object with keys, got %s", show(v, s.Secret))
		return nil
	}
	before := len(c.problems)
	out := make(map[string]any, len(s.Fields))
	names := make([]string, len(s.Fields))
	for i, f := range s.Fields {
		names[i] = f.Name
		at := path.Key(f.Name)
		value := in[f.Name]
		switch {
		case f.Required && (value == nil || value == "" || value == Text("")):
			c.reportKey(at, "is required")
			continue
		case value == nil && f.Default != nil:
			out[f.Name] = f.Default
			continue
		case value == nil && (f.Optional || f.Schema.Kind != Object):
			continue
		}
		if checked := c.value(f.Schema, at, value); checked != nil {
			out[f.Name] = checked
		}
	}
	for _, key := range slices.Sorted(maps.Keys(in)) {
		if !slices.Contains(names, key) {
			c.reportKey(path.Key(key), "unknown key; %s", Suggest(key, names))
		}
	}
	if len(c.problems) == before {
		c.validate(s, path, out)
	}
	return out
}

// validate asks an object's own Validate method.
func (c *checker) validate(s *Schema, path Path, v map[string]any) {
	if s.typ == nil || !reflect.PointerTo(s.typ).Implements(validator) {
		return
	}
	decoded := reflect.New(s.typ)
	err := remarshal(v, decoded.Interface())
	if err == nil {
		err = decoded.Interface().(Validator).Validate()
	}
	for _, e := range FieldErrors(err) {
		e.Path = path.Join(e.Path)
		c.problems = append(c.problems, e)
	}
}

func (c *checker) mapping(s *Schema, path Path, v any) any {
	in, ok := v.(map[string]any)
	if !ok {
		c.report(path, "want a map such as {NAME: ...}, got %s", show(v, s.Elem.Secret))
		return nil
	}
	out := make(map[string]any, len(in))
	for _, key := range slices.Sorted(maps.Keys(in)) {
		if checked := c.value(s.Elem, path.Key(key), in[key]); checked != nil {
			out[key] = checked
		}
	}
	return out
}

func (c *checker) list(s *Schema, path Path, v any) any {
	in, ok := v.([]any)
	if !ok {
		c.report(path, "want a list such as [a, b], got %s", show(v, s.Elem.Secret))
		return nil
	}
	out := make([]any, 0, len(in))
	for i, elem := range in {
		if checked := c.value(s.Elem, path.Index(i), elem); checked != nil {
			out = append(out, checked)
		}
	}
	return out
}

// scalar returns the value as encoding/json wants it for the schema's type.
func (s *Schema) scalar(v any) (any, error) {
	switch s.Kind {
	case String:
		return s.text(v)
	case Bool:
		switch v {
		case true, Text("true"):
			return true, nil
		case false, Text("false"):
			return false, nil
		}
		return nil, fmt.Errorf("want true or false, got %s", show(v, false))
	case Integer, Number:
		n, ok := number(v)
		if !ok {
			return nil, fmt.Errorf("want a %s, got %s", s.noun(), show(v, false))
		}
		n, wanted := s.fits(n)
		if wanted != "" {
			return nil, fmt.Errorf("want a %s, got %s", wanted, show(v, false))
		}
		return n, nil
	case Time:
		return unit(v, "duration such as 500ms or 10m", new(Duration))
	case Size:
		return unit(v, "size such as 64KB or 20GB", new(Bytes))
	}
	return nil, fmt.Errorf("a schema of kind %q cannot be checked", s.Kind)
}

func (s *Schema) text(v any) (any, error) {
	var text string
	switch v := v.(type) {
	case string:
		text = v
	case Text:
		text = string(v)
	case json.Number, bool:
		return nil, fmt.Errorf("want a string, got %s; put it in quotes", show(v, s.Secret))
	default:
		return nil, fmt.Errorf("want a string, got %s", show(v, s.Secret))
	}
	if len(s.Enum) > 0 && !slices.Contains(s.Enum, text) {
		hint := ""
		if _, fromOutside := v.(Text); !fromOutside && closest(text, s.Enum) != "" {
			hint = "; " + Suggest(text, s.Enum)
		}
		return nil, fmt.Errorf("want %s, got %s%s", alternatives(s.Enum), show(v, s.Secret), hint)
	}
	return text, nil
}

// unit reads a duration or a size, which may be written as a number too, and
// returns it in its canonical form.
func unit(v any, wanted string, into interface {
	encoding.TextUnmarshaler
	fmt.Stringer
}) (any, error) {
	var text string
	switch v := v.(type) {
	case string:
		text = v
	case Text:
		text = string(v)
	case json.Number:
		text = string(v)
	}
	if into.UnmarshalText([]byte(text)) != nil {
		return nil, fmt.Errorf("want a %s, got %s", wanted, show(v, false))
	}
	return into.String(), nil
}

// show describes a value for an error message, without its content where that
// is nobody's business.
func show(v any, secret bool) string {
	switch v := v.(type) {
	case nil:
		return "nothing"
	case bool:
		return strconv.FormatBool(v)
	case Text:
		return "a value that is not shown"
	case string:
		if secret {
			return "a string"
		}
		if len(v) > 80 {
			return "a string of " + strconv.Itoa(len(v)) + " bytes"
		}
		return strconv.Quote(v)
	case json.Number:
		if secret {
			return "a number"
		}
		return "the number " + string(v)
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return fmt.Sprintf("a %T", v)
}

// plain returns v without [Text].
func plain(v any) any {
	switch v := v.(type) {
	case Text:
		return string(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = plain(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k := range v {
			out[k] = plain(v[k])
		}
		return out
	}
	return v
}

// parse reads one JSON value with its numbers as they are written. Nothing at
// all is null.
func parse(data []byte) (any, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("parse JSON: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("parse JSON: more than one value")
	}
	return v, nil
}

// remarshal stores a checked document in the struct it was checked for.
func remarshal(doc, into any) error {
	data, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}
