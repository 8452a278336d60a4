package flow

import (
	"math"
	"math/big"
	"math/bits"
	"unsafe"

	"github.com/cockroachdb/apd/v3"
	"github.com/tidwall/btree"
)

// AggregateFunc names an aggregate function.
type AggregateFunc string

// The aggregate functions.
const (
	Count          AggregateFunc = "count"
	Sum            AggregateFunc = "sum"
	Avg            AggregateFunc = "avg"
	Min            AggregateFunc = "min"
	Max            AggregateFunc = "max"
	BoolAnd        AggregateFunc = "bool_and"
	BoolOr         AggregateFunc = "bool_or"
	StringAgg      AggregateFunc = "string_agg"
	ArrayAgg       AggregateFunc = "array_agg"
	JsonbAgg       AggregateFunc = "jsonb_agg"
	JsonbObjectAgg AggregateFunc = "jsonb_object_agg"
)

// Aggregate is one aggregate of a [Reduce].
type Aggregate struct {
	Func AggregateFunc
	// Args are columns of the input: the arguments, none for count(*); and behind those of an ordered aggregate, what else Order sorts by.
	Args     []int
	Filter   int // boolean column of the input, -1 for none
	Distinct bool
	Order    []SortKey // of an ordered aggregate, over Args
	In       Type      // type of the first argument
}

// Ordered tells whether the result of the function depends on the order of its input.
func (f AggregateFunc) Ordered() bool {
	return f == StringAgg || f == ArrayAgg || f == JsonbAgg || f == JsonbObjectAgg
}

// Arity is the number of arguments.
func (f AggregateFunc) Arity() int {
	if f == StringAgg || f == JsonbObjectAgg {
		return 2
	}
	return 1
}

// takesNulls tells whether a NULL as the first argument counts.
func (f AggregateFunc) takesNulls() bool { return f.Ordered() && f != StringAgg }

// AggregateType is the type of an aggregate's result for the type of its first argument, as Materialize has it, and false if the function does
// not take the argument.
func AggregateType(f AggregateFunc, in Type) (Type, bool) {
	switch f {
	case Count:
		return Int8, true
	case BoolAnd, BoolOr:
		return Bool, in == Bool
	case Min, Max:
		return in, in != Jsonb && in != Unknown && in != UUID && in != Bytea && !in.IsArray()
	case Sum:
		switch in {
		case Int2, Int4:
			return Int8, true
		case Int8:
			return Numeric, true
		}
		return in, in.IsNumber() || in == Interval
	case Avg:
		switch {
		case in.IsFloat():
			return Float8, true
		case in == Interval:
			return Interval, true
		}
		return Numeric, in.IsNumber()
	case StringAgg:
		return in, in == Text || in == Bytea
	case ArrayAgg:
		return ArrayOf(in), !in.IsArray()
	case JsonbAgg, JsonbObjectAgg:
		return Jsonb, true
	}
	return Unknown, false
}

// accumulator keeps what an aggregate needs to answer after any insertion and deletion.
type accumulator interface {
	// add takes the arguments diff more times. The first of them is not NULL unless the function takes NULLs. The row may be kept.
	add(args Row, diff int64)
	// result is the aggregate of what is there, NULL of nothing.
	result() (Datum, error)
	// size is an estimate of the bytes that it holds. It is asked for after every change, so it must not cost more than a change.
	size() int
}

func newAccumulator(a *Aggregate) accumulator {
	var acc accumulator
	switch a.Func {
	case StringAgg, ArrayAgg, JsonbAgg, JsonbObjectAgg:
		return newOrderedAcc(a)
	case Count:
		acc = &countAcc{}
	case BoolAnd, BoolOr:
		acc = &boolAcc{and: a.Func == BoolAnd}
	case Min, Max:
		acc = newExtremeAcc(a.Func == Max)
	default:
		avg := a.Func == Avg
		out, _ := AggregateType(a.Func, a.In)
		switch {
		case a.In.IsInt():
			acc = &intSum{avg: avg, out: out}
		case a.In.IsFloat():
			acc = &floatSum{avg: avg, out: out}
		case a.In == Interval:
			acc = &intervalSum{avg: avg}
		default:
			acc = &numericSum{avg: avg}
		}
	}
	if a.Distinct && a.Func != Min && a.Func != Max {
		return &distinctAcc{seen: map[string]int64{}, of: acc}
	}
	return acc
}

type countAcc struct{ n int64 }

func (a *countAcc) add(_ Row, diff int64)  { a.n += diff }
func (a *countAcc) result() (Datum, error) { return NewInt(Int8, a.n), nil }
func (a *countAcc) size() int              { return int(unsafe.Sizeof(*a)) }

