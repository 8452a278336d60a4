package flow

import (
	"cmp"
	"encoding/binary"
	"math"
)

// interval is a span of time. Its parts stay apart: a month has no fixed number of days.
type interval struct {
	months, days int32
	micros       int64
}

var errIntervalRange = &EvalError{Code: "22008", Message: "interval out of range"}

func newInterval(v interval) Datum {
	d := Datum{n: v.micros, t: Interval}
	if v.months != 0 || v.days != 0 {
		var b [8]byte
		binary.BigEndian.PutUint32(b[:], uint32(v.months))
		binary.BigEndian.PutUint32(b[4:], uint32(v.days))
		d.s = string(b[:])
	}
	return d
}

func (d Datum) interval() interval {
	v := interval{micros: d.n}
	if d.s != "" {
		word := func(s string) int32 {
			return int32(uint32(s[0])<<24 | uint32(s[1])<<16 | uint32(s[2])<<8 | uint32(s[3]))
		}
		v.months, v.days = word(d.s), word(d.s[4:])
	}
	return v
}

func compareIntervals(a, b interval) int {
	return cmp.Or(cmp.Compare(a.months, b.months), cmp.Compare(a.days, b.days), cmp.Compare(a.micros, b.micros))
}

// checkedInterval is an interval of parts that may be too large.
func checkedInterval(months, days, micros float64) (Datum, error) {
	fits := func(f, limit float64) bool { return f >= -limit && f < limit }
	if !fits(months, 1<<31) || !fits(days, 1<<31) || !fits(micros, 1<<63) {
		return Null, errIntervalRange
	}
	return newInterval(interval{int32(months), int32(days), int64(micros)}), nil
}

func (v interval) add(o interval) (Datum, error) {
	micros, ok := int64Op('+', v.micros, o.micros)
	months, days := int64(v.months)+int64(o.months), int64(v.days)+int64(o.days)
	if !ok || months != int64(int32(months)) || days != int64(int32(days)) {
		return Null, errIntervalRange
	}
	return newInterval(interval{int32(months), int32(days), micros}), nil
}

func (v interval) negate() (interval, error) {
	if v.months == math.MinInt32 || v.days == math.MinInt32 || v.micros == math.MinInt64 {
		return v, errIntervalRange
	}
	return interval{-v.months, -v.days, -v.micros}, nil
}

// scale applies a multiplication or division to every part. What is left of a month goes to the days, at 30 to the month, and
// what is left of a day to the time.
func (v interval) scale(op func(float64) float64) (Datum, error) {
	round := func(seconds float64) float64 { return math.RoundToEven(seconds*microsPerSecond) / microsPerSecond }
	month, day := op(float64(v.months)), op(float64(v.days))
	months, days := math.Trunc(month), math.Trunc(day)
	restDays := round((month - months) * 30)
	seconds := round((day - days + restDays - math.Trunc(restDays)) * 86400)
	if math.Abs(seconds) >= 86400 {
		more := math.Trunc(seconds / 86400)
		days += more
		seconds -= more * 86400
	}
	return checkedInterval(months, days+math.Trunc(restDays), math.RoundToEven(op(float64(v.micros))+seconds*microsPerSecond))
}

func (r registry) intervals() {
	r.op("+", Interval, Interval, Interval, func(a, b Datum) (Datum, error) { return a.interval().add(b.interval()) })
	r.op("-", Interval, Interval, Interval, func(a, b Datum) (Datum, error) {
		v, err := b.interval().negate()
		if err != nil {
			return Null, err
		}
		return a.interval().add(v)
	})
	r.fn1("-", Interval, Interval, func(a Datum) (Datum, error) {
		v, err := a.interval().negate()
		if err != nil {
			return Null, err
		}
		return newInterval(v), nil
	})
	times := func(a, b Datum) (Datum, error) {
		return a.interval().scale(func(f float64) float64 { return f * b.Float() })
	}
	r.op("*", Interval, Interval, Float8, times)
	r.op("*", Interval, Float8, Interval, func(a, b Datum) (Datum, error) { return times(b, a) })
	r.op("/", Interval, Interval, Float8, func(a, b Datum) (Datum, error) {
		if b.Float() == 0 {
			return Null, errDivisionByZero
		}
		return a.interval().scale(func(f float64) float64 { return f / b.Float() })
	})
	r.fn2("date_trunc", Interval, Text, Interval, truncateInterval)
}

func (v interval) extract(name string) (Datum, error) {
	years, seconds := int64(v.months/12), v.micros%microsPerMinute
	switch name {
	case "epoch":
		// A year is 365.25 days here, and a month 30.
		days := years*1461*6 + int64(v.months%12)*30*24 + int64(v.days)*24 // in hours
		hours, err := numericOp('*', NewInt(Numeric, days), NewInt(Numeric, 3600))
		if err != nil {
			return Null, err
		}
		micros, _ := decimal(v.micros, -6)
		return numericOp('+', hours, micros)
	case "microsecond":
		return decimal(seconds, 0)
	case "millisecond":
		return decimal(seconds, -3)
	case "second":
		return decimal(seconds, -6)
	case "minute":
		return decimal(v.micros/microsPerMinute%60, 0)
	case "hour":
		return decimal(v.micros/microsPerHour, 0)
	case "day":
		return decimal(int64(v.days), 0)
	case "month":
		return decimal(int64(v.months%12), 0)
	case "quarter":
		return decimal(int64(v.months%12/3+1), 0)
	case "year":
		return decimal(years, 0)
	case "decade":
		return decimal(years/10, 0)
	case "century":
		return decimal(years/100, 0)
	case "millennium":
		return decimal(years/1000, 0)
	}
	return Null, unsupportedField(name, Interval)
}

// truncateInterval is date_trunc of an interval.
func truncateInterval(field, x Datum) (Datum, error) {
	name, err := timeField(field.s, Interval)
	if err != nil {
		return Null, err
	}
	u := intervalUnits[name]
	if name == "quarter" {
		u = &intervalUnit{months: 3}
	}
	if u == nil || name == "week" {
		return Null, unsupportedField(field.s, Interval)
	}
	return newInterval(x.interval().cut(u)), nil
}

// cut drops what is below a unit.
func (v interval) cut(u *intervalUnit) interval {
	switch {
	case u.months > 0:
		v.months -= v.months % int32(u.months)
		v.days, v.micros = 0, 0
	case u.days > 0:
		v.micros = 0
	default:
		v.micros -= v.micros % int64(u.micros)
	}
	return v
}
