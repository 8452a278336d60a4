package flow

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/cockroachdb/apd/v3"
)

// intRange returns the bounds of an integer type.
func intRange(t Type) (lo, hi int64) {
	switch t {
	case Int2:
		return math.MinInt16, math.MaxInt16
	case Int4:
		return math.MinInt32, math.MaxInt32
	}
	return math.MinInt64, math.MaxInt64
}

func checkedInt(t Type, v int64) (Datum, error) {
	if lo, hi := intRange(t); v < lo || v > hi {
		return Null, outOfRange(t)
	}
	return NewInt(t, v), nil
}

func parseInt(text string, t Type) (Datum, error) {
	v, err := strconv.ParseInt(trimSpace(text), 10, 8*int(t.Size()))
	if errors.Is(err, strconv.ErrRange) {
		return Null, &EvalError{Code: "22003", Message: "value " + excerpt(text) + " is out of range for type " + t.SQL()}
	}
	if err != nil {
		return Null, invalidInput(t, text)
	}
	return NewInt(t, v), nil
}

func parseFloat(text string, t Type) (Datum, error) {
	bits := 64
	if t == Float4 {
		bits = 32
	}
	s := trimSpace(text)
	if strings.ContainsAny(s, "xX_pP") { // Go's own notations
		return Null, invalidInput(t, text)
	}
	v, err := strconv.ParseFloat(s, bits)
	mantissa, _, _ := strings.Cut(strings.ToLower(s), "e")
	if errors.Is(err, strconv.ErrRange) || err == nil && v == 0 && strings.ContainsAny(mantissa, "123456789") {
		return Null, &EvalError{Code: "22003", Message: excerpt(text) + " is out of range for type " + t.SQL()}
	}
	if err != nil {
		return Null, invalidInput(t, text)
	}
	return NewFloat(t, v), nil
}

func floatToInt(f float64, t Type) (Datum, error) {
	f = math.RoundToEven(f)
	lo, hi := intRange(t)
	if f != f || f < float64(lo) || f > float64(hi) || t == Int8 && f >= -float64(math.MinInt64) {
		return Null, outOfRange(t)
	}
	return NewInt(t, int64(f)), nil
}

var (
	errFloatOverflow  = &EvalError{Code: "22003", Message: "value out of range: overflow"}
	errFloatUnderflow = &EvalError{Code: "22003", Message: "value out of range: underflow"}
)

// checkedFloat reports an overflow of an operation on finite numbers, and a number that a real is too coarse for.
func checkedFloat(t Type, v float64, finite bool) (Datum, error) {
	if t == Float4 {
		if v != 0 && float32(v) == 0 {
			return Null, errFloatUnderflow
		}
		v = float64(float32(v))
	}
	if finite && math.IsInf(v, 0) {
		return Null, errFloatOverflow
	}
	return NewFloat(t, v), nil
}

func finite(x ...float64) bool {
	for _, v := range x {
		if math.IsInf(v, 0) || v != v {
			return false
		}
	}
	return true
}

// floatToNumeric keeps 15 significant digits of a double precision and 6 of a real, as PostgreSQL does.
func floatToNumeric(d Datum) (Datum, error) {
	digits := 15
	if d.t == Float4 {
		digits = 6
	}
	f := d.Float()
	switch {
	case f != f:
		return NewDecimal(&apd.Decimal{Form: apd.NaN}), nil
	case math.IsInf(f, 0):
		return NewDecimal(&apd.Decimal{Form: apd.Infinite, Negative: f < 0}), nil
	}
	return parseNumeric(strconv.FormatFloat(f, 'e', digits-1, 64))
}

// exact is apd without rounding.
var exact = apd.Context{MaxExponent: apd.MaxExponent, MinExponent: apd.MinExponent, Rounding: apd.RoundHalfUp}

// roundNumeric rounds half away from zero to a number of digits after the point, which may be negative.
func roundNumeric(d Datum, scale int32, how apd.Rounder) Datum {
	if d.numClass() != 0 {
		return d
	}
	x := d.Decimal()
	if -x.Exponent <= scale {
		return d
	}
	c := exact
	c.Precision = uint32(x.NumDigits()) + 2
	c.Rounding = how
	var r apd.Decimal
	if x.NumDigits()+int64(x.Exponent)+int64(scale) < 0 {
		// Less than a tenth of the unit rounds like any other small fraction, whatever its size.
		x = &apd.Decimal{Negative: x.Negative, Exponent: -scale - 1}
		x.Coeff.SetInt64(1)
	}
	if _, err := c.Quantize(&r, x, -scale); err != nil {
		return d
	}
	return NewDecimal(&r)
}

