package flow

import (
	"math"
	"strings"
	"unicode/utf8"

	"github.com/cockroachdb/apd/v3"
)

// registry collects functions while the table of builtins is made.
type registry map[string][]*Func

func (r registry) add(f *Func) { r[f.Name] = append(r[f.Name], f) }

func (r registry) fn1(name string, result, p Type, f func(Datum) (Datum, error)) {
	r.add(&Func{Name: name, Params: []Type{p}, Result: result, F1: func(_ *Context, a Datum) (Datum, error) { return f(a) }})
}

func (r registry) fn2(name string, result, p, q Type, f func(a, b Datum) (Datum, error)) {
	r.add(&Func{Name: name, Params: []Type{p, q}, Result: result,
		F2: func(_ *Context, a, b Datum) (Datum, error) { return f(a, b) }})
}

func (r registry) fn3(name string, result Type, params []Type, f func(x []Datum) (Datum, error)) {
	r.add(&Func{Name: name, Params: params, Result: result, FN: func(_ *Context, x []Datum) (Datum, error) { return f(x) }})
}

// op adds an operator: a function whose name is written between its arguments.
func (r registry) op(name string, result, p, q Type, f func(a, b Datum) (Datum, error)) {
	r.fn2(name, result, p, q, f)
	r[name][len(r[name])-1].Operator = true
}

func makeBuiltins() registry {
	r := registry{}
	r.comparisons()
	r.arithmetic()
	r.rounding()
	r.powers()
	r.texts()
	r.patterns()
	r.jsons()
	r.times()
	r.fn1("not", Bool, Bool, func(a Datum) (Datum, error) { return NewBool(!a.Bool()), nil })
	return r
}

func (r registry) comparisons() {
	tests := map[string]func(int) bool{
		"=":  func(c int) bool { return c == 0 },
		"<>": func(c int) bool { return c != 0 },
		"<":  func(c int) bool { return c < 0 },
		"<=": func(c int) bool { return c <= 0 },
		">":  func(c int) bool { return c > 0 },
		">=": func(c int) bool { return c >= 0 },
	}
	for name, test := range tests {
		for _, t := range Scalars() {
			compare := func(a, b Datum) (Datum, error) { return NewBool(test(Compare(a, b))), nil }
			r.op(name, Bool, t, t, compare)
			r.op(name, Bool, ArrayOf(t), ArrayOf(t), compare)
		}
	}
}

func (r registry) arithmetic() {
	for _, op := range "+-*/%" {
		op, name := byte(op), string(op)
		for _, t := range []Type{Int2, Int4, Int8} {
			r.op(name, t, t, t, func(a, b Datum) (Datum, error) { return intOp(op, t, a.n, b.n) })
		}
		r.op(name, Numeric, Numeric, Numeric, func(a, b Datum) (Datum, error) { return numericOp(op, a, b) })
		if op == '%' {
			continue
		}
		for _, t := range []Type{Float4, Float8} {
			r.op(name, t, t, t, func(a, b Datum) (Datum, error) { return floatOp(op, t, a.Float(), b.Float()) })
		}
	}
	r["mod"] = nil
	for _, f := range r["%"] {
		r.add(&Func{Name: "mod", Params: f.Params, Result: f.Result, F2: f.F2})
	}
	for _, t := range []Type{Int2, Int4, Int8} {
		r.fn1("-", t, t, func(a Datum) (Datum, error) { return intOp('-', t, 0, a.n) })
		r.fn1("abs", t, t, func(a Datum) (Datum, error) {
			if a.n < 0 {
				return intOp('-', t, 0, a.n)
			}
			return a, nil
		})
	}
	for _, t := range []Type{Float4, Float8} {
		r.fn1("-", t, t, func(a Datum) (Datum, error) { return NewFloat(t, -a.Float()), nil })
		r.fn1("abs", t, t, func(a Datum) (Datum, error) { return NewFloat(t, math.Abs(a.Float())), nil })
	}
	r.fn1("-", Numeric, Numeric, func(a Datum) (Datum, error) { return numericOp('-', NewInt(Numeric, 0), a) })
	r.fn1("abs", Numeric, Numeric, func(a Datum) (Datum, error) {
		if Compare(a, NewInt(Numeric, 0)) < 0 {
			return numericOp('-', NewInt(Numeric, 0), a)
		}
		return a, nil
	})
}

