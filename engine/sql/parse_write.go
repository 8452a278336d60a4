package sql

import (
	"slices"
	"strconv"
	"strings"
)

// maxParams is the largest number of a parameter: the protocol counts them in 16 bits.
const maxParams = 65535

func (p *parser) param() Expr {
	t := p.next()
	n, err := strconv.Atoi(t.text[1:])
	if err != nil || n < 1 || n > maxParams {
		p.fail(t.pos, "42P02", "there is no parameter %s", t.text)
	}
	p.params = max(p.params, n)
	return &Param{At(t.pos), n}
}

func (p *parser) createTable() Statement {
	s := &CreateTable{IfNotExists: p.eat("if", "not", "exists"), Name: p.name("a table")}
	if p.at("as") || p.at("from") || p.at("of") {
		p.nowhere(p.peek().pos, "CREATE TABLE "+strings.ToUpper(p.peek().text)+" is")
	}
	p.expect("(")
	for !p.at(")") {
		s.Columns = append(s.Columns, p.columnDef())
		if !p.eat(",") {
			break
		}
	}
	p.expect(")")
	if p.at("with") || p.at("partition") {
		p.unsupported(p.peek().pos, "this option of a table is")
	}
	return s
}

// constraints are what tables cannot promise.
var constraints = []string{"primary", "unique", "check", "references", "foreign", "constraint", "exclude", "generated", "collate"}

func (p *parser) columnDef() ColumnDef {
	p.constraint(1)
	c := ColumnDef{At: At(p.peek().pos), Name: p.ident("a column"), Type: p.typeName()}
	for {
		p.constraint(0)
		switch {
		case p.eat("not", "null"):
			c.NotNull = true
		case p.eat("null"):
		case c.Default == nil && p.eat("default"):
			c.Default = p.expr()
		default:
			return c
		}
	}
}

// constraint refuses a constraint; one that may be a column of that name is told by the words behind it.
func (p *parser) constraint(words int) {
	t := p.peek()
	if t.kind != word || !slices.Contains(constraints, t.text) {
		return
	}
	if next := p.ahead(1); words > 0 && !next.is("(") && !next.is("key") && !(t.text == "constraint" && p.ahead(2).kind == word) {
		return
	}
	what := "constraint " + strings.ToUpper(t.text)
	if t.text == "constraint" {
		what = "CONSTRAINT"
	}
	if p.ahead(1).is("key") {
		what += " KEY"
	}
	panic(&Error{
		Pos: t.pos, Code: "0A000", Message: what + " is not supported: a table has NOT NULL and DEFAULT",
		Hint: "Say what rows count in a view, with SELECT DISTINCT ON or GROUP BY for one.",
	})
}

// columns reads a list of columns to write to, if there is one.
func (p *parser) columns() []Ref {
	if !p.eat("(") {
		return nil
	}
	var list []Ref
	for {
		list = append(list, Ref{At(p.peek().pos), p.ident("a column")})
		if !p.eat(",") {
			break
		}
	}
	p.expect(")")
	return list
}

func (p *parser) insert(pos int) Statement {
	p.expect("into")
	s := &Insert{At: At(pos), Table: p.name("a table")}
	if p.at("(") && !p.ahead(1).is("select") && !p.ahead(1).is("with") && !p.ahead(1).is("values") && !p.ahead(1).is("(") {
		s.Columns = p.columns()
	}
	switch {
	case p.eat("default", "values"):
	case p.at("values"):
		s.Query = p.insertValues()
	case p.atQuery():
		s.Query = p.query()
	default:
		p.expected("VALUES, SELECT or DEFAULT VALUES")
	}
	if p.at("on") {
		p.nowhere(p.peek().pos, "ON CONFLICT is")
	}
	p.returning()
	return s
}

// nowhere refuses what PostgreSQL has and neither Materialize nor the engine.
func (p *parser) nowhere(pos int, what string) { p.fail(pos, "0A000", "%s not supported", what) }

func (p *parser) returning() {
	if p.at("returning") {
		p.unsupported(p.peek().pos, "RETURNING is")
	}
}

// insertValues reads VALUES in which a value may be DEFAULT.
func (p *parser) insertValues() *Query {
	at := At(p.next().pos)
	v := &Values{At: at}
	for {
		p.expect("(")
		row := []Expr{p.value()}
		for p.eat(",") {
			row = append(row, p.value())
		}
		p.expect(")")
		v.Rows = append(v.Rows, row)
		if !p.eat(",") {
			return &Query{At: at, Body: v}
		}
	}
}

func (p *parser) value() Expr {
	if t := p.peek(); p.eat("default") {
		return &Default{At(t.pos)}
	}
	return p.expr()
}

// target reads the table of an UPDATE or DELETE, with its alias.
func (p *parser) target() (Name, string) {
	name := p.name("a table")
	p.eat("*")
	if p.eat("as") {
		return name, p.ident("an alias")
	}
	if t := p.peek(); t.kind == quoted || t.kind == word && !reserved[t.text] && t.text != "set" {
		return name, p.ident("an alias")
	}
	return name, ""
}

