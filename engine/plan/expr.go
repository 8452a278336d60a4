package plan

import (
	"strconv"
	"strings"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/sql"
)

var aggregates = map[string]flow.AggregateFunc{
	"count": flow.Count, "sum": flow.Sum, "avg": flow.Avg, "min": flow.Min, "max": flow.Max,
	"bool_and": flow.BoolAnd, "every": flow.BoolAnd, "bool_or": flow.BoolOr,
	"string_agg": flow.StringAgg, "array_agg": flow.ArrayAgg, "jsonb_agg": flow.JsonbAgg, "jsonb_object_agg": flow.JsonbObjectAgg,
}

const noClock = "The views here have no clock: put the time into the event."

// clocks are the functions of PostgreSQL that tell the time, and that Materialize has not either.
var clocks = map[string]bool{"current_date": true, "current_time": true, "localtime": true, "localtimestamp": true, "clock_timestamp": true}

// elsewhere are functions of Materialize that the engine knows by name only, with a hint where there is something else to do.
var elsewhere = makeElsewhere()

func makeElsewhere() map[string]string {
	m := map[string]string{}
	for hint, names := range map[string]string{
		noClock: "now current_timestamp",
		"Temporal filters need a clock, and the views here have none.": "mz_now mz_logical_timestamp",
		"": `acos age array_cat array_fill array_length array_lower array_position array_remove array_to_string array_upper ascii asin atan
			bit_count bit_length cbrt chr constant_time_eq convert_from corr cos cot crc32 current_database current_role current_schema
			current_schemas current_user date_bin decode degrees dense_rank digest encode exp first_value format_type
			generate_subscripts get_bit get_byte hmac initcap jsonb_each jsonb_each_text
			jsonb_pretty jsonb_strip_nulls justify_days justify_hours justify_interval kafka_murmur2 lag last_value lead
			list_agg list_append list_cat list_length list_prepend list_remove ln log log10 lpad make_timestamp map_agg map_build map_length md5
			parse_ident pg_typeof quote_ident radians rank regexp_match regexp_matches regexp_replace regexp_split_to_array
			regexp_split_to_table repeat reverse row_number seahash session_user sha224 sha256 sha384 sha512 sin stddev stddev_pop
			stddev_samp string_to_array tan timezone to_char translate try_parse_monotonic_iso8601_timestamp unnest uuid_generate_v5
			var_pop var_samp variance`,
	} {
		for _, n := range strings.Fields(names) {
			m[n] = hint
		}
	}
	return m
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
	if g := s.group; g != nil && !hasAggregate(e) {
		n := g.inner.subqueries.count()
		x := b.expr(e, g.inner)
		for i, k := range g.keys {
			if k.String() == b.known(x).String() {
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
	if name.Field != "" && (x.Type() == flow.Unknown || x.Type() == flow.Text) { // the field says how to read a bare number
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

func (b *planner) unary(e *sql.Unary, s *scope) flow.Expr {
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

// emptyJSON is what the functions that build a jsonb make of no arguments.
var emptyJSON = map[string]string{"jsonb_build_array": "[]", "jsonb_build_object": "{}"}

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
		at := b.column(&a.args, b.known(b.expr(o.Expr, s)))
		if e.Distinct && at >= n {
			b.fail(o.Expr.Pos(), "42P10", "in an aggregate with DISTINCT, ORDER BY expressions must appear in argument list")
		}
		a.order = append(a.order, sortKey(o, at))
	}
	if !a.fn.Ordered() {
		a.args, a.order = a.args[:n], nil
	}
}

func typeList(list []flow.Expr) []string {
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Type().SQL()
	}
	return names
}

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
	}
	return &flow.Col{Index: len(g.keys) + at, T: a.typ(), Name: e.Name}
}
