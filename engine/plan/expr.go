package plan

import (
	"strconv"
	"strings"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/sql"
)

func walk(e sql.Expr, f func(sql.Expr)) {
	if e == nil {
		return
	}
	f(e)
	for _, x := range children(e) {
		walk(x, f)
	}
}

func children(e sql.Expr) []sql.Expr {
	switch e := e.(type) {
	case *sql.Unary:
		return []sql.Expr{e.X}
	case *sql.Binary:
		return []sql.Expr{e.L, e.R}
	case *sql.Cast:
		return []sql.Expr{e.X}
	case *sql.Call:
		list := append(e.Args[:len(e.Args):len(e.Args)], e.Filter)
		for _, o := range e.OrderBy {
			list = append(list, o.Expr)
		}
		return list
	case *sql.Case:
		out := []sql.Expr{e.Operand, e.Else}
		for _, w := range e.When {
			out = append(out, w.Cond, w.Result)
		}
		return out
	case *sql.In:
		return append([]sql.Expr{e.X}, e.List...)
	case *sql.InQuery:
		return []sql.Expr{e.X}
	case *sql.Between:
		return []sql.Expr{e.X, e.Low, e.High}
	case *sql.Is:
		return []sql.Expr{e.X}
	case *sql.DistinctFrom:
		return []sql.Expr{e.L, e.R}
	}
	return nil
}

// boolean plans a condition.
func (b *planner) boolean(e sql.Expr, s *scope) flow.Expr {
	return b.coerceBool(b.expr(e, s), e.Pos())
}

func (b *planner) coerceBool(x flow.Expr, pos int) flow.Expr {
	if x.Type() == flow.Unknown {
		x, _ = flow.CastTo(x, flow.Bool)
	}
	if x.Type() != flow.Bool {
		b.fail(pos, "42804", "condition must be type boolean, not type %s", x.Type().SQL())
	}
	return x
}

// expr plans an expression. Above a GROUP BY, what equals a key is that key.
func (b *planner) expr(e sql.Expr, s *scope) flow.Expr {
	if s.below != nil {
		return b.exprBelow(e, s)
	}
	if g := s.group; g != nil && !hasAggregate(e) {
		n := g.inner.subqueries.count()
		x := b.expr(e, g.inner)
		for i, k := range g.keys {
			if flow.Same(k, b.known(x)) {
				return &flow.Col{Index: i, T: k.Type(), Name: figureName(e)}
			}
		}
		if len(needed([]flow.Expr{x})) == 0 {
			return x
		}
		switch e := e.(type) {
		case *sql.Column, *resolved:
			b.fail(e.Pos(), "42803", "column %q must appear in the GROUP BY clause or be used in an aggregate function", x.(*flow.Col).Name)
		}
		g.inner.subqueries.forget(n)
	}
	return b.node(e, s)
}

// exprBelow plans an expression below a GROUP BY, once if it has no subqueries.
func (b *planner) exprBelow(e sql.Expr, s *scope) flow.Expr {
	if x, ok := s.below[e]; ok {
		return x
	}
	n := s.subqueries.count()
	x := b.node(e, s)
	if s.subqueries.count() == n {
		s.below[e] = x
	}
	return x
}

func (b *planner) node(e sql.Expr, s *scope) flow.Expr {
	switch e := e.(type) {
	case *resolved:
		return s.cols[e.index].ref()
	case *sql.Column:
		return s.cols[b.lookup(s, e)].ref()
	case *sql.Literal:
		return b.literal(e)
	case *sql.Param:
		return b.param(e)
	case *sql.Unary:
		return b.unary(e, s)
	case *sql.Binary:
		return b.binary(e, s)
	case *sql.Cast:
		return b.cast(b.expr(e.X, s), e.Type, e.Pos())
	case *sql.Call:
		return b.call(e, s)
	case *sql.Case:
		return b.caseExpr(e, s)
	case *sql.In:
		x := []flow.Expr{b.expr(e.X, s)}
		for _, item := range e.List {
			x = append(x, b.expr(item, s))
		}
		b.unify(x, e.Pos(), "IN")
		return negate(flow.Fold(&flow.In{X: x}), e.Not)
	case *sql.InQuery:
		return b.in(e, s)
	case *sql.Subquery:
		return b.value(e, s)
	case *sql.Exists:
		return b.exists(e, s)
	case *sql.Between:
		x, low, high := b.expr(e.X, s), b.expr(e.Low, s), b.expr(e.High, s)
		return negate(flow.Fold(&flow.Logic{L: b.operator(">=", x, low, e.Pos()), R: b.operator("<=", x, high, e.Pos())}), e.Not)
	case *sql.Is:
		x := b.expr(e.X, s)
		kind := map[string]flow.TestKind{"true": flow.IsTrue, "false": flow.IsFalse}[e.What]
		if e.What != "null" {
			x = b.coerceBool(x, e.Pos())
		}
		return negate(flow.Fold(&flow.Test{Kind: kind, X: x}), e.Not)
	case *sql.DistinctFrom:
		x := []flow.Expr{b.expr(e.L, s), b.expr(e.R, s)}
		b.unify(x, e.Pos(), "IS DISTINCT FROM")
		return negate(flow.Fold(&flow.Distinct{L: x[0], R: x[1]}), e.Not)
	}
	b.fail(e.Pos(), "42601", "* is not an expression")
	return nil
}

