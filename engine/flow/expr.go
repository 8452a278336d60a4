package flow

import (
	"slices"
	"strconv"
	"strings"

	"github.com/valyala/fastjson"
)

// Expr is a scalar expression over the columns of a row. Expressions are immutable and may be shared by goroutines; what they
// need while they run is in the Context.
type Expr interface {
	// Type is the type of the result, Unknown for a bare NULL or quoted literal.
	Type() Type
	// Eval computes the value for a row. Its error is an [EvalError].
	Eval(*Context, Row) (Datum, error)
	// Args are the expressions below this one.
	Args() []Expr
	// WithArgs is the same expression over others.
	WithArgs([]Expr) Expr
	// String is for EXPLAIN.
	String() string
}

// Col reads a column of the row.
type Col struct {
	Index int
	T     Type
	Name  string // for EXPLAIN
}

// Const is a literal.
type Const struct {
	D Datum
	T Type
}

// Call applies a function, which is NULL if any argument is NULL unless it takes NULLs. An error in an argument is one beside a NULL too.
type Call struct {
	F *Func
	X []Expr
}

// Logic is AND or OR under three-valued logic.
type Logic struct {
	Or   bool
	L, R Expr
}

// Coalesce is its first argument that is not NULL.
type Coalesce struct {
	X []Expr
	T Type
}

// Case is a searched CASE: X holds conditions and results in turn, and the ELSE at the end.
type Case struct {
	X []Expr
	T Type
}

// In tells whether the first argument equals one of the others, under three-valued logic. All have one type.
type In struct{ X []Expr }

// TestKind is what [Test] asks.
type TestKind uint8

// The tests that never answer NULL.
const (
	IsNull TestKind = iota
	IsTrue
	IsFalse
)

// Test is X IS NULL, IS TRUE or IS FALSE.
type Test struct {
	Kind TestKind
	X    Expr
}

// Distinct is L IS DISTINCT FROM R: inequality in which NULL equals NULL.
type Distinct struct{ L, R Expr }

// Try is X, and NULL where that is an error: for who computes it before it is known whether anybody asks.
type Try struct{ X Expr }

// Raise is an error, for who comes to it.
type Raise struct {
	Err *EvalError
	T   Type
}

// ReadJSON follows a path of constant steps into a JSON text and casts what it finds, without making a value of anything on the
// way. It is what chains of ->, ->>, #>, #>> and a cast at their end become.
type ReadJSON struct {
	X    Expr // of type text or jsonb
	Path []JSONStep
	// Text tells that the last step was ->> or #>>, which is different from a cast to text: strings lose their quotes.
	Text bool
	T    Type
}

func (e *Col) Type() Type      { return e.T }
func (e *Const) Type() Type    { return e.T }
func (e *Call) Type() Type     { return e.F.Result }
func (e *Logic) Type() Type    { return Bool }
func (e *Coalesce) Type() Type { return e.T }
func (e *Case) Type() Type     { return e.T }
func (e *In) Type() Type       { return Bool }
func (e *Test) Type() Type     { return Bool }
func (e *Distinct) Type() Type { return Bool }
func (e *Try) Type() Type      { return e.X.Type() }
func (e *Raise) Type() Type    { return e.T }
func (e *ReadJSON) Type() Type { return e.T }

func (e *Col) Args() []Expr      { return nil }
func (e *Const) Args() []Expr    { return nil }
func (e *Call) Args() []Expr     { return e.X }
func (e *Logic) Args() []Expr    { return []Expr{e.L, e.R} }
func (e *Coalesce) Args() []Expr { return e.X }
func (e *Case) Args() []Expr     { return e.X }
func (e *In) Args() []Expr       { return e.X }
func (e *Test) Args() []Expr     { return []Expr{e.X} }
func (e *Distinct) Args() []Expr { return []Expr{e.L, e.R} }
func (e *Try) Args() []Expr      { return []Expr{e.X} }
func (e *Raise) Args() []Expr    { return nil }
func (e *ReadJSON) Args() []Expr { return []Expr{e.X} }

