package flow

import (
	"slices"
	"strconv"
	"strings"

	"github.com/valyala/fastjson"
)

// jsons adds what reads jsonb with arguments that are no constants; constant paths become [ReadJSON].
func (r registry) jsons() {
	read := func(name string, result, key Type, text bool, step func(Datum) JSONStep) {
		r.add(&Func{Name: name, Params: []Type{Jsonb, key}, Result: result, Operator: true,
			F2: func(c *Context, a, b Datum) (Datum, error) {
				v, err := c.parse(a.s)
				if err != nil {
					return Null, err
				}
				if v = step(b).get(v); v == nil {
					return Null, nil
				}
				if text {
					return jsonText(c, v)
				}
				return jsonDatum(c, v)
			}})
	}
	byKey := func(d Datum) JSONStep { return JSONStep{Key: d.s} }
	byIndex := func(d Datum) JSONStep { return JSONStep{Index: int(d.n), Kind: ByIndex} }
	read("->", Jsonb, Text, false, byKey)
	read("->>", Text, Text, true, byKey)
	read("->", Jsonb, Int4, false, byIndex)
	read("->>", Text, Int4, true, byIndex)

	path := func(name string, result Type, text bool) {
		r.add(&Func{Name: name, Params: []Type{Jsonb, ArrayOf(Text)}, Result: result, Operator: true,
			F2: func(c *Context, a, b Datum) (Datum, error) {
				v, err := c.parse(a.s)
				if err != nil {
					return Null, err
				}
				for key := range b.Elements() {
					if key.IsNull() {
						return Null, nil
					}
					if v = (JSONStep{Key: key.s, Kind: ByPath}).get(v); v == nil {
						return Null, nil
					}
				}
				if text {
					return jsonText(c, v)
				}
				return jsonDatum(c, v)
			}})
	}
	path("#>", Jsonb, false)
	path("#>>", Text, true)

	contains := func(c *Context, a, b Datum) (Datum, error) {
		x, err := c.parse(a.s)
		if err != nil {
			return Null, err
		}
		y, err := c.parse(b.s)
		if err != nil {
			return Null, err
		}
		return NewBool(jsonContains(x, y, true)), nil
	}
	r.json2("@>", Bool, Jsonb, contains)
	r.json2("<@", Bool, Jsonb, func(c *Context, a, b Datum) (Datum, error) { return contains(c, b, a) })
	r.json2("?", Bool, Text, func(c *Context, a, b Datum) (Datum, error) {
		v, err := c.parse(a.s)
		return NewBool(err == nil && jsonHasKey(v, b.s)), err
	})
	r.json2("||", Jsonb, Jsonb, concatJSON)
	r.json2("-", Jsonb, Text, func(_ *Context, a, b Datum) (Datum, error) { return deleteKey(a, b.s) })
	r.json2("-", Jsonb, Int4, func(_ *Context, a, b Datum) (Datum, error) { return deleteIndex(a, int(b.n)) })
	r.add(&Func{Name: "jsonb_typeof", Params: []Type{Jsonb}, Result: Text, F1: func(c *Context, a Datum) (Datum, error) {
		v, err := c.parse(a.s)
		if err != nil {
			return Null, err
		}
		t := v.Type()
		if t == fastjson.TypeTrue || t == fastjson.TypeFalse {
			return NewText("boolean"), nil
		}
		return NewText(t.String()), nil
	}})
	r.add(&Func{Name: "jsonb_array_length", Params: []Type{Jsonb}, Result: Int4, F1: func(c *Context, a Datum) (Datum, error) {
		v, err := c.parse(a.s)
		if err != nil {
			return Null, err
		}
		x, err := v.Array()
		if err != nil {
			what := "a scalar"
			if v.Type() == fastjson.TypeObject {
				what = "a non-array"
			}
			return Null, &EvalError{Code: "22023", Message: "cannot get array length of " + what}
		}
		return NewInt(Int4, int64(len(x))), nil
	}})
	for _, t := range Scalars() {
		r.fn1("to_jsonb", Jsonb, t, toJSON)
		r.fn1("to_jsonb", Jsonb, ArrayOf(t), toJSON)
	}
}