// cast casts an expression to a type, and to what its modifiers ask for.
func (b *planner) cast(x flow.Expr, name sql.TypeName, pos int) flow.Expr {
	t, modifier := lookupType(name)
	if name.Field != "" && x.Type() == flow.Unknown { // the field says how to read a bare number
		x = b.known(x)
		return flow.Fold(&flow.Call{F: flow.Restriction(flow.Text, name.Field), X: []flow.Expr{x}})
	}
	out, ok := flow.CastTo(x, t)
	if !ok {
		b.fail(pos, "42846", "cannot cast type %s to %s", x.Type().SQL(), t.SQL())
	}
	if modifier != nil {
		out = flow.Fold(&flow.Call{F: modifier, X: []flow.Expr{out}})
	}
	return out
}

func negate(e flow.Expr, really bool) flow.Expr {
	if !really {
		return e
	}
	return flow.Fold(&flow.Call{F: flow.Resolve("not", []flow.Type{flow.Bool}), X: []flow.Expr{e}})
}

func (b *planner) literal(e *sql.Literal) flow.Expr {
	switch e.Kind {
	case sql.String:
		return &flow.Const{D: flow.NewText(e.Text)}
	case sql.Bool:
		return &flow.Const{D: flow.NewBool(e.Text == "true"), T: flow.Bool}
	case sql.Null:
		return &flow.Const{}
	}
	if n, err := strconv.ParseInt(e.Text, 10, 64); err == nil {
		if n == int64(int32(n)) {
			return &flow.Const{D: flow.NewInt(flow.Int4, n), T: flow.Int4}
		}
		return &flow.Const{D: flow.NewInt(flow.Int8, n), T: flow.Int8}
	}
	x, _ := flow.CastTo(&flow.Const{D: flow.NewText(e.Text), T: flow.Text}, flow.Numeric)
	return x
}

// number is the text of a number with the signs before it. They are part of it, because the least integers have no positive ones.
func number(e sql.Expr) (string, bool) {
	switch e := e.(type) {
	case *sql.Literal:
		return e.Text, e.Kind == sql.Number
	case *sql.Unary:
		text, ok := number(e.X)
		if positive, negative := strings.CutPrefix(text, "-"); negative {
			return positive, ok && e.Op == "-"
		}
		return "-" + text, ok && e.Op == "-"
	}
	return "", false
}

func (b *planner) unary(e *sql.Unary, s *scope) flow.Expr {
	if text, ok := number(e); ok {
		return b.literal(&sql.Literal{At: e.At, Kind: sql.Number, Text: text})
	}
	x := b.expr(e.X, s)
	if e.Op == "NOT" {
		return negate(b.coerceBool(x, e.Pos()), true)
	}
	if x.Type() == flow.Unknown {
		x, _ = flow.CastTo(x, flow.Float8)
	}
	if e.Op == "+" && x.Type().IsNumber() {
		return x
	}
	if e.Op == "+" || flow.Resolve("-", []flow.Type{x.Type()}) == nil {
		b.fail(e.Pos(), "42883", "operator does not exist: %s %s", e.Op, x.Type().SQL())
	}
	return b.apply("-", []flow.Expr{x}, e.Pos())
}