func numericToInt(d Datum, t Type) (Datum, error) {
	r := roundNumeric(d, 0, apd.RoundHalfUp)
	if r.s != "" {
		if c := d.numClass(); c != 0 {
			word := "infinity"
			if c == 2 {
				word = "NaN"
			}
			return Null, &EvalError{Code: "0A000", Message: "cannot convert " + word + " to " + t.SQL()}
		}
		return Null, outOfRange(t)
	}
	return checkedInt(t, r.n)
}

func numericToFloat(d Datum, t Type) (Datum, error) {
	if d.s == "" {
		return checkedFloat(t, float64(d.n), true)
	}
	return parseFloat(d.s, t)
}

// numericOp applies one of + - * / % to two numerics.
func numericOp(op byte, a, b Datum) (Datum, error) {
	if a.s == "" && b.s == "" {
		if v, ok := int64Op(op, a.n, b.n); ok {
			return NewInt(Numeric, v), nil
		}
	}
	x, y := a.Decimal(), b.Decimal()
	if x.Form == apd.NaN || y.Form == apd.NaN {
		return NewDecimal(&apd.Decimal{Form: apd.NaN}), nil
	}
	if (op == '/' || op == '%') && y.IsZero() {
		return Null, errDivisionByZero
	}
	if x.Form == apd.Infinite || y.Form == apd.Infinite {
		return infiniteOp(op, x, y)
	}
	var r apd.Decimal
	var err error
	switch op {
	case '+':
		_, err = exact.Add(&r, x, y)
	case '-':
		_, err = exact.Sub(&r, x, y)
	case '*':
		_, err = exact.Mul(&r, x, y)
	case '/':
		return divide(x, y)
	case '%':
		c := exact
		c.Precision = 4 * maxNumericDigits
		_, err = c.Rem(&r, x, y)
	}
	if err != nil {
		return Null, errNumericOverflow
	}
	return checkedDecimal(&r)
}

