package flow

import (
	"cmp"
	"encoding/binary"
	"math"
	"strconv"
	"strings"
	"unsafe"

	"github.com/cockroachdb/apd/v3"
)

// Datum is one value: a tagged scalar of 32 bytes, immutable. The zero value is NULL.
//
// Every value has one representation, so that equal values have equal keys: numbers have no trailing zeros and floats no
// negative zero, jsonb and uuid are kept as PostgreSQL's canonical text, times are microseconds.
type Datum struct {
	s string // text; canonical jsonb and uuid; bytea; a numeric that is no int64; an interval's months and days; an array's elements
	n int64  // integers, float bits, 0 or 1, days, microseconds since 1970 or of an interval; a numeric that is an int64
	t Type
}

// Null is the SQL NULL.
var Null Datum

// NewBool returns a boolean.
func NewBool(v bool) Datum {
	if v {
		return Datum{n: 1, t: Bool}
	}
	return Datum{t: Bool}
}

// NewInt returns an integer, date, timestamp or integral numeric of type t.
func NewInt(t Type, v int64) Datum { return Datum{n: v, t: t} }

// NewUint returns a numeric, which has room for every uint64.
func NewUint(v uint64) Datum {
	if v <= math.MaxInt64 {
		return Datum{n: int64(v), t: Numeric}
	}
	return Datum{s: strconv.FormatUint(v, 10), t: Numeric}
}

// NewFloat returns a float of type t, without negative zero and with only one NaN.
func NewFloat(t Type, v float64) Datum {
	if v != v {
		v = math.NaN()
	} else if v == 0 {
		v = 0
	}
	return Datum{n: int64(math.Float64bits(v)), t: t}
}

// NewText returns a text.
func NewText(s string) Datum { return Datum{s: s, t: Text} }

// newJSON returns a jsonb whose text is canonical already.
func newJSON(canonical string) Datum { return Datum{s: canonical, t: Jsonb} }

// NewBytea returns a string of bytes.
func NewBytea(s string) Datum { return Datum{s: s, t: Bytea} }

// NewDecimal returns a numeric. Trailing zeros do not survive: 1.50 is 1.5, as in Materialize.
func NewDecimal(d *apd.Decimal) Datum {
	if d.Form == apd.NaN || d.Form == apd.NaNSignaling {
		return Datum{s: "NaN", t: Numeric}
	}
	if d.Form == apd.Infinite {
		if d.Negative {
			return Datum{s: "-Infinity", t: Numeric}
		}
		return Datum{s: "Infinity", t: Numeric}
	}
	var r apd.Decimal
	r.Reduce(d)
	if r.IsZero() {
		return Datum{t: Numeric}
	}
	if r.Exponent >= 0 && r.NumDigits()+int64(r.Exponent) <= 19 {
		if v, err := r.Int64(); err == nil {
			return Datum{n: v, t: Numeric}
		}
	}
	return Datum{s: r.Text('f'), t: Numeric}
}

// IsNull tells whether the value is NULL.
func (d Datum) IsNull() bool { return d.t == Unknown }

// Type is the type of the value, Unknown for NULL.
func (d Datum) Type() Type { return d.t }

// Bool is the value of a boolean.
func (d Datum) Bool() bool { return d.n != 0 }

// Int is the value of an integer, the days of a date, or the microseconds of a timestamp.
func (d Datum) Int() int64 { return d.n }

// Float is the value of a float.
func (d Datum) Float() float64 { return math.Float64frombits(uint64(d.n)) }

// Str is the value of a text or bytea, or the canonical text of a jsonb or uuid.
func (d Datum) Str() string { return d.s }

// Decimal is the value of a numeric.
func (d Datum) Decimal() *apd.Decimal {
	if d.s == "" {
		return apd.New(d.n, 0)
	}
	v, _, err := apd.NewFromString(d.s)
	if err != nil {
		return &apd.Decimal{Form: apd.NaN}
	}
	return v
}

