package plan

import (
	"slices"
	"strings"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/sql"
)

// source is a relation with the names of its columns.
type source struct {
	rel   rel
	scope *scope
}

// from plans the FROM clause; the entries of its list are joined without a condition, which WHERE may supply.
func (b *planner) from(list []sql.TableExpr, a around) source {
	out := b.nothing(a)
	for _, t := range list {
		out = b.entry(out, t, a)
	}
	sc := *out.scope
	sc.subqueries = &subqueries{} // those of FROM itself are attached
	return source{out.rel, &sc}
}

// nothing is what FROM begins with: a row without columns.
func (b *planner) nothing(a around) source {
	return source{unit, &scope{around: a, subqueries: &subqueries{}}}
}

// entry joins an entry of FROM to those before it. One that begins with something lateral is taken apart, because what stands before it
// is what that refers to.
func (b *planner) entry(left source, t sql.TableExpr, a around) source {
	j, ok := t.(*sql.Join)
	if !ok || left.rel == unit || !lateral(j) {
		return b.join(left, t, &sql.Join{At: sql.At(start(t)), Kind: "cross"}, a)
	}
	if j.Kind == "right" || j.Kind == "full" {
		panic(sql.Unsupported(j.Pos(), "a "+j.Kind+" join of something that refers to what stands before it is"))
	}
	b.grow(j.Pos())
	return b.join(b.entry(left, j.L, a), j.R, j, a)
}

// start is the position of an entry of FROM.
func start(t sql.TableExpr) int {
	switch t := t.(type) {
	case *sql.Table:
		return t.Name.Pos()
	case *sql.Join:
		return start(t.L)
	}
	return t.(interface{ Pos() int }).Pos()
}

// lateral tells whether the first of some joins may refer to what stands before it.
func lateral(t sql.TableExpr) bool {
	switch t := t.(type) {
	case *sql.Join:
		return lateral(t.L)
	case *sql.Derived:
		return t.Lateral
	case *sql.TableFunc:
		return true
	}
	return false
}

// table plans an entry of FROM that refers to nothing before it.
func (b *planner) table(t sql.TableExpr, a around) source {
	switch t := t.(type) {
	case *sql.Derived:
		b.grow(t.Pos())
		return b.named(b.derived(t.Query, a), t.Alias, t.Columns, t.Pos(), a)
	case *sql.Join:
		b.grow(t.Pos())
		return b.join(b.entry(b.nothing(a), t.L, a), t.R, t, a)
	}
	ref := t.(*sql.Table)
	b.grow(ref.Name.Pos())
	alias := ref.Alias
	if alias == "" {
		alias = ref.Name.Base()
	}
	if len(ref.Name.Parts) == 1 {
		for c := a.ctes; c != nil; c = c.around.ctes {
			if c.def.Name == ref.Name.Base() {
				return b.named(b.cte(c, ref.Name.Pos()), alias, ref.Columns, ref.Name.Pos(), a)
			}
		}
	}
	return b.named(b.object(ref.Name), alias, ref.Columns, ref.Name.Pos(), a)
}

func (b *planner) cte(c *ctes, pos int) rel {
	c.used = true
	return b.renamed(b.derived(c.def.Query, c.around), c.def.Columns, pos)
}

// derived plans a query as a relation in another.
func (b *planner) derived(q *sql.Query, a around) rel { return b.inner(q, a).asRel() }

func (b *planner) inner(q *sql.Query, a around) result {
	if q.AsOf != nil {
		b.fail(q.Pos(), "0A000", "AS OF is for the outermost query")
	}
	return b.query(q, a)
}

// named is a relation under an alias.
func (b *planner) named(r rel, alias string, columns []string, pos int, a around) source {
	sc := &scope{around: a}
	for i, c := range b.renamed(r, columns, pos).columns() {
		sc.cols = append(sc.cols, scopeColumn{alias, c.Name, c.Type, i, false})
	}
	return source{r, sc}
}

// renamed gives the first columns of a relation other names.
func (b *planner) renamed(r rel, names []string, pos int) rel {
	if names == nil {
		return r
	}
	cols := slices.Clone(r.columns())
	if len(names) > len(cols) {
		b.fail(pos, "42P10", "%d column names given for %d columns", len(names), len(cols))
	}
	for i, n := range names {
		cols[i].Name = n
	}
	return &mapped{in: r, exprs: columnRefs(cols), cols: cols}
}