func (b *planner) binary(e *sql.Binary, s *scope) flow.Expr {
	l, r := b.expr(e.L, s), b.expr(e.R, s)
	switch e.Op {
	case "AND", "OR":
		return flow.Fold(&flow.Logic{Or: e.Op == "OR", L: b.coerceBool(l, e.L.Pos()), R: b.coerceBool(r, e.R.Pos())})
	case "LIKE":
		return b.operator("~~", l, r, e.Pos())
	case "ILIKE":
		return b.operator("~~*", l, r, e.Pos())
	case "->", "->>", "#>", "#>>":
		return b.jsonRead(e.Op, l, r, e.Pos())
	case "||":
		if l.Type().IsArray() || r.Type().IsArray() {
			panic(sql.Unsupported(e.Pos(), "concatenation of arrays is"))
		}
		l, r = b.concatenable(l, r), b.concatenable(r, l)
	}
	return b.operator(e.Op, l, r, e.Pos())
}

// concatenable casts what stands beside a text to text. A literal beside a value with a concatenation of its own is such a value.
func (b *planner) concatenable(x, other flow.Expr) flow.Expr {
	own := x.Type() == flow.Jsonb || x.Type() == flow.Bytea
	if t := other.Type(); t == flow.Text || t == flow.Unknown && !own {
		if y, ok := flow.CastTo(x, flow.Text); ok {
			return y
		}
	}
	return x
}

// operator applies a binary operator with the casts it needs.
func (b *planner) operator(name string, l, r flow.Expr, pos int) flow.Expr {
	return b.apply(name, []flow.Expr{l, r}, pos)
}

func (b *planner) apply(name string, args []flow.Expr, pos int) flow.Expr {
	types, names := make([]flow.Type, len(args)), typeList(args)
	for i, a := range args {
		types[i] = a.Type()
	}
	f := flow.Resolve(name, types)
	if f == nil {
		if len(args) == 2 && !sqlName(name) {
			b.fail(pos, "42883", "operator does not exist: %s %s %s", names[0], name, names[1])
		}
		b.fail(pos, "42883", "function %s(%s) does not exist", name, strings.Join(names, ", "))
	}
	cast := make([]flow.Expr, len(args))
	for i, a := range args {
		cast[i], _ = flow.CastTo(a, f.Params[i])
	}
	return flow.Fold(&flow.Call{F: f, X: cast})
}

func sqlName(s string) bool { return s[0] >= 'a' && s[0] <= 'z' }

// jsonRead plans -> ->> #> #>>. A constant path needs no value of what lies on it.
func (b *planner) jsonRead(op string, l, r flow.Expr, pos int) flow.Expr {
	if l.Type() == flow.Unknown {
		l, _ = flow.CastTo(l, flow.Jsonb)
	}
	if l.Type() != flow.Jsonb {
		b.fail(pos, "42883", "operator does not exist: %s %s %s", l.Type().SQL(), op, r.Type().SQL())
	}
	read := &flow.ReadJSON{X: l, T: flow.Jsonb}
	if strings.HasSuffix(op, ">>") {
		read.Text, read.T = true, flow.Text
	}
	c, constant := r.(*flow.Const)
	switch {
	case constant && c.D.IsNull():
		return &flow.Const{T: read.T}
	case op[0] == '#':
		path, ok := b.pathSteps(r)
		if !ok {
			return b.operator(op, l, r, pos)
		}
		read.Path = path
	case constant && (c.T == flow.Unknown || c.T == flow.Text):
		read.Path = []flow.JSONStep{{Key: c.D.Str()}}
	case constant && (c.T == flow.Int4 || c.T == flow.Int2):
		read.Path = []flow.JSONStep{{Index: int(c.D.Int()), Kind: flow.ByIndex}}
	default:
		return b.operator(op, l, r, pos)
	}
	return flow.Fold(flow.NewReadJSON(read))
}

// pathSteps reads a path that is a constant without NULLs.
func (b *planner) pathSteps(r flow.Expr) ([]flow.JSONStep, bool) {
	if r.Type() == flow.Unknown {
		r, _ = flow.CastTo(r, flow.ArrayOf(flow.Text))
	}
	c, ok := r.(*flow.Const)
	if !ok || c.T != flow.ArrayOf(flow.Text) {
		return nil, false
	}
	var path []flow.JSONStep
	for key := range c.D.Elements() {
		if key.IsNull() {
			return nil, false
		}
		path = append(path, flow.JSONStep{Key: key.Str(), Kind: flow.ByPath})
	}
	return path, true
}

// unify casts expressions to the type they have in common and returns it.
func (b *planner) unify(list []flow.Expr, pos int, what string) flow.Type {
	t := flow.Unknown
	for _, e := range list {
		common, ok := flow.Common(t, e.Type())
		if !ok {
			b.fail(pos, "42804", "%s types %s and %s cannot be matched", what, t.SQL(), e.Type().SQL())
		}
		t = common
	}
	for i, e := range list {
		if e.Type() != t {
			list[i], _ = flow.CastTo(e, t)
		}
	}
	return t
}