func intOp(op byte, t Type, a, b int64) (Datum, error) {
	if op == '/' {
		if b == 0 {
			return Null, errDivisionByZero
		}
		if b == -1 {
			return intOp('-', t, 0, a)
		}
		return NewInt(t, a/b), nil
	}
	v, ok := int64Op(op, a, b)
	if !ok {
		if op == '%' {
			return Null, errDivisionByZero
		}
		return Null, outOfRange(t)
	}
	return checkedInt(t, v)
}

func floatOp(op byte, t Type, a, b float64) (Datum, error) {
	var v float64
	switch op {
	case '+':
		v = a + b
	case '-':
		v = a - b
	case '*':
		v = a * b
	case '/':
		if b == 0 && a == a { // NaN stays NaN
			return Null, errDivisionByZero
		}
		v = a / b
	}
	if v == 0 && (op == '*' && a != 0 && b != 0 || op == '/' && a != 0 && !math.IsInf(b, 0)) {
		return Null, errFloatUnderflow
	}
	return checkedFloat(t, v, finite(a, b))
}

func (r registry) rounding() {
	floats := map[string]func(float64) float64{
		"round": math.RoundToEven, "floor": math.Floor, "ceil": math.Ceil, "ceiling": math.Ceil, "trunc": math.Trunc,
	}
	for name, f := range floats {
		r.fn1(name, Float8, Float8, func(a Datum) (Datum, error) { return NewFloat(Float8, f(a.Float())), nil })
	}
	numerics := map[string]apd.Rounder{
		"round": apd.RoundHalfUp, "floor": apd.RoundFloor, "ceil": apd.RoundCeiling, "ceiling": apd.RoundCeiling, "trunc": apd.RoundDown,
	}
	for name, how := range numerics {
		r.fn1(name, Numeric, Numeric, func(a Datum) (Datum, error) { return roundNumeric(a, 0, how), nil })
		if name == "round" || name == "trunc" {
			r.fn2(name, Numeric, Numeric, Int4, func(a, b Datum) (Datum, error) {
				return roundNumeric(a, int32(max(-maxNumericDigits, min(b.n, 2*maxNumericDigits))), how), nil
			})
		}
	}
}

// powers adds what is computed in double precision, or to 16 significant digits of a numeric.
func (r registry) powers() {
	r.fn1("sqrt", Float8, Float8, func(a Datum) (Datum, error) {
		if a.Float() < 0 {
			return Null, errNegativeRoot
		}
		return NewFloat(Float8, math.Sqrt(a.Float())), nil
	})
	r.fn1("sqrt", Numeric, Numeric, numericSqrt)
	for _, name := range []string{"power", "pow"} {
		r.fn2(name, Float8, Float8, Float8, func(a, b Datum) (Datum, error) { return floatPower(a.Float(), b.Float()) })
		r.fn2(name, Numeric, Numeric, Numeric, numericPower)
	}
}

var (
	errNegativeRoot = &EvalError{Code: "2201F", Message: "cannot take square root of a negative number"}
	errZeroPower    = &EvalError{Code: "2201F", Message: "zero raised to a negative power is undefined"}
	errComplexPower = &EvalError{Code: "2201F", Message: "a negative number raised to a non-integer power yields a complex result"}
)

func floatPower(a, b float64) (Datum, error) {
	switch {
	case a == 0 && b < 0:
		return Null, errZeroPower
	case a < 0 && b == b && b != math.Floor(b):
		return Null, errComplexPower
	}
	v := math.Pow(a, b)
	if v == 0 && a != 0 && finite(a, b) {
		return Null, errFloatUnderflow
	}
	return checkedFloat(Float8, v, finite(a, b))
}

