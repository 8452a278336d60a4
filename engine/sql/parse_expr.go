package sql

import (
	"strings"
)

// The binding powers of PostgreSQL, loosest first.
const (
	_ = iota
	bindOr
	bindAnd
	bindNot
	bindIs
	bindCompare
	bindIn
	bindOther
	bindAdd
	bindMul
	bindUnary
	bindCast
)

var binary = map[string]int{
	"=": bindCompare, "<>": bindCompare, "!=": bindCompare, "<": bindCompare, "<=": bindCompare, ">": bindCompare, ">=": bindCompare,
	"->": bindOther, "->>": bindOther, "#>": bindOther, "#>>": bindOther, "@>": bindOther, "<@": bindOther, "?": bindOther, "||": bindOther,
	"~": bindOther, "~*": bindOther, "!~": bindOther, "!~*": bindOther, "~~": bindOther, "~~*": bindOther, "+": bindAdd, "-": bindAdd, "*": bindMul, "/": bindMul, "%": bindMul,
}

func (p *parser) expr() Expr { return p.binding(bindOr) }

func (p *parser) exprs() []Expr {
	list := []Expr{p.expr()}
	for p.eat(",") {
		list = append(list, p.expr())
	}
	return list
}

// binding parses an expression whose operators bind at least as tightly as min.
func (p *parser) binding(min int) Expr {
	p.enter()
	defer p.leave()
	e := p.prefix()
	for {
		next := p.infix(e, min)
		if next == nil {
			return e
		}
		p.link()
		e = next
	}
}

func (p *parser) prefix() Expr {
	t := p.peek()
	at := At(t.pos)
	switch {
	case p.eat("not"):
		return &Unary{at, "NOT", p.binding(bindNot)}
	case p.eat("-"):
		return &Unary{at, "-", p.binding(bindUnary)}
	case p.eat("+"):
		return &Unary{at, "+", p.binding(bindUnary)}
	}
	return p.primary()
}

// infix parses what follows an expression, or returns nil if nothing does that binds tightly enough.
func (p *parser) infix(l Expr, min int) Expr {
	t := p.peek()
	at := At(t.pos)
	if t.kind == op {
		if t.text == "::" && min <= bindCast {
			p.i++
			return &Cast{at, l, p.typeName()}
		}
		bind := binary[t.text]
		if bind == 0 || bind < min {
			return nil
		}
		p.i++
		name := t.text
		if name == "!=" {
			name = "<>"
		}
		if p.at("any", "(") || p.at("some", "(") || p.at("all", "(") {
			return p.quantified(l, at, name)
		}
		return &Binary{at, name, l, p.binding(bind + 1)}
	}
	if t.kind != word {
		return nil
	}
	switch {
	case p.at("or") && min <= bindOr:
		p.i++
		return &Binary{at, "OR", l, p.binding(bindOr + 1)}
	case p.at("and") && min <= bindAnd:
		p.i++
		return &Binary{at, "AND", l, p.binding(bindAnd + 1)}
	case p.at("is") && min <= bindIs:
		p.i++
		return p.is(l, at)
	case p.at("isnull") && min <= bindIs:
		p.i++
		return &Is{at, l, "null", false}
	case p.at("notnull") && min <= bindIs:
		p.i++
		return &Is{at, l, "null", true}
	case min > bindIn:
		return nil
	}
	if p.at("not") {
		if next := p.ahead(1); !next.is("in") && !next.is("between") && !next.is("like") && !next.is("ilike") {
			return nil
		}
	}
	negated := p.eat("not")
	switch word := p.eatAny("in", "between", "like", "ilike"); word {
	case "in":
		return p.in(l, at, negated)
	case "between":
		p.eat("asymmetric")
		low := p.binding(bindOther)
		p.expect("and")
		return &Between{at, l, low, p.binding(bindOther), negated}
	case "like", "ilike":
		pattern := p.binding(bindOther)
		if escape := p.peek(); p.eat("escape") {
			pattern = &Call{At: At(escape.pos), Name: "like_escape", Args: []Expr{pattern, p.binding(bindOther)}}
		}
		var e Expr = &Binary{at, strings.ToUpper(word), l, pattern}
		if negated {
			e = &Unary{at, "NOT", e}
		}
		return e
	}
	return nil
}

func (p *parser) is(l Expr, at At) Expr {
	negated := p.eat("not")
	if p.eat("distinct") {
		p.expect("from")
		return &DistinctFrom{at, l, p.binding(bindIs + 1), negated}
	}
	what := p.eatAny("null", "true", "false", "unknown")
	if what == "" {
		p.expected("NULL, TRUE, FALSE, UNKNOWN or DISTINCT FROM")
	}
	return &Is{at, l, what, negated}
}

