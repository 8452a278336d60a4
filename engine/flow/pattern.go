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
// dot matches a newline and ^ and $ the ends of the text alone, as in PostgreSQL.
func (c *Context) regexp(flags, pattern string) (*regexp.Regexp, error) {
	key := flags + pattern
	if re := c.regexps[key]; re != nil {
		return re, nil
	}
	re, err := regexp.Compile(key)
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