func (e *Col) WithArgs([]Expr) Expr        { return e }
func (e *Const) WithArgs([]Expr) Expr      { return e }
func (e *Call) WithArgs(x []Expr) Expr     { return &Call{e.F, x} }
func (e *Logic) WithArgs(x []Expr) Expr    { return &Logic{e.Or, x[0], x[1]} }
func (e *Coalesce) WithArgs(x []Expr) Expr { return &Coalesce{x, e.T} }
func (e *Case) WithArgs(x []Expr) Expr     { return &Case{x, e.T} }
func (e *In) WithArgs(x []Expr) Expr       { return &In{x} }
func (e *Test) WithArgs(x []Expr) Expr     { return &Test{e.Kind, x[0]} }
func (e *Distinct) WithArgs(x []Expr) Expr { return &Distinct{x[0], x[1]} }
func (e *Try) WithArgs(x []Expr) Expr      { return &Try{x[0]} }
func (e *Raise) WithArgs([]Expr) Expr      { return e }
func (e *ReadJSON) WithArgs(x []Expr) Expr {
	return NewReadJSON(&ReadJSON{x[0], e.Path, e.Text, e.T})
}

// Eval implements [Expr].
func (e *Col) Eval(_ *Context, r Row) (Datum, error) { return r[e.Index], nil }

// Eval implements [Expr].
func (e *Const) Eval(*Context, Row) (Datum, error) { return e.D, nil }

// Eval implements [Expr].
func (e *Call) Eval(c *Context, r Row) (Datum, error) {
	a, err := e.X[0].Eval(c, r)
	if err != nil {
		return Null, err
	}
	switch {
	case e.F.F1 != nil:
		if a.IsNull() {
			return Null, nil
		}
		return e.F.F1(c, a)
	case e.F.F2 != nil:
		b, err := e.X[1].Eval(c, r)
		if err != nil || a.IsNull() || b.IsNull() {
			return Null, err
		}
		return e.F.F2(c, a, b)
	}
	args := make([]Datum, len(e.X))
	args[0] = a
	null := a.IsNull()
	for i := 1; i < len(args); i++ {
		if args[i], err = e.X[i].Eval(c, r); err != nil {
			return Null, err
		}
		null = null || args[i].IsNull()
	}
	if null && !e.F.Nulls {
		return Null, nil
	}
	return e.F.FN(c, args)
}

// Eval implements [Expr]. The right side is not evaluated where the left one decides.
func (e *Logic) Eval(c *Context, r Row) (Datum, error) {
	l, err := e.L.Eval(c, r)
	if err != nil {
		return Null, err
	}
	if !l.IsNull() && l.Bool() == e.Or {
		return l, nil
	}
	x, err := e.R.Eval(c, r)
	if err != nil {
		return Null, err
	}
	if !x.IsNull() && x.Bool() == e.Or || !l.IsNull() {
		return x, nil
	}
	return Null, nil
}

// Eval implements [Expr].
func (e *Coalesce) Eval(c *Context, r Row) (Datum, error) {
	for _, x := range e.X {
		if d, err := x.Eval(c, r); err != nil || !d.IsNull() {
			return d, err
		}
	}
	return Null, nil
}

// Eval implements [Expr].
func (e *Case) Eval(c *Context, r Row) (Datum, error) {
	last := len(e.X) - 1
	for i := 0; i < last; i += 2 {
		when, err := e.X[i].Eval(c, r)
		if err != nil {
			return Null, err
		}
		if !when.IsNull() && when.Bool() {
			return e.X[i+1].Eval(c, r)
		}
	}
	return e.X[last].Eval(c, r)
}

