package plan

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/sql"
)

// planner resolves one query. Its methods panic with a *sql.Error, which the entry points recover: so they read as rules.
type planner struct {
	env           Env
	uses          []string
	introspection bool
	relations     int
	views         int // views being planned in place, outermost first
}

func (b *planner) fail(pos int, code, format string, args ...any) {
	panic(sql.Errorf(pos, code, format, args...))
}

// result is a planned query before it is known what it is for.
type result struct {
	rel           rel
	width         int // columns that are visible; those behind are for order and correlated
	order         []flow.SortKey
	limit, offset int64
	correlated    []correlation // of a lateral query
	group         []int         // the columns of their own sides
}

func (r result) visible() []Column { return r.rel.columns()[:r.width] }

// asRel is the result as a relation in another query: the columns that are visible, and then those that are correlated.
func (r result) asRel() rel {
	in := r.rel
	if r.limit != flow.NoLimit || r.offset > 0 {
		in = &topK{in: in, group: r.group, order: r.order, limit: r.limit, offset: r.offset}
	}
	all := in.columns()
	if len(all) == r.width {
		return in
	}
	cols, exprs := r.visible(), columnRefs(r.visible())
	for _, i := range r.group {
		cols = append(cols[:len(cols):len(cols)], all[i])
		exprs = append(exprs, &flow.Col{Index: i, T: all[i].Type, Name: all[i].Name})
	}
	return &mapped{in: in, exprs: exprs, cols: cols}
}

// query plans a query whose literals without a type become text at the end.
func (b *planner) query(q *sql.Query, a around) result {
	r := b.untyped(q, a)
	cols := r.rel.columns()
	if !slices.ContainsFunc(cols, func(c Column) bool { return c.Type == flow.Unknown }) {
		return r
	}
	exprs := columnRefs(cols)
	out := slices.Clone(cols)
	for i, e := range exprs {
		if e.Type() == flow.Unknown {
			exprs[i], _ = flow.CastTo(e, flow.Text)
			out[i].Type = flow.Text
		}
	}
	r.rel = &mapped{in: r.rel, exprs: exprs, cols: out}
	return r
}

func (b *planner) untyped(q *sql.Query, a around) result {
	plain := a
	plain.lateral = false
	for i, c := range q.With {
		if slices.ContainsFunc(q.With[:i], func(x sql.CTE) bool { return x.Name == c.Name }) {
			b.fail(c.Query.Pos(), "42712", "WITH query name %s specified more than once", sql.Ident(c.Name))
		}
		plain.ctes = &ctes{def: c, around: plain}
	}
	a.ctes = plain.ctes
	var r result
	switch body := q.Body.(type) {
	case *sql.Select:
		r = b.selectQuery(body, q.OrderBy, a)
	case *sql.Query:
		if r = b.untyped(body, plain); q.OrderBy == nil { // the order, and what is cut off, stay as they are
			break
		}
		inner := r.asRel()
		r = result{rel: inner, width: len(inner.columns()), limit: flow.NoLimit}
		r.order = b.orderByOutput(r, q.OrderBy)
	case *sql.SetOp:
		r = b.setOp(body, plain)
		r.order = b.orderByOutput(r, q.OrderBy)
	case *sql.Values:
		r = b.values(body, plain)
		r.order = b.orderByOutput(r, q.OrderBy)
	}
	for range q.With { // what nobody reads must be right too
		if !plain.ctes.used {
			b.cte(plain.ctes, q.Pos())
		}
		plain = plain.ctes.around
	}
	limit, offset := int64(flow.NoLimit), int64(0)
	if q.Limit != nil {
		limit = b.count(q.Limit, "LIMIT")
	}
	if q.Offset != nil {
		offset = b.count(q.Offset, "OFFSET")
	}
	return r.cut(limit, offset)
}

// cut is the result less what is before an offset and behind a limit, of what it was cut to before.
func (r result) cut(limit, offset int64) result {
	if r.limit != flow.NoLimit {
		limit = min(limit, max(r.limit-offset, 0))
	}
	r.limit = limit
	r.offset += min(offset, math.MaxInt64-r.offset)
	return r
}

// grow counts what the query consists of.
func (b *planner) grow(pos int) {
	if b.relations++; b.relations > maxRelations {
		b.fail(pos, "54001", "query of more than %d relations, views included", maxRelations)
	}
}

