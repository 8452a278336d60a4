package flow

import (
	"cmp"
	"encoding/binary"
	"math"
	"strconv"
	"strings"
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
		return newInterval(v), err
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

// intervalUnit is a unit that an interval is written in. Of months, days and micros only one is set.
type intervalUnit struct {
	name         string
	months, days float64
	micros       float64
}

// intervalUnits are the units by all their names.
var intervalUnits = makeIntervalUnits()

func makeIntervalUnits() map[string]*intervalUnit {
	m := map[string]*intervalUnit{}
	for _, u := range []struct {
		names string
		intervalUnit
	}{
		{"microsecond microseconds us usec usecs usecond useconds", intervalUnit{micros: 1}},
		{"millisecond milliseconds ms msec msecs msecond mseconds", intervalUnit{micros: 1000}},
		{"second seconds s sec secs", intervalUnit{micros: microsPerSecond}},
		{"minute minutes m min mins", intervalUnit{micros: microsPerMinute}},
		{"hour hours h hr hrs", intervalUnit{micros: microsPerHour}},
		{"day days d", intervalUnit{days: 1}},
		{"week weeks w", intervalUnit{days: 7}},
		{"month months mon mons", intervalUnit{months: 1}},
		{"year years y yr yrs", intervalUnit{months: 12}},
		{"decade decades dec decs", intervalUnit{months: 120}},
		{"century centuries c cent", intervalUnit{months: 1200}},
		{"millennium millennia mil mils", intervalUnit{months: 12000}},
	} {
		names := strings.Fields(u.names)
		u.name = names[0]
		for _, n := range names {
			m[n] = &u.intervalUnit
		}
	}
	return m
}

// spans sums the parts of an interval while its text is read. Each unit may come once.
type spans struct {
	months, days, micros float64
	seen                 map[string]bool
	unit                 *intervalUnit // of a number without one
}

func (p *spans) once(name string) bool {
	if p.seen[name] {
		return false
	}
	p.seen[name] = true
	return true
}

// put adds a number of a unit. The fraction of a year goes to the months, that of a month or week to the days, and that of a day to
// the time.
func (p *spans) put(n, fraction float64, u *intervalUnit) bool {
	if !p.once(u.name) {
		return false
	}
	p.months += n * u.months
	p.days += n * u.days
	p.micros += n * u.micros
	switch days := fraction * (u.days + 30*u.months); {
	case u.months >= 12:
		p.months += math.RoundToEven(fraction * u.months)
	case u.micros > 0:
		p.micros += math.Round(fraction * u.micros)
	default:
		p.days += math.Trunc(days)
		p.micros += math.Round((days - math.Trunc(days)) * microsPerDay)
	}
	return true
}

// parseInterval reads what PostgreSQL reads: quantities with units, days and a time, years-months, and ISO 8601 with designators.
// A number at the end without a unit is of the one given.
func parseInterval(text string, unit *intervalUnit) (Datum, error) {
	p := &spans{seen: map[string]bool{}, unit: unit}
	s := &scanner{rest: trimSpace(text)}
	read := p.postgres
	if strings.HasPrefix(s.rest, "P") {
		read = p.iso
	}
	if len(text) > 1000 || !read(s) {
		return Null, &EvalError{Code: "22007", Message: "invalid input syntax for type interval: " + excerpt(text)}
	}
	d, err := checkedInterval(p.months, p.days, p.micros)
	if err != nil {
		return Null, &EvalError{Code: "22008", Message: "interval field value out of range: " + excerpt(text)}
	}
	return d, nil
}

// postgres reads forms like 1 year 2 mons -3 days 04:05:06 ago.
func (p *spans) postgres(s *scanner) bool {
	s.eat("@")
	if s.space(); s.rest == "" {
		return false
	}
	for s.rest != "" {
		if s.word0("ago") {
			if s.rest != "" {
				return false
			}
			p.months, p.days, p.micros = -p.months, -p.days, -p.micros
			return true
		}
		if !p.part(s) {
			return false
		}
		s.space()
	}
	return true
}

// word0 reads the word if it is next, and the space behind it.
func (s *scanner) word0(w string) bool {
	from := *s
	if s.word() != w {
		*s = from
		return false
	}
	s.space()
	return true
}

// quantity reads a number with a sign, apart from its fraction.
func (s *scanner) quantity() (n, fraction float64, sign float64, ok bool) {
	sign = 1
	if s.eat("-") {
		sign = -1
	} else {
		s.eat("+")
	}
	i := 0
	for i < len(s.rest) && isDigit(s.rest[i]) {
		i++
	}
	whole := s.rest[:i]
	j := i
	if j < len(s.rest) && s.rest[j] == '.' {
		for j++; j < len(s.rest) && isDigit(s.rest[j]); j++ {
		}
	}
	part := s.rest[i:j]
	s.rest = s.rest[j:]
	if whole == "" && len(part) < 2 {
		return 0, 0, 0, false
	}
	n, _ = strconv.ParseFloat("0"+whole, 64)
	fraction, _ = strconv.ParseFloat("0"+part, 64)
	return sign * n, sign * fraction, sign, true
}

func (p *spans) part(s *scanner) bool {
	n, fraction, sign, ok := s.quantity()
	switch {
	case !ok:
		return false
	case s.eat(":"):
		return fraction == 0 && p.clock(s, n, sign)
	case fraction == 0 && len(s.rest) > 1 && s.rest[0] == '-' && isDigit(s.rest[1]): // years-months
		s.rest = s.rest[1:]
		months, ok := s.digits(1, 2)
		return ok && months < 12 && p.put(n, 0, intervalUnits["year"]) && p.put(sign*float64(months), 0, intervalUnits["month"])
	}
	s.space()
	u := p.unit
	if s.rest != "" {
		from := *s
		if w := s.word(); w != "" {
			if u = intervalUnits[w]; u == nil {
				return false
			}
		} else if *s = from; strings.Contains(s.rest, ":") { // 1 02:03:04
			u = intervalUnits["day"]
		} else {
			return false
		}
	}
	return p.put(n, fraction, u)
}

// clock reads what is left of [h]h:mm[:ss[.f]], or of mm:ss.f.
func (p *spans) clock(s *scanner, hours, sign float64) bool {
	for _, u := range []string{"hour", "minute", "second"} {
		if !p.once(u) {
			return false
		}
	}
	minutes, ok := s.digits(1, 2)
	if !ok || minutes > 59 {
		return false
	}
	micros := hours*microsPerHour + sign*float64(minutes)*microsPerMinute
	switch {
	case s.eat(":"):
		seconds, ok := s.digits(1, 2)
		if !ok || seconds > 60 {
			return false
		}
		micros += sign * float64(seconds) * microsPerSecond
	case strings.HasPrefix(s.rest, "."):
		micros /= 60
	}
	if s.eat(".") {
		micros += sign * float64(s.fraction(microsPerSecond))
	}
	p.micros += micros
	return true
}

// iso reads P1Y2M3W4DT5H6M7.8S.
func (p *spans) iso(s *scanner) bool {
	s.eat("P")
	units := map[byte]string{'Y': "year", 'M': "month", 'W': "week", 'D': "day"}
	any, clock := false, false
	for s.rest != "" {
		if !clock && s.eat("T") {
			clock, any = true, false
			units = map[byte]string{'H': "hour", 'M': "minute", 'S': "second"}
			continue
		}
		n, fraction, _, ok := s.quantity()
		if !ok || s.rest == "" {
			return false
		}
		u := intervalUnits[units[s.rest[0]]]
		s.rest = s.rest[1:]
		if u == nil || !p.put(n, fraction, u) {
			return false
		}
		any = true
	}
	return any
}

// append writes PostgreSQL's own style: 1 year 2 mons -3 days +04:05:06.789.
func (v interval) append(dst []byte) []byte {
	start, before := len(dst), false
	for _, p := range []struct {
		n    int64
		unit string
	}{{int64(v.months / 12), "year"}, {int64(v.months % 12), "mon"}, {int64(v.days), "day"}} {
		if p.n == 0 {
			continue
		}
		if len(dst) > start {
			dst = append(dst, ' ')
		}
		if before && p.n > 0 {
			dst = append(dst, '+')
		}
		before = p.n < 0
		dst = append(strconv.AppendInt(dst, p.n, 10), ' ')
		dst = append(dst, p.unit...)
		if p.n != 1 {
			dst = append(dst, 's')
		}
	}
	if v.micros == 0 && len(dst) > start {
		return dst
	}
	if len(dst) > start {
		dst = append(dst, ' ')
	}
	micros := uint64(v.micros)
	if v.micros < 0 {
		micros = -micros
		dst = append(dst, '-')
	} else if before {
		dst = append(dst, '+')
	}
	two := func(sep string, n uint64) {
		dst = append(dst, sep...)
		if n < 10 {
			dst = append(dst, '0')
		}
		dst = strconv.AppendUint(dst, n, 10)
	}
	two("", micros/microsPerHour)
	two(":", micros/microsPerMinute%60)
	two(":", micros/microsPerSecond%60)
	if f := micros % microsPerSecond; f > 0 {
		digits := strconv.FormatUint(microsPerSecond+f, 10)[1:]
		dst = append(append(dst, '.'), strings.TrimRight(digits, "0")...)
	}
	return dst
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
