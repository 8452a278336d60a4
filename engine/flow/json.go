package flow

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"unicode/utf8"
	"unsafe"

	"github.com/cockroachdb/apd/v3"
	"github.com/valyala/fastjson"
)

// Context is what evaluating expressions needs beside the row: scratch space, compiled regular expressions, and the JSON
// documents parsed last, so that several views that read fields of one event parse it once. A Context belongs to one goroutine.
type Context struct {
	docs [4]document
	next int // to be replaced, unless it was used last
	last int // used last
	buf  []byte

	regexps map[string]*regexp.Regexp // by flags and pattern

	// Budget is how many bytes of rows a step, and the maps that feed it, may make of the rows that they are given; 0: any number.
	// What needs more than that is stopped in the middle, and its dataflow is good for nothing any more: see [Context.Exhausted].
	Budget int64
	spent  int64
	// Stop, if there is one, stops a step in the middle too, once it is true.
	Stop *atomic.Bool

	overflow bool // more copies of a row than 63 bits count
}

// Exhausted tells whether more has been needed than the budget, or than can be counted, since the context was last renewed; or that it has
// been told to stop.
func (c *Context) Exhausted() bool {
	return c.overflow || c.Budget > 0 && c.spent > c.Budget || c.Stop != nil && c.Stop.Load()
}

// Overflowed tells whether it is that there were more copies of a row than can be counted.
func (c *Context) Overflowed() bool { return c.overflow }

// Renew begins to count anew, for the next step.
func (c *Context) Renew() { c.spent, c.overflow = 0, false }

// times is how many copies there are of a pair.
func (c *Context) times(a, b int64) int64 {
	if a == int64(int32(a)) && b == int64(int32(b)) { // nearly always, and then without a division
		return a * b
	}
	n, ok := int64Op('*', a, b)
	c.overflow = c.overflow || !ok
	return n
}

// plus is a sum of copies.
func (c *Context) plus(a, b int64) int64 {
	n, ok := int64Op('+', a, b)
	c.overflow = c.overflow || !ok
	return n
}

// spend counts rows that are made of others.
func (c *Context) spend(r Row) { c.spent += updateBytes(r) }

// spendText counts a value if it is so long that a few of them matter.
func (c *Context) spendText(d Datum) {
	if len(d.s) > 1<<16 {
		c.spent += int64(len(d.s))
	}
}

type document struct {
	text   string
	parser fastjson.Parser
	value  *fastjson.Value
	err    error
}

// parse returns the parsed form of a JSON text, which stays valid while one other text is parsed. Documents are told apart by where
// their text lies in memory; the entry keeps that memory alive.
func (c *Context) parse(text string) (*fastjson.Value, error) {
	for i := range c.docs {
		d := &c.docs[i]
		if len(d.text) == len(text) && unsafe.StringData(d.text) == unsafe.StringData(text) && (d.value != nil || d.err != nil) {
			c.last = i
			return d.value, d.err
		}
	}
	if c.next == c.last {
		c.next = (c.next + 1) % len(c.docs)
	}
	d := &c.docs[c.next]
	c.last = c.next
	d.text = text
	d.value, d.err = parseJSON(&d.parser, text)
	return d.value, d.err
}

// parseJSON accepts what PostgreSQL's jsonb accepts: RFC 8259 with a limit on nesting, and without NUL and lone surrogates.
// The parser alone is too lenient; the validator alone recurses without a limit, so it comes second.
func parseJSON(p *fastjson.Parser, text string) (*fastjson.Value, error) {
	v, err := p.Parse(text)
	if err == nil {
		err = fastjson.Validate(text)
	}
	if err == nil && (strings.Contains(text, `\u`) || hasControl(text)) {
		err = checkStrings(text)
	}
	if err != nil {
		return nil, &EvalError{Code: "22P02", Message: "invalid input syntax for type jsonb: " + excerpt(text)}
	}
	return v, nil
}