func (b *planner) values(v *sql.Values, a around) result {
	width := len(v.Rows[0])
	b.limitColumns(width, v.Pos())
	rows := make([][]flow.Expr, len(v.Rows))
	scopes := make([]*scope, len(v.Rows))
	subqueries := false
	for i, row := range v.Rows {
		if len(row) != width {
			b.fail(v.Pos(), "42601", "VALUES lists must all be the same length")
		}
		sc := b.nothing(a).scope
		for _, e := range row {
			rows[i] = append(rows[i], b.expr(e, sc))
		}
		scopes[i] = sc
		subqueries = subqueries || sc.subqueries.count() > 0
	}
	var cols []Column
	for i := range width {
		column := make([]flow.Expr, len(rows))
		for j := range rows {
			column[j] = rows[j][i]
		}
		t := b.unify(column, v.Pos(), "VALUES")
		for j := range rows {
			rows[j][i] = column[j]
		}
		cols = append(cols, Column{"column" + strconv.Itoa(i+1), t})
	}
	if !subqueries {
		return result{rel: &constant{cols: cols, rows: rows}, width: width, limit: flow.NoLimit}
	}
	sum := &union{}
	for i, row := range rows {
		b.grow(v.Pos())
		subs := scopes[i].subqueries
		sum.in = append(sum.in, &mapped{in: subs.attach(unit), exprs: subs.place(row), cols: cols})
	}
	return result{rel: sum, width: width, limit: flow.NoLimit}
}

func (b *planner) setOp(s *sql.SetOp, a around) result {
	b.grow(s.Pos())
	side := func(e sql.SetExpr) rel { return b.untyped(&sql.Query{At: s.At, Body: e}, a).asRel() }
	l, r := side(s.L), side(s.R)
	lc, rc := l.columns(), r.columns()
	if len(lc) != len(rc) {
		b.fail(s.Pos(), "42601", "each side of a %s must have the same number of columns", strings.ToUpper(s.Op))
	}
	le, re := columnRefs(lc), columnRefs(rc)
	cols := slices.Clone(lc)
	for i := range le {
		pair := []flow.Expr{le[i], re[i]}
		cols[i].Type = b.unify(pair, s.Pos(), strings.ToUpper(s.Op))
		le[i], re[i] = pair[0], pair[1]
	}
	in := []rel{&mapped{in: l, exprs: le, cols: cols}, &mapped{in: r, exprs: re, cols: cols}}
	var out rel
	switch {
	case s.Op == "union" && s.All:
		out = &union{in}
	case s.Op == "union":
		out = &setOp{flow.DistinctRows, []rel{&union{in}}}
	case s.Op == "except" && s.All:
		out = &setOp{flow.ExceptAll, in}
	case s.Op == "except":
		out = &setOp{flow.Except, in}
	case s.All:
		out = &setOp{flow.IntersectAll, in}
	default:
		out = &setOp{flow.Intersect, in}
	}
	return result{rel: out, width: len(cols), limit: flow.NoLimit}
}

// selectQuery plans one SELECT with the ORDER BY of the query that it is the body of.
func (b *planner) selectQuery(s *sql.Select, orderBy []sql.Order, a around) result {
	lateral := a.lateral
	a.lateral = false
	from := b.from(s.From, a)
	in, sc := from.rel, from.scope
	in, correlated := b.where(in, sc, s.Where, lateral)

	items := b.expandStars(s, sc)
	aggregated := s.GroupBy != nil || s.Having != nil ||
		slices.ContainsFunc(items, func(i sql.Item) bool { return hasAggregate(i.Expr) }) ||
		slices.ContainsFunc(orderBy, func(o sql.Order) bool { return hasAggregate(o.Expr) })
	own := make([]flow.Expr, len(correlated))
	for i, c := range correlated {
		own[i] = c.own
	}
	if aggregated {
		sc.below = map[sql.Expr]flow.Expr{}
		g := &grouping{inner: sc, keys: b.groupKeys(s, items, sc)}
		if correlated != nil && s.GroupBy == nil {
			panic(sql.Unsupported(s.Pos(), "an aggregate without GROUP BY in a LATERAL query is"))
		}
		for i, e := range own {
			own[i] = &flow.Col{Index: b.column(&g.keys, e, s.Pos()), T: e.Type(), Name: "own"}
		}
		sc = &scope{group: g, around: a, subqueries: &subqueries{}}
	}
	var exprs []flow.Expr
	var cols []Column
	for _, item := range items {
		e := b.expr(item.Expr, sc)
		exprs = append(exprs, e)
		cols = append(cols, Column{outputName(item), e.Type()})
	}
	var having []flow.Expr
	if s.Having != nil {
		having = conjuncts(b.boolean(s.Having, sc))
	}
	r := result{width: len(exprs), correlated: correlated, limit: flow.NoLimit}
	var group []int
	for _, e := range s.DistinctOn {
		group = append(group, b.column(&exprs, b.orderExpr(e, items, sc), e.Pos()))
	}
	for i, o := range orderBy {
		k := sortKey(o, b.column(&exprs, b.orderExpr(o.Expr, items, sc), o.Expr.Pos()))
		r.order = append(r.order, k)
		if s.Distinct && s.DistinctOn == nil && k.Column >= r.width {
			b.fail(o.Expr.Pos(), "42P10", "for SELECT DISTINCT, ORDER BY expressions must appear in select list")
		}
		if i < len(group) && !slices.Contains(group, k.Column) {
			b.fail(o.Expr.Pos(), "42P10", "SELECT DISTINCT ON expressions must match initial ORDER BY expressions")
		}
	}
	for _, e := range own {
		r.group = append(r.group, len(exprs))
		exprs = append(exprs, e)
	}
	for _, e := range exprs[r.width:] {
		cols = append(cols, Column{"", e.Type()})
	}
	if aggregated {
		in = sc.group.rel(in)
	}
	in = sc.subqueries.attach(in)
	r.rel = &mapped{in: in, filters: sc.subqueries.place(having), exprs: sc.subqueries.place(exprs), cols: cols}
	switch {
	case s.DistinctOn != nil:
		r.rel = &topK{in: r.rel, group: append(group, r.group...), order: r.order, limit: 1}
	case s.Distinct:
		r.rel = &setOp{flow.DistinctRows, []rel{r.rel}}
	}
	return r
}

