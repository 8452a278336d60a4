package plan

import (
	"slices"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/sql"
)

// scope is what names mean in an expression: the columns of FROM, or, above a GROUP BY, the keys and aggregates.
type scope struct {
	cols  []scopeColumn
	group *grouping
}

type scopeColumn struct {
	table, name string
	typ         flow.Type
	hidden      bool // the second of two columns that USING has merged
}

func (s *scope) has(name string) bool {
	return slices.ContainsFunc(s.cols, func(c scopeColumn) bool { return c.name == name && !c.hidden })
}

// find returns the index of a column.
func (b *planner) find(s *scope, c *sql.Column) int {
	name := c.Parts[len(c.Parts)-1]
	found := -1
	for i, x := range s.cols {
		if x.name != name || len(c.Parts) == 1 && x.hidden || len(c.Parts) > 1 && x.table != c.Parts[len(c.Parts)-2] {
			continue
		}
		if found >= 0 {
			b.fail(c.Pos(), "42702", "column %s is ambiguous", c)
		}
		found = i
	}
	if found < 0 {
		b.fail(c.Pos(), "42703", "column %s does not exist", c)
	}
	return found
}

// grouping collects the aggregates that the expressions above a GROUP BY use.
type grouping struct {
	inner *scope
	keys  []flow.Expr
	aggs  []aggregate
}

// rel is the relation of the groups, once all expressions above it have been planned.
func (g *grouping) rel(in rel) rel {
	r := &reduced{in: in, keys: g.keys, aggs: g.aggs}
	for _, k := range g.keys {
		name := "key"
		if c, ok := k.(*flow.Col); ok {
			name = c.Name
		}
		r.cols = append(r.cols, Column{name, k.Type()})
	}
	for _, a := range g.aggs {
		r.cols = append(r.cols, Column{string(a.fn), a.typ()})
	}
	return r
}

func (a aggregate) typ() flow.Type {
	if a.arg == nil {
		return flow.Int8
	}
	t, _ := flow.AggregateType(a.fn, a.arg.Type())
	return t
}

func (a aggregate) same(o aggregate) bool {
	text := func(e flow.Expr) string {
		if e == nil {
			return ""
		}
		return e.String()
	}
	return a.fn == o.fn && a.distinct == o.distinct && text(a.arg) == text(o.arg) && text(a.filter) == text(o.filter)
}

// from plans the FROM clause; the entries of its list are joined without a condition, which WHERE may supply.
func (b *planner) from(s *sql.Select, with *ctes) (rel, *scope) {
	if s.From == nil {
		return &constant{rows: [][]flow.Expr{{}}}, &scope{}
	}
	r, sc := b.table(s.From[0], with)
	for _, t := range s.From[1:] {
		right, rs := b.table(t, with)
		r = &joined{left: r, right: right}
		sc = &scope{cols: append(sc.cols, rs.cols...)}
	}
	return r, sc
}

func (b *planner) table(t sql.TableExpr, with *ctes) (rel, *scope) {
	switch t := t.(type) {
	case *sql.Derived:
		b.grow(t.Pos())
		r := b.subquery(t.Query, with)
		return r, b.named(r, t.Alias, t.Columns, t.Pos())
	case *sql.Join:
		b.grow(t.Pos())
		return b.join(t, with)
	}
	ref := t.(*sql.Table)
	b.grow(ref.Name.Pos())
	alias := ref.Alias
	if alias == "" {
		alias = ref.Name.Base()
	}
	if len(ref.Name.Parts) == 1 {
		for c := with; c != nil; c = c.outer {
			if c.def.Name == ref.Name.Base() {
				r := b.renamed(b.subquery(c.def.Query, c.outer), c.def.Columns, ref.Name.Pos())
				return r, b.named(r, alias, ref.Columns, ref.Name.Pos())
			}
		}
	}
	r := b.object(ref.Name)
	return r, b.named(r, alias, ref.Columns, ref.Name.Pos())
}

func (b *planner) subquery(q *sql.Query, with *ctes) rel {
	if q.AsOf != nil {
		b.fail(q.Pos(), "0A000", "AS OF is for the outermost query")
	}
	return b.query(q, with).asRel()
}

// named is the scope of a relation under an alias.
func (b *planner) named(r rel, alias string, columns []string, pos int) *scope {
	sc := &scope{}
	for _, c := range b.renamed(r, columns, pos).columns() {
		sc.cols = append(sc.cols, scopeColumn{alias, c.Name, c.Type, false})
	}
	return sc
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
	r := b.query(o.Query, nil).asRel()
	return &mapped{in: r, exprs: columnRefs(r.columns()), cols: o.Columns}
}