// infiniteOp follows the rules of IEEE 754 for numerics of which one is infinite, as PostgreSQL does.
func infiniteOp(op byte, x, y *apd.Decimal) (Datum, error) {
	value := func(d *apd.Decimal) float64 {
		if d.Form == apd.Infinite {
			return math.Inf(1 - 2*b2i(d.Negative))
		}
		return float64(d.Sign())
	}
	a, b := value(x), value(y)
	var r float64
	switch op {
	case '+':
		r = a + b
	case '-':
		r = a - b
	case '*':
		r = a * b
	case '/':
		r = a / b
	case '%':
		if r = math.Mod(a, b); y.Form == apd.Infinite && x.Form != apd.Infinite {
			return NewDecimal(x), nil
		}
	}
	return floatToNumeric(NewFloat(Float8, r))
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// int64Op computes in 64 bits where the result is a whole number that fits.
func int64Op(op byte, a, b int64) (int64, bool) {
	switch op {
	case '+':
		v := a + b
		return v, (v > a) == (b > 0)
	case '-':
		v := a - b
		return v, (v < a) == (b > 0)
	case '*':
		if a == 0 || b == 0 {
			return 0, true
		}
		v := a * b
		return v, v/b == a && !(a == -1 && b == math.MinInt64) && !(b == -1 && a == math.MinInt64)
	case '%':
		if b == 0 || b == -1 {
			return 0, b != 0
		}
		return a % b, true
	case '/':
		if b == 0 || b == -1 || a%b != 0 {
			return 0, false
		}
		return a / b, true
	}
	return 0, false
}

// divide keeps as many digits as PostgreSQL: at least 16 significant ones, counted in its groups of four.
func divide(x, y *apd.Decimal) (Datum, error) {
	if x.IsZero() {
		return NewInt(Numeric, 0), nil
	}
	wx, fx := leadingGroup(x)
	wy, fy := leadingGroup(y)
	weight := wx - wy
	if fx <= fy {
		weight--
	}
	scale := max(16-weight*4, -int(x.Exponent), -int(y.Exponent), 0)
	scale = min(scale, 1000)
	c := exact
	c.Rounding = apd.RoundDown
	digits := x.NumDigits() + int64(x.Exponent) - y.NumDigits() - int64(y.Exponent) + int64(scale) + 3
	c.Precision = uint32(max(digits, 3))
	var q, back apd.Decimal
	if _, err := c.Quo(&q, x, y); err != nil {
		return Null, errNumericOverflow
	}
	// The quotient is cut, not rounded; a sticky digit below it keeps a tie from looking exact.
	if _, err := exact.Mul(&back, &q, y); err == nil && back.Cmp(x) != 0 {
		var ten apd.Decimal
		ten.SetInt64(10)
		q.Coeff.Mul(&q.Coeff, &ten.Coeff)
		q.Exponent--
		var one apd.Decimal
		one.SetInt64(1)
		q.Coeff.Add(&q.Coeff, &one.Coeff)
	}
	d, err := checkedDecimal(&q)
	if err != nil {
		return Null, err
	}
	return roundNumeric(d, int32(scale), apd.RoundHalfUp), nil
}

// leadingGroup returns the weight of the first group of four digits as PostgreSQL stores a numeric, and its value.
func leadingGroup(d *apd.Decimal) (weight, group int) {
	digits := d.Coeff.String()
	point := len(digits) + int(d.Exponent) // digits before the point
	weight = (point+3)/4 - 1
	if point <= 0 {
		weight = -(-point)/4 - 1
	}
	lead := point - weight*4 // how many digits the first group has, 1 to 4
	for len(digits) < lead {
		digits += "0"
	}
	group, _ = strconv.Atoi(digits[:lead])
	return weight, group
}

// significant is how many digits PostgreSQL computes at least where a numeric result has no end.
const significant = 16

func numericSqrt(d Datum) (Datum, error) {
	switch {
	case Compare(d, NewInt(Numeric, 0)) < 0:
		return Null, errNegativeRoot
	case d.numClass() != 0:
		return d, nil
	}
	x := d.Decimal()
	if x.IsZero() {
		return d, nil
	}
	weight, _ := leadingGroup(x)
	scale := min(max(significant-((weight+1)*4/2-1), -int(x.Exponent), 0), maxNumericDigits)
	c := exact
	c.Precision = uint32(max(x.NumDigits()+int64(x.Exponent), 0)/2 + int64(scale) + 5)
	var r apd.Decimal
	if _, err := c.Sqrt(&r, x); err != nil {
		return Null, errNumericOverflow
	}
	return roundNumeric(NewDecimal(&r), int32(scale), apd.RoundHalfUp), nil
}

// maxRootDigits bounds the digits before the point of a power whose exponent is not whole: it takes a logarithm to as many digits, and
// a thousand of them would take a second.
const maxRootDigits = 100

// numericPower keeps 16 digits behind the point of a power with a whole exponent, and otherwise 16 significant ones.
func numericPower(a, b Datum) (Datum, error) {
	if a.numClass() != 0 || b.numClass() != 0 {
		return specialPower(a, b)
	}
	x, y := a.Decimal(), b.Decimal()
	whole := y.Exponent >= 0
	switch {
	case x.IsZero() && y.Negative && !y.IsZero():
		return Null, errZeroPower
	case x.Negative && !whole:
		return Null, errComplexPower
	case y.IsZero():
		return NewInt(Numeric, 1), nil
	case x.IsZero():
		return a, nil
	}
	exponent, err := y.Float64()
	if err != nil {
		return Null, errNumericOverflow
	}
	digits := exponent * log10(x) // of the result, before its point
	switch {
	case digits > maxNumericDigits || !whole && digits > maxRootDigits:
		return Null, errNumericOverflow
	case digits < -2*maxNumericDigits:
		return NewInt(Numeric, 0), nil
	}
	scale := significant
	if !whole {
		scale = significant - int(digits)
	}
	scale = min(max(scale, -int(x.Exponent), -int(y.Exponent), 0), maxNumericDigits)
	c := exact
	c.Precision = uint32(max(int(digits)+scale, 0) + 20)
	var r apd.Decimal
	if _, err := c.Pow(&r, x, y); err != nil {
		return Null, errNumericOverflow
	}
	d, err := checkedDecimal(&r)
	if err != nil {
		return Null, err
	}
	return roundNumeric(d, int32(scale), apd.RoundHalfUp), nil
}

// log10 estimates the logarithm of a number's size.
func log10(x *apd.Decimal) float64 {
	digits := x.Coeff.String()
	lead := digits[:min(len(digits), 17)]
	f, _ := strconv.ParseFloat(lead, 64)
	return math.Log10(f) + float64(len(digits)-len(lead)) + float64(x.Exponent)
}

// specialPower is a power of which NaN or an infinity is part, by the rules of IEEE 754.
func specialPower(a, b Datum) (Datum, error) {
	f := func(d Datum) float64 {
		v, err := numericToFloat(d, Float8)
		if err != nil { // beside an infinity only the sign of a number matters, and whether it is less than one
			return math.Copysign(math.MaxFloat64, float64(Compare(d, NewInt(Numeric, 0))))
		}
		return v.Float()
	}
	d, err := floatPower(f(a), f(b))
	if err != nil {
		return Null, err
	}
	return floatToNumeric(d)
}