// object plans a reference to the catalog: a view that is not maintained in place, anything else as an input.
func (b *planner) object(name sql.Name) rel {
	o := b.env.Catalog.Object(name)
	if o == nil {
		b.fail(name.Pos(), "42704", "unknown catalog item '%s'", name)
	}
	if !slices.Contains(b.uses, o.ID) {
		b.uses = append(b.uses, o.ID)
	}
	b.introspection = b.introspection || o.Introspection
	if o.Query == nil {
		return &get{o}
	}
	if b.views++; b.views > maxViewDepth {
		b.fail(name.Pos(), "54001", "views nested deeper than %d", maxViewDepth)
	}
	defer func() {
		b.views--
		if r := recover(); r != nil {
			if e, ok := r.(*sql.Error); ok { // positions in the view's text mean nothing here
				e.Pos = name.Pos()
			}
			panic(r)
		}
	}()
	r := b.query(o.Query, around{}).asRel()
	return &mapped{in: r, exprs: columnRefs(r.columns()), cols: o.Columns}
}

// join joins an entry of FROM to what stands before it.
func (b *planner) join(left source, t sql.TableExpr, j *sql.Join, a around) source {
	switch t := t.(type) {
	case *sql.TableFunc:
		return b.expand(left, t, j, a)
	case *sql.Derived:
		if t.Lateral && left.rel != unit {
			return b.lateral(left, t, j, a)
		}
	}
	right := b.table(t, a)
	if left.rel == unit {
		return right
	}
	return b.pair(left, right, j, nil)
}

// pair joins two relations. There may be more conditions than those of the join.
func (b *planner) pair(left, right source, j *sql.Join, more []flow.Expr) source {
	sc, width := b.beside(left, right.scope, j)
	on, merged := b.condition(left.scope, right.scope, sc, width, j)
	on = append(on, more...)
	subs := sc.subqueries
	outer := [2]bool{j.Kind == "left" || j.Kind == "full", j.Kind == "right" || j.Kind == "full"}
	switch {
	case subs.count() == 0:
		return source{merged.of(join(left.rel, right.rel, on, outer), sc), sc}
	case outer == [2]bool{}:
		return source{filtered(subs.attach(join(left.rel, right.rel, nil, outer)), subs.place(on)), sc}
	}
	return source{b.outerSubqueries(join(left.rel, right.rel, on, outer), subs, j), sc}
}

// outerSubqueries is an outer join whose condition has subqueries: each has one row, so that it may as well be of the left side.
func (b *planner) outerSubqueries(r *joined, subs *subqueries, j *sql.Join) rel {
	for _, x := range subs.list {
		if x.on != nil {
			panic(sql.Unsupported(j.On.Pos(), "IN (query) in the condition of an outer join is"))
		}
	}
	cols, n := r.columns(), len(r.left.columns())
	refs := columnRefs(cols)
	left := subs.attach(r.left)
	shift := func(c *flow.Col) flow.Expr {
		at := c.Index
		switch {
		case at < 0:
			at = n - 1 - at
		case at >= n:
			at += subs.next
		}
		return &flow.Col{Index: at, T: c.T, Name: c.Name}
	}
	return &mapped{in: join(left, r.right, substitute(r.on, shift), r.outer), exprs: substitute(refs, shift), cols: cols}
}

// beside is the scope of two relations side by side, and the width of the left one.
func (b *planner) beside(left source, r *scope, j *sql.Join) (*scope, int) {
	for _, c := range r.cols {
		if c.table != "" && slices.ContainsFunc(left.scope.cols, func(x scopeColumn) bool { return x.table == c.table }) {
			b.fail(j.Pos(), "42712", "table name %s specified more than once", sql.Ident(c.table))
		}
	}
	width := len(left.rel.columns())
	if width+len(r.cols) > maxJoined {
		b.fail(j.Pos(), "54011", "a join of more than %d columns", maxJoined)
	}
	sc := &scope{cols: slices.Clone(left.scope.cols), around: left.scope.around, subqueries: &subqueries{}}
	for _, c := range r.cols {
		c.index += width
		sc.cols = append(sc.cols, c)
	}
	return sc, width
}