// Eval implements [Expr].
func (e *In) Eval(c *Context, r Row) (Datum, error) {
	x, err := e.X[0].Eval(c, r)
	if err != nil {
		return Null, err
	}
	null := x.IsNull()
	for _, a := range e.X[1:] {
		d, err := a.Eval(c, r)
		switch {
		case err != nil:
			return Null, err
		case d.IsNull():
			null = true
		case !x.IsNull() && Compare(x, d) == 0:
			return NewBool(true), nil
		}
	}
	if null {
		return Null, nil
	}
	return NewBool(false), nil
}

// Eval implements [Expr].
func (e *Test) Eval(c *Context, r Row) (Datum, error) {
	d, err := e.X.Eval(c, r)
	if err != nil {
		return Null, err
	}
	switch e.Kind {
	case IsTrue:
		return NewBool(!d.IsNull() && d.Bool()), nil
	case IsFalse:
		return NewBool(!d.IsNull() && !d.Bool()), nil
	}
	return NewBool(d.IsNull()), nil
}

// Eval implements [Expr].
func (e *Distinct) Eval(c *Context, r Row) (Datum, error) {
	l, err := e.L.Eval(c, r)
	if err != nil {
		return Null, err
	}
	x, err := e.R.Eval(c, r)
	if err != nil {
		return Null, err
	}
	return NewBool(Compare(l, x) != 0), nil
}

// Eval implements [Expr].
func (e *Try) Eval(c *Context, r Row) (Datum, error) {
	d, err := e.X.Eval(c, r)
	if err != nil {
		return Null, nil
	}
	return d, nil
}

// Eval implements [Expr].
func (e *Raise) Eval(*Context, Row) (Datum, error) { return Null, e.Err }

// NewReadJSON returns the expression, joined with the one below where that reads JSON too.
func NewReadJSON(e *ReadJSON) Expr {
	if below, ok := e.X.(*ReadJSON); ok && below.T == Jsonb {
		return NewReadJSON(&ReadJSON{below.X, append(below.Path[:len(below.Path):len(below.Path)], e.Path...), e.Text, e.T})
	}
	return e
}

// Eval implements [Expr].
func (e *ReadJSON) Eval(c *Context, r Row) (Datum, error) {
	d, err := e.X.Eval(c, r)
	if err != nil || d.IsNull() {
		return Null, err
	}
	v, err := c.parse(d.s)
	if err != nil {
		return Null, err
	}
	for _, s := range e.Path {
		if v = s.get(v); v == nil {
			return Null, nil
		}
	}
	return e.result(c, v)
}

func (e *ReadJSON) result(c *Context, v *fastjson.Value) (Datum, error) {
	if e.Text {
		return jsonText(c, v)
	}
	return castJSON(c, v, e.T)
}

func (e *Col) String() string {
	if e.Name == "" {
		return "#" + strconv.Itoa(e.Index)
	}
	return "#" + strconv.Itoa(e.Index) + "{" + e.Name + "}"
}

func (e *Const) String() string {
	switch {
	case e.D.IsNull():
		return "NULL"
	case e.T == Bool && e.D.Bool():
		return "true"
	case e.T == Bool:
		return "false"
	case e.T == Int4 || e.T == Numeric && e.D.s == "":
		return e.D.String()
	}
	s := "'" + strings.ReplaceAll(e.D.String(), "'", "''") + "'"
	if e.T == Text || e.T == Unknown {
		return s
	}
	return s + "::" + e.T.castName()
}

func (e *Call) String() string {
	switch {
	case e.F.Cast:
		return e.X[0].String() + "::" + e.F.Name
	case e.F.Operator && len(e.X) == 2:
		return "(" + e.X[0].String() + " " + e.F.Name + " " + e.X[1].String() + ")"
	}
	return e.F.Name + list(e.X)
}

func (e *Logic) String() string {
	if e.Or {
		return "(" + e.L.String() + " OR " + e.R.String() + ")"
	}
	return "(" + e.L.String() + " AND " + e.R.String() + ")"
}

func (e *Coalesce) String() string { return "coalesce" + list(e.X) }