// where applies a WHERE clause. What a lateral query compares with the row before it is returned.
func (b *planner) where(in rel, sc *scope, e sql.Expr, lateral bool) (rel, []correlation) {
	if e == nil {
		return in, nil
	}
	var filters []flow.Expr
	var correlated []correlation
	for _, e := range conditions(e) {
		if lateral {
			if c, ok := b.correlate(e, sc); ok {
				correlated = append(correlated, c)
				continue
			}
		}
		if q, ok := e.(*sql.InQuery); ok && !q.Not {
			b.semijoin(q, sc)
			continue
		}
		filters = append(filters, conjuncts(b.boolean(e, sc))...)
	}
	in = sc.subqueries.attach(in)
	for i := range correlated {
		correlated[i].own = sc.subqueries.placed(correlated[i].own)
	}
	return filtered(in, sc.subqueries.place(filters)), correlated
}

// conditions are the parts of a condition that must all be true.
func conditions(e sql.Expr) []sql.Expr {
	if and, ok := e.(*sql.Binary); ok && and.Op == "AND" {
		return append(conditions(and.L), conditions(and.R)...)
	}
	return []sql.Expr{e}
}

func conjuncts(e flow.Expr) []flow.Expr {
	if l, ok := e.(*flow.Logic); ok && !l.Or {
		return append(conjuncts(l.L), conjuncts(l.R)...)
	}
	return []flow.Expr{e}
}

// column returns the index of an expression among the columns, adding it if it is not there.
func (b *planner) column(exprs *[]flow.Expr, e flow.Expr, pos int) int {
	for i, x := range *exprs {
		if flow.Same(x, e) {
			return i
		}
	}
	*exprs = append(*exprs, e)
	b.limitColumns(len(*exprs), pos)
	return len(*exprs) - 1
}

// limitColumns bounds what a query computes of a row.
func (b *planner) limitColumns(n, pos int) {
	if n > maxColumns {
		b.fail(pos, "54011", "target lists can have at most %d entries", maxColumns)
	}
}

func sortKey(o sql.Order, column int) flow.SortKey {
	return flow.SortKey{Column: column, Desc: o.Desc, NullsFirst: o.Nulls == "first" || o.Nulls == "" && o.Desc}
}

// orderExpr resolves an entry of ORDER BY: the position or the name of an item, or an expression like those of the select list.
func (b *planner) orderExpr(e sql.Expr, items []sql.Item, sc *scope) flow.Expr {
	if i, ok := b.position(e, len(items), "ORDER BY"); ok {
		return b.expr(items[i].Expr, sc)
	}
	if c, ok := e.(*sql.Column); ok && len(c.Parts) == 1 {
		for _, item := range items {
			if outputName(item) == c.Parts[0] {
				return b.expr(item.Expr, sc)
			}
		}
	}
	return b.expr(e, sc)
}

// position reads a whole number that stands for a column of the output.
func (b *planner) position(e sql.Expr, width int, where string) (int, bool) {
	l, ok := e.(*sql.Literal)
	if !ok || l.Kind != sql.Number {
		return 0, false
	}
	n, err := strconv.Atoi(l.Text)
	if err != nil || n < 1 || n > width {
		b.fail(e.Pos(), "42P10", "%s position %s is not in select list", where, l.Text)
	}
	return n - 1, true
}