// json2 adds an operator on a jsonb.
func (r registry) json2(name string, result, other Type, f func(c *Context, a, b Datum) (Datum, error)) {
	r.add(&Func{Name: name, Params: []Type{Jsonb, other}, Result: result, Operator: true, F2: f})
}

func toJSON(d Datum) (Datum, error) { return newJSON(string(appendToJSON(nil, d))), nil }

// appendToJSON appends the canonical text of what to_jsonb makes of a value: numbers as they are, ISO 8601 times, arrays of what it
// makes of their elements, and the text form of the rest as a string.
func appendToJSON(dst []byte, d Datum) []byte {
	switch {
	case d.IsNull():
		return append(dst, "null"...)
	case d.t == Bool:
		return strconv.AppendBool(dst, d.Bool())
	case d.t == Jsonb:
		return append(dst, d.s...)
	case d.t.IsArray():
		dst = append(dst, '[')
		sep := ""
		for e := range d.Elements() {
			dst = appendToJSON(append(dst, sep...), e)
			sep = ", "
		}
		return append(dst, ']')
	case d.t.IsNumber():
		// A float is written without exponent, as numerics are; NaN and the infinities are no numbers to JSON.
		n, err := parseNumeric(d.String())
		if err == nil && n.numClass() == 0 {
			return n.AppendText(dst)
		}
	case d.t == Timestamp:
		return appendJSONString(dst, appendTime(nil, d.asTime(), "-01-02T15:04:05.999999", ""))
	case d.t == Timestamptz:
		return appendJSONString(dst, appendTime(nil, d.asTime(), "-01-02T15:04:05.999999", "+00:00"))
	}
	return appendJSONString(dst, d.AppendText(nil))
}

// buildJSON makes a jsonb of a text that is JSON, though not yet canonical.
func buildJSON(c *Context, text string) (Datum, error) {
	if len(text) > maxTextBytes {
		return Null, errTextTooLong
	}
	v, err := c.parse(text)
	if err != nil {
		return Null, err
	}
	return jsonDatum(c, v)
}

// concatJSON merges two objects, of which the right one wins, and makes one array of anything else.
func concatJSON(c *Context, a, b Datum) (Datum, error) {
	kind := byte('[')
	if a.s[0] == '{' && b.s[0] == '{' {
		kind = '{'
	}
	x, y := a.s, b.s
	if x[0] == kind {
		x = inner(x)
	}
	if y[0] == kind {
		y = inner(y)
	}
	sep := ", "
	if x == "" || y == "" {
		sep = ""
	}
	return buildJSON(c, string(kind)+x+sep+y+string(kind+2)) // in ASCII a closing bracket is two behind its opening one
}

// deleteKey is the operator - of a key: the object without it, or the array without the strings that equal it.
func deleteKey(d Datum, key string) (Datum, error) {
	quoted := string(appendJSONString(nil, []byte(key)))
	switch d.s[0] {
	case '{':
		return newJSON("{" + join(d.s, func(_ int, k, _ string) bool { return k != quoted }) + "}"), nil
	case '[':
		return newJSON("[" + join(d.s, func(_ int, _, v string) bool { return v != quoted }) + "]"), nil
	}
	return Null, &EvalError{Code: "22023", Message: "cannot delete from scalar"}
}

// deleteIndex is the operator - of an index, which counts from the end when negative.
func deleteIndex(d Datum, index int) (Datum, error) {
	switch d.s[0] {
	case '{':
		return Null, &EvalError{Code: "22023", Message: "cannot delete from object using integer index"}
	case '[':
		if index < 0 {
			for range members(d.s) {
				index++
			}
		}
		return newJSON("[" + join(d.s, func(i int, _, _ string) bool { return i != index }) + "]"), nil
	}
	return Null, &EvalError{Code: "22023", Message: "cannot delete from scalar"}
}

// join is the inside of a container with only the members that are kept.
func join(container string, keep func(i int, key, value string) bool) string {
	var b strings.Builder
	i := 0
	for key, value := range members(container) {
		if keep(i, key, value) {
			if b.Len() > 0 {
				b.WriteString(", ")
			}
			if key != "" {
				b.WriteString(key + ": ")
			}
			b.WriteString(value)
		}
		i++
	}
	return b.String()
}

