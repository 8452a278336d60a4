package flow

import (
	"encoding/binary"
	"iter"
	"strings"
)

// NewArray returns an array of one dimension whose elements are of type t or NULL.
func NewArray(t Type, elements []Datum) Datum {
	var b []byte
	for i := range elements {
		b = appendElement(b, elements[i])
	}
	return Datum{s: string(b), t: ArrayOf(t)}
}

// appendElement appends an element as arrays hold it: 0 for NULL, or 1, its number and its string. Equal elements are equal bytes.
func appendElement(dst []byte, d Datum) []byte {
	if d.IsNull() {
		return append(dst, 0)
	}
	dst = append(dst, 1)
	dst = binary.AppendVarint(dst, d.n)
	return appendKeyText(dst, d.s)
}

// Elements are the elements of an array.
func (d Datum) Elements() iter.Seq[Datum] {
	return func(yield func(Datum) bool) {
		for rest := d.s; rest != ""; {
			var e Datum
			if e, rest = cutElement(rest, d.t.Elem()); !yield(e) {
				return
			}
		}
	}
}

// cutElement reads the first of some elements.
func cutElement(s string, t Type) (e Datum, rest string) {
	if s[0] == 0 {
		return Null, s[1:]
	}
	s = s[1:]
	n, size := varint(s)
	s = s[size:]
	length, size := uvarint(s)
	s = s[size:]
	return Datum{s: s[:length], n: n, t: t}, s[length:]
}

func uvarint(s string) (v uint64, size int) {
	for shift := 0; ; shift += 7 {
		c := s[size]
		size++
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v, size
		}
	}
}

func varint(s string) (int64, int) {
	v, size := uvarint(s)
	return int64(v>>1) ^ -int64(v&1), size
}

// compareArrays orders by the first elements that differ, and then by length.
func compareArrays(a, b Datum) int {
	x, y := a.s, b.s
	for x != "" && y != "" {
		var d, e Datum
		d, x = cutElement(x, a.t.Elem())
		e, y = cutElement(y, b.t.Elem())
		if c := Compare(d, e); c != 0 {
			return c
		}
	}
	return b2i(x != "") - b2i(y != "")
}

// appendArrayText appends PostgreSQL's text form: {1,NULL,"a b"}.
func appendArrayText(dst []byte, d Datum) []byte {
	dst = append(dst, '{')
	first := true
	for e := range d.Elements() {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		if e.IsNull() {
			dst = append(dst, "NULL"...)
			continue
		}
		dst = appendArrayElement(dst, string(e.AppendText(nil)))
	}
	return append(dst, '}')
}

// appendArrayElement quotes an element that could be mistaken for something else.
func appendArrayElement(dst []byte, s string) []byte {
	if s != "" && !strings.EqualFold(s, "NULL") && !strings.ContainsAny(s, "{},\"\\ \t\n\r\v\f") {
		return append(dst, s...)
	}
	dst = append(dst, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, s[i])
	}
	return append(dst, '"')
}

// appendArrayBinary appends PostgreSQL's binary form: dimensions, whether there are NULLs, the element type, and the elements
// with their lengths.
func appendArrayBinary(dst []byte, d Datum) []byte {
	count, nulls := 0, 0
	for e := range d.Elements() {
		count++
		nulls |= b2i(e.IsNull())
	}
	put := func(v int) { dst = binary.BigEndian.AppendUint32(dst, uint32(v)) }
	put(b2i(count > 0))
	put(nulls)
	put(int(d.t.Elem().OID()))
	if count > 0 {
		put(count)
		put(1) // the index of the first element
	}
	for e := range d.Elements() {
		if e.IsNull() {
			put(-1)
			continue
		}
		at := len(dst)
		put(0)
		dst = e.AppendBinary(dst)
		binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	}
	return dst
}

// parseArray reads the text form of an array of one dimension whose elements a cast reads.
func parseArray(c *Context, text string, element *Func) (Datum, error) {
	texts, ok := splitArray(text)
	if !ok {
		return Null, &EvalError{Code: "22P02", Message: "malformed array literal: " + excerpt(text)}
	}
	elements := make([]Datum, len(texts))
	for i, t := range texts {
		if t == nil {
			continue
		}
		var err error
		if elements[i], err = element.F1(c, NewText(*t)); err != nil {
			return Null, err
		}
	}
	return NewArray(element.Result, elements), nil
}

// splitArray reads the texts of the elements; nil stands for a NULL.
func splitArray(text string) (elements []*string, ok bool) {
	s, open := strings.CutPrefix(trimSpace(text), "{")
	if !open {
		return nil, false
	}
	if s = trimSpace(s); s == "}" {
		return nil, true
	}
	for {
		element, rest, ok := cutArrayElement(s)
		if !ok {
			return nil, false
		}
		elements = append(elements, element)
		if rest == "}" {
			return elements, true
		}
		if s, ok = strings.CutPrefix(rest, ","); !ok {
			return nil, false
		}
	}
}

// cutArrayElement reads one element, quoted or not, with the white space around it.
func cutArrayElement(s string) (element *string, rest string, ok bool) {
	s = strings.TrimLeft(s, " \t\n\r\v\f")
	var b strings.Builder
	quoted, inside, kept := false, false, 0 // kept: the length up to which trailing space belongs to the element
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
			kept = b.Len()
		case c == '"' && (inside || !quoted && b.Len() == 0):
			inside, quoted = !inside, true
			kept = b.Len()
		case inside:
			b.WriteByte(c)
		case c == ',' || c == '}':
			text := b.String()[:max(kept, len(strings.TrimRight(b.String(), " \t\n\r\v\f")))]
			if !quoted && text == "" {
				return nil, "", false
			}
			if !quoted && strings.EqualFold(text, "NULL") {
				return nil, s[i:], true
			}
			return &text, s[i:], true
		case c == '{' || c == '"' || c == '\\' || quoted && strings.IndexByte(" \t\n\r\v\f", c) < 0:
			return nil, "", false
		case !quoted:
			b.WriteByte(c)
		}
	}
	return nil, "", false
}