// orderByOutput resolves an ORDER BY that can only name columns of the output.
func (b *planner) orderByOutput(r result, orderBy []sql.Order) []flow.SortKey {
	cols := r.visible()
	order := make([]flow.SortKey, len(orderBy))
	for i, o := range orderBy {
		at, ok := b.position(o.Expr, len(cols), "ORDER BY")
		c, isColumn := o.Expr.(*sql.Column)
		if isColumn && len(c.Parts) == 1 {
			at = slices.IndexFunc(cols, func(x Column) bool { return x.Name == c.Parts[0] })
			ok = at >= 0
		}
		switch {
		case ok:
		case isColumn:
			b.fail(o.Expr.Pos(), "42703", "column %s does not exist", c)
		default:
			b.fail(o.Expr.Pos(), "0A000", "the ORDER BY of this query can only name its columns; put the query into FROM to order by an expression")
		}
		order[i] = sortKey(o, at)
	}
	return order
}

// groupKeys resolves GROUP BY: input columns before names of the output, and positions.
func (b *planner) groupKeys(s *sql.Select, items []sql.Item, sc *scope) []flow.Expr {
	var keys []flow.Expr
	for _, e := range s.GroupBy {
		if i, ok := b.position(e, len(items), "GROUP BY"); ok {
			e = items[i].Expr
		} else if c, ok := e.(*sql.Column); ok && len(c.Parts) == 1 && !sc.has(c.Parts[0]) {
			for _, item := range items {
				if outputName(item) == c.Parts[0] {
					e = item.Expr
					break
				}
			}
		}
		if hasAggregate(e) {
			b.fail(e.Pos(), "42803", "aggregate functions are not allowed in GROUP BY")
		}
		b.column(&keys, b.known(b.expr(e, sc)), e.Pos())
	}
	return keys
}

// known gives a literal without a type the type text.
func (b *planner) known(e flow.Expr) flow.Expr {
	if e.Type() == flow.Unknown {
		e, _ = flow.CastTo(e, flow.Text)
	}
	return e
}

// expandStars replaces * and t.* by the columns they stand for.
func (b *planner) expandStars(s *sql.Select, sc *scope) []sql.Item {
	var out []sql.Item
	for _, item := range s.Items {
		b.limitColumns(len(out), item.Expr.Pos())
		star, ok := item.Expr.(*sql.Star)
		if !ok {
			out = append(out, item)
			continue
		}
		n := len(out)
		for i, c := range sc.cols {
			if star.Table == "" && !c.hidden || star.Table != "" && c.table == star.Table {
				out = append(out, sql.Item{Expr: &resolved{star.At, i}, Alias: c.name})
			}
		}
		switch {
		case len(out) == n && star.Table != "":
			b.fail(star.Pos(), "42P01", "no table %s in FROM", sql.Ident(star.Table))
		case s.From == nil:
			b.fail(star.Pos(), "42601", "SELECT * with no tables specified is not valid")
		}
	}
	b.limitColumns(len(out), s.Pos())
	return out
}

// resolved is a column of the input that has been found already: what a star stands for.
type resolved struct {
	sql.At
	index int
}

func (r *resolved) String() string { return "#" + strconv.Itoa(r.index) }

// outputName is the name of a column of the output, chosen as PostgreSQL does.
func outputName(item sql.Item) string {
	if item.Alias != "" {
		return item.Alias
	}
	if name := figureName(item.Expr); name != "" {
		return name
	}
	return "?column?"
}

func figureName(e sql.Expr) string {
	switch e := e.(type) {
	case *sql.Column:
		return e.Parts[len(e.Parts)-1]
	case *sql.Call:
		return e.Name
	case *sql.Case:
		if name := figureName(e.Else); name != "" {
			return name
		}
		return "case"
	case *sql.Cast:
		if name := figureName(e.X); name != "" {
			return name
		}
		if t, ok := typeNames[e.Type.Name]; ok {
			return t.Name()
		}
	case *sql.Exists:
		return "exists"
	case *sql.Subquery:
		return subqueryName(e.Query.Body)
	case *sql.Literal:
		if e.Kind == sql.Bool {
			return "bool"
		}
	}
	return ""
}

// subqueryName is the name of a subquery's column.
func subqueryName(s sql.SetExpr) string {
	switch s := s.(type) {
	case *sql.Query:
		return subqueryName(s.Body)
	case *sql.SetOp:
		return subqueryName(s.L)
	case *sql.Values:
		return "column1"
	case *sql.Select:
		if s.Items[0].Alias == "" {
			return figureName(s.Items[0].Expr)
		}
		return s.Items[0].Alias
	}
	return ""
}