func (p *parser) in(l Expr, at At, negated bool) Expr {
	query := p.beginsQuery()
	p.expect("(")
	if query {
		q := p.query()
		p.expect(")")
		return &InQuery{at, l, q, negated}
	}
	list := p.exprs()
	p.expect(")")
	return &In{at, l, list, negated}
}

// quantified parses = ANY (query) and <> ALL (query), which are IN and NOT IN.
func (p *parser) quantified(l Expr, at At, operator string) Expr {
	t := p.next()
	if p.beginsQuery() {
		if operator == "=" && t.text != "all" || operator == "<>" && t.text == "all" {
			return p.in(l, at, operator == "<>")
		}
	}
	p.unsupported(t.pos, "ANY, SOME and ALL with anything but = ANY (query) and <> ALL (query) are")
	return nil
}

func (p *parser) primary() Expr {
	t := p.peek()
	at := At(t.pos)
	switch t.kind {
	case number:
		p.i++
		return &Literal{at, Number, t.text}
	case str:
		p.i++
		return &Literal{at, String, t.text}
	case param:
		return p.param()
	case quoted:
		return p.column()
	case op:
		if t.text == "(" {
			return p.parenthesis()
		}
		if t.text == "*" {
			p.i++
			return &Star{At: at}
		}
	case word:
		return p.word()
	}
	p.refuse(t)
	p.expected("an expression")
	return nil
}

func (p *parser) parenthesis() Expr {
	at := At(p.peek().pos)
	query := p.beginsQuery()
	p.expect("(")
	if query {
		q := p.query()
		p.expect(")")
		return &Subquery{at, q}
	}
	e := p.expr()
	if p.at(",") {
		p.unsupported(p.peek().pos, "row values are")
	}
	p.expect(")")
	return e
}

func (p *parser) word() Expr {
	t := p.peek()
	at := At(t.pos)
	switch t.text {
	case "true", "false":
		p.i++
		return &Literal{at, Bool, t.text}
	case "null":
		p.i++
		return &Literal{at, Null, t.text}
	case "case":
		return p.caseExpr()
	case "cast":
		p.i++
		p.expect("(")
		e := p.expr()
		p.expect("as")
		typ := p.typeName()
		p.expect(")")
		return &Cast{at, e, typ}
	case "exists":
		p.i++
		p.expect("(")
		q := p.query()
		p.expect(")")
		return &Exists{at, q}
	case "array":
		if p.ahead(1).is("[") || p.ahead(1).is("(") {
			p.unsupported(t.pos, "ARRAY is")
		}
	}
	switch {
	case p.ahead(1).is("(") && (!reserved[t.text] || t.text == "left" || t.text == "right"):
		return p.call()
	case valueFunctions[t.text]:
		if p.i++; p.at("(") {
			p.unsupported(p.peek().pos, "a precision of "+t.text+" is")
		}
		return &Call{At: at, Name: t.text}
	case p.atTypedLiteral():
		return p.typedLiteral()
	}
	if reserved[t.text] {
		p.refuse(t)
		p.expected("an expression")
	}
	return p.column()
}

// atTypedLiteral tells whether the name of a type and a string come next, as in DATE '2024-01-02'.
func (p *parser) atTypedLiteral() bool {
	switch {
	case reserved[p.peek().text]:
		return false
	case p.at("double", "precision"):
		return p.ahead(2).kind == str
	case p.at("timestamp", "with", "time", "zone"), p.at("timestamp", "without", "time", "zone"), p.at("time", "with", "time", "zone"),
		p.at("time", "without", "time", "zone"):
		return p.ahead(4).kind == str
	}
	return p.ahead(1).kind == str
}

// typedLiteral parses a type and a string, which is a cast of the string.
func (p *parser) typedLiteral() Expr {
	typ := p.typeWords()
	s := p.next()
	if typ.Name == "interval" {
		typ.Field = p.intervalField()
	}
	return &Cast{typ.At, &Literal{At(s.pos), String, s.text}, typ}
}

func (p *parser) column() Expr {
	c := &Column{At: At(p.peek().pos), Parts: []string{p.ident("a column")}}
	for p.eat(".") {
		if p.at("*") && len(c.Parts) == 1 {
			p.i++
			return &Star{c.At, c.Parts[0]}
		}
		if c.Parts = append(c.Parts, p.label("a column")); len(c.Parts) > 4 {
			p.fail(c.Pos(), "42601", "name with more than four parts")
		}
	}
	if p.at("(") && len(c.Parts) > 1 {
		p.unsupported(c.Pos(), "a qualified function is")
	}
	return c
}