func (r registry) texts() {
	text := func(f func(string) string) func(Datum) (Datum, error) {
		return func(a Datum) (Datum, error) { return NewText(f(a.s)), nil }
	}
	r.fn1("lower", Text, Text, text(strings.ToLower))
	r.fn1("upper", Text, Text, text(strings.ToUpper))
	length := func(a Datum) (Datum, error) { return NewInt(Int4, int64(utf8.RuneCountInString(a.s))), nil }
	r.fn1("length", Int4, Text, length)
	r.fn1("char_length", Int4, Text, length)
	bytes := func(a Datum) (Datum, error) { return NewInt(Int4, int64(len(a.s))), nil }
	r.fn1("octet_length", Int4, Text, bytes)
	r.fn1("octet_length", Int4, Bytea, bytes)
	r.fn1("length", Int4, Bytea, bytes)

	trims := map[string]func(string, string) string{
		"btrim": strings.Trim, "ltrim": strings.TrimLeft, "rtrim": strings.TrimRight,
	}
	for name, f := range trims {
		r.fn1(name, Text, Text, func(a Datum) (Datum, error) { return NewText(f(a.s, " ")), nil })
		r.fn2(name, Text, Text, Text, func(a, b Datum) (Datum, error) { return NewText(f(a.s, b.s)), nil })
	}
	for _, name := range []string{"substring", "substr"} {
		r.fn2(name, Text, Text, Int4, func(a, b Datum) (Datum, error) { return substring(a.s, b.n, math.MaxUint32) })
		r.fn3(name, Text, []Type{Text, Int4, Int4}, func(x []Datum) (Datum, error) { return substring(x[0].s, x[1].n, x[2].n) })
	}
	r.fn3("replace", Text, []Type{Text, Text, Text}, func(x []Datum) (Datum, error) {
		if x[1].s == "" {
			return x[0], nil
		}
		// The longest replacement is bounded by the bytes it may grow to.
		if grown := len(x[0].s) + strings.Count(x[0].s, x[1].s)*(len(x[2].s)-len(x[1].s)); grown > maxTextBytes {
			return Null, errTextTooLong
		}
		return NewText(strings.ReplaceAll(x[0].s, x[1].s, x[2].s)), nil
	})
	r.fn3("split_part", Text, []Type{Text, Text, Int4}, func(x []Datum) (Datum, error) { return splitPart(x[0].s, x[1].s, x[2].n) })
	r.fn2("strpos", Int4, Text, Text, func(a, b Datum) (Datum, error) {
		i := strings.Index(a.s, b.s)
		if i < 0 {
			return NewInt(Int4, 0), nil
		}
		return NewInt(Int4, int64(utf8.RuneCountInString(a.s[:i]))+1), nil
	})
	r.fn2("starts_with", Bool, Text, Text, func(a, b Datum) (Datum, error) { return NewBool(strings.HasPrefix(a.s, b.s)), nil })
	for _, t := range []Type{Text, Bytea} {
		r.op("||", t, t, t, func(a, b Datum) (Datum, error) {
			if len(a.s)+len(b.s) > maxTextBytes {
				return Null, errTextTooLong
			}
			return Datum{s: a.s + b.s, t: t}, nil
		})
	}
	r.fn2("left", Text, Text, Int4, func(a, b Datum) (Datum, error) { return NewText(a.s[:cutAt(a.s, b.n)]), nil })
	r.fn2("right", Text, Text, Int4, func(a, b Datum) (Datum, error) {
		if b.n == 0 {
			return NewText(""), nil
		}
		return NewText(a.s[cutAt(a.s, -b.n):]), nil
	})
}

// maxTextBytes bounds the text that an expression may make of smaller ones.
const maxTextBytes = 64 << 20

var errTextTooLong = &EvalError{Code: "54000", Message: "text longer than 64 MiB"}

// cutAt is where the first n characters of a text end, or, where n is negative, all but the last -n.
func cutAt(s string, n int64) int {
	count := int64(utf8.RuneCountInString(s))
	if n < 0 {
		n = max(0, count+n)
	}
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}

// substring counts in characters from 1; a start before the text shortens the length, as the standard has it.
func substring(s string, from, n int64) (Datum, error) {
	if n < 0 {
		return Null, &EvalError{Code: "22011", Message: "negative substring length not allowed"}
	}
	end := from + n
	from = max(from, 1)
	if end <= from {
		return NewText(""), nil
	}
	start, stop, at := len(s), len(s), int64(1)
	for i := range s {
		if at == from {
			start = i
		}
		if at == end {
			stop = i
			break
		}
		at++
	}
	return NewText(s[start:stop]), nil
}

func splitPart(s, sep string, n int64) (Datum, error) {
	if n == 0 {
		return Null, &EvalError{Code: "22023", Message: "field position must not be zero"}
	}
	parts := []string{s}
	if sep != "" {
		parts = strings.Split(s, sep)
	}
	if n < 0 {
		n += int64(len(parts)) + 1
	}
	if n < 1 || n > int64(len(parts)) {
		return NewText(""), nil
	}
	return NewText(parts[n-1]), nil
}
