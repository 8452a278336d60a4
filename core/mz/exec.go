package mz

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// StatementError says which statement of a text failed. Line and Column count
// from 1, in characters; they are where the server points to, or where the
// statement begins.
type StatementError struct {
	Line, Column int
	Message      string
	Err          error
}

func (e *StatementError) Error() string {
	return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Message)
}

func (e *StatementError) Unwrap() error { return e.Err }

// Exec runs the statements of a text one after the other, each in its own
// transaction (Materialize refuses CREATE in a longer one), until one fails.
// That error is a [*StatementError]; without a connection it is an [*Error].
func (c *Client) Exec(ctx context.Context, text string) error {
	w, err := c.connect(ctx)
	if err != nil {
		return explain(err)
	}
	defer w.close()
	for _, st := range splitStatements(text) {
		err := w.exec(ctx, st.padded(text))
		if err == nil {
			continue
		}
		var pg *pgconn.PgError
		if !errors.As(err, &pg) {
			return explain(err)
		}
		at := st.from
		if pg.Position > 0 {
			at = st.byteOffset(text, int(pg.Position))
		}
		line, column := lineColumn(text, at)
		// The embedded engine says where by itself; once is enough.
		message := strings.TrimPrefix(serverText(pg), fmt.Sprintf("%d:%d: ", line, column))
		return &StatementError{Line: line, Column: column, Message: message, Err: pg}
	}
	return nil
}

// span is a statement: text[from:to], without the semicolon.
type span struct{ from, to int }

// padded returns the statement with as many line breaks and spaces before it
// as it takes for it to stand where it stands in text, because servers mention
// lines and columns in their messages too.
func (s span) padded(text string) string {
	line, column := lineColumn(text, s.from)
	return strings.Repeat("\n", line-1) + strings.Repeat(" ", column-1) + text[s.from:s.to]
}

// byteOffset translates a position in the padded statement, in characters from
// 1, to an offset in text.
func (s span) byteOffset(text string, position int) int {
	line, column := lineColumn(text, s.from)
	skip := position - 1 - (line - 1) - (column - 1)
	at := s.from
	for i := range text[s.from:s.to] {
		at = s.from + i
		if skip <= 0 {
			break
		}
		skip--
	}
	return at
}

// lineColumn returns where an offset is, in lines and characters from 1.
func lineColumn(text string, offset int) (line, column int) {
	before := text[:offset]
	start := strings.LastIndexByte(before, '\n') + 1
	return strings.Count(before, "\n") + 1, len([]rune(before[start:])) + 1
}

// splitStatements finds the statements of a text: what semicolons separate that
// stand outside of strings, quoted names, dollar quotes and comments. Spans
// begin at the first character that is neither space nor comment.
func splitStatements(text string) []span {
	var out []span
	from := -1
	for i := 0; i < len(text); {
		n := tokenLength(text[i:])
		switch c := text[i]; {
		case c == ';':
			if from >= 0 {
				out = append(out, span{from, i})
			}
			from = -1
		case from < 0 && !isSpace(c) && !isComment(text[i:]):
			from = i
		}
		i += n
	}
	if from >= 0 {
		out = append(out, span{from, len(text)})
	}
	return out
}

func isSpace(c byte) bool { return strings.IndexByte(" \t\r\n\f\v", c) >= 0 }

func isComment(s string) bool { return strings.HasPrefix(s, "--") || strings.HasPrefix(s, "/*") }

// tokenLength returns the length of what stands at the beginning of s, as far
// as semicolons within it mean nothing.
func tokenLength(s string) int {
	switch {
	case strings.HasPrefix(s, "--"):
		return until(s, 2, "\n")
	case strings.HasPrefix(s, "/*"):
		return commentLength(s)
	case s[0] == '"', s[0] == '\'':
		return until(s, 1, s[:1]) // a doubled quote is two strings side by side
	case (s[0] == 'E' || s[0] == 'e') && strings.HasPrefix(s[1:], "'"):
		return escapedLength(s)
	case s[0] == '$':
		if end := strings.IndexByte(s[1:], '$'); end >= 0 && isTag(s[1:1+end]) {
			tag := s[:end+2]
			return until(s, len(tag), tag)
		}
	case isWord(s[0]):
		n := 1
		for n < len(s) && (isWord(s[n]) || s[n] == '$') {
			n++ // so that neither a$b$c nor namE'x' begins a quote
		}
		return n
	}
	return 1
}

// until returns the length of s up to and with the first end after from.
func until(s string, from int, end string) int {
	if i := strings.Index(s[from:], end); i >= 0 {
		return from + i + len(end)
	}
	return len(s)
}

// commentLength measures a block comment; they nest.
func commentLength(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], "/*"):
			depth++
			i++
		case strings.HasPrefix(s[i:], "*/"):
			depth--
			i++
			if depth == 0 {
				return i + 1
			}
		}
	}
	return len(s)
}

// escapedLength measures a string with backslash escapes, E'...'.
func escapedLength(s string) int {
	for i := 2; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '\'':
			return i + 1
		}
	}
	return len(s)
}

func isWord(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= 0x80
}

func isTag(s string) bool {
	for i := range len(s) {
		if !isWord(s[i]) || i == 0 && s[i] >= '0' && s[i] <= '9' {
			return false
		}
	}
	return true
}