// hasControl tells whether a byte below the space is in a text, eight bytes at a time.
func hasControl(text string) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	b := unsafe.Slice(unsafe.StringData(text), len(text))
	for len(b) >= 8 {
		x := binary.LittleEndian.Uint64(b)
		if (x-0x20*ones)&^x&tops != 0 {
			return true
		}
		b = b[8:]
	}
	return slices.ContainsFunc(b, func(c byte) bool { return c < 0x20 })
}

// checkStrings refuses, in a text that the validator has passed, what it overlooks in strings with escapes: control characters, \u0000,
// and surrogates without their partner.
func checkStrings(text string) error {
	inside := false
	high := false // the escape before was a high surrogate, and nothing has come since
	for i := 0; i < len(text); i++ {
		c := text[i]
		if high && c != '\\' {
			return errors.New("lone surrogate")
		}
		switch {
		case c == '"':
			inside = !inside
		case inside && c < 0x20:
			return errors.New("control character")
		case c == '\\':
			i++
			if text[i] != 'u' {
				if high {
					return errors.New("lone surrogate")
				}
				continue
			}
			u, err := strconv.ParseUint(text[i+1:i+5], 16, 16)
			if err != nil {
				return err
			}
			i += 4
			low := u >= 0xDC00 && u < 0xE000
			if u == 0 || low != high {
				return errors.New("NUL or lone surrogate")
			}
			high = u >= 0xD800 && u < 0xDC00
		}
	}
	return nil
}

// excerpt quotes the beginning of a text for an error message.
func excerpt(s string) string {
	if len(s) > 60 {
		cut := 60
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "..."
	}
	return `"` + s + `"`
}

// field returns the value of a key, the last one if the key is repeated as PostgreSQL has it, or nil.
func field(v *fastjson.Value, key string) *fastjson.Value {
	if v.Type() != fastjson.TypeObject {
		return nil
	}
	o, _ := v.Object()
	var found *fastjson.Value
	o.Visit(func(k []byte, e *fastjson.Value) {
		if string(k) == key {
			found = e
		}
	})
	return found
}

// element returns the value at an index, which counts from the end when negative, or nil.
func element(v *fastjson.Value, i int) *fastjson.Value {
	if v.Type() != fastjson.TypeArray {
		return nil
	}
	a, _ := v.Array()
	if i < 0 {
		i += len(a)
	}
	if i < 0 || i >= len(a) {
		return nil
	}
	return a[i]
}

// JSONStep is one step into a jsonb value: by key, by index, or, as in the paths of #>, by whichever the value takes.
type JSONStep struct {
	Key   string
	Index int
	Kind  StepKind
}

// StepKind tells what a [JSONStep] selects by.
type StepKind uint8

// The kinds of step.
const (
	ByKey StepKind = iota
	ByIndex
	ByPath
)

func (s JSONStep) get(v *fastjson.Value) *fastjson.Value {
	switch s.Kind {
	case ByKey:
		return field(v, s.Key)
	case ByIndex:
		return element(v, s.Index)
	}
	if v.Type() == fastjson.TypeArray {
		i, err := strconv.Atoi(s.Key)
		if err != nil {
			return nil
		}
		return element(v, i)
	}
	return field(v, s.Key)
}

func (s JSONStep) String() string {
	if s.Kind == ByIndex {
		return strconv.Itoa(s.Index)
	}
	return "'" + strings.ReplaceAll(s.Key, "'", "''") + "'"
}

// jsonText is what ->> gives for a value: NULL for a JSON null, a string without its quotes, the canonical text of the rest.
func jsonText(c *Context, v *fastjson.Value) (Datum, error) {
	switch v.Type() {
	case fastjson.TypeNull:
		return Null, nil
	case fastjson.TypeString:
		b, _ := v.StringBytes()
		return NewText(string(b)), nil
	}
	d, err := jsonDatum(c, v)
	d.t = Text
	return d, err
}

// jsonDatum is a parsed value as a jsonb datum.
func jsonDatum(c *Context, v *fastjson.Value) (Datum, error) {
	var err error
	if c.buf, err = appendJSON(c.buf[:0], v); err != nil {
		return Null, err
	}
	return newJSON(string(c.buf)), nil
}