func (e *Case) String() string {
	var b strings.Builder
	b.WriteString("CASE")
	last := len(e.X) - 1
	for i := 0; i < last; i += 2 {
		b.WriteString(" WHEN " + e.X[i].String() + " THEN " + e.X[i+1].String())
	}
	return b.String() + " ELSE " + e.X[last].String() + " END"
}

func (e *In) String() string { return "(" + e.X[0].String() + " IN " + list(e.X[1:]) + ")" }
func (e *Distinct) String() string {
	return "(" + e.L.String() + " IS DISTINCT FROM " + e.R.String() + ")"
}

func (e *Test) String() string {
	return "(" + e.X.String() + [...]string{" IS NULL)", " IS TRUE)", " IS FALSE)"}[e.Kind]
}

func (e *Try) String() string { return "try(" + e.X.String() + ")" }

func (e *Raise) String() string { return "error(" + e.Err.Code + ")" }

func (e *ReadJSON) String() string {
	s := e.X.String()
	for i, step := range e.Path {
		op := "->"
		if step.Kind == ByPath {
			op = "#>"
		}
		if e.Text && i == len(e.Path)-1 {
			op += ">"
		}
		s += op + step.String()
	}
	switch {
	case e.Text && len(e.Path) == 0:
		s += "#>>'{}'"
	case !e.Text && (e.T != Jsonb || len(e.Path) == 0):
		s = "(" + s + ")::" + e.T.castName()
	}
	return s
}

func list(x []Expr) string {
	parts := make([]string, len(x))
	for i, e := range x {
		parts[i] = e.String()
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// Same tells whether two expressions are the same: of one form, over the same arguments.
func Same(a, b Expr) bool {
	return sameForm(a, b) && slices.EqualFunc(a.Args(), b.Args(), Same)
}

// sameForm compares expressions without their arguments.
func sameForm(a, b Expr) bool {
	switch a := a.(type) {
	case *Col:
		b, ok := b.(*Col)
		return ok && a.Index == b.Index
	case *Const:
		b, ok := b.(*Const)
		return ok && *a == *b
	case *Call:
		b, ok := b.(*Call)
		return ok && (a.F == b.F || a.F.Name == b.F.Name && a.F.Cast == b.F.Cast && a.F.Result == b.F.Result && slices.Equal(a.F.Params, b.F.Params))
	case *Logic:
		b, ok := b.(*Logic)
		return ok && a.Or == b.Or
	case *Coalesce:
		b, ok := b.(*Coalesce)
		return ok && a.T == b.T
	case *Case:
		b, ok := b.(*Case)
		return ok && a.T == b.T
	case *In:
		_, ok := b.(*In)
		return ok
	case *Test:
		b, ok := b.(*Test)
		return ok && a.Kind == b.Kind
	case *Distinct:
		_, ok := b.(*Distinct)
		return ok
	case *Try:
		_, ok := b.(*Try)
		return ok
	case *Raise:
		b, ok := b.(*Raise)
		return ok && a.Err == b.Err && a.T == b.T
	case *ReadJSON:
		b, ok := b.(*ReadJSON)
		return ok && a.Text == b.Text && a.T == b.T && slices.Equal(a.Path, b.Path)
	case *Param:
		b, ok := b.(*Param)
		return ok && a.N == b.N
	}
	return false
}

// Walk calls f for the expression and everything below it.
func Walk(e Expr, f func(Expr)) {
	f(e)
	for _, a := range e.Args() {
		Walk(a, f)
	}
}

// Substitute replaces every column reference by the expression that f gives for it.
func Substitute(e Expr, f func(*Col) Expr) Expr {
	if c, ok := e.(*Col); ok {
		return f(c)
	}
	args := e.Args()
	if len(args) == 0 {
		return e
	}
	replaced := make([]Expr, len(args))
	for i, a := range args {
		replaced[i] = Substitute(a, f)
	}
	return e.WithArgs(replaced)
}

// Size is the number of nodes of an expression, with shared ones counted at every use.
func Size(e Expr) int {
	n := 0
	Walk(e, func(Expr) { n++ })
	return n
}
