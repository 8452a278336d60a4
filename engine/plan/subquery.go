package plan

import (
	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/sql"
)

// subqueries are the subqueries in the expressions over a relation. Each becomes a join that gives the relation more columns. While the
// expressions are being planned nobody knows how many columns the relation will have, so that the new ones are numbered from -1 down.
type subqueries struct {
	list  []attachment
	next  int // the new columns so far
	done  int // entries of list that have been attached
	width int // of the relation without them, once one has been attached
}

type attachment struct {
	text  string // the expression, so that the same one is attached once
	first int    // its first new column
	rel   rel
	on    func(first int) []flow.Expr // the condition of the join, given where the columns of rel are
	outer bool
}

// attached is a reference to a new column.
func attached(c Column, at int) flow.Expr { return &flow.Col{Index: -1 - at, T: c.Type, Name: c.Name} }

// add notes a subquery and returns its columns.
func (s *subqueries) add(a attachment) []flow.Expr {
	a.first = -1
	for _, x := range s.list {
		if x.text == a.text {
			a.first = x.first
		}
	}
	cols := a.rel.columns()
	if a.first < 0 {
		a.first = s.next
		s.next += len(cols)
		s.list = append(s.list, a)
	}
	out := make([]flow.Expr, len(cols))
	for i, c := range cols {
		out[i] = attached(c, a.first+i)
	}
	return out
}

// forget takes back what has been added since there were n.
func (s *subqueries) forget(n int) {
	if s != nil && n < len(s.list) {
		s.next = s.list[n].first
		s.list = s.list[:n]
	}
}

func (s *subqueries) count() int {
	if s == nil {
		return 0
	}
	return len(s.list)
}

// attach joins a relation with the subqueries that have been added since the last time.
func (s *subqueries) attach(in rel) rel {
	if s.done == 0 {
		s.width = len(in.columns())
	}
	for _, a := range s.list[s.done:] {
		var on []flow.Expr
		if a.on != nil {
			on = s.place(a.on(a.first))
		}
		in = join(in, a.rel, on, [2]bool{a.outer, false})
	}
	s.done = len(s.list)
	return in
}

// place numbers the new columns as they are in the relation.
func (s *subqueries) place(list []flow.Expr) []flow.Expr {
	if s.count() == 0 {
		return list
	}
	return substitute(list, func(c *flow.Col) flow.Expr {
		if c.Index >= 0 {
			return c
		}
		return &flow.Col{Index: s.width - 1 - c.Index, T: c.T, Name: c.Name}
	})
}

func (s *subqueries) placed(e flow.Expr) flow.Expr { return s.place([]flow.Expr{e})[0] }

// subquery plans a query in an expression, once: the expressions above a GROUP BY are planned more often.
func (b *planner) subquery(q *sql.Query, s *scope) rel {
	if s.subqueries == nil {
		panic(sql.Unsupported(q.Pos(), "a subquery here is"))
	}
	inner := s.inner()
	r, ok := inner.planned[q]
	if !ok {
		r = b.uncorrelated(q, inner)
		if inner.planned == nil {
			inner.planned = map[*sql.Query]rel{}
		}
		inner.planned[q] = r
	}
	return r
}

func (b *planner) uncorrelated(q *sql.Query, s *scope) rel {
	b.grow(q.Pos())
	return b.derived(q, around{ctes: s.around.ctes, outer: s})
}

// oneColumn is a subquery with the column that its value or its list is.
func (b *planner) oneColumn(q *sql.Query, s *scope) (rel, *flow.Col) {
	r := b.subquery(q, s)
	cols := r.columns()
	if len(cols) != 1 {
		b.fail(q.Pos(), "42601", "subquery must return only one column")
	}
	return r, &flow.Col{T: cols[0].Type, Name: cols[0].Name}
}

// value plans a subquery that stands for its value.
func (b *planner) value(e *sql.Subquery, s *scope) flow.Expr {
	r, _ := b.oneColumn(e.Query, s)
	cols := s.subqueries.add(attachment{text: e.String(), rel: &single{r}})
	value, many := cols[0], cols[1]
	if atMostOne(r) {
		return value
	}
	return &flow.Case{X: []flow.Expr{many, &flow.Raise{Err: flow.ErrMany, T: value.Type()}, value}, T: value.Type()}
}

