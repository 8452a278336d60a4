package plan

import (
	"slices"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/sql"
)

// around is what a query may see of the text around it.
type around struct {
	ctes  *ctes
	outer *scope // the columns of the query that this one stands in
	// lateral lets the equalities of WHERE refer to outer.
	lateral bool
}

// ctes are the common table expressions in sight.
type ctes struct {
	def    sql.CTE
	around around // what the definition sees
	used   bool
}

// scope is what names mean in an expression: the columns of FROM, or, above a GROUP BY, the keys and aggregates.
type scope struct {
	cols  []scopeColumn
	group *grouping
	// around is for the subqueries in the expressions, and subqueries is where they are attached; nil where there can be none.
	around     around
	subqueries *subqueries
	planned    map[*sql.Query]rel // what they are
	// below has what has been planned below a GROUP BY, less what has subqueries: expressions above it are planned part by part, to find the
	// keys in them. It is nil in other scopes.
	below map[sql.Expr]flow.Expr
}

type scopeColumn struct {
	table, name string
	typ         flow.Type
	index       int  // of the relation
	hidden      bool // one of two columns that USING has merged: it needs its table's name
}

func (c scopeColumn) ref() *flow.Col { return &flow.Col{Index: c.index, T: c.typ, Name: c.name} }

func (s *scope) has(name string) bool {
	return slices.ContainsFunc(s.cols, func(c scopeColumn) bool { return c.name == name && !c.hidden })
}

// matches lists the positions of the columns that a reference may mean.
func (s *scope) matches(c *sql.Column) []int {
	var found []int
	name := c.Parts[len(c.Parts)-1]
	for i, x := range s.cols {
		if x.name == name && (len(c.Parts) == 1 && !x.hidden || len(c.Parts) > 1 && x.table == c.Parts[len(c.Parts)-2]) {
			found = append(found, i)
		}
	}
	return found
}

// lookup returns the position of the column that a reference means.
func (b *planner) lookup(s *scope, c *sql.Column) int {
	found := s.matches(c)
	switch {
	case len(found) == 1:
		return found[0]
	case len(found) > 1:
		b.fail(c.Pos(), "42702", "column %s is ambiguous", c)
	}
	for o := s.around.outer; o != nil; o = o.around.outer {
		if o.matches(c) != nil {
			panic(sql.Unsupported(c.Pos(), "a correlated subquery, which refers to column "+c.String()+" of the query around it, is"))
		}
	}
	b.fail(c.Pos(), "42703", "column %s does not exist", c)
	return 0
}

// inner is the scope of FROM.
func (s *scope) inner() *scope {
	if s.group != nil {
		return s.group.inner
	}
	return s
}

// grouping collects the aggregates that the expressions above a GROUP BY use.
type grouping struct {
	inner *scope
	keys  []flow.Expr
	aggs  []aggregate
}

// rel is the relation of the groups, once all expressions above it have been planned.
func (g *grouping) rel(in rel) rel {
	subs := g.inner.subqueries
	in = subs.attach(in)
	r := &reduced{in: in, keys: subs.place(g.keys)}
	for _, k := range r.keys {
		name := "key"
		if c, ok := k.(*flow.Col); ok {
			name = c.Name
		}
		r.cols = append(r.cols, Column{name, k.Type()})
	}
	for _, a := range g.aggs {
		a.args = subs.place(a.args)
		if a.filter != nil {
			a.filter = subs.placed(a.filter)
		}
		r.aggs = append(r.aggs, a)
		r.cols = append(r.cols, Column{string(a.fn), a.typ()})
	}
	return r
}

func (a aggregate) typ() flow.Type {
	if len(a.args) == 0 {
		return flow.Int8
	}
	t, _ := flow.AggregateType(a.fn, a.args[0].Type())
	return t
}

func (a aggregate) same(o aggregate) bool {
	filters := a.filter == nil && o.filter == nil || a.filter != nil && o.filter != nil && flow.Same(a.filter, o.filter)
	return a.fn == o.fn && a.distinct == o.distinct && filters && slices.EqualFunc(a.args, o.args, flow.Same) && slices.Equal(a.order, o.order)
}