type boolAcc struct {
	n   [2]int64 // falses, trues
	and bool
}

func (a *boolAcc) add(args Row, diff int64) { a.n[args[0].n] += diff }
func (a *boolAcc) size() int                { return int(unsafe.Sizeof(*a)) }

func (a *boolAcc) result() (Datum, error) {
	switch {
	case a.n[0] == 0 && a.n[1] == 0:
		return Null, nil
	case a.and:
		return NewBool(a.n[0] == 0), nil
	}
	return NewBool(a.n[1] > 0), nil
}

// extremeAcc is an ordered multiset, so that the next smallest is known when the smallest goes.
type extremeAcc struct {
	tree  *btree.BTreeG[valueCount]
	max   bool
	texts int // bytes of the texts in the tree
}

type valueCount struct {
	d Datum
	n int64
}

func newExtremeAcc(greatest bool) *extremeAcc {
	less := func(a, b valueCount) bool { return Compare(a.d, b.d) < 0 }
	return &extremeAcc{tree: btree.NewBTreeGOptions(less, btree.Options{NoLocks: true, Degree: 8}), max: greatest}
}

func (a *extremeAcc) size() int {
	return treeBase + treeSlack*a.tree.Len()*int(unsafe.Sizeof(valueCount{})) + a.texts
}

func (a *extremeAcc) add(args Row, diff int64) {
	d := args[0]
	v, ok := a.tree.Get(valueCount{d: d})
	if v.n += diff; v.n == 0 {
		a.tree.Delete(valueCount{d: d})
		a.texts -= len(d.s)
		return
	}
	if !ok {
		a.texts += len(d.s)
	}
	v.d = d
	a.tree.Set(v)
}

func (a *extremeAcc) result() (Datum, error) {
	v, ok := a.tree.Min()
	if a.max {
		v, ok = a.tree.Max()
	}
	if !ok {
		return Null, nil
	}
	return v.d, nil
}

// distinctAcc passes each value on once, while there is any of it.
type distinctAcc struct {
	seen map[string]int64
	of   accumulator
	buf  []byte
	keys int // bytes of the keys of seen
}

func (a *distinctAcc) add(args Row, diff int64) {
	a.buf = args.AppendKey(a.buf[:0])
	before := a.seen[string(a.buf)]
	after := before + diff
	switch {
	case after == 0:
		delete(a.seen, string(a.buf))
		a.keys -= len(a.buf)
	case before == 0:
		a.seen[string(a.buf)] = after
		a.keys += len(a.buf)
	default:
		a.seen[string(a.buf)] = after
	}
	if before <= 0 && after > 0 {
		a.of.add(args, 1)
	} else if before > 0 && after <= 0 {
		a.of.add(args, -1)
	}
}

func (a *distinctAcc) result() (Datum, error) { return a.of.result() }
func (a *distinctAcc) size() int              { return mapSlot*(1+len(a.seen)) + a.keys + a.of.size() }

// intSum sums integers in 128 bits, which no number of rows overflows.
type intSum struct {
	hi  int64
	lo  uint64
	n   int64
	avg bool
	out Type
}

func (a *intSum) size() int { return int(unsafe.Sizeof(*a)) }

func (a *intSum) add(args Row, diff int64) { a.addInt(args[0].n, diff) }

func (a *intSum) addInt(v, diff int64) {
	a.n += diff
	hi, lo := bits.Mul64(uint64(v), uint64(diff))
	// Mul64 is unsigned; these two corrections make the product signed.
	if v < 0 {
		hi -= uint64(diff)
	}
	if diff < 0 {
		hi -= uint64(v)
	}
	var carry uint64
	a.lo, carry = bits.Add64(a.lo, lo, 0)
	a.hi += int64(hi + carry)
}

func (a *intSum) result() (Datum, error) {
	switch {
	case a.n == 0:
		return Null, nil
	case a.avg:
		return numericOp('/', a.sum(), NewInt(Numeric, a.n))
	case a.out == Numeric:
		return a.sum(), nil
	}
	return numericToInt(a.sum(), a.out)
}

// sum is the sum as a numeric.
func (a *intSum) sum() Datum {
	if small := int64(a.lo); a.hi == small>>63 {
		return NewInt(Numeric, small)
	}
	v := new(big.Int).Lsh(big.NewInt(a.hi), 64)
	v.Add(v, new(big.Int).SetUint64(a.lo))
	var x apd.Decimal
	x.Coeff.SetMathBigInt(v.Abs(v))
	x.Negative = a.hi < 0
	return NewDecimal(&x)
}

// intervalSum sums intervals part by part.
type intervalSum struct {
	months, days, micros intSum
	avg                  bool
}

