package sql

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Error says what is wrong with a statement, and where.
type Error struct {
	Pos     int    // byte offset in the text that was parsed
	Code    string // SQLSTATE: 42601 syntax, 0A000 not supported, 54001 too complex, ...
	Message string
	Hint    string
}

func (e *Error) Error() string { return e.Message }

// Errorf makes an [Error].
func Errorf(pos int, code, format string, args ...any) *Error {
	return &Error{Pos: pos, Code: code, Message: fmt.Sprintf(format, args...)}
}

// Unsupported is the error for what Materialize does and the embedded engine does not.
func Unsupported(pos int, what string) *Error {
	return &Error{Pos: pos, Code: "0A000", Message: what + " not supported by the embedded engine",
		Hint: "This works on Materialize, not in the embedded engine."}
}

// Refused is the error for what neither Materialize nor the embedded engine does, though PostgreSQL might.
func Refused(pos int, what string) *Error {
	return &Error{Pos: pos, Code: "0A000", Message: what + " not supported"}
}

// Position is the line and the column, in characters, both from 1, of a byte offset in a text.
func Position(text string, offset int) (line, column int) {
	before := text[:min(max(offset, 0), len(text))]
	return strings.Count(before, "\n") + 1, utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
}
