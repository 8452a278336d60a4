package mz

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// encoding is the version of the encoding of rows. Whoever changes the bytes
// that a value becomes raises it: rows of before and after must never be
// compared, and identities see to that.
const encoding = 1

// encodeFunc appends the JSON of a value that PostgreSQL's text format gives as
// text. JSON is what to_jsonb would give, without insignificant spaces.
type encodeFunc func(dst, text []byte) ([]byte, error)

// rowEncoder encodes rows; it has a function for each column.
type rowEncoder []encodeFunc

// append appends the JSON array of values, which are text or nil for NULL.
// Its error is a *valueError.
func (e rowEncoder) append(dst []byte, values [][]byte) ([]byte, error) {
	dst = append(dst, '[')
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		if v == nil {
			dst = append(dst, "null"...)
			continue
		}
		var err error
		if dst, err = e[i](dst, v); err != nil {
			return dst, &valueError{column: i, err: err}
		}
	}
	return append(dst, ']'), nil
}

// valueError says that a value is not what its type's text looks like.
type valueError struct {
	column int
	err    error
}

func (e *valueError) Error() string { return e.err.Error() }
func (e *valueError) Unwrap() error { return e.err }

func encodeBool(dst, text []byte) ([]byte, error) {
	switch string(text) {
	case "t", "true":
		return append(dst, "true"...), nil
	case "f", "false":
		return append(dst, "false"...), nil
	}
	return dst, fmt.Errorf("%.40q is not a boolean", text)
}

// encodeInteger is encodeNumber for types that have nothing but digits.
func encodeInteger(dst, text []byte) ([]byte, error) {
	d, tail := digits(bytes.TrimPrefix(text, minus))
	if len(d) == 0 || len(tail) > 0 || d[0] == '0' && len(text) > 1 {
		return encodeNumber(dst, text)
	}
	return append(dst, text...), nil
}

var minus = []byte("-")

// encodeNumber keeps every digit. JSON has no NaN and no infinities: they
// become strings.
func encodeNumber(dst, text []byte) ([]byte, error) {
	n, ok := scanNumber(text)
	switch {
	case !ok:
		return encodeString(dst, text)
	case n.negativeZero: // jsonb's numbers are numeric, which has no -0
		return append(dst, text[1:n.end]...), nil
	case n.end == len(text):
		return append(dst, text...), nil
	default:
		return n.appendPlain(dst), nil
	}
}

// number is a scanned JSON number.
type number struct {
	negative         bool
	integer, decimal []byte // digits before and after the point
	exponent         int
	end              int // of its digits: where the exponent begins
	negativeZero     bool
}

// maxExponent bounds what an exponent is written out to: float8 ends at 308.
const maxExponent = 400

// scanNumber reads a JSON number with an exponent that can be written out.
func scanNumber(text []byte) (n number, ok bool) {
	rest := text
	if len(rest) > 0 && rest[0] == '-' {
		n.negative, rest = true, rest[1:]
	}
	n.integer, rest = digits(rest)
	if len(n.integer) == 0 || len(n.integer) > 1 && n.integer[0] == '0' {
		return n, false
	}
	if len(rest) > 0 && rest[0] == '.' {
		if n.decimal, rest = digits(rest[1:]); len(n.decimal) == 0 {
			return n, false
		}
	}
	n.end = len(text) - len(rest)
	if len(rest) > 0 {
		if rest[0] != 'e' && rest[0] != 'E' {
			return n, false
		}
		e, err := strconv.Atoi(string(rest[1:]))
		if err != nil || e < -maxExponent || e > maxExponent {
			return n, false
		}
		n.exponent = e
	}
	n.negativeZero = n.negative && allZero(n.integer) && allZero(n.decimal)
	return n, true
}

func digits(s []byte) (head, tail []byte) {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return s[:i], s[i:]
}

func allZero(digits []byte) bool { return len(bytes.TrimLeft(digits, "0")) == 0 }

