package flow

import "slices"

// Func is a scalar function or operator with fixed parameter types. Exactly one of F1, F2 and FN is set.
type Func struct {
	Name     string
	Params   []Type
	Result   Type
	Operator bool
	Cast     bool
	// Nulls tells that FN is called with NULLs too. All other functions are strict: NULL if any argument is NULL.
	Nulls bool
	F1    func(*Context, Datum) (Datum, error)
	F2    func(*Context, Datum, Datum) (Datum, error)
	FN    func(*Context, []Datum) (Datum, error)
}

// builtins are the functions and operators by name; they are made once and never change.
var builtins = makeBuiltins()

// casts are the explicit casts by source and target type; they are made once and never change.
var casts = makeCasts()

// Known tells whether any function or operator has the name.
func Known(name string) bool { return len(builtins[name]) > 0 || polymorphic[name] != nil }

// Resolve finds the function of a name for arguments of these types: the one that needs the cheapest implicit casts. An Unknown
// argument takes any type, and by preference that of its neighbour. It returns nil if no function fits.
func Resolve(name string, args []Type) *Func {
	if make := polymorphic[name]; make != nil {
		return make(args)
	}
	if len(args) == 2 { // a quoted literal beside a typed value is of that value's type
		same := slices.Clone(args)
		if same[0] == Unknown {
			same[0] = same[1]
		} else if same[1] == Unknown {
			same[1] = same[0]
		}
		if f := cheapest(name, same); f != nil {
			return f
		}
	}
	return cheapest(name, args)
}

func cheapest(name string, args []Type) *Func {
	var best *Func
	bestCost := 0
	for _, f := range builtins[name] {
		if cost := callCost(f.Params, args); cost >= 0 && (best == nil || cost < bestCost) {
			best, bestCost = f, cost
		}
	}
	return best
}

// callCost is the sum of the implicit casts that arguments need, or -1 if they do not fit.
func callCost(params, args []Type) int {
	if len(params) != len(args) {
		return -1
	}
	cost := 0
	for i, p := range params {
		c := ImplicitCost(args[i], p)
		if c < 0 {
			return -1
		}
		cost += c
	}
	return cost
}

// ImplicitCost ranks the casts that SQL makes unasked: 0 for the same type, -1 where there is none. What costs least has the fewest
// arguments to cast, and of the types to cast them to the nearest, or the one that PostgreSQL prefers.
func ImplicitCost(from, to Type) int {
	const cast = 1000
	if from == StreamTime {
		from = Numeric
	}
	switch {
	case from == to:
		return 0
	case from == Unknown && to == Text:
		return 1
	case from == Unknown && to == Float8: // what PostgreSQL prefers of the numbers
		return 2
	case from == Unknown:
		return 3
	case from.IsNumber() && to == Float4: // integers and numerics meet a real in double precision
		return -1
	case from.IsInt() && to == Numeric: // double precision is preferred
		return cast + 100
	case from.IsNumber() && to.IsNumber() && rank(from) < rank(to):
		return cast + 10*(rank(to)-rank(from))
	case from == Date && to == Timestamp, from == Timestamp && to == Timestamptz:
		return cast + 10
	case from == Date && to == Timestamptz: // preferred
		return cast + 5
	}
	return -1
}

// rank orders the number types by which promotes to which.
func rank(t Type) int {
	switch t {
	case Numeric:
		return 4
	case Float4:
		return 5
	case Float8:
		return 6
	}
	return int(t-Int2) + 1
}

// Common is the type that values of two types meet in, for CASE, COALESCE, IN and UNION.
func Common(a, b Type) (Type, bool) {
	switch {
	case a == b:
		return a, true
	case a == Unknown:
		return b, true
	case b == Unknown:
		return a, true
	case ImplicitCost(a, b) >= 0:
		return b, true
	case ImplicitCost(b, a) >= 0:
		return a, true
	case a.IsNumber() && b.IsNumber(): // one of them is real, which has no place among the implicit casts of operators
		return Float4, true
	}
	return Unknown, false
}

// CastTo is the expression cast to a type, and false if there is no such cast. A constant is cast at once, unless that is an
// error, which belongs to the rows that meet it.
func CastTo(e Expr, t Type) (Expr, bool) {
	from := e.Type()
	if from == t || from == StreamTime && t == Numeric {
		return e, true
	}
	if c, ok := e.(*Const); ok && from == Unknown && c.D.IsNull() {
		return &Const{T: t}, true
	}
	if p, ok := e.(*Param); ok && from == Unknown {
		p.Known[p.N] = t
		return e, true
	}
	if from == Unknown {
		from = Text
		if t == Text {
			return retype(e, t), true
		}
	}
	switch {
	case t == Jsonb && from == Text:
		return Fold(&ReadJSON{X: e, T: Jsonb}), true
	case from == Jsonb && castableJSON(t):
		if r, ok := e.(*ReadJSON); ok {
			return Fold(&ReadJSON{X: r.X, Path: r.Path, T: t}), true
		}
		return Fold(&ReadJSON{X: e, T: t}), true
	}
	f := casts[[2]Type{from, t}]
	if f == nil {
		return nil, false
	}
	return Fold(&Call{f, []Expr{e}}), true
}

func castableJSON(t Type) bool { return t == Text || t == Bool || t.IsNumber() }

func retype(e Expr, t Type) Expr {
	switch e := e.(type) {
	case *Const:
		return &Const{e.D, t}
	case *Col:
		return &Col{e.Index, t, e.Name}
	}
	return e
}

// Fold evaluates an expression without columns now, unless that is an error, or a text that is much longer than the expression: that one is
// computed where memory is counted.
func Fold(e Expr) Expr {
	limit := maxFolded
	for _, a := range e.Args() {
		c, ok := a.(*Const)
		if !ok {
			return e
		}
		if isCast(e) { // which does not make a long text of short ones, as functions do
			limit = max(limit, 2*len(c.D.s))
		}
	}
	if len(e.Args()) == 0 {
		return e
	}
	d, err := e.Eval(&Context{}, nil)
	if err != nil || len(d.s) > limit {
		return e
	}
	return &Const{d, e.Type()}
}

// maxFolded is the length of a text that is no matter.
const maxFolded = 4096

func isCast(e Expr) bool {
	if c, ok := e.(*Call); ok {
		return c.F.Cast
	}
	_, ok := e.(*ReadJSON)
	return ok
}