// polymorphic are the functions that take any number of arguments of any type, by name. Each makes the function for given types, or
// returns nil.
var polymorphic = map[string]func(args []Type) *Func{
	"concat": func(args []Type) *Func {
		return variadic("concat", args, Text, func(_ *Context, x []Datum) (Datum, error) { return concat("", x) })
	},
	"concat_ws": func(args []Type) *Func {
		if len(args) < 2 || args[0] != Text && args[0] != Unknown {
			return nil
		}
		return variadic("concat_ws", args, Text, func(_ *Context, x []Datum) (Datum, error) {
			if x[0].IsNull() {
				return Null, nil
			}
			return concat(x[0].s, x[1:])
		})
	},
	"greatest":          func(args []Type) *Func { return extreme("greatest", args, 1) },
	"least":             func(args []Type) *Func { return extreme("least", args, -1) },
	"jsonb_build_array": func(args []Type) *Func { return variadic("jsonb_build_array", args, Jsonb, buildArray) },
	"jsonb_build_object": func(args []Type) *Func {
		if len(args)%2 != 0 {
			return nil
		}
		return variadic("jsonb_build_object", args, Jsonb, buildObject)
	},
}

// variadic makes a polymorphic function of at least one argument. An argument without a type is text.
func variadic(name string, args []Type, result Type, f func(*Context, []Datum) (Datum, error)) *Func {
	if len(args) == 0 {
		return nil
	}
	params := slices.Clone(args)
	for i, t := range params {
		if t == Unknown {
			params[i] = Text
		}
	}
	return &Func{Name: name, Params: params, Result: result, Nulls: true, FN: f}
}

// concat joins the texts of values, and leaves out NULLs.
func concat(sep string, x []Datum) (Datum, error) {
	var b []byte
	for i, first := 0, true; i < len(x); i++ {
		if x[i].IsNull() {
			continue
		}
		if !first {
			b = append(b, sep...)
		}
		first = false
		if b = x[i].AppendText(b); len(b) > maxTextBytes {
			return Null, errTextTooLong
		}
	}
	return NewText(string(b)), nil
}

// extreme makes greatest or least, which pass over NULLs: the value for which the comparison with all others has the sign.
func extreme(name string, args []Type, sign int) *Func {
	t := Unknown
	for _, a := range args {
		var ok bool
		if t, ok = Common(t, a); !ok {
			return nil
		}
	}
	if t == Unknown {
		t = Text
	}
	f := variadic(name, args, t, func(_ *Context, x []Datum) (Datum, error) {
		best := Null
		for _, d := range x {
			if !d.IsNull() && (best.IsNull() || sign*Compare(d, best) > 0) {
				best = d
			}
		}
		return best, nil
	})
	if f != nil {
		for i := range f.Params {
			f.Params[i] = t
		}
	}
	return f
}

func buildArray(_ *Context, x []Datum) (Datum, error) {
	b := []byte{'['}
	for i, d := range x {
		if i > 0 {
			b = append(b, ", "...)
		}
		if b = appendToJSON(b, d); len(b) > maxTextBytes {
			return Null, errTextTooLong
		}
	}
	return newJSON(string(append(b, ']'))), nil
}

// buildObject makes an object of keys and values in turn.
func buildObject(c *Context, x []Datum) (Datum, error) {
	b := []byte{'{'}
	for i, d := range x {
		switch {
		case i%2 == 1:
			b = appendToJSON(b, d)
		case d.IsNull():
			return Null, &EvalError{Code: "22023", Message: "argument " + strconv.Itoa(i+1) + ": key must not be null"}
		default:
			key, err := jsonKey(d)
			if err != nil {
				return Null, err
			}
			if i > 0 {
				b = append(b, ", "...)
			}
			b = append(appendJSONString(b, key), ": "...)
		}
		if len(b) > maxTextBytes {
			return Null, errTextTooLong
		}
	}
	return buildJSON(c, string(append(b, '}')))
}

// jsonKey is the text of a value that becomes the key of an object.
func jsonKey(d Datum) ([]byte, error) {
	switch {
	case d.t == Jsonb || d.t.IsArray():
		return nil, &EvalError{Code: "22023", Message: "key value must be scalar, not array, composite, or json"}
	case d.t == Timestamp || d.t == Timestamptz:
		return []byte(inner(string(appendToJSON(nil, d)))), nil
	}
	return []byte(d.castText()), nil
}
