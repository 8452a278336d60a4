package websocket

import (
	"slices"

	"github.com/mzdio/mzd/core"
)

// scanValues calls value with the bytes of each value of a row, which are JSON
// and share the row's memory. It reports whether the row is an array that ended
// where it should; what a value contains is not looked into further than to
// find its end.
func scanValues(row core.Row, value func(i int, v string)) bool {
	s := string(row)
	if len(s) < 2 || s[0] != '[' || s[len(s)-1] != ']' {
		return false
	}
	s = s[1 : len(s)-1]
	if s == "" {
		return true
	}
	for i := 0; ; i++ {
		n := valueEnd(s)
		if n <= 0 {
			return false
		}
		value(i, s[:n])
		if n == len(s) {
			return true
		}
		s = s[n+1:] // valueEnd stops at a comma or at the end
	}
}

// valueEnd returns where the JSON value at the start of s ends: the index of
// the comma after it, or len(s); -1 if it does not end.
func valueEnd(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			if i = stringEnd(s, i); i < 0 {
				return -1
			}
		case '[', '{':
			depth++
		case ']', '}':
			if depth--; depth < 0 {
				return -1
			}
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
	if depth != 0 {
		return -1
	}
	return len(s)
}

// stringEnd returns the index of the quote that ends the string whose first
// quote is at start, -1 if there is none.
func stringEnd(s string, start int) int {
	for i := start + 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

// wideTypes are the types whose numbers can have more digits than a JavaScript
// number keeps.
var wideTypes = []string{"int8", "uint8", "numeric", "mz_timestamp"}

// wideColumns tells for each column whether numbers=string makes its numbers
// strings, nil if it does so for none.
func wideColumns(columns []core.Column) []bool {
	var wide []bool
	for i, c := range columns {
		if slices.Contains(wideTypes, c.Type) {
			if wide == nil {
				wide = make([]bool, len(columns))
			}
			wide[i] = true
		}
	}
	return wide
}

// appendQuotedNumbers appends the row with the numbers of wide columns as
// strings. A row that cannot be scanned is appended as it is.
func appendQuotedNumbers(dst []byte, row core.Row, wide []bool) []byte {
	return appendMapped(dst, row, func(dst []byte, i int, v string) []byte {
		if i < len(wide) && wide[i] && isNumber(v) {
			return append(append(append(dst, '"'), v...), '"')
		}
		return append(dst, v...)
	})
}

// appendStrings appends the row with every value as a string, as the clients of
// /api/v1 expect: strings as they are, null as null, and of everything else the
// JSON text.
func appendStrings(dst []byte, row core.Row) []byte {
	return appendMapped(dst, row, func(dst []byte, _ int, v string) []byte {
		switch v[0] {
		case '"':
			return append(dst, v...)
		case 'n':
			return append(dst, v...)
		}
		return appendQuoted(dst, v)
	})
}

func appendMapped(dst []byte, row core.Row, value func(dst []byte, i int, v string) []byte) []byte {
	start := len(dst)
	dst = append(dst, '[')
	ok := scanValues(row, func(i int, v string) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = value(dst, i, v)
	})
	if !ok {
		return append(dst[:start], row...)
	}
	return append(dst, ']')
}

// appendQuoted appends JSON text as a JSON string. JSON text that is compact
// has no control characters, so that quotes and backslashes are all there is
// to escape.
func appendQuoted(dst []byte, text string) []byte {
	dst = append(dst, '"')
	for i := range len(text) {
		if text[i] == '"' || text[i] == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, text[i])
	}
	return append(dst, '"')
}

func isNumber(v string) bool { return v[0] == '-' || v[0] >= '0' && v[0] <= '9' }