// merged are the columns of USING, which come first and once.
type merged struct {
	names []string
	exprs []flow.Expr // what they are of the columns of both sides
}

// condition plans ON and USING.
func (b *planner) condition(l, r, sc *scope, width int, j *sql.Join) ([]flow.Expr, merged) {
	if j.On != nil {
		return conjuncts(b.boolean(j.On, sc)), merged{}
	}
	var on []flow.Expr
	m := merged{names: j.Using}
	for _, name := range j.Using {
		ref := &sql.Column{At: j.At, Parts: []string{name}}
		x, y := b.lookup(l, ref), len(l.cols)+b.lookup(r, ref)
		sides := []flow.Expr{sc.cols[x].ref(), sc.cols[y].ref()}
		sc.cols[x].hidden, sc.cols[y].hidden = true, true
		on = append(on, b.operator("=", sides[0], sides[1], j.Pos()))
		t := b.unify(sides, j.Pos(), "JOIN/USING")
		switch j.Kind {
		case "right":
			m.exprs = append(m.exprs, sides[1])
		case "full":
			m.exprs = append(m.exprs, &flow.Coalesce{X: sides, T: t})
		default:
			m.exprs = append(m.exprs, sides[0])
		}
	}
	return on, m
}

// of puts the merged columns before the others of a scope, and makes columns of the relation of those that are not.
func (m merged) of(r rel, sc *scope) rel {
	if m.names == nil {
		return r
	}
	cols := slices.Clone(r.columns())
	exprs := columnRefs(cols)
	var first []scopeColumn
	for i, e := range m.exprs {
		c := scopeColumn{name: m.names[i], typ: e.Type()}
		if x, ok := e.(*flow.Col); ok {
			c.index = x.Index
		} else {
			c.index = len(cols)
			cols = append(cols, Column{c.name, c.typ})
			exprs = append(exprs, e)
		}
		first = append(first, c)
	}
	sc.cols = append(first, sc.cols...)
	return &mapped{in: r, exprs: exprs, cols: cols}
}

// expand joins what stands before a table function with what the function makes of it.
func (b *planner) expand(left source, t *sql.TableFunc, j *sql.Join, a around) source {
	b.grow(t.Pos())
	if j.Kind == "right" || j.Kind == "full" {
		panic(sql.Unsupported(j.Pos(), "a "+j.Kind+" join with a table function is"))
	}
	fn, args := b.tableFunc(t, &scope{cols: left.scope.cols, around: a})
	alias, name := t.Alias, fn.Column
	if alias == "" {
		alias = t.Name
	}
	if name == "" {
		name = alias
	}
	if len(t.Columns) > 1 {
		b.fail(t.Pos(), "42P10", "%d column names given for 1 columns", len(t.Columns))
	} else if len(t.Columns) == 1 {
		name = t.Columns[0]
	}
	right := &scope{cols: []scopeColumn{{table: alias, name: name, typ: fn.Result}}}
	sc, width := b.beside(left, right, j)
	sc.subqueries = nil // the condition belongs to the function's operator
	on, merged := b.condition(left.scope, right, sc, width, j)
	r := &expanded{in: left.rel, fn: fn, args: args, on: on, outer: j.Kind == "left",
		cols: beside(left.rel.columns(), Column{name, fn.Result})}
	return source{merged.of(r, sc), sc}
}

func (b *planner) tableFunc(t *sql.TableFunc, s *scope) (*flow.TableFunc, []flow.Expr) {
	if !flow.IsTableFunc(t.Name) {
		panic(sql.Unsupported(t.Pos(), "table function "+t.Name+"() is"))
	}
	args := make([]flow.Expr, len(t.Args))
	types := make([]flow.Type, len(t.Args))
	names := make([]string, len(t.Args))
	for i, e := range t.Args {
		args[i] = b.expr(e, s)
		types[i] = args[i].Type()
		names[i] = types[i].SQL()
	}
	fn := flow.ResolveTable(t.Name, types)
	if fn == nil {
		b.fail(t.Pos(), "42883", "function %s(%s) does not exist", t.Name, strings.Join(names, ", "))
	}
	for i := range args {
		args[i], _ = flow.CastTo(args[i], fn.Params[i])
	}
	return fn, args
}
