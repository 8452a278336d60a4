package flow

import (
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// patterns adds LIKE, which is ~~, and the regular expressions.
func (r registry) patterns() {
	fold := func(s string) string { return strings.ToLower(s) }
	same := func(s string) string { return s }
	for name, form := range map[string]func(string) string{"~~": same, "~~*": fold} {
		r.op(name, Bool, Text, Text, func(a, b Datum) (Datum, error) { return like(form(a.s), form(b.s)) })
	}
	r.fn2("like_escape", Text, Text, Text, func(a, b Datum) (Datum, error) { return likeEscape(a.s, b.s) })
	for name, flags := range map[string]string{"~": "(?s)", "~*": "(?si)"} {
		for _, negated := range []bool{false, true} {
			f := &Func{Name: name, Params: []Type{Text, Text}, Result: Bool, Operator: true,
				F2: func(c *Context, a, b Datum) (Datum, error) {
					re, err := c.regexp(flags, b.s)
					if err != nil {
						return Null, err
					}
					return NewBool(re.MatchString(a.s) != negated), nil
				}}
			if negated {
				f.Name = "!" + name
			}
			r.add(f)
		}
	}
}

// maxRegexps bounds the compiled expressions that a context keeps; patterns that come from the data must not fill the memory.
const maxRegexps = 64

// regexp compiles a regular expression, or remembers it. The syntax is RE2's, which needs linear time whatever the expression; a
// dot matches a newline, ^ and $ the ends of the text alone, and \w and \s know the letters and spaces of all scripts, as in PostgreSQL.
func (c *Context) regexp(flags, pattern string) (*regexp.Regexp, error) {
	key := flags + pattern
	if re := c.regexps[key]; re != nil {
		return re, nil
	}
	re, err := regexp.Compile(flags + widen(pattern))
	if err != nil {
		message := err.Error()
		if e, ok := err.(*syntax.Error); ok {
			message = string(e.Code)
		}
		return nil, &EvalError{Code: "2201B", Message: "invalid regular expression: " + message}
	}
	if c.regexps == nil || len(c.regexps) >= maxRegexps {
		c.regexps = map[string]*regexp.Regexp{}
	}
	c.regexps[strings.Clone(key)] = re
	return re, nil
}

// wide are the escapes that are of ASCII in RE2, as what stands in brackets for all of Unicode. Which characters they are is not quite the same
// everywhere: here it is as in Materialize, for which a mark and any punctuation that connects are part of a word.
var wide = map[byte]string{
	'w': `\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}`,
	'W': `\p{C}\p{Cn}\p{No}\p{Pd}\p{Ps}\p{Pe}\p{Pi}\p{Pf}\p{Po}\p{S}\p{Z}`,
	's': `\t-\r\x{85}\p{Z}`,
	'S': `\x00-\x08\x0e-\x1f\x7f-\x{84}\x{86}-\x{9f}\p{Cf}\p{Co}\p{Cn}\p{L}\p{M}\p{N}\p{P}\p{S}`,
}

// widen rewrites the escapes of wide in a regular expression.
func widen(pattern string) string {
	var b strings.Builder
	brackets := 0 // where the innermost [ stands, plus one
	for i := 0; i < len(pattern); i++ {
		c, rest := pattern[i], pattern[i+1:]
		switch {
		case c == '\\' && strings.HasPrefix(rest, "Q") && brackets == 0: // \Q...\E is taken literally
			n := len(rest)
			if end := strings.Index(rest, `\E`); end >= 0 {
				n = end + 2
			}
			b.WriteString(pattern[i : i+1+n])
			i += n
			continue
		case c == '\\' && rest != "":
			i++
			if set := wide[rest[0]]; set == "" {
				b.WriteString(pattern[i-1 : i+1])
			} else if brackets > 0 {
				b.WriteString(set)
			} else {
				b.WriteString("[" + set + "]")
			}
			continue
		case c == '[' && brackets == 0:
			brackets = i + 1
		case c == '[' && strings.HasPrefix(rest, ":"): // a class by its name, which ends with a bracket of its own
			if end := strings.Index(rest, ":]"); end > 0 {
				b.WriteString(pattern[i : i+1+end+2])
				i += end + 2
				continue
			}
		case c == ']' && strings.TrimPrefix(pattern[brackets:i], "^") != "": // right behind the opening one it is one of the characters
			brackets = 0
		}
		b.WriteByte(c)
	}
	return b.String()
}

// likeEscape rewrites a LIKE pattern with an escape character of its own into one that escapes with a backslash.
func likeEscape(pattern, escape string) (Datum, error) {
	if utf8.RuneCountInString(escape) > 1 {
		return Null, &EvalError{Code: "22025", Message: "invalid escape string"}
	}
	if escape == `\` {
		return NewText(pattern), nil
	}
	var b strings.Builder
	escaped := false
	for _, c := range pattern {
		switch s := string(c); {
		case s == escape && !escaped:
			b.WriteByte('\\')
			escaped = true
			continue
		case c == '\\' && !escaped:
			b.WriteString(`\\`)
		default:
			b.WriteString(s)
		}
		escaped = false
	}
	return NewText(b.String()), nil
}

var errEscapeAtEnd = &EvalError{Code: "22025", Message: "LIKE pattern must not end with escape character"}

// like matches a LIKE pattern: % is any text, _ any character, \ takes the next one literally. It backtracks to the last % only,
// so its cost is at most the product of the lengths.
func like(s, pattern string) (Datum, error) {
	i, j := 0, 0
	star, mark := -1, 0
	for i < len(s) {
		if j < len(pattern) && pattern[j] == '%' {
			star, mark = j, i
			j++
			continue
		}
		if j < len(pattern) {
			_, size := utf8.DecodeRuneInString(s[i:])
			if pattern[j] == '_' {
				i, j = i+size, j+1
				continue
			}
			k := j
			if pattern[k] == '\\' {
				if k++; k == len(pattern) {
					return Null, errEscapeAtEnd
				}
			}
			if strings.HasPrefix(pattern[k:], s[i:i+size]) {
				i, j = i+size, k+size
				continue
			}
		}
		if star < 0 {
			return NewBool(false), nil
		}
		_, size := utf8.DecodeRuneInString(s[mark:])
		mark += size
		i, j = mark, star+1
	}
	return NewBool(strings.Trim(pattern[j:], "%") == ""), nil
}