func (p *parser) caseExpr() Expr {
	c := &Case{At: At(p.next().pos)}
	if !p.at("when") {
		c.Operand = p.expr()
	}
	for p.eat("when") {
		cond := p.expr()
		p.expect("then")
		c.When = append(c.When, When{cond, p.expr()})
	}
	if c.When == nil {
		p.expected("WHEN")
	}
	if p.eat("else") {
		c.Else = p.expr()
	}
	p.expect("end")
	return c
}

// call parses a function; some have a grammar of their own and become ordinary calls.
func (p *parser) call() Expr {
	t := p.next()
	c := &Call{At: At(t.pos), Name: t.text}
	p.expect("(")
	switch {
	case c.Name == "substring":
		p.substring(c)
	case c.Name == "trim":
		p.trim(c)
	case c.Name == "position":
		needle := p.binding(bindOther)
		p.expect("in")
		c.Name, c.Args = "strpos", []Expr{p.expr(), needle}
	case c.Name == "extract" && (p.ahead(1).is("from")):
		p.extract(c)
	case p.at(")"):
	default:
		c.Distinct = p.eat("distinct")
		if !c.Distinct {
			p.eat("all")
		}
		c.Args = p.exprs()
		if p.eat("order", "by") {
			c.OrderBy = p.orderBy()
		}
	}
	p.expect(")")
	if p.at("within", "group") {
		panic(Refused(p.peek().pos, "WITHIN GROUP is"))
	}
	if p.eat("filter") {
		p.expect("(", "where")
		c.Filter = p.expr()
		p.expect(")")
	}
	if p.at("over") {
		p.unsupported(p.peek().pos, "window functions are")
	}
	return c
}

// extract parses extract(field FROM x); the field is a word or a string.
func (p *parser) extract(c *Call) {
	t := p.peek()
	field := &Literal{At(t.pos), String, t.text}
	if t.kind == str {
		p.i++
	} else {
		field.Text = p.label("a field")
	}
	p.expect("from")
	c.Args = []Expr{field, p.expr()}
}

// substring parses substring(s, from, for) and substring(s FROM i FOR n).
func (p *parser) substring(c *Call) {
	c.Args = []Expr{p.expr()}
	from, count := p.eat("from"), false
	if !from {
		count = p.eat("for")
	}
	switch {
	case from:
		c.Args = append(c.Args, p.expr())
		if p.eat("for") {
			c.Args = append(c.Args, p.expr())
		}
	case count:
		c.Args = append(c.Args, &Literal{c.At, Number, "1"}, p.expr())
	default:
		for p.eat(",") {
			c.Args = append(c.Args, p.expr())
		}
	}
}

// trim parses trim([LEADING | TRAILING | BOTH] [chars] FROM s) and trim(s, chars).
func (p *parser) trim(c *Call) {
	side := p.eatAny("leading", "trailing", "both")
	c.Name = map[string]string{"": "btrim", "both": "btrim", "leading": "ltrim", "trailing": "rtrim"}[side]
	if p.eat("from") {
		c.Args = []Expr{p.expr()}
		return
	}
	c.Args = p.exprs()
	if p.eat("from") {
		c.Args = append([]Expr{p.expr()}, c.Args...)
	}
}

// typeName reads a type with its modifiers.
func (p *parser) typeName() TypeName {
	typ := p.typeWords()
	if p.eat("(") {
		for {
			negative := p.eat("-")
			n := p.number("a type modifier")
			if negative {
				n = -n
			}
			if typ.Mods = append(typ.Mods, n); !p.eat(",") {
				break
			}
		}
		p.expect(")")
		if typ.Name == "timestamp" || typ.Name == "time" {
			p.timeZone(&typ)
		}
	}
	if typ.Name == "interval" {
		typ.Field = p.intervalField()
	}
	if p.at("[", "]") {
		p.i += 2
		typ.Array = true
	}
	if p.at("[") {
		p.unsupported(p.peek().pos, "array subscripts and bounds are")
	}
	return typ
}

// typeWords reads the name of a type, which may be several words.
func (p *parser) typeWords() TypeName {
	t := p.peek()
	typ := TypeName{At: At(t.pos), Name: p.label("a type")}
	switch typ.Name {
	case "double":
		p.expect("precision")
		typ.Name = "double precision"
	case "character", "char":
		if p.eat("varying") {
			typ.Name = "varchar"
		}
	case "timestamp", "time":
		p.timeZone(&typ)
	}
	return typ
}

func (p *parser) timeZone(typ *TypeName) {
	if with := p.eatAny("with", "without"); with != "" {
		p.expect("time", "zone")
		if with == "with" {
			typ.Name += "tz"
		}
	}
}

// intervalField reads what may restrict an interval to some of its fields.
func (p *parser) intervalField() string {
	field := p.eatAny("year", "month", "day", "hour", "minute", "second")
	if field != "" && p.at("to") {
		p.unsupported(p.peek().pos, "an interval from one field to another is")
	}
	return field
}
