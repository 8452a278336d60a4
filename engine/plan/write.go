package plan

import (
	"errors"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/sql"
)

// Write is a planned INSERT, UPDATE or DELETE: how rows of a table come from rows that are given or read.
type Write struct {
	Table *Object
	// Read is what is to be read first, nil if nothing is. For UPDATE and DELETE its first columns are those of the table.
	Read *Plan
	// Values are the rows of VALUES, when nothing is read: expressions without columns.
	Values [][]flow.Expr
	// Old tells that the rows of the table that are read go.
	Old bool
	// New are the columns of a row to be written, over a row of Read; nil for DELETE.
	New []flow.Expr
}

// Insert plans an INSERT.
func Insert(env Env, s *sql.Insert) (w *Write, err error) {
	b := &planner{env: env}
	defer recoverError(&err)
	t := b.writable(s.Table)
	columns := b.targets(t, s.Columns)
	w = &Write{Table: t}
	if s.Query == nil {
		w.Values = [][]flow.Expr{b.defaults(t)}
		return w, nil
	}
	if v, ok := s.Query.Body.(*sql.Values); ok && s.Query.With == nil && s.Query.OrderBy == nil && s.Query.Limit == nil && s.Query.Offset == nil {
		for _, row := range v.Rows {
			b.fits(len(row), columns, s.Columns != nil, v.Pos())
			out := b.defaults(t)
			for i, e := range row {
				if _, ok := e.(*sql.Default); !ok {
					out[columns[i]] = b.assign(t, columns[i], b.expr(e, &scope{}), e.Pos())
				}
			}
			w.Values = append(w.Values, out)
		}
		return w, nil
	}
	w.Read = b.plan(s.Query)
	b.fits(len(w.Read.Columns), columns, s.Columns != nil, s.Query.Pos())
	w.New = b.defaults(t)
	for i, c := range w.Read.Columns {
		w.New[columns[i]] = b.assign(t, columns[i], &flow.Col{Index: i, T: c.Type, Name: c.Name}, s.Query.Pos())
	}
	return w, nil
}

// Update plans an UPDATE.
func Update(env Env, s *sql.Update) (w *Write, err error) {
	b := &planner{env: env}
	defer recoverError(&err)
	t := b.writable(s.Table)
	items := []sql.Item{{Expr: &sql.Star{At: s.At}}}
	var refs []sql.Ref
	for _, a := range s.Set {
		refs = append(refs, a.Column)
	}
	w = &Write{Table: t, Old: true, New: columnRefs(t.Columns)}
	columns := b.targets(t, refs)
	for _, a := range s.Set {
		if _, ok := a.Value.(*sql.Default); !ok {
			items = append(items, sql.Item{Expr: a.Value})
		}
	}
	w.Read = b.plan(rowsOf(s.At, s.Table, s.Alias, items, s.Where))
	at := len(t.Columns)
	for i, a := range s.Set {
		c := columns[i]
		if _, ok := a.Value.(*sql.Default); ok {
			w.New[c] = b.defaultOf(t, c)
			continue
		}
		w.New[c] = b.assign(t, c, &flow.Col{Index: at, T: w.Read.Columns[at].Type, Name: w.Read.Columns[at].Name}, a.Value.Pos())
		at++
	}
	return w, nil
}

// Delete plans a DELETE.
func Delete(env Env, s *sql.Delete) (w *Write, err error) {
	b := &planner{env: env}
	defer recoverError(&err)
	w = &Write{Table: b.writable(s.Table), Old: true}
	w.Read = b.plan(rowsOf(s.At, s.Table, s.Alias, []sql.Item{{Expr: &sql.Star{At: s.At}}}, s.Where))
	return w, nil
}

// Copy plans what COPY FROM writes: the columns that a line gives, by index, and the row that they are put into.
func Copy(env Env, s *sql.CopyFrom) (w *Write, columns []int, err error) {
	b := &planner{env: env}
	defer recoverError(&err)
	w = &Write{Table: b.writable(s.Table)}
	columns = b.targets(w.Table, s.Columns)
	w.New = b.defaults(w.Table)
	return w, columns, nil
}

// CheckDefault plans the DEFAULT of a column that is being defined.
func CheckDefault(env Env, column Column, e sql.Expr) (err error) {
	b := &planner{env: env}
	defer recoverError(&err)
	b.assign(&Object{Columns: []Column{column}}, 0, b.expr(e, &scope{}), e.Pos())
	return nil
}

// TypeOf is the type that a name stands for, and what its modifiers make of a value that is written to a column of it, or nil.
func TypeOf(t sql.TypeName) (typ flow.Type, fit *flow.Func, err error) {
	defer recoverError(&err)
	if typ, fit = lookupType(t); fit != nil && t.Mods != nil {
		fit = flow.Fit(typ, t.Mods)
	}
	return typ, fit, nil
}

// rowsOf is the query for the rows of a table.
func rowsOf(at sql.At, table sql.Name, alias string, items []sql.Item, where sql.Expr) *sql.Query {
	return &sql.Query{At: at, Body: &sql.Select{
		At: at, Items: items, From: []sql.TableExpr{&sql.Table{Name: table, Alias: alias}}, Where: where,
	}}
}