func (b *planner) caseExpr(e *sql.Case, s *scope) flow.Expr {
	var operand flow.Expr
	if e.Operand != nil {
		operand = b.expr(e.Operand, s)
	}
	var conds, results []flow.Expr
	for _, w := range e.When {
		cond := b.expr(w.Cond, s)
		if operand != nil {
			cond = b.operator("=", operand, cond, w.Cond.Pos())
		}
		conds = append(conds, b.coerceBool(cond, w.Cond.Pos()))
		results = append(results, b.expr(w.Result, s))
	}
	if e.Else != nil {
		results = append(results, b.expr(e.Else, s))
	} else {
		results = append(results, &flow.Const{})
	}
	c := &flow.Case{T: b.unify(results, e.Pos(), "CASE")}
	for i, cond := range conds {
		c.X = append(c.X, cond, results[i])
	}
	c.X = append(c.X, results[len(results)-1])
	return flow.Fold(c)
}

func (b *planner) call(e *sql.Call, s *scope) flow.Expr {
	if fn, ok := aggregates[e.Name]; ok {
		return b.aggregate(fn, e, s)
	}
	if e.Distinct || e.Filter != nil || e.OrderBy != nil {
		b.fail(e.Pos(), "42809", "%s is not an aggregate function", e.Name)
	}
	if v, ok := b.env.Constants[e.Name]; ok && len(e.Args) == 0 {
		return &flow.Const{D: flow.NewText(v), T: flow.Text}
	}
	args := make([]flow.Expr, len(e.Args))
	for i, a := range e.Args {
		args[i] = b.expr(a, s)
	}
	switch {
	case e.Name == "coalesce" && len(args) > 0:
		return flow.Fold(&flow.Coalesce{T: b.unify(args, e.Pos(), "COALESCE"), X: args})
	case (e.Name == "greatest" || e.Name == "least") && len(args) > 0:
		b.unify(args, e.Pos(), strings.ToUpper(e.Name))
	case e.Name == "substring" && (len(args) == 2 || len(args) == 3) && isText(args[1]):
		panic(sql.Refused(e.Args[1].Pos(), "substring by a regular expression is"))
	case e.Name == "jsonb_build_object" && len(args)%2 != 0:
		b.fail(e.Pos(), "22023", "argument list must have even number of elements")
	case e.Name == "nullif" && len(args) == 2:
		same := b.operator("=", args[0], args[1], e.Pos())
		first := b.known(args[0])
		return flow.Fold(&flow.Case{X: []flow.Expr{same, &flow.Const{T: first.Type()}, first}, T: first.Type()})
	}
	if flow.IsTableFunc(e.Name) {
		err := sql.Unsupported(e.Pos(), "table function "+e.Name+"() outside of FROM is")
		err.Hint += " (here: FROM t, " + e.Name + "(...) AS x)"
		panic(err)
	}
	if hint, ok := elsewhere[e.Name]; ok {
		err := sql.Unsupported(e.Pos(), "function "+e.Name+" is")
		if hint != "" {
			err.Hint += " " + hint
		}
		panic(err)
	}
	if clocks[e.Name] {
		err := sql.Refused(e.Pos(), e.Name+" is")
		err.Hint = noClock
		panic(err)
	}
	if !flow.Known(e.Name) || e.Name == "not" {
		b.fail(e.Pos(), "42883", "function %s does not exist", e.Name)
	}
	if empty := emptyJSON[e.Name]; empty != "" && len(args) == 0 {
		x, _ := flow.CastTo(&flow.Const{D: flow.NewText(empty), T: flow.Text}, flow.Jsonb)
		return x
	}
	return b.apply(e.Name, args, e.Pos())
}

// isText tells whether an expression is a text, or a quoted literal that may be one.
func isText(e flow.Expr) bool {
	c, ok := e.(*flow.Const)
	return e.Type() == flow.Text || ok && c.T == flow.Unknown && !c.D.IsNull()
}

// emptyJSON is what the functions that build a jsonb make of no arguments.
var emptyJSON = map[string]string{"jsonb_build_array": "[]", "jsonb_build_object": "{}"}

func typeList(list []flow.Expr) []string {
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Type().SQL()
	}
	return names
}