// appendJSON appends PostgreSQL's canonical text of a jsonb: keys by length and then bytes, the last of repeated keys, ", " and
// ": " between, numbers without exponent.
func appendJSON(dst []byte, v *fastjson.Value) ([]byte, error) {
	var err error
	switch v.Type() {
	case fastjson.TypeObject:
		o, _ := v.Object()
		type member struct {
			key   []byte
			value *fastjson.Value
		}
		members := make([]member, 0, o.Len())
		o.Visit(func(k []byte, e *fastjson.Value) { members = append(members, member{k, e}) })
		slices.SortStableFunc(members, func(a, b member) int {
			if len(a.key) != len(b.key) {
				return len(a.key) - len(b.key)
			}
			return bytes.Compare(a.key, b.key)
		})
		dst = append(dst, '{')
		first := true
		for i, m := range members {
			if i+1 < len(members) && bytes.Equal(m.key, members[i+1].key) {
				continue
			}
			if !first {
				dst = append(dst, ", "...)
			}
			first = false
			dst = append(appendJSONString(dst, m.key), ": "...)
			if dst, err = appendJSON(dst, m.value); err != nil {
				return dst, err
			}
		}
		return append(dst, '}'), nil
	case fastjson.TypeArray:
		a, _ := v.Array()
		dst = append(dst, '[')
		for i, e := range a {
			if i > 0 {
				dst = append(dst, ", "...)
			}
			if dst, err = appendJSON(dst, e); err != nil {
				return dst, err
			}
		}
		return append(dst, ']'), nil
	case fastjson.TypeString:
		b, _ := v.StringBytes()
		return appendJSONString(dst, b), nil
	case fastjson.TypeNumber:
		d, err := jsonNumber(v)
		return d.AppendText(dst), err
	case fastjson.TypeTrue:
		return append(dst, "true"...), nil
	case fastjson.TypeFalse:
		return append(dst, "false"...), nil
	}
	return append(dst, "null"...), nil
}

// jsonNumber is the numeric value of a JSON number. Exponents are bounded, because the canonical text writes them out.
func jsonNumber(v *fastjson.Value) (Datum, error) {
	text := string(v.MarshalTo(nil))
	if len(text) <= 18 {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return NewInt(Numeric, n), nil
		}
	}
	return parseNumeric(text)
}

// maxNumericDigits bounds the digits of a numeric on either side of its point, so that nobody can ask for gigabytes with a
// short text.
const maxNumericDigits = 1000

var errNumericOverflow = &EvalError{Code: "22003", Message: "value overflows numeric format"}

// parseNumeric reads a decimal, or one of the words NaN and Infinity.
func parseNumeric(text string) (Datum, error) {
	digits := trimSpace(text)
	if len(digits) > 4*maxNumericDigits {
		return Null, errNumericOverflow
	}
	d, _, err := apd.NewFromString(digits)
	if err == nil && d.Form != apd.Finite && !specialNumber(digits) { // apd knows more spellings
		return Null, invalidInput(Numeric, text)
	}
	if err != nil {
		if errors.As(err, new(*strconv.NumError)) || !numericRunes(digits) {
			return Null, invalidInput(Numeric, text)
		}
		return Null, errNumericOverflow
	}
	return checkedDecimal(d)
}

// specialNumber tells whether a text is one of PostgreSQL's numbers without digits.
func specialNumber(text string) bool {
	word := strings.ToLower(text)
	if word == "nan" {
		return true
	}
	word = strings.TrimPrefix(strings.TrimPrefix(word, "-"), "+")
	return word == "inf" || word == "infinity"
}

func numericRunes(text string) bool {
	return strings.Trim(text, "0123456789.eE+-") == "" && strings.ContainsAny(text, "0123456789")
}

// checkedDecimal is [NewDecimal] within the bounds.
func checkedDecimal(d *apd.Decimal) (Datum, error) {
	if d.Form == apd.Finite && !d.IsZero() && (d.NumDigits()+int64(d.Exponent) > maxNumericDigits || -int64(d.Exponent) > 2*maxNumericDigits) {
		return Null, errNumericOverflow
	}
	return NewDecimal(d), nil
}

