package sql

import "slices"

// atQuery tells whether a query begins here.
func (p *parser) atQuery() bool { return p.at("select") || p.at("with") || p.at("values") || p.at("(") }

// query parses a SELECT with everything around it, without parentheses of its own.
func (p *parser) query() *Query {
	p.enter()
	defer p.leave()
	q := &Query{At: At(p.peek().pos)}
	if p.eat("with") {
		if p.at("recursive") || p.at("mutually", "recursive") {
			p.unsupported(p.peek().pos, "WITH RECURSIVE is")
		}
		q.With = append(q.With, p.cte())
		for p.eat(",") {
			q.With = append(q.With, p.cte())
		}
	}
	q.Body = p.setExpr(0)
	if p.eat("order", "by") {
		q.OrderBy = p.orderBy()
	}
	for {
		switch {
		case q.Limit == nil && p.eat("limit"):
			if !p.eat("all") {
				q.Limit = p.expr()
			}
			continue
		case q.Offset == nil && p.eat("offset"):
			q.Offset = p.expr()
			p.eatAny("row", "rows")
			continue
		}
		break
	}
	q.AsOf = p.asOf()
	return q
}

func (p *parser) asOf() *AsOf {
	if !p.eat("as", "of") {
		return nil
	}
	atLeast := p.eat("at", "least")
	return &AsOf{atLeast, p.expr()}
}

func (p *parser) cte() CTE {
	c := CTE{Name: p.ident("a name")}
	if p.at("(") {
		c.Columns = p.names("a column")
	}
	p.expect("as")
	if p.eat("not", "materialized") || p.eat("materialized") { // a hint to PostgreSQL's optimiser; there is none here
	}
	p.expect("(")
	c.Query = p.query()
	p.expect(")")
	return c
}

// setExpr parses SELECTs joined by UNION and EXCEPT, and by INTERSECT, which binds more tightly.
func (p *parser) setExpr(min int) SetExpr {
	p.enter()
	defer p.leave()
	l := p.setPrimary()
	for {
		t := p.peek()
		bind := 0
		if t.is("union") || t.is("except") {
			bind = 1
		} else if t.is("intersect") {
			bind = 2
		}
		if bind == 0 || bind <= min {
			return l
		}
		p.i++
		p.link()
		all := p.eat("all")
		if !all {
			p.eat("distinct")
		}
		l = &SetOp{At(t.pos), t.text, all, l, p.setExpr(bind)}
	}
}

func (p *parser) setPrimary() SetExpr {
	switch {
	case p.eat("("):
		q := p.query()
		p.expect(")")
		if q.With == nil && q.OrderBy == nil && q.Limit == nil && q.Offset == nil && q.AsOf == nil {
			return q.Body
		}
		return q
	case p.at("values"):
		v := &Values{At: At(p.next().pos)}
		for {
			p.expect("(")
			v.Rows = append(v.Rows, p.exprs())
			p.expect(")")
			if !p.eat(",") {
				return v
			}
		}
	case p.at("select"):
		return p.selectExpr()
	}
	p.expected("SELECT")
	return nil
}

func (p *parser) selectExpr() *Select {
	s := &Select{At: At(p.next().pos)}
	if p.eat("distinct") {
		s.Distinct = true
		if p.eat("on") {
			p.expect("(")
			s.DistinctOn = p.exprs()
			p.expect(")")
		}
	} else {
		p.eat("all")
	}
	s.Items = append(s.Items, p.item())
	for p.eat(",") {
		s.Items = append(s.Items, p.item())
	}
	if p.eat("from") {
		s.From = append(s.From, p.tableExpr())
		for p.eat(",") {
			s.From = append(s.From, p.tableExpr())
		}
	}
	if p.eat("where") {
		s.Where = p.expr()
	}
	if p.eat("group", "by") {
		s.GroupBy = p.exprs()
	}
	if p.eat("having") {
		s.Having = p.expr()
	}
	if p.at("window") {
		p.unsupported(p.peek().pos, "window functions are")
	}
	return s
}

func (p *parser) item() Item {
	i := Item{Expr: p.expr()}
	switch t := p.peek(); {
	case p.at("as", "of"):
	case p.eat("as"):
		i.Alias = p.label("a name")
	case t.kind == quoted, t.kind == word && !reserved[t.text]:
		if _, ok := refused[t.text]; !ok {
			p.i++
			i.Alias = t.text
		}
	}
	return i
}

