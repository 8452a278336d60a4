// Package sql turns SQL text into a syntax tree and back. The grammar is what the embedded engine supports, in the dialect of
// Materialize; what is outside it is refused with a position and, where Materialize has it, with words that say so.
//
// [Parse] splits a text into statements. Every node prints itself with String as SQL that parses to the same tree.
package sql

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// kind tells tokens apart.
type kind uint8

const (
	eof    kind = iota
	word        // an identifier or keyword without quotes, in lower case
	quoted      // an identifier in quotes
	number
	str
	op // an operator or punctuation
	param
)

type token struct {
	kind     kind
	text     string
	pos, end int
}

func (t token) is(text string) bool { return t.text == text && (t.kind == word || t.kind == op) }

// describe names a token in an error message.
func (t token) describe() string {
	switch t.kind {
	case eof:
		return "end of input"
	case str:
		return "string '" + t.text + "'"
	}
	return strconv.Quote(t.text)
}

// operators by length, longest first.
var operators = []string{
	"->>", "#>>", "!~*", "!~~", "~~*", "::", "->", "#>", "@>", "<@", "<=", ">=", "<>", "!=", "||", "?|", "?&", "!~", "~*", "~~", "=>",
	"(", ")", "[", "]", ",", ";", ".", "+", "-", "*", "/", "%", "^", "<", ">", "=", "?", "~", "#", "&", "|", ":", "@", "!",
}

// lex splits a text into tokens; the last is eof.
func lex(text string) ([]token, error) {
	l := lexer{text: text}
	var out []token
	for {
		if err := l.space(); err != nil {
			return nil, err
		}
		t, err := l.next()
		if err != nil {
			return nil, err
		}
		t.end = l.at
		out = append(out, t)
		if t.kind == eof {
			return out, nil
		}
	}
}

type lexer struct {
	text string
	at   int
}

// space skips white space and comments.
func (l *lexer) space() error {
	for l.at < len(l.text) {
		rest := l.text[l.at:]
		switch {
		case strings.HasPrefix(rest, "--"):
			if i := strings.IndexByte(rest, '\n'); i >= 0 {
				l.at += i + 1
			} else {
				l.at = len(l.text)
			}
		case strings.HasPrefix(rest, "/*"):
			start, depth := l.at, 1
			l.at += 2
			for depth > 0 {
				rest := l.text[l.at:]
				switch {
				case rest == "":
					return Errorf(start, "42601", "unterminated /* comment")
				case strings.HasPrefix(rest, "*/"):
					depth--
					l.at += 2
				case strings.HasPrefix(rest, "/*"):
					depth++
					l.at += 2
				default:
					l.at++
				}
			}
		case strings.IndexByte(" \t\n\r\f\v", rest[0]) >= 0:
			l.at++
		default:
			return nil
		}
	}
	return nil
}

func isIdentStart(c rune) bool {
	return c == '_' || c >= utf8.RuneSelf && unicode.IsLetter(c) || asciiLetter(c)
}

func asciiLetter(c rune) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func (l *lexer) next() (token, error) {
	start := l.at
	if start == len(l.text) {
		return token{kind: eof, pos: start}, nil
	}
	c, _ := utf8.DecodeRuneInString(l.text[start:])
	switch {
	case (c == 'e' || c == 'E') && strings.HasPrefix(l.text[start+1:], "'"):
		l.at++
		return l.escaped(start)
	case (c == 'u' || c == 'U') && strings.HasPrefix(l.text[start+1:], "&'"),
		strings.ContainsRune("bBxX", c) && strings.HasPrefix(l.text[start+1:], "'"):
		return token{}, Unsupported(start, "this kind of string literal is")
	case isIdentStart(c):
		for l.at < len(l.text) {
			c, size := utf8.DecodeRuneInString(l.text[l.at:])
			if !isIdentStart(c) && !(c < utf8.RuneSelf && (isDigit(byte(c)) || c == '$')) {
				break
			}
			l.at += size
		}
		return token{kind: word, text: strings.ToLower(l.text[start:l.at]), pos: start}, nil
	case c == '"':
		return l.delimited(start, '"', quoted)
	case c == '\'':
		return l.delimited(start, '\'', str)
	case c < utf8.RuneSelf && (isDigit(byte(c)) || c == '.' && start+1 < len(l.text) && isDigit(l.text[start+1])):
		return l.number(start)
	case c == '$':
		return l.dollar(start)
	}
	for _, o := range operators {
		if strings.HasPrefix(l.text[start:], o) {
			l.at += len(o)
			return token{kind: op, text: o, pos: start}, nil
		}
	}
	return token{}, Errorf(start, "42601", "unexpected character %q", c)
}

