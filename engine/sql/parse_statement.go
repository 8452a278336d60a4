package sql

import (
	"slices"
	"strings"
)

// unsupportedStatements are the statements of Materialize that the engine knows by name only.
var unsupportedStatements = []string{"alter", "comment", "execute", "grant", "prepare", "revoke", "table", "validate"}

// nowhereStatements are those of PostgreSQL that Materialize has not either.
var nowhereStatements = []string{
	"analyze", "call", "checkpoint", "cluster", "do", "listen", "load", "lock", "merge", "notify", "refresh", "reindex", "release",
	"savepoint", "truncate", "unlisten", "vacuum",
}

// unsupportedObjects are what Materialize creates and drops, and the engine does not.
var unsupportedObjects = []string{
	"cluster", "connection", "database", "index", "network", "role", "schema", "secret", "sink", "temp", "temporary", "type",
}

func (p *parser) statement() Statement {
	p.depth, p.chain = 0, 0
	t := p.peek()
	switch {
	case p.atQuery():
		return p.query()
	case p.eat("create"):
		return p.create(t.pos)
	case p.eat("drop"):
		return p.drop()
	case p.at("tail"), p.at("subscribe"):
		return p.subscribe()
	case p.eat("insert"):
		return p.insert(t.pos)
	case p.eat("update"):
		return p.update(t.pos)
	case p.eat("delete"):
		return p.delete(t.pos)
	case p.eat("copy"):
		if p.at("(") {
			return p.copy()
		}
		return p.copyFrom(t.pos)
	case p.eat("show"):
		return p.show()
	case p.eat("set"):
		return p.set()
	case p.eat("reset"):
		return &Set{Name: p.parameter(), Reset: true}
	case p.eat("begin"), p.eat("start", "transaction"):
		p.eatAny("work", "transaction")
		return &Transaction{Verb: "BEGIN", ReadOnly: p.modes()}
	case p.eat("commit"), p.eat("end"):
		p.eatAny("work", "transaction")
		return &Transaction{Verb: "COMMIT"}
	case p.eat("rollback"), p.eat("abort"):
		p.eatAny("work", "transaction")
		return &Transaction{Verb: "ROLLBACK"}
	case p.eat("discard"):
		p.expect("all")
		return &Discard{}
	case p.eat("deallocate"):
		p.eat("prepare")
		return &Discard{Deallocate: p.label("a name")}
	case p.eat("declare"):
		return p.declare()
	case p.eat("fetch"):
		return p.fetch(t.pos)
	case p.eat("close"):
		c := &CloseCursor{At: At(t.pos)}
		if !p.eat("all") {
			c.Cursor = p.ident("a cursor")
		}
		return c
	case p.eat("explain"):
		return p.explain()
	}
	switch what := strings.ToUpper(t.text) + " is"; {
	case t.kind == word && slices.Contains(unsupportedStatements, t.text):
		p.unsupported(t.pos, what)
	case t.kind == word && slices.Contains(nowhereStatements, t.text):
		p.nowhere(t.pos, what)
	}
	p.expected("a statement")
	return nil
}

// modes reads the modes of a transaction: any isolation level is what all have.
func (p *parser) modes() (readOnly bool) {
	for {
		switch {
		case p.eat("isolation", "level"):
			if !p.eat("read", "committed") && !p.eat("read", "uncommitted") && !p.eat("repeatable", "read") && !p.eat("strict", "serializable") {
				p.expect("serializable")
			}
		case p.eat("read", "only"):
			readOnly = true
		case p.eat("read", "write"):
			readOnly = false
		case p.eat("deferrable"), p.eat("not", "deferrable"):
		default:
			return readOnly
		}
		p.eat(",")
	}
}

func (p *parser) create(pos int) Statement {
	replace := p.eat("or", "replace")
	materialized := p.eat("materialized")
	switch {
	case p.eat("source"):
		if replace {
			p.fail(pos, "42601", "a source cannot be created OR REPLACE")
		}
		return p.createSource(materialized)
	case p.eat("view"):
		return p.createView(replace, materialized)
	case !replace && !materialized && p.eat("table"):
		return p.createTable()
	}
	switch {
	case replace:
		p.expected("VIEW or MATERIALIZED VIEW")
	case materialized:
		p.expected("VIEW or SOURCE")
	}
	p.refuseObject("CREATE")
	p.expected("SOURCE, TABLE or VIEW")
	return nil
}

// refuseObject gives a better error than "expected ..." for what only Materialize can do the verb to.
func (p *parser) refuseObject(verb string) {
	if t := p.peek(); t.kind == word && slices.Contains(unsupportedObjects, t.text) {
		p.unsupported(t.pos, verb+" "+strings.ToUpper(t.text)+" is")
	}
}

