package plan

import (
	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/sql"
)

// correlation is an equality in the WHERE of a lateral query between its own columns and those of the row that stands before it.
type correlation struct {
	own, outer flow.Expr // in the type that they are compared in
	equal      *flow.Call
}

// lateral joins a query that refers to what stands before it in equalities of its WHERE: what it asks of each row there, it is asked of
// each group of its own rows by the other sides of those equalities, and joined by them.
func (b *planner) lateral(left source, t *sql.Derived, j *sql.Join, a around) source {
	b.grow(t.Pos())
	if j.Kind == "right" || j.Kind == "full" {
		panic(sql.Unsupported(j.Pos(), "a "+j.Kind+" join with a LATERAL query is"))
	}
	r := b.inner(t.Query, around{ctes: a.ctes, outer: left.scope, lateral: true})
	right := b.named(r.asRel(), t.Alias, t.Columns, t.Pos(), a)
	right.scope.cols = right.scope.cols[:r.width]
	at := len(left.rel.columns()) + r.width
	var on []flow.Expr
	for i, c := range r.correlated {
		on = append(on, c.equal.WithArgs([]flow.Expr{c.outer, &flow.Col{Index: at + i, T: c.own.Type(), Name: "own"}}))
	}
	return b.pair(left, right, j, on)
}

// correlate reads a condition of a lateral query's WHERE, and is false if that does not refer to the outer row.
func (b *planner) correlate(e sql.Expr, s *scope) (c correlation, ok bool) {
	if !s.outward(e) {
		return c, false
	}
	equal, ok := e.(*sql.Binary)
	if !ok || equal.Op != "=" || s.outward(equal.L) == s.outward(equal.R) {
		panic(sql.Unsupported(e.Pos(), "a LATERAL query that refers to the row before it by anything but WHERE own = outer is"))
	}
	l, r := equal.L, equal.R
	if s.outward(l) {
		l, r = r, l
	}
	c.equal, ok = b.operator("=", b.expr(l, s), b.expr(r, s.outerOnly()), e.Pos()).(*flow.Call)
	if !ok {
		b.fail(e.Pos(), "0A000", "a LATERAL query whose WHERE compares an outer column with NULL")
	}
	c.own, c.outer = c.equal.X[0], c.equal.X[1]
	return c, true
}

// outward tells whether an expression has a column that is not of this scope but of the one around it.
func (s *scope) outward(e sql.Expr) bool {
	found := false
	walk(e, func(e sql.Expr) {
		if c, ok := e.(*sql.Column); ok {
			found = found || s.matches(c) == nil && s.around.outer.matches(c) != nil
		}
	})
	return found
}

// outerOnly is the scope around this one, for expressions that refer to nothing else.
func (s *scope) outerOnly() *scope {
	return &scope{cols: s.around.outer.cols, around: s.around.outer.around}
}