func (a *intervalSum) size() int { return int(unsafe.Sizeof(*a)) }

func (a *intervalSum) add(args Row, diff int64) {
	v := args[0].interval()
	a.months.addInt(int64(v.months), diff)
	a.days.addInt(int64(v.days), diff)
	a.micros.addInt(v.micros, diff)
}

func (a *intervalSum) result() (Datum, error) {
	if a.months.n == 0 {
		return Null, nil
	}
	var parts [3]int64
	for i, sum := range []*intSum{&a.months, &a.days, &a.micros} {
		d, err := numericToInt(sum.sum(), Int8)
		if err != nil {
			return Null, errIntervalRange
		}
		parts[i] = d.n
	}
	v := interval{int32(parts[0]), int32(parts[1]), parts[2]}
	if int64(v.months) != parts[0] || int64(v.days) != parts[1] {
		return Null, errIntervalRange
	}
	if a.avg {
		return v.scale(func(f float64) float64 { return f / float64(a.months.n) })
	}
	return newInterval(v), nil
}

// numericSum sums decimals exactly.
type numericSum struct {
	sum     apd.Decimal
	n       int64
	special [3]int64 // -Infinity, Infinity, NaN
	avg     bool
}

func (a *numericSum) size() int { return int(unsafe.Sizeof(*a)) + a.sum.Coeff.BitLen()/8 }

func (a *numericSum) add(args Row, diff int64) {
	d := args[0]
	a.n += diff
	switch d.numClass() {
	case -1:
		a.special[0] += diff
		return
	case 1, 2:
		a.special[d.numClass()] += diff
		return
	}
	var x apd.Decimal
	// The values are bounded, so exact arithmetic cannot leave apd's range.
	_, _ = exact.Mul(&x, d.Decimal(), apd.New(diff, 0))
	_, _ = exact.Add(&a.sum, &a.sum, &x)
}

func (a *numericSum) result() (Datum, error) {
	if a.n == 0 {
		return Null, nil
	}
	if f, ok := specialSum(a.special); ok {
		return floatToNumeric(NewFloat(Float8, f))
	}
	sum, err := checkedDecimal(&a.sum)
	if err != nil || !a.avg {
		return sum, err
	}
	return numericOp('/', sum, NewInt(Numeric, a.n))
}

// specialSum is the sum where infinities or NaN take part.
func specialSum(n [3]int64) (float64, bool) {
	switch {
	case n[2] > 0 || n[0] > 0 && n[1] > 0:
		return math.NaN(), true
	case n[0] > 0:
		return math.Inf(-1), true
	case n[1] > 0:
		return math.Inf(1), true
	}
	return 0, false
}

// floatSum sums floats exactly, as a whole number of units of 2^exp, and rounds once at the end. So the sum depends on what is
// there alone, not on the order in which it came and what went again.
type floatSum struct {
	sum     big.Int
	exp     int
	n       int64
	special [3]int64
	avg     bool
	out     Type
}

func (a *floatSum) size() int { return int(unsafe.Sizeof(*a)) + a.sum.BitLen()/8 }

func (a *floatSum) add(args Row, diff int64) {
	a.n += diff
	f := args[0].Float()
	switch {
	case f != f:
		a.special[2] += diff
		return
	case math.IsInf(f, -1):
		a.special[0] += diff
		return
	case math.IsInf(f, 1):
		a.special[1] += diff
		return
	case f == 0:
		return
	}
	fraction, exp := math.Frexp(f)
	mantissa := int64(fraction * (1 << 53))
	exp -= 53
	zeros := bits.TrailingZeros64(uint64(mantissa))
	mantissa, exp = mantissa>>zeros, exp+zeros
	if a.sum.Sign() == 0 {
		a.exp = exp
	} else if exp < a.exp {
		a.sum.Lsh(&a.sum, uint(a.exp-exp))
		a.exp = exp
	}
	x := big.NewInt(mantissa)
	x.Mul(x, big.NewInt(diff))
	a.sum.Add(&a.sum, x.Lsh(x, uint(exp-a.exp)))
}

func (a *floatSum) result() (Datum, error) {
	if a.n == 0 {
		return Null, nil
	}
	if f, ok := specialSum(a.special); ok {
		return NewFloat(a.out, f), nil
	}
	x := new(big.Float).SetInt(&a.sum)
	if a.sum.Sign() != 0 {
		x.SetMantExp(x, a.exp)
	}
	if a.avg {
		x.Quo(new(big.Float).SetPrec(2200).Set(x), new(big.Float).SetInt64(a.n))
	}
	f, _ := x.Float64()
	return checkedFloat(a.out, f, true)
}