func (p *parser) orderBy() []Order {
	var list []Order
	for {
		o := Order{Expr: p.expr()}
		o.Desc = p.eatAny("asc", "desc") == "desc"
		if p.eat("nulls") {
			if o.Nulls = p.eatAny("first", "last"); o.Nulls == "" {
				p.expected("FIRST or LAST")
			}
		}
		if list = append(list, o); !p.eat(",") {
			return list
		}
	}
}

// tableExpr parses one entry of FROM with the joins that hang on it.
func (p *parser) tableExpr() TableExpr {
	p.enter()
	defer p.leave()
	l := p.tablePrimary()
	for {
		at := At(p.peek().pos)
		kind := ""
		switch {
		case p.eat("join"), p.eat("inner", "join"):
			kind = "inner"
		case p.eat("left", "join"), p.eat("left", "outer", "join"):
			kind = "left"
		case p.eat("right", "join"), p.eat("right", "outer", "join"):
			kind = "right"
		case p.eat("full", "join"), p.eat("full", "outer", "join"):
			kind = "full"
		case p.eat("cross", "join"):
			kind = "cross"
		default:
			if p.at("natural") {
				p.refuse(p.peek())
			}
			return l
		}
		p.link()
		j := &Join{At: at, Kind: kind, L: l, R: p.tablePrimary()}
		switch {
		case kind == "cross":
		case p.eat("on"):
			j.On = p.expr()
		case p.eat("using"):
			j.Using = p.names("a column")
		default:
			p.expected("ON or USING")
		}
		l = j
	}
}

func (p *parser) tablePrimary() TableExpr {
	at := At(p.peek().pos)
	lateral := p.eat("lateral")
	if p.at("(") {
		t := p.parenthesizedTable(at)
		if d, ok := t.(*Derived); ok {
			d.Lateral = lateral
		} else if lateral {
			p.fail(int(at), "42601", "LATERAL is for a query or a function")
		}
		return t
	}
	name := p.name("a table")
	if p.at("(") {
		return p.tableFunc(name)
	}
	if lateral {
		p.fail(int(at), "42601", "LATERAL is for a query or a function")
	}
	t := &Table{Name: name}
	t.Alias, t.Columns = p.tableAlias()
	return t
}

func (p *parser) tableFunc(name Name) TableExpr {
	if len(name.Parts) > 1 {
		p.unsupported(name.Pos(), "a qualified function is")
	}
	t := &TableFunc{At: name.At, Name: name.Base()}
	p.expect("(")
	if !p.at(")") {
		t.Args = p.exprs()
	}
	p.expect(")")
	if p.at("with", "ordinality") {
		p.unsupported(p.peek().pos, "WITH ORDINALITY is")
	}
	t.Alias, t.Columns = p.tableAlias()
	return t
}

// parenthesizedTable parses a derived table, or joins in parentheses.
func (p *parser) parenthesizedTable(at At) TableExpr {
	p.enter()
	defer p.leave()
	derived := p.beginsQuery()
	p.expect("(")
	if derived {
		d := &Derived{At: at, Query: p.query()}
		p.expect(")")
		d.Alias, d.Columns = p.tableAlias()
		return d
	}
	t := p.tableExpr()
	p.expect(")")
	return t
}

// beginsQuery tells whether the parenthesis that comes next holds a query. If it begins with further parentheses, that is so if each
// of them holds a query that goes on behind it: ((SELECT 1) UNION ...), and not ((SELECT 1) AS a JOIN ...).
func (p *parser) beginsQuery() bool {
	run := 0
	for p.ahead(run).is("(") {
		run++
	}
	if first := p.ahead(run); !first.is("select") && !first.is("with") && !first.is("values") {
		return false
	}
	depth := run
	for n := run; depth > 1 && p.ahead(n).kind != eof; n++ {
		switch t := p.ahead(n); {
		case t.is("("):
			depth++
		case t.is(")"):
			if depth--; depth < run {
				run = depth
				if !continuesQuery(p.ahead(n + 1)) {
					return false
				}
			}
		}
	}
	return true
}

// continuesQuery tells whether a token may stand behind a query in parentheses that is part of a larger one.
func continuesQuery(t token) bool {
	return slices.ContainsFunc([]string{")", "union", "except", "intersect", "order", "limit", "offset", "fetch"}, t.is)
}

func (p *parser) tableAlias() (string, []string) {
	t := p.peek()
	switch {
	case p.at("as", "of"):
		return "", nil
	case p.eat("as"):
	case t.kind == quoted, t.kind == word && !reserved[t.text]:
		if _, ok := refused[t.text]; ok {
			return "", nil
		}
	default:
		return "", nil
	}
	name := p.ident("an alias")
	if p.at("(") {
		return name, p.names("a column")
	}
	return name, nil
}
