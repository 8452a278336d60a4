package sql

// subscribe parses a TAIL or SUBSCRIBE. They differ by the releases that had them: TAIL is as it was in the last release of that name.
func (p *parser) subscribe() Statement {
	s := &Subscribe{Tail: p.next().text == "tail", Snapshot: true}
	if !s.Tail {
		p.eat("to")
	}
	if p.eat("(") {
		s.Query = p.query()
		p.expect(")")
	} else {
		n := p.name("a view, or a query in parentheses")
		s.Name = &n
	}
	p.envelope(s)
	if p.at("with") || s.Tail && p.at("(") {
		p.eat("with")
		p.subscribeOptions(s)
	}
	s.AsOf = p.asOf()
	if t := p.peek(); p.eat("up", "to") {
		if s.Tail {
			p.fail(t.pos, "42601", "TAIL has no UP TO: use SUBSCRIBE")
		}
		s.UpTo = p.expr()
	}
	if s.Key == nil {
		p.envelope(s) // where early releases had it
	}
	return s
}

func (p *parser) subscribeOptions(s *Subscribe) {
	p.expect("(")
	for {
		t := p.peek()
		switch option := p.label("an option"); option {
		case "progress":
			s.Progress = p.boolean()
		case "snapshot":
			s.Snapshot = p.boolean()
		default:
			p.fail(t.pos, "42601", "unknown option %s: there are PROGRESS and SNAPSHOT", Ident(option))
		}
		if !p.eat(",") {
			break
		}
	}
	p.expect(")")
}

// envelope parses the clause that gives the rows of a stream another shape.
func (p *parser) envelope(s *Subscribe) {
	t := p.peek()
	switch {
	case p.at("within"):
		p.fail(t.pos, "0A000", "WITHIN TIMESTAMP ORDER BY is not supported by the embedded engine, and on Materialize only where it has been enabled")
	case !p.eat("envelope"):
		return
	case s.Tail:
		p.fail(t.pos, "42601", "TAIL has no ENVELOPE: use SUBSCRIBE")
	case p.at("debezium"):
		p.fail(t.pos, "0A000", "ENVELOPE DEBEZIUM is not supported by the embedded engine, and on Materialize only where it has been enabled; use ENVELOPE UPSERT")
	}
	p.expect("upsert", "(", "key", "(")
	for {
		s.Key = append(s.Key, Name{At: At(p.peek().pos), Parts: []string{p.ident("a column")}})
		if !p.eat(",") {
			break
		}
	}
	p.expect(")", ")")
}

func (p *parser) declare() Statement {
	d := &Declare{At: At(p.peek().pos), Cursor: p.ident("a cursor")}
	if p.at("binary") || p.at("scroll") || p.at("insensitive") {
		p.unsupported(p.peek().pos, "this kind of cursor is")
	}
	p.eat("no", "scroll")
	p.expect("cursor")
	if p.at("with", "hold") {
		p.unsupported(p.peek().pos, "WITH HOLD is")
	}
	p.eat("without", "hold")
	p.expect("for")
	switch {
	case p.at("tail"), p.at("subscribe"):
		d.Of = p.subscribe()
	case p.atQuery():
		d.Of = p.query()
	default:
		p.expected("SELECT, TAIL or SUBSCRIBE")
	}
	return d
}

func (p *parser) fetch(pos int) Statement {
	f := &Fetch{At: At(pos), Count: 1}
	p.eat("forward")
	switch {
	case p.eat("all"):
		f.Count = -1
	case p.eat("next"):
	case p.peek().kind == number:
		f.Count = p.number("a count")
	}
	p.eatAny("from", "in")
	f.Cursor = p.ident("a cursor")
	if p.at("with") || p.at("(") {
		p.eat("with")
		p.expect("(", "timeout")
		p.eat("=")
		f.Timeout = p.string("an interval in quotes")
		p.expect(")")
	}
	return f
}

func (p *parser) show() Statement {
	s := &Show{Materialized: p.eat("materialized")}
	switch t := p.peek(); {
	case p.eat("views"), p.eat("sources"):
		s.What = t.text
	case s.Materialized:
		p.expected("VIEWS or SOURCES")
	case p.eat("tables"), p.eat("objects"), p.eat("databases"), p.eat("schemas"), p.eat("clusters"):
		s.What = t.text
	case p.eat("indexes"):
		s.What = t.text
		if p.eatAny("on", "from", "in") != "" {
			n := p.name("a view")
			s.Name = &n
		}
	case p.at("columns", "from"), p.at("columns", "in"):
		p.i += 2
		n := p.name("a view")
		s.What, s.Name = "columns", &n
	case p.eat("create"):
		s.Materialized = p.eat("materialized")
		kind := p.eatAny("view", "source", "table")
		if kind == "" {
			p.expected("VIEW, SOURCE or TABLE")
		}
		n := p.name("a " + kind)
		s.What, s.Name = "create "+kind, &n
	default:
		s.What, s.Parameter = p.parameter(), true
		return s
	}
	if p.at("from") || p.at("like") || p.at("where") || p.at("in") {
		p.unsupported(p.peek().pos, "a filter of SHOW is")
	}
	return s
}