func (p *parser) update(pos int) Statement {
	s := &Update{At: At(pos)}
	s.Table, s.Alias = p.target()
	p.expect("set")
	for {
		if p.at("(") {
			p.nowhere(p.peek().pos, "SET of several columns at once is")
		}
		a := Assignment{Column: Ref{At(p.peek().pos), p.ident("a column")}}
		p.expect("=")
		a.Value = p.value()
		if s.Set = append(s.Set, a); !p.eat(",") {
			break
		}
	}
	if p.at("from") {
		p.nowhere(p.peek().pos, "UPDATE ... FROM is")
	}
	s.Where = p.condition()
	return s
}

func (p *parser) delete(pos int) Statement {
	p.expect("from")
	s := &Delete{At: At(pos)}
	s.Table, s.Alias = p.target()
	if p.at("using") {
		p.unsupported(p.peek().pos, "DELETE ... USING is")
	}
	s.Where = p.condition()
	return s
}

func (p *parser) condition() (e Expr) {
	if p.eat("where") {
		e = p.expr()
	}
	p.returning()
	return e
}

func (p *parser) copyFrom(pos int) Statement {
	s := &CopyFrom{At: At(pos), Table: p.name("a table"), Columns: p.columns(), Format: "text"}
	if p.at("to") {
		p.fail(p.peek().pos, "0A000", "COPY TO takes a query: COPY (SELECT * FROM %s) TO STDOUT", s.Table)
	}
	p.expect("from")
	if !p.eat("stdin") {
		p.nowhere(p.peek().pos, "COPY FROM anything but STDIN is")
	}
	with := p.eat("with")
	if p.eat("(") {
		for {
			p.copyOption(s, true)
			if !p.eat(",") {
				break
			}
		}
		p.expect(")")
	} else {
		for t := p.peek(); t.kind == word; t = p.peek() {
			p.copyOption(s, false)
			with = false
		}
		if with {
			p.expected("an option")
		}
	}
	if p.at("where") {
		p.nowhere(p.peek().pos, "COPY ... WHERE is")
	}
	s.check(p)
	return s
}

// copyOption reads an option of the list in parentheses, or one in the words of old.
func (p *parser) copyOption(s *CopyFrom, listed bool) {
	t := p.peek()
	name := p.label("an option")
	text := func() string {
		if !listed {
			p.eat("as")
		}
		return p.string("a string in quotes")
	}
	switch {
	case listed && name == "format":
		if s.Format = p.eatAny("text", "csv", "binary"); s.Format == "" {
			p.expected("TEXT, CSV or BINARY")
		}
	case !listed && (name == "csv" || name == "binary"):
		s.Format = name
	case name == "delimiter", name == "delimiters":
		s.Delimiter = text()
	case name == "quote":
		s.Quote = text()
	case name == "escape":
		s.Escape = text()
	case name == "null":
		null := text()
		s.Null = &null
	case name == "header":
		s.Header = true
		if v := p.eatAny("true", "on", "1", "false", "off", "0", "match"); listed && v != "" {
			if v == "match" {
				p.nowhere(t.pos, "HEADER MATCH is")
			}
			s.Header = v == "true" || v == "on" || v == "1"
		}
	case listed && name == "encoding":
		if e := text(); !strings.EqualFold(e, "utf8") && !strings.EqualFold(e, "utf-8") {
			p.fail(t.pos, "0A000", "encoding %s is not supported: it is UTF8", Quote(e))
		}
	default:
		p.fail(t.pos, "42601", "unknown option %s of COPY: it has FORMAT, DELIMITER, NULL, HEADER, QUOTE and ESCAPE", Ident(name))
	}
}

// check holds the options against each other, as PostgreSQL does.
func (s *CopyFrom) check(p *parser) {
	fail := func(format string, args ...any) { p.fail(s.Pos(), "22023", format, args...) }
	if s.Format == "binary" && (s.Delimiter != "" || s.Null != nil || s.Header) {
		fail("DELIMITER, NULL and HEADER mean nothing in binary format")
	}
	if s.Format != "csv" && (s.Quote != "" || s.Escape != "") {
		fail("QUOTE and ESCAPE are for CSV format")
	}
	for _, x := range []struct{ name, value string }{{"delimiter", s.Delimiter}, {"quote", s.Quote}, {"escape", s.Escape}} {
		if len(x.value) > 1 || x.value == "\n" || x.value == "\r" {
			fail("COPY %s must be a single one-byte character, and no end of a line", x.name)
		}
	}
	if s.Format == "text" && s.Delimiter != "" && strings.ContainsAny(s.Delimiter, `\.abcdefghijklmnopqrstuvwxyz0123456789`) {
		fail("COPY delimiter cannot be %s", Quote(s.Delimiter))
	}
	if s.Format == "csv" && s.Delimiter != "" && s.Delimiter == s.Quote {
		fail("COPY delimiter and quote must be different")
	}
	if s.Null != nil && (strings.ContainsAny(*s.Null, "\r\n") || s.Delimiter != "" && strings.Contains(*s.Null, s.Delimiter)) {
		fail("COPY null representation cannot contain the delimiter or the end of a line")
	}
}