func (b *planner) join(j *sql.Join, with *ctes) (rel, *scope) {
	left, ls := b.table(j.L, with)
	right, rs := b.table(j.R, with)
	if j.Kind == "right" {
		return b.rightJoin(j, left, right, ls, rs)
	}
	r := &joined{left: left, right: right, outer: j.Kind == "left"}
	sc := &scope{cols: append(slices.Clone(ls.cols), rs.cols...)}
	b.condition(r, sc, j, ls, rs)
	if residual := r.residual; residual != nil {
		return &mapped{in: r, filters: residual, exprs: columnRefs(r.columns()), cols: r.columns()}, sc
	}
	return r, sc
}

// rightJoin is a left join with its sides changed, and changed back in its output.
func (b *planner) rightJoin(j *sql.Join, left, right rel, ls, rs *scope) (rel, *scope) {
	r := &joined{left: right, right: left, outer: true}
	swapped := &scope{cols: append(slices.Clone(rs.cols), ls.cols...)}
	b.condition(r, swapped, j, rs, ls)
	cols := r.columns()
	refs := columnRefs(cols)
	n := len(rs.cols)
	out := &mapped{in: r, exprs: append(refs[n:len(refs):len(refs)], refs[:n]...), cols: append(cols[n:len(cols):len(cols)], cols[:n]...)}
	return out, &scope{cols: append(swapped.cols[n:len(cols):len(cols)], swapped.cols[:n]...)}
}

// condition sorts the parts of a join condition: equalities between the sides become keys, the rest of an inner join a filter.
func (b *planner) condition(r *joined, sc *scope, j *sql.Join, ls, rs *scope) {
	var parts []flow.Expr
	for _, name := range j.Using {
		li := b.find(ls, &sql.Column{At: j.At, Parts: []string{name}})
		ri := b.find(rs, &sql.Column{At: j.At, Parts: []string{name}})
		l := &flow.Col{Index: li, T: ls.cols[li].typ, Name: name}
		x := &flow.Col{Index: len(ls.cols) + ri, T: rs.cols[ri].typ, Name: name}
		parts = append(parts, b.operator("=", l, x, j.Pos()))
		sc.cols[len(ls.cols)+ri].hidden = true
	}
	if j.On != nil {
		parts = append(parts, conjuncts(b.boolean(j.On, sc))...)
	}
	split := len(ls.cols)
	for _, p := range parts {
		if r.addKey(p, split) {
			continue
		}
		if !r.outer {
			r.residual = append(r.residual, p)
			continue
		}
		cols := needed([]flow.Expr{p})
		if len(cols) > 0 && cols[0] < split {
			panic(sql.Unsupported(j.Pos(), "an outer join ON anything but equalities and conditions on its optional side is"))
		}
		// A condition on the optional side decides which of its rows are there to be joined.
		shift := func(c *flow.Col) flow.Expr { return &flow.Col{Index: c.Index - split, T: c.T, Name: c.Name} }
		rc := r.right.columns()
		r.right = &mapped{in: r.right, filters: []flow.Expr{flow.Substitute(p, shift)}, exprs: columnRefs(rc), cols: rc}
	}
}

// addKey makes an equality between the two sides a key of the join.
func (r *joined) addKey(e flow.Expr, split int) bool {
	c, ok := e.(*flow.Call)
	if !ok || c.F.Name != "=" {
		return false
	}
	a, z := needed(c.X[:1]), needed(c.X[1:])
	if len(a) == 0 || len(z) == 0 {
		return false
	}
	l, x := c.X[0], c.X[1]
	if a[0] >= split {
		l, x, a, z = x, l, z, a
	}
	if a[len(a)-1] >= split || z[0] < split {
		return false
	}
	r.leftKey = append(r.leftKey, l)
	r.rightKey = append(r.rightKey, flow.Substitute(x, func(c *flow.Col) flow.Expr {
		return &flow.Col{Index: c.Index - split, T: c.T, Name: c.Name}
	}))
	return true
}

// where applies a WHERE clause: equalities become keys of the joins of FROM, the rest a filter.
func (b *planner) where(in rel, sc *scope, e sql.Expr) rel {
	if e == nil {
		return in
	}
	var filters []flow.Expr
	for _, f := range conjuncts(b.boolean(e, sc)) {
		if !pushKey(in, f) {
			filters = append(filters, f)
		}
	}
	return &mapped{in: in, filters: filters, exprs: columnRefs(in.columns()), cols: in.columns()}
}

// pushKey makes an equality a key of the inner join below whose sides it connects.
func pushKey(r rel, f flow.Expr) bool {
	j, ok := r.(*joined)
	if !ok {
		return false
	}
	split := len(j.left.columns())
	cols := needed([]flow.Expr{f})
	if len(cols) > 0 && cols[len(cols)-1] < split {
		return pushKey(j.left, f)
	}
	return !j.outer && j.addKey(f, split)
}

func conjuncts(e flow.Expr) []flow.Expr {
	if l, ok := e.(*flow.Logic); ok && !l.Or {
		return append(conjuncts(l.L), conjuncts(l.R)...)
	}
	return []flow.Expr{e}
}