const hexDigits = "0123456789abcdef"

// appendJSONString quotes a string with the escapes that JSON requires and no others.
func appendJSONString(dst, s []byte) []byte {
	dst = append(dst, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= 0x20:
			dst = append(dst, c)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c == '\t':
			dst = append(dst, `\t`...)
		case c == '\r':
			dst = append(dst, `\r`...)
		case c == '\b':
			dst = append(dst, `\b`...)
		case c == '\f':
			dst = append(dst, `\f`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(dst, '"')
}

// castJSON turns a parsed value into a scalar of type t. A JSON null becomes NULL, as in Materialize.
func castJSON(c *Context, v *fastjson.Value, t Type) (Datum, error) {
	if v.Type() == fastjson.TypeNull {
		if t == Jsonb {
			return newJSON("null"), nil
		}
		if t == Text {
			return NewText("null"), nil
		}
		return Null, nil
	}
	switch {
	case t == Jsonb:
		return jsonDatum(c, v)
	case t == Text:
		d, err := jsonDatum(c, v)
		d.t = Text
		return d, err
	case t == Bool && v.Type() == fastjson.TypeTrue:
		return NewBool(true), nil
	case t == Bool && v.Type() == fastjson.TypeFalse:
		return NewBool(false), nil
	case t.IsFloat() && v.Type() == fastjson.TypeNumber:
		return parseFloat(string(v.MarshalTo(nil)), t)
	case t.IsNumber() && v.Type() == fastjson.TypeNumber:
		d, err := jsonNumber(v)
		if err != nil || t == Numeric {
			return d, err
		}
		return numericToInt(d, t)
	}
	what := map[fastjson.Type]string{fastjson.TypeNumber: "numeric", fastjson.TypeTrue: "boolean", fastjson.TypeFalse: "boolean"}[v.Type()]
	if what == "" {
		what = v.Type().String()
	}
	return Null, &EvalError{Code: "22023", Message: fmt.Sprintf("cannot cast jsonb %s to type %s", what, t.SQL())}
}

// jsonContains is the operator @>.
func jsonContains(a, b *fastjson.Value, top bool) bool {
	switch b.Type() {
	case fastjson.TypeObject:
		if a.Type() != fastjson.TypeObject {
			return false
		}
		o, _ := b.Object()
		all := true
		o.Visit(func(k []byte, e *fastjson.Value) {
			if f := field(a, string(k)); f == nil || all && !jsonContains(f, e, false) {
				all = false
			}
		})
		return all
	case fastjson.TypeArray:
		if a.Type() != fastjson.TypeArray {
			return false
		}
		want, _ := b.Array()
		have, _ := a.Array()
		for _, w := range want {
			if !slices.ContainsFunc(have, func(h *fastjson.Value) bool { return jsonContains(h, w, false) }) {
				return false
			}
		}
		return true
	}
	if a.Type() == fastjson.TypeArray && top { // an array may contain a primitive, at the outermost level only
		have, _ := a.Array()
		return slices.ContainsFunc(have, func(h *fastjson.Value) bool { return jsonContains(h, b, false) })
	}
	if a.Type() != b.Type() {
		return false
	}
	x, errX := appendJSON(nil, a)
	y, errY := appendJSON(nil, b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// jsonHasKey is the operator ?: a key of an object, a string of an array, or the string itself.
func jsonHasKey(v *fastjson.Value, key string) bool {
	isKey := func(e *fastjson.Value) bool {
		b, err := e.StringBytes()
		return err == nil && string(b) == key
	}
	switch v.Type() {
	case fastjson.TypeObject:
		return field(v, key) != nil
	case fastjson.TypeArray:
		a, _ := v.Array()
		return slices.ContainsFunc(a, isKey)
	}
	return isKey(v)
}

// ValidJSON tells whether a text is a JSON document that a jsonb can hold. An expression that reads the text next finds it parsed.
func (c *Context) ValidJSON(text string) bool {
	_, err := c.parse(text)
	return err == nil
}