// appendPlain appends the number without an exponent, as numeric prints it.
func (n number) appendPlain(dst []byte) []byte {
	if n.negative {
		dst = append(dst, '-')
	}
	all := append(append([]byte(nil), n.integer...), n.decimal...)
	point := len(n.integer) + n.exponent // where it stands among all digits
	for ; point <= 0; point++ {
		all = append([]byte{'0'}, all...)
	}
	for len(all) < point {
		all = append(all, '0')
	}
	whole := bytes.TrimLeft(all[:point], "0")
	if len(whole) == 0 {
		whole = []byte{'0'}
	}
	dst = append(dst, whole...)
	if fraction := all[point:]; len(fraction) > 0 {
		dst = append(append(dst, '.'), fraction...)
	}
	return dst
}

// encodeString escapes what JSON requires and nothing else, as PostgreSQL does.
func encodeString(dst, text []byte) ([]byte, error) {
	dst = append(dst, '"')
	plain := plainPrefix(text)
	if plain == len(text) {
		return append(append(dst, text...), '"'), nil
	}
	from, ascii := 0, true
	for i := plain; i < len(text); i++ {
		c := text[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			ascii = ascii && c < utf8.RuneSelf
			continue
		}
		dst = append(dst, text[from:i]...)
		dst = appendEscape(dst, c)
		from = i + 1
	}
	dst = append(dst, text[from:]...)
	if !ascii && !utf8.Valid(text) {
		return dst, fmt.Errorf("%.40q is not UTF-8", text)
	}
	return append(dst, '"'), nil
}

// plainPrefix returns how many bytes at the beginning are ASCII that needs no
// escape, or somewhat fewer: it looks at eight at a time.
func plainPrefix(text []byte) int {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	n := 0
	for ; n+8 <= len(text); n += 8 {
		w := binary.LittleEndian.Uint64(text[n:])
		quote, slash := w^ones*'"', w^ones*'\\'
		// The high bit of a byte is set where it is set in w, or where a
		// subtraction borrowed: from less than 0x20, or from what is 0 because
		// it was the character.
		if (w|(w-ones*0x20)|(quote-ones)|(slash-ones))&high != 0 {
			return n
		}
	}
	for n < len(text) && text[n] >= 0x20 && text[n] < utf8.RuneSelf && text[n] != '"' && text[n] != '\\' {
		n++
	}
	return n
}

func appendEscape(dst []byte, c byte) []byte {
	const hex = "0123456789abcdef"
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	default:
		return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
	}
}

// encodeJSON passes JSON on without its insignificant spaces.
func encodeJSON(dst, text []byte) ([]byte, error) {
	if !utf8.Valid(text) {
		return dst, fmt.Errorf("%.40q is not UTF-8", text)
	}
	b := bytes.NewBuffer(dst)
	if err := json.Compact(b, text); err != nil {
		return dst, fmt.Errorf("%.40q is not JSON: %w", text, err)
	}
	return b.Bytes(), nil
}

// encodeTimestamp makes ISO 8601 of PostgreSQL's ISO style: a T between date
// and time, and minutes in the offset.
func encodeTimestamp(dst, text []byte) ([]byte, error) {
	date, clock, found := bytes.Cut(text, []byte{' '})
	if !found || len(bytes.Trim(date, "0123456789-")) > 0 {
		return encodeString(dst, text) // infinity
	}
	clock, bc := bytes.CutSuffix(clock, []byte(" BC"))
	if len(bytes.Trim(clock, "0123456789:.+-")) > 0 {
		return encodeString(dst, text)
	}
	dst = append(append(append(append(dst, '"'), date...), 'T'), clock...)
	if sign := bytes.LastIndexAny(clock, "+-"); sign >= 0 && len(clock)-sign == len("+00") {
		dst = append(dst, ":00"...)
	}
	if bc {
		dst = append(dst, " BC"...)
	}
	return append(dst, '"'), nil
}
