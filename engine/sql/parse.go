package sql

import (
	"strconv"
	"strings"
)

// The bounds of a statement. They are far above what anybody writes by hand and far below what would hurt.
const (
	MaxBytes = 1 << 20 // of the text
	maxDepth = 200     // of nesting
	maxChain = 5000    // of operators, joins and set operations, which make a tree as deep
)

// Parsed is a statement with its place in the text.
type Parsed struct {
	Statement Statement
	Pos, End  int
	Params    int // the largest number of a parameter; 0: it has none
}

// Parse splits a text into statements at semicolons and parses them all. A text of nothing is one [Empty]. The error is an
// [*Error].
func Parse(text string) ([]Parsed, error) {
	if len(text) > MaxBytes {
		return nil, Errorf(0, "54000", "statement longer than %d bytes", MaxBytes)
	}
	tokens, err := lex(text)
	if err != nil {
		return nil, err
	}
	p := &parser{tokens: tokens}
	var out []Parsed
	for {
		for p.eat(";") {
		}
		if p.peek().kind == eof {
			break
		}
		start := p.peek().pos
		p.params = 0
		s, err := p.parse()
		if err != nil {
			return nil, err
		}
		out = append(out, Parsed{s, start, p.tokens[p.i-1].end, p.params})
	}
	if out == nil {
		out = []Parsed{{Statement: &Empty{}}}
	}
	return out, nil
}

// parser walks over tokens. Its methods panic with an *Error, which parse recovers: so the grammar reads as a grammar.
type parser struct {
	tokens []token
	i      int
	depth  int
	chain  int
	params int // the largest number of a parameter
}

func (p *parser) parse() (s Statement, err error) {
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(*Error)
			if !ok {
				panic(r)
			}
			err = e
		}
	}()
	s = p.statement()
	if t := p.peek(); t.kind != eof && !t.is(";") {
		p.refuse(t)
		p.expected("end of statement")
	}
	return s, nil
}

func (p *parser) peek() token { return p.tokens[p.i] }

func (p *parser) ahead(n int) token { return p.tokens[min(p.i+n, len(p.tokens)-1)] }

func (p *parser) next() token {
	t := p.tokens[p.i]
	if t.kind != eof {
		p.i++
	}
	return t
}

// at tells whether these keywords or operators come next.
func (p *parser) at(list ...string) bool {
	for i, w := range list {
		if !p.ahead(i).is(w) {
			return false
		}
	}
	return true
}

// eat skips these keywords or operators if they come next.
func (p *parser) eat(list ...string) bool {
	if !p.at(list...) {
		return false
	}
	p.i += len(list)
	return true
}

// eatAny skips the next word if it is one of these, and returns it.
func (p *parser) eatAny(list ...string) string {
	for _, w := range list {
		if p.eat(w) {
			return w
		}
	}
	return ""
}

func (p *parser) expect(list ...string) {
	for _, w := range list {
		if !p.eat(w) {
			p.expected(strings.ToUpper(w))
		}
	}
}

func (p *parser) fail(pos int, code, format string, args ...any) {
	panic(Errorf(pos, code, format, args...))
}

func (p *parser) expected(what string) {
	t := p.peek()
	p.fail(t.pos, "42601", "expected %s, found %s", what, t.describe())
}

func (p *parser) unsupported(pos int, what string) { panic(Unsupported(pos, what)) }

// enter guards a recursion.
func (p *parser) enter() {
	if p.depth++; p.depth > maxDepth {
		p.fail(p.peek().pos, "54001", "statement nested deeper than %d", maxDepth)
	}
}

func (p *parser) leave() { p.depth-- }

// link guards a loop that makes the tree deeper.
func (p *parser) link() {
	if p.chain++; p.chain > maxChain {
		p.fail(p.peek().pos, "54001", "statement with more than %d operators", maxChain)
	}
}

// refused are the words that begin what Materialize has and the embedded engine has not, where an expression or clause may end.
var refused = map[string]string{
	"over": "window functions are", "window": "window functions are", "natural": "NATURAL JOIN is",
	"fetch": "FETCH FIRST is", "for": "FOR UPDATE is", "within": "WITHIN TIMESTAMP ORDER BY is",
	"envelope": "ENVELOPE is", "at": "AT TIME ZONE is",
}

// nowhere are those that Materialize has not either.
var nowhere = map[string]string{"collate": "COLLATE is", "similar": "SIMILAR TO is"}

// refuse gives a better error than "expected ..." for the token that parsing stopped at.
func (p *parser) refuse(t token) {
	if what, ok := refused[t.text]; ok && t.kind == word {
		p.unsupported(t.pos, what)
	}
	if t.is("[") {
		p.unsupported(t.pos, "array subscripts are")
	}
	if t.kind == op && strings.Contains("& | #", t.text) {
		p.unsupported(t.pos, "operator "+t.text+" is")
	}
	if t.kind == op && strings.Contains("?| ?& ^", t.text) {
		panic(Refused(t.pos, "operator "+t.text+" is"))
	}
	if what, ok := nowhere[t.text]; ok && t.kind == word {
		panic(Refused(t.pos, what))
	}
}

// ident reads a name that need not be quoted unless it is reserved.
func (p *parser) ident(what string) string {
	t := p.peek()
	if t.kind == quoted || t.kind == word && !reserved[t.text] {
		p.i++
		return t.text
	}
	p.expected(what)
	return ""
}

// label reads a name after AS or a dot, where even reserved words are meant as names.
func (p *parser) label(what string) string {
	if t := p.peek(); t.kind == quoted || t.kind == word {
		p.i++
		return t.text
	}
	p.expected(what)
	return ""
}

func (p *parser) name(what string) Name {
	n := Name{At: At(p.peek().pos), Parts: []string{p.ident(what)}}
	for p.eat(".") {
		if n.Parts = append(n.Parts, p.label(what)); len(n.Parts) > 3 {
			p.fail(n.Pos(), "42601", "name with more than three parts")
		}
	}
	return n
}

func (p *parser) names(what string) []string {
	p.expect("(")
	list := []string{p.ident(what)}
	for p.eat(",") {
		list = append(list, p.ident(what))
	}
	p.expect(")")
	return list
}

func (p *parser) string(what string) string {
	t := p.peek()
	if t.kind != str {
		p.expected(what)
	}
	p.i++
	return t.text
}

func (p *parser) number(what string) int64 {
	t := p.peek()
	n, err := strconv.ParseInt(t.text, 10, 64)
	if t.kind != number || err != nil {
		p.expected(what)
	}
	p.i++
	return n
}