// atMostOne tells whether a relation cannot have more rows than one.
func atMostOne(r rel) bool {
	switch r := r.(type) {
	case *mapped:
		return atMostOne(r.in)
	case *reduced:
		return len(r.keys) == 0
	case *topK:
		return len(r.group) == 0 && r.limit <= 1
	case *constant:
		return len(r.rows) <= 1
	}
	return false
}

// exists plans EXISTS: whether there is a row is whether their count is above 0.
func (b *planner) exists(e *sql.Exists, s *scope) flow.Expr {
	count := &reduced{in: b.subquery(e.Query, s), aggs: []aggregate{{fn: flow.Count}}, cols: []Column{{"exists", flow.Int8}}}
	return b.some(s.subqueries.add(attachment{text: e.String(), rel: count})[0], e.Pos())
}

// membership is x IN (query): the members, each once, and the equality of x with one of them.
type membership struct {
	x, y    flow.Expr // in the type that they are compared in; y is over the column of the query
	equal   *flow.Call
	members rel
}

func (b *planner) membership(e *sql.InQuery, s *scope) membership {
	x := b.expr(e.X, s)
	r, y := b.oneColumn(e.Query, s)
	equal := b.operator("=", x, y, e.Pos()).(*flow.Call)
	m := membership{x: equal.X[0], y: equal.X[1], equal: equal}
	m.members = &setOp{flow.DistinctRows, []rel{m.list(r)}}
	return m
}

// list is the query in the type of y.
func (m membership) list(r rel) rel {
	return &mapped{in: r, exprs: []flow.Expr{m.y}, cols: []Column{{"member", m.y.Type()}}}
}

// meets is the condition that joins the members.
func (m membership) meets(first int) []flow.Expr {
	return []flow.Expr{m.equal.WithArgs([]flow.Expr{m.x, attached(Column{"member", m.y.Type()}, first)})}
}

// tries is the condition that joins the members where perhaps nobody asks for x: then an error in it is none.
func (m membership) tries(first int) []flow.Expr {
	if len(m.x.Args()) > 0 {
		m.x = &flow.Try{X: m.x}
	}
	return m.meets(first)
}

// in plans x IN (query). It is false if there are no members, whatever x is; else NULL if x is NULL; else true if a member equals x; else
// NULL if one of them is NULL; else false.
func (b *planner) in(e *sql.InQuery, s *scope) flow.Expr {
	m := b.membership(e, s)
	text := e.X.String() + " IN " + e.Query.String()
	member := s.subqueries.add(attachment{text: text, rel: m.members, on: m.tries, outer: true})[0]
	// The query is planned a second time, so that it counts twice: its operators are there twice.
	y := &flow.Col{T: m.y.Type(), Name: "member"}
	counts := s.subqueries.add(attachment{text: "counts of " + text, rel: &reduced{
		in: m.list(b.uncorrelated(e.Query, s.inner())), aggs: []aggregate{{fn: flow.Count}, {fn: flow.Count, args: []flow.Expr{y}}},
		cols: []Column{{"members", flow.Int8}, {"known", flow.Int8}},
	}})
	isNull := func(e flow.Expr) flow.Expr { return flow.Fold(&flow.Test{X: e}) }
	unknown := &flow.Const{T: flow.Bool}
	return negate(&flow.Case{T: flow.Bool, X: []flow.Expr{
		negate(b.some(counts[0], e.Pos()), true), boolean(false),
		isNull(m.x), unknown,
		negate(isNull(member), true), boolean(true),
		b.operator("<", counts[1], counts[0], e.Pos()), unknown,
		boolean(false),
	}}, e.Not)
}

func boolean(v bool) flow.Expr { return &flow.Const{D: flow.NewBool(v), T: flow.Bool} }

// some is the condition that a count is not 0.
func (b *planner) some(count flow.Expr, pos int) flow.Expr {
	return b.operator(">", count, &flow.Const{D: flow.NewInt(flow.Int8, 0), T: flow.Int8}, pos)
}

// semijoin keeps the rows whose x is in the query, where nobody asks about the others: in a WHERE.
func (b *planner) semijoin(e *sql.InQuery, s *scope) {
	m := b.membership(e, s)
	s.subqueries.add(attachment{text: "only " + e.String(), rel: m.members, on: m.meets})
}
