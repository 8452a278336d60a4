package plan

import (
	"strings"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/sql"
)

var aggregates = map[string]flow.AggregateFunc{
	"count": flow.Count, "sum": flow.Sum, "avg": flow.Avg, "min": flow.Min, "max": flow.Max,
	"bool_and": flow.BoolAnd, "every": flow.BoolAnd, "bool_or": flow.BoolOr,
	"string_agg": flow.StringAgg, "array_agg": flow.ArrayAgg, "jsonb_agg": flow.JsonbAgg, "jsonb_object_agg": flow.JsonbObjectAgg,
}

// hasAggregate tells whether an expression contains an aggregate.
func hasAggregate(e sql.Expr) bool {
	found := false
	walk(e, func(e sql.Expr) {
		if c, ok := e.(*sql.Call); ok {
			_, isAggregate := aggregates[c.Name]
			found = found || isAggregate
		}
	})
	return found
}

// aggregate plans an aggregate over the groups in sight; equal ones are computed once.
func (b *planner) aggregate(fn flow.AggregateFunc, e *sql.Call, s *scope) flow.Expr {
	g := s.group
	if g == nil {
		b.fail(e.Pos(), "42803", "aggregate functions are not allowed here")
	}
	a := aggregate{fn: fn, distinct: e.Distinct}
	if !countsRows(e) {
		a.args = b.aggregateArgs(fn, e, g.inner)
	}
	b.aggregateOrder(&a, e, g.inner)
	if e.Filter != nil {
		a.filter = b.boolean(e.Filter, g.inner)
	}
	at := -1
	for i, x := range g.aggs {
		if x.same(a) {
			at = i
		}
	}
	if at < 0 {
		at = len(g.aggs)
		g.aggs = append(g.aggs, a)
		b.limitColumns(len(g.aggs), e.Pos())
	}
	return &flow.Col{Index: len(g.keys) + at, T: a.typ(), Name: e.Name}
}

// countsRows tells whether an aggregate is count(*).
func countsRows(e *sql.Call) bool {
	if e.Name != "count" || e.Distinct || len(e.Args) != 1 {
		return false
	}
	_, star := e.Args[0].(*sql.Star)
	return star
}

func (b *planner) aggregateArgs(fn flow.AggregateFunc, e *sql.Call, s *scope) []flow.Expr {
	if fn == flow.Count && len(e.Args) == 0 {
		b.fail(e.Pos(), "42809", "count(*) must be used to call a parameterless aggregate function")
	}
	args := make([]flow.Expr, len(e.Args))
	for i, x := range e.Args {
		args[i] = b.expr(x, s)
		if i == 1 && fn == flow.StringAgg { // a quoted separator is of the type of the values
			if y, ok := flow.CastTo(args[i], args[0].Type()); ok && args[i].Type() == flow.Unknown {
				args[i] = y
			}
		}
		args[i] = b.known(args[i])
	}
	if fn == flow.ArrayAgg && len(args) == 1 && args[0].Type().IsArray() {
		panic(sql.Unsupported(e.Pos(), "array_agg of arrays is"))
	}
	fits := len(args) == fn.Arity()
	if fits {
		_, fits = flow.AggregateType(fn, args[0].Type())
	}
	if fits && fn == flow.StringAgg {
		fits = args[1].Type() == args[0].Type()
	}
	if !fits {
		b.fail(e.Pos(), "42883", "function %s(%s) does not exist", e.Name, strings.Join(typeList(args), ", "))
	}
	return args
}

// aggregateOrder plans ORDER BY within an aggregate. Where the order does not show in the result there is nothing to keep.
func (b *planner) aggregateOrder(a *aggregate, e *sql.Call, s *scope) {
	n := len(a.args)
	for _, o := range e.OrderBy {
		at := b.column(&a.args, b.known(b.expr(o.Expr, s)), o.Expr.Pos())
		if e.Distinct && at >= n {
			b.fail(o.Expr.Pos(), "42P10", "in an aggregate with DISTINCT, ORDER BY expressions must appear in argument list")
		}
		a.order = append(a.order, sortKey(o, at))
	}
	if !a.fn.Ordered() {
		a.args, a.order = a.args[:n], nil
	}
}