// plan plans a query whose literals without a type keep none: the column that they are written to gives it.
func (b *planner) plan(q *sql.Query) *Plan {
	if q.AsOf != nil {
		b.fail(q.Pos(), "0A000", "what is written is read now: there is no AS OF")
	}
	r := b.untyped(q, around{})
	return &Plan{
		Columns: r.visible(), Order: r.order, Limit: r.limit, Offset: r.offset, Uses: b.uses, Introspection: b.introspection, rel: r.rel,
	}
}

// writable finds a table to write to.
func (b *planner) writable(name sql.Name) *Object {
	o := b.env.Catalog.Object(name)
	switch {
	case o == nil:
		b.fail(name.Pos(), "42P01", "unknown catalog item '%s'", name)
	case o.Writable == nil:
		b.fail(name.Pos(), "42809", "cannot write to %s: it is no table", name)
	}
	return o
}

// targets are the indexes of the columns that are written to: all, if none are named.
func (b *planner) targets(t *Object, refs []sql.Ref) []int {
	var columns []int
	if refs == nil {
		for i := range t.Columns {
			columns = append(columns, i)
		}
	}
	seen := make([]bool, len(t.Columns))
	for _, r := range refs {
		at := -1
		for i, c := range t.Columns {
			if c.Name == r.Name {
				at = i
			}
		}
		switch {
		case at < 0:
			b.fail(r.Pos(), "42703", "column %s of table %s does not exist", r, sql.Ident(t.Name))
		case seen[at]:
			b.fail(r.Pos(), "42701", "column %s specified more than once", r)
		}
		seen[at] = true
		columns = append(columns, at)
	}
	return columns
}

// fits holds a row against the columns that it is for. Without a list of columns it may be shorter.
func (b *planner) fits(n int, columns []int, listed bool, pos int) {
	switch {
	case n > len(columns):
		b.fail(pos, "42601", "INSERT has more expressions than target columns")
	case n < len(columns) && listed:
		b.fail(pos, "42601", "INSERT has more target columns than expressions")
	}
}

func (b *planner) defaults(t *Object) []flow.Expr {
	out := make([]flow.Expr, len(t.Columns))
	for i := range out {
		out[i] = b.defaultOf(t, i)
	}
	return out
}

func (b *planner) defaultOf(t *Object, column int) flow.Expr {
	e := t.Writable[column].Default
	if e == nil {
		return &flow.Const{T: t.Columns[column].Type}
	}
	return b.assign(t, column, b.expr(e, &scope{}), t.Writable[column].Default.Pos())
}

// assign casts a value to the type of the column that it is written to, if that can be done without asking for it.
func (b *planner) assign(t *Object, column int, x flow.Expr, pos int) flow.Expr {
	c := t.Columns[column]
	if assignable(x.Type(), c.Type) {
		if y, ok := flow.CastTo(x, c.Type); ok {
			return y
		}
	}
	panic(&sql.Error{
		Pos: pos, Code: "42804", Hint: "You will need to rewrite or cast the expression.",
		Message: "column " + sql.Ident(c.Name) + " is of type " + c.Type.SQL() + " but expression is of type " + x.Type().SQL(),
	})
}

// assignable tells whether PostgreSQL casts by itself when a value is written to a column.
func assignable(from, to flow.Type) bool {
	isTime := func(t flow.Type) bool { return t == flow.Date || t == flow.Timestamp || t == flow.Timestamptz }
	return from == to || from == flow.Unknown || to == flow.Text || from == flow.StreamTime && to == flow.Numeric ||
		from.IsNumber() && to.IsNumber() || isTime(from) && isTime(to)
}

// param is a parameter: its value, or what stands for it until there is one.
func (b *planner) param(e *sql.Param) flow.Expr {
	p := b.env.Params
	switch {
	case e.N >= len(p.Types):
		b.fail(e.Pos(), "42P02", "there is no parameter %s", e)
	case p.Values == nil:
		return &flow.Param{N: e.N, Known: p.Types}
	}
	return &flow.Const{D: p.Values[e.N], T: p.Types[e.N]}
}

// Row evaluates the columns of a row to be written over a row that was read.
func (w *Write) Row(c *flow.Context, exprs []flow.Expr, in flow.Row) (flow.Row, error) {
	out := make(flow.Row, len(exprs))
	for i, e := range exprs {
		v, err := e.Eval(c, in)
		if err != nil {
			return nil, evalError(err)
		}
		out[i] = v
	}
	return out, w.Fit(c, out)
}

// Fit makes the values of a row what the modifiers of their columns' types ask for, and holds it against the columns that must not be
// NULL.
func (w *Write) Fit(c *flow.Context, row flow.Row) (err error) {
	for i, col := range w.Table.Writable {
		switch {
		case row[i].IsNull() && col.NotNull:
			return &flow.EvalError{Code: "23502", Message: "null value in column " + sql.Ident(w.Table.Columns[i].Name) + " of table " +
				sql.Ident(w.Table.Name) + " violates not-null constraint"}
		case row[i].IsNull() || col.Fit == nil:
			continue
		}
		if row[i], err = col.Fit.F1(c, row[i]); err != nil {
			return evalError(err)
		}
	}
	return nil
}

func evalError(err error) error {
	if e := new(flow.EvalError); errors.As(err, &e) && e.Code != "" {
		return e
	}
	return &flow.EvalError{Code: "22000", Message: err.Error()}
}