// delimited reads up to a closing quote; a doubled one stands for itself.
func (l *lexer) delimited(start int, quote byte, k kind) (token, error) {
	var b strings.Builder
	for l.at++; ; {
		i := strings.IndexByte(l.text[l.at:], quote)
		if i < 0 {
			return token{}, Errorf(start, "42601", "unterminated quoted %s", map[kind]string{str: "string", quoted: "identifier"}[k])
		}
		b.WriteString(l.text[l.at : l.at+i])
		l.at += i + 1
		if l.at == len(l.text) || l.text[l.at] != quote {
			break
		}
		b.WriteByte(quote)
		l.at++
	}
	if k == quoted && b.Len() == 0 {
		return token{}, Errorf(start, "42601", "zero-length delimited identifier")
	}
	return checkText(token{kind: k, text: b.String(), pos: start})
}

// checkText refuses what no text value may hold.
func checkText(t token) (token, error) {
	if strings.IndexByte(t.text, 0) >= 0 || !utf8.ValidString(t.text) {
		return token{}, Errorf(t.pos, "22021", "invalid byte sequence for encoding \"UTF8\"")
	}
	return t, nil
}

// escaped reads E'...', in which a backslash begins an escape.
func (l *lexer) escaped(start int) (token, error) {
	var b strings.Builder
	for l.at++; l.at < len(l.text); {
		c := l.text[l.at]
		l.at++
		switch {
		case c == '\'' && l.at < len(l.text) && l.text[l.at] == '\'':
			l.at++
			b.WriteByte('\'')
		case c == '\'':
			return checkText(token{kind: str, text: b.String(), pos: start})
		case c == '\\' && l.at < len(l.text):
			if err := l.escape(&b); err != nil {
				return token{}, err
			}
		default:
			b.WriteByte(c)
		}
	}
	return token{}, Errorf(start, "42601", "unterminated quoted string")
}

func (l *lexer) escape(b *strings.Builder) error {
	start := l.at
	c := l.text[l.at]
	l.at++
	if i := strings.IndexByte("bfnrt", c); i >= 0 {
		b.WriteByte("\b\f\n\r\t"[i])
		return nil
	}
	digits := func(base, limit int) (int64, bool) {
		from := l.at
		for l.at < len(l.text) && l.at-from < limit {
			if _, err := strconv.ParseUint(l.text[l.at:l.at+1], base, 8); err != nil {
				break
			}
			l.at++
		}
		v, err := strconv.ParseInt(l.text[from:l.at], base, 64)
		return v, err == nil
	}
	switch c {
	case 'u', 'U':
		n := 4
		if c == 'U' {
			n = 8
		}
		from := l.at
		v, ok := digits(16, n)
		if !ok || l.at-from != n || v == 0 || !utf8.ValidRune(rune(v)) {
			return Errorf(start-1, "22025", "invalid Unicode escape")
		}
		b.WriteRune(rune(v))
	case 'x':
		v, ok := digits(16, 2)
		if !ok {
			b.WriteByte('x')
			return nil
		}
		b.WriteByte(byte(v))
	case '0', '1', '2', '3', '4', '5', '6', '7':
		l.at--
		v, _ := digits(8, 3)
		b.WriteByte(byte(v))
	default:
		b.WriteByte(c)
	}
	return nil
}

// number reads digits, a fraction and an exponent.
func (l *lexer) number(start int) (token, error) {
	digits := func() {
		for l.at < len(l.text) && isDigit(l.text[l.at]) {
			l.at++
		}
	}
	digits()
	if l.at < len(l.text) && l.text[l.at] == '.' {
		l.at++
		digits()
	}
	if rest := l.text[l.at:]; len(rest) > 1 && (rest[0] == 'e' || rest[0] == 'E') {
		sign := 0
		if rest[1] == '+' || rest[1] == '-' {
			sign = 1
		}
		if len(rest) > 1+sign && isDigit(rest[1+sign]) {
			l.at += 1 + sign
			digits()
		}
	}
	if c, _ := utf8.DecodeRuneInString(l.text[l.at:]); l.at < len(l.text) && isIdentStart(c) {
		return token{}, Errorf(start, "42601", "trailing junk after numeric literal")
	}
	return token{kind: number, text: l.text[start:l.at], pos: start}, nil
}

// dollar reads $1 or $tag$...$tag$.
func (l *lexer) dollar(start int) (token, error) {
	l.at++
	for l.at < len(l.text) && isDigit(l.text[l.at]) {
		l.at++
	}
	if l.at > start+1 {
		return token{kind: param, text: l.text[start:l.at], pos: start}, nil
	}
	i := strings.IndexByte(l.text[l.at:], '$')
	if i < 0 || strings.ContainsFunc(l.text[l.at:l.at+i], func(c rune) bool { return !isIdentStart(c) && !unicode.IsDigit(c) }) {
		return token{}, Errorf(start, "42601", "unexpected character '$'")
	}
	tag := l.text[start : l.at+i+1]
	body := l.text[l.at+i+1:]
	end := strings.Index(body, tag)
	if end < 0 {
		return token{}, Errorf(start, "42601", "unterminated dollar-quoted string")
	}
	l.at += i + 1 + end + len(tag)
	return checkText(token{kind: str, text: body[:end], pos: start})
}