// Uint is the value of a numeric that is a whole number of 64 bits.
func (d Datum) Uint() (uint64, bool) {
	if d.s == "" {
		return uint64(d.n), d.n >= 0
	}
	v, err := strconv.ParseUint(d.s, 10, 64)
	return v, err == nil
}

// numClass orders the numerics that are no numbers: -Infinity, numbers, Infinity, NaN.
func (d Datum) numClass() int {
	switch d.s {
	case "-Infinity":
		return -1
	case "Infinity":
		return 1
	case "NaN":
		return 2
	}
	return 0
}

// Compare orders two values of one type as PostgreSQL does under the C collation: NaN after all numbers, NULL after all
// values. The exception are intervals, which compare by months, then days, then time, as in Materialize: a month is not 30 days.
func Compare(a, b Datum) int { return compare(&a, &b) }

// compare is [Compare] without copies, for the orders that operators keep.
func compare(a, b *Datum) int {
	if a.t == Unknown || b.t == Unknown {
		return cmp.Compare(nullRank(*a), nullRank(*b))
	}
	switch a.t {
	case Int4, Int8:
		return cmp.Compare(a.n, b.n)
	case Text, UUID, Bytea:
		return strings.Compare(a.s, b.s)
	case Jsonb:
		return compareJSON(a.s, b.s)
	case Interval:
		return compareIntervals(a.interval(), b.interval())
	case Float4, Float8:
		return compareFloat(a.Float(), b.Float())
	case Numeric:
		if a.s == "" && b.s == "" {
			return cmp.Compare(a.n, b.n)
		}
		if ca, cb := a.numClass(), b.numClass(); ca != 0 || cb != 0 {
			return cmp.Compare(ca, cb)
		}
		return a.Decimal().Cmp(b.Decimal())
	}
	if a.t.IsArray() {
		return compareArrays(*a, *b)
	}
	return cmp.Compare(a.n, b.n)
}

func nullRank(d Datum) int {
	if d.IsNull() {
		return 1
	}
	return 0
}

func compareFloat(a, b float64) int {
	switch {
	case a != a && b != b:
		return 0
	case a != a:
		return 1
	case b != b:
		return -1
	}
	return cmp.Compare(a, b)
}

// Row is a row of a collection, immutable once it has left the operator that made it.
type Row []Datum

// CompareRows orders two rows of one shape column by column.
func CompareRows(a, b Row) int {
	for i := range a {
		if c := compare(&a[i], &b[i]); c != 0 {
			return c
		}
	}
	return 0
}

// AppendKey appends bytes that are equal for two rows of one shape exactly when the rows are equal.
func (r Row) AppendKey(dst []byte) []byte {
	for i := range r {
		dst = r[i].appendKey(dst)
	}
	return dst
}

func (d *Datum) appendKey(dst []byte) []byte {
	switch d.t {
	case Unknown:
		return append(dst, 0)
	case Bool:
		return append(dst, 1, byte(d.n))
	case Text, Jsonb, UUID, Bytea:
		return appendKeyText(append(dst, 1), d.s)
	case Numeric:
		if d.s != "" {
			return appendKeyText(append(dst, 2), d.s)
		}
	case Interval:
		dst = appendKeyText(append(dst, 1), d.s)
		return binary.LittleEndian.AppendUint64(dst, uint64(d.n))
	}
	if d.t.IsArray() {
		return appendKeyText(append(dst, 1), d.s)
	}
	dst = append(dst, 1)
	return binary.LittleEndian.AppendUint64(dst, uint64(d.n))
}

func appendKeyText(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// Size is an estimate of the bytes that a row holds in memory, for the bounds of histories and state.
func (r Row) Size() int {
	n := 24 + len(r)*int(unsafe.Sizeof(Datum{}))
	for i := range r {
		n += len(r[i].s)
	}
	return n
}

// Own replaces the texts that lie within a range of memory by copies, so that the row keeps nothing of that memory alive.
func (r Row) Own(from, to uintptr) {
	for i := range r {
		if s := r[i].s; s != "" {
			if at := uintptr(unsafe.Pointer(unsafe.StringData(s))); at >= from && at < to {
				r[i].s = strings.Clone(s)
			}
		}
	}
}