func (p *parser) createSource(materialized bool) Statement {
	s := &CreateSource{Materialized: materialized, IfNotExists: p.eat("if", "not", "exists"), Name: p.name("a source")}
	p.expect("from")
	if t := p.peek(); !p.eat("file") {
		if t.kind == word {
			p.unsupported(t.pos, "a source FROM "+strings.ToUpper(t.text)+" is")
		}
		p.expected("FILE")
	}
	s.Path = p.string("a path in quotes")
	if p.at("compression") {
		p.unsupported(p.peek().pos, "COMPRESSION is")
	}
	if p.eat("with") {
		p.expect("(")
		for {
			t := p.peek()
			switch option := p.label("an option"); option {
			case "tail":
				s.Tail = p.boolean()
			case "timestamp_frequency_ms": // accepted for the statements of 2020; a tick has a frequency of its own
				p.expect("=")
				p.number("a number")
			default:
				p.fail(t.pos, "42601", "unknown option %s of a FILE source: it has tail", Ident(option))
			}
			if !p.eat(",") {
				break
			}
		}
		p.expect(")")
	}
	p.expect("format")
	switch t := p.peek(); {
	case p.eat("text"), p.eat("json"):
		s.Format = t.text
	case p.eat("regex"):
		s.Format, s.Regex = "regex", p.string("a regular expression in quotes")
	case t.kind == word:
		p.unsupported(t.pos, "FORMAT "+strings.ToUpper(t.text)+" is")
	default:
		p.expected("TEXT, REGEX or JSON")
	}
	return s
}

// boolean parses the value of an option: nothing or = true, = false.
func (p *parser) boolean() bool {
	if !p.eat("=") {
		return true
	}
	t := p.next()
	switch strings.ToLower(t.text) {
	case "true", "on", "1":
		return true
	case "false", "off", "0":
		return false
	}
	p.fail(t.pos, "42601", "expected true or false, found %s", t.describe())
	return false
}

func (p *parser) createView(replace, materialized bool) Statement {
	s := &CreateView{OrReplace: replace, Materialized: materialized, IfNotExists: p.eat("if", "not", "exists")}
	if s.Name = p.name("a view"); p.at("(") {
		s.Columns = p.names("a column")
	}
	if p.at("in", "cluster") || p.at("with") {
		p.unsupported(p.peek().pos, "this option of a view is")
	}
	p.expect("as")
	if !p.atQuery() {
		p.expected("SELECT")
	}
	s.Query = p.query()
	return s
}

func (p *parser) drop() Statement {
	s := &Drop{Materialized: p.eat("materialized")}
	if s.Kind = p.eatAny("view", "source", "table"); s.Kind == "" || s.Materialized && s.Kind == "table" {
		if !s.Materialized {
			p.refuseObject("DROP")
		}
		p.expected("VIEW, SOURCE or TABLE")
	}
	s.IfExists = p.eat("if", "exists")
	s.Names = []Name{p.name("a " + s.Kind)}
	for p.eat(",") {
		s.Names = append(s.Names, p.name("a "+s.Kind))
	}
	s.Cascade = p.eatAny("cascade", "restrict") == "cascade"
	return s
}

func (p *parser) copy() Statement {
	p.expect("(")
	s := &Copy{Format: "text"}
	switch {
	case p.at("tail"), p.at("subscribe"):
		s.Of = p.subscribe()
	case p.atQuery():
		s.Of = p.query()
	default:
		p.expected("SELECT, TAIL or SUBSCRIBE")
	}
	p.expect(")", "to", "stdout")
	p.eat("with")
	const other = "an option of COPY TO beside FORMAT is"
	if format := p.eatAny("csv", "binary"); format != "" { // as it was written before there were parentheses
		s.Format = format
		if p.peek().kind == word {
			p.nowhere(p.peek().pos, other)
		}
	} else if p.eat("(") {
		p.expect("format")
		p.eat("=")
		if s.Format = p.eatAny("text", "csv", "binary"); s.Format == "" {
			p.expected("TEXT, CSV or BINARY")
		}
		if p.at(",") {
			p.nowhere(p.peek().pos, other)
		}
		p.expect(")")
	}
	return s
}

// parameter reads the name of a session parameter, some of which are written in several words.
func (p *parser) parameter() string {
	switch {
	case p.eat("transaction", "isolation", "level"):
		return "transaction_isolation"
	case p.eat("time", "zone"):
		return "timezone"
	case p.eat("all"):
		return "all"
	}
	name := p.label("a parameter")
	for p.eat(".") {
		name += "." + p.label("a parameter")
	}
	return strings.ToLower(name)
}

func (p *parser) set() Statement {
	if p.eat("transaction") || p.eat("session", "characteristics", "as", "transaction") {
		p.modes()
		return &Set{Name: "transaction_isolation", Values: []string{"strict serializable"}}
	}
	local := p.eatAny("session", "local") == "local"
	zone := p.at("time", "zone")
	s := &Set{Name: p.parameter(), Local: local}
	if !zone && !p.eat("=") {
		p.expect("to")
	}
	for {
		sign := ""
		if p.eat("-") {
			sign = "-"
		}
		t := p.peek()
		if t.kind == op || t.kind == eof || t.kind == param {
			p.expected("a value")
		}
		p.i++
		if s.Values = append(s.Values, sign+t.text); !p.eat(",") {
			return s
		}
	}
}

func (p *parser) explain() Statement {
	for p.eatAny("optimized", "physical", "plan", "for") != "" {
	}
	if p.eat("materialized", "view") || p.eat("view") {
		n := p.name("a view")
		return &Explain{View: &n}
	}
	if !p.atQuery() {
		p.expected("SELECT or VIEW")
	}
	return &Explain{Query: p.query()}
}
