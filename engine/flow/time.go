package flow

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/apd/v3"
)

const (
	microsPerSecond = 1e6
	microsPerMinute = 60 * microsPerSecond
	microsPerHour   = 60 * microsPerMinute
	microsPerDay    = 24 * microsPerHour
)

// The first and the last moment of a date or timestamp: 4713 BC, as in PostgreSQL, and the last year whose microseconds fit.
var (
	minTime = time.Date(-4712, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	maxTime = time.Date(294247, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
)

// checkedTime is a timestamp of type t, if it is one.
func checkedTime(t Type, micros int64) (Datum, error) {
	if micros < minTime || micros >= maxTime {
		return Null, &EvalError{Code: "22008", Message: "timestamp out of range"}
	}
	return NewInt(t, micros), nil
}

func checkedDate(days int64) (Datum, error) {
	if days < minTime/microsPerDay || days >= maxTime/microsPerDay {
		return Null, &EvalError{Code: "22008", Message: "date out of range"}
	}
	return NewInt(Date, days), nil
}

// addMicros is a time and a span, which may overflow.
func addMicros(t Type, a, b int64) (Datum, error) {
	v, ok := int64Op('+', a, b)
	if !ok {
		return checkedTime(t, math.MaxInt64)
	}
	return checkedTime(t, v)
}

// asTime is the moment of a date or timestamp.
func (d Datum) asTime() time.Time {
	if d.t == Date {
		return time.Unix(d.n*86400, 0).UTC()
	}
	return time.UnixMicro(d.n).UTC()
}

func secondsToTime(a Datum) (Datum, error) {
	us := math.RoundToEven(a.Float() * microsPerSecond)
	if us != us || us < float64(minTime) || us >= float64(maxTime) {
		return Null, &EvalError{Code: "22008", Message: "timestamp out of range: " + excerpt(a.String())}
	}
	return NewInt(Timestamptz, int64(us)), nil
}

// parseTime reads a date or timestamp in ISO 8601. A missing zone is UTC, the only zone the engine has.
func parseTime(text string, t Type) (Datum, error) {
	s := scanner{rest: trimSpace(text)}
	year, month, day, ok := s.date()
	var clock, zone int64
	if ok && s.separator() {
		clock, ok = s.clock()
	}
	if ok {
		zone, ok = s.zone()
	}
	written := year // there is no year 0
	if s.space(); len(s.rest) == 2 && strings.EqualFold(s.rest, "BC") {
		year, s.rest = 1-year, ""
	}
	if !ok || s.rest != "" {
		name := t.SQL()
		if t == Timestamp {
			name = "timestamp"
		}
		return Null, &EvalError{Code: "22007", Message: "invalid input syntax for type " + name + ": " + excerpt(text)}
	}
	v := time.Date(int(year), time.Month(month), int(day), 0, 0, 0, 0, time.UTC)
	if zone <= -16*microsPerHour || zone >= 16*microsPerHour {
		return Null, &EvalError{Code: "22009", Message: "time zone displacement out of range: " + excerpt(text)}
	}
	if v.Day() != int(day) || month < 1 || month > 12 || clock > microsPerDay || written == 0 || year > 294246 || year < -4712 {
		return Null, &EvalError{Code: "22008", Message: "date/time field value out of range: " + excerpt(text)}
	}
	switch t {
	case Date: // clock and zone are read and ignored
		return checkedDate(v.Unix() / 86400)
	case Timestamp: // a zone is read and ignored
		zone = 0
	}
	return addMicros(t, v.UnixMicro(), clock-zone)
}

// scanner reads the parts of dates, times and intervals from the front of a text.
type scanner struct{ rest string }

func (s *scanner) eat(prefix string) bool {
	var ok bool
	s.rest, ok = strings.CutPrefix(s.rest, prefix)
	return ok
}

func (s *scanner) space() { s.rest = strings.TrimLeft(s.rest, " \t\n\r\v\f") }

// digits reads a number of at least min and at most max digits.
func (s *scanner) digits(min, max int) (int64, bool) {
	n := 0
	for n < len(s.rest) && isDigit(s.rest[n]) {
		n++
	}
	if n < min || n > max {
		return 0, false
	}
	v, err := strconv.ParseInt(s.rest[:n], 10, 64)
	s.rest = s.rest[n:]
	return v, err == nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// word reads letters and underscores, and returns them in lower case.
func (s *scanner) word() string {
	n := 0
	for n < len(s.rest) && (s.rest[n]|0x20 >= 'a' && s.rest[n]|0x20 <= 'z' || s.rest[n] == '_') {
		n++
	}
	w := strings.ToLower(s.rest[:n])
	s.rest = s.rest[n:]
	return w
}

func (s *scanner) date() (year, month, day int64, ok bool) {
	if year, ok = s.digits(4, 6); !ok || !s.eat("-") {
		return 0, 0, 0, false
	}
	if month, ok = s.digits(1, 2); !ok || !s.eat("-") {
		return 0, 0, 0, false
	}
	day, ok = s.digits(1, 2)
	return year, month, day, ok
}

// separator reads what stands between a date and a time, if a time follows.
func (s *scanner) separator() bool {
	if len(s.rest) > 1 && (s.rest[0]|0x20 == 't') && isDigit(s.rest[1]) {
		s.rest = s.rest[1:]
		return true
	}
	s.space()
	return s.rest != "" && isDigit(s.rest[0])
}

// clock reads 3:04, 03:04:05 or 03:04:05.678 as microseconds: more than a day of them where a part is out of range. A second of 60
// is the next minute.
func (s *scanner) clock() (int64, bool) {
	hours, ok := s.digits(1, 2)
	if !ok || !s.eat(":") {
		return 0, false
	}
	minutes, ok := s.digits(1, 2)
	if !ok {
		return 0, false
	}
	micros := hours*microsPerHour + minutes*microsPerMinute
	bad := minutes > 59
	if s.eat(":") {
		seconds, ok := s.digits(1, 2)
		if !ok {
			return 0, false
		}
		bad = bad || seconds > 60
		micros += seconds * microsPerSecond
		if s.eat(".") {
			micros += s.fraction(microsPerSecond)
		}
	}
	if bad {
		micros += microsPerDay
	}
	return micros, true
}

// fraction reads the digits after a point, as a rounded share of a unit.
func (s *scanner) fraction(unit float64) int64 {
	n := 0
	for n < len(s.rest) && isDigit(s.rest[n]) {
		n++
	}
	f, _ := strconv.ParseFloat("0."+s.rest[:n], 64)
	s.rest = s.rest[n:]
	return int64(math.RoundToEven(f * unit))
}

// zone reads Z, UTC, +02, +02:00, +0200 or +02:00:00 as microseconds east of UTC.
func (s *scanner) zone() (int64, bool) {
	s.space()
	if s.rest == "" || s.rest[0] != '+' && s.rest[0] != '-' {
		from := *s
		switch s.word() {
		case "z", "utc", "gmt":
		default:
			*s = from // BC, or nothing
		}
		return 0, true
	}
	sign := int64(1)
	if s.rest[0] == '-' {
		sign = -1
	}
	s.rest = s.rest[1:]
	hours, ok := s.digits(1, 4)
	if !ok {
		return 0, false
	}
	var minutes, seconds int64
	if hours >= 100 {
		hours, minutes = hours/100, hours%100
	} else if s.eat(":") {
		if minutes, ok = s.digits(2, 2); ok && s.eat(":") {
			seconds, ok = s.digits(2, 2)
		}
	}
	return sign * (hours*microsPerHour + minutes*microsPerMinute + seconds*microsPerSecond), ok && minutes < 60 && seconds < 60
}

// The fields of extract and date_trunc by their names. Those of intervals, and what else they are called, are in intervalUnits.
var timeFields = map[string]string{
	"epoch": "epoch", "dow": "dow", "doy": "doy", "isodow": "isodow", "isoyear": "isoyear", "julian": "julian", "j": "julian",
	"quarter": "quarter", "qtr": "quarter", "timezone": "timezone", "timezone_hour": "timezone_hour", "timezone_minute": "timezone_minute",
}

func timeField(name string, t Type) (string, error) {
	name = strings.ToLower(name)
	if f, ok := timeFields[name]; ok {
		return f, nil
	}
	if u, ok := intervalUnits[name]; ok {
		return u.name, nil
	}
	return "", &EvalError{Code: "22023", Message: "unit " + excerpt(name) + " not recognized for type " + t.SQL()}
}

func unsupportedField(name string, t Type) error {
	return &EvalError{Code: "0A000", Message: "unit " + excerpt(name) + " not supported for type " + t.SQL()}
}

// extract is EXTRACT(field FROM x) of a date, timestamp or interval.
func extract(field, x Datum) (Datum, error) {
	name, err := timeField(field.s, x.t)
	if err != nil {
		return Null, err
	}
	if x.t == Interval {
		return x.interval().extract(name)
	}
	if x.t == Date {
		switch name {
		case "hour", "minute", "second", "millisecond", "microsecond", "timezone", "timezone_hour", "timezone_minute":
			return Null, unsupportedField(field.s, x.t)
		}
	}
	return extractTime(name, x)
}

func decimal(v int64, exponent int32) (Datum, error) { return NewDecimal(apd.New(v, exponent)), nil }

func extractTime(name string, x Datum) (Datum, error) {
	t := x.asTime()
	year := int64(t.Year())
	micros := int64(t.Second())*microsPerSecond + int64(t.Nanosecond()/1000)
	switch name {
	case "epoch":
		if x.t == Date {
			return decimal(x.n*86400, 0)
		}
		return decimal(x.n, -6)
	case "microsecond":
		return decimal(micros, 0)
	case "millisecond":
		return decimal(micros, -3)
	case "second":
		return decimal(micros, -6)
	case "minute":
		return decimal(int64(t.Minute()), 0)
	case "hour":
		return decimal(int64(t.Hour()), 0)
	case "day":
		return decimal(int64(t.Day()), 0)
	case "dow":
		return decimal(int64(t.Weekday()), 0)
	case "isodow":
		return decimal((int64(t.Weekday())+6)%7+1, 0)
	case "doy":
		return decimal(int64(t.YearDay()), 0)
	case "month":
		return decimal(int64(t.Month()), 0)
	case "quarter":
		return decimal((int64(t.Month())-1)/3+1, 0)
	case "week":
		_, week := t.ISOWeek()
		return decimal(int64(week), 0)
	case "isoyear":
		iso, _ := t.ISOWeek()
		return decimal(withoutZero(int64(iso)), 0)
	case "year":
		return decimal(withoutZero(year), 0)
	case "decade":
		return decimal(floorDiv(year, 10), 0)
	case "century":
		return decimal(age(year, 100), 0)
	case "millennium":
		return decimal(age(year, 1000), 0)
	case "julian":
		const epoch = 2440588 // the Julian day of 1970-01-01
		if x.t == Date {
			return decimal(x.n+epoch, 0)
		}
		days := floorDiv(x.n, microsPerDay)
		part, err := numericOp('/', NewInt(Numeric, x.n-days*microsPerDay), NewInt(Numeric, microsPerDay))
		if err != nil {
			return Null, err
		}
		return numericOp('+', NewInt(Numeric, days+epoch), part)
	case "timezone", "timezone_hour", "timezone_minute":
		if x.t == Timestamptz {
			return decimal(0, 0)
		}
	}
	return Null, unsupportedField(name, x.t)
}

// withoutZero counts years without a year 0: 1 BC is -1.
func withoutZero(year int64) int64 {
	if year <= 0 {
		return year - 1
	}
	return year
}

// age is the number of the century or millennium of a year; the first of them begins with the year 1, and there is none of number 0.
func age(year, length int64) int64 {
	if year > 0 {
		return (year + length - 1) / length
	}
	return floorDiv(year-1, length)
}

// datePart is extract in double precision; of a date, also what only a timestamp has. Where it is a sum, it is rounded at every step, as
// PostgreSQL does.
func datePart(field, x Datum) (Datum, error) {
	name, err := timeField(field.s, x.t)
	if err != nil {
		return Null, err
	}
	seconds, micros := x.n/microsPerSecond%60, x.n%microsPerSecond
	if x.t != Interval {
		t := x.asTime()
		seconds, micros = int64(t.Second()), int64(t.Nanosecond()/1000)
	}
	float := func(f float64) (Datum, error) { return NewFloat(Float8, f), nil }
	switch {
	case name == "second":
		return float(float64(seconds) + float64(micros)/1e6)
	case name == "millisecond":
		return float(float64(seconds)*1000 + float64(micros)/1000)
	case name == "epoch" && x.t == Interval:
		v := x.interval()
		sum := float64(v.micros) / 1e6
		sum += 365.25 * 86400 * float64(v.months/12)
		sum += 30 * 86400 * float64(v.months%12)
		return float(sum + 86400*float64(v.days))
	}
	d, err := extract(field, x)
	if err != nil {
		return Null, err
	}
	return numericToFloat(d, Float8)
}

// truncateTime is date_trunc of a timestamp.
func truncateTime(field, x Datum) (Datum, error) {
	name, err := timeField(field.s, x.t)
	if err != nil {
		return Null, err
	}
	units := map[string]int64{"microsecond": 1, "millisecond": 1000, "second": microsPerSecond, "minute": microsPerMinute, "hour": microsPerHour, "day": microsPerDay}
	if unit := units[name]; unit != 0 {
		return checkedTime(x.t, floorDiv(x.n, unit)*unit)
	}
	t := x.asTime()
	year, month, day := t.Year(), t.Month(), 1
	switch name {
	case "week":
		day = t.Day() - (int(t.Weekday())+6)%7
	case "month":
	case "quarter":
		month -= (month - 1) % 3
	case "year":
		month = 1
	case "decade":
		year, month = int(floorDiv(int64(year), 10)*10), 1
	case "century":
		year, month = int(floorDiv(int64(year)-1, 100)*100+1), 1
	case "millennium":
		year, month = int(floorDiv(int64(year)-1, 1000)*1000+1), 1
	default:
		return Null, unsupportedField(field.s, x.t)
	}
	return checkedTime(x.t, time.Date(year, month, day, 0, 0, 0, 0, time.UTC).UnixMicro())
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && (a < 0) != (b < 0) {
		q--
	}
	return q
}

func (r registry) times() {
	stamps := []Type{Timestamp, Timestamptz}
	r.fn1("to_timestamp", Timestamptz, Float8, secondsToTime)
	for _, t := range []Type{Date, Timestamp, Timestamptz, Interval} {
		r.fn2("extract", Numeric, Text, t, extract)
	}
	for _, t := range []Type{Timestamp, Timestamptz, Interval} {
		r.fn2("date_part", Float8, Text, t, datePart)
	}
	for _, t := range stamps {
		r.fn2("date_trunc", t, Text, t, truncateTime)
		r.op("-", Interval, t, t, func(a, b Datum) (Datum, error) {
			span, ok := int64Op('-', a.n, b.n)
			if !ok {
				return Null, errIntervalRange
			}
			return newInterval(interval{days: int32(span / microsPerDay), micros: span % microsPerDay}), nil
		})
		r.op("+", t, t, Interval, func(a, b Datum) (Datum, error) { return addInterval(a, b.interval()) })
		r.op("+", t, Interval, t, func(a, b Datum) (Datum, error) { return addInterval(b, a.interval()) })
		r.op("-", t, t, Interval, func(a, b Datum) (Datum, error) {
			v, err := b.interval().negate()
			if err != nil {
				return Null, err
			}
			return addInterval(a, v)
		})
	}
	r.op("-", Int4, Date, Date, func(a, b Datum) (Datum, error) { return NewInt(Int4, a.n-b.n), nil })
	r.op("+", Date, Date, Int4, func(a, b Datum) (Datum, error) { return checkedDate(a.n + b.n) })
	r.op("+", Date, Int4, Date, func(a, b Datum) (Datum, error) { return checkedDate(a.n + b.n) })
	r.op("-", Date, Date, Int4, func(a, b Datum) (Datum, error) { return checkedDate(a.n - b.n) })
	// A date and an interval are a timestamp; the date does not become one with a zone, as it does elsewhere.
	stamp := func(d Datum) Datum { return NewInt(Timestamp, d.n*microsPerDay) }
	r.op("+", Timestamp, Date, Interval, func(a, b Datum) (Datum, error) { return addInterval(stamp(a), b.interval()) })
	r.op("+", Timestamp, Interval, Date, func(a, b Datum) (Datum, error) { return addInterval(stamp(b), a.interval()) })
	r.op("-", Timestamp, Date, Interval, func(a, b Datum) (Datum, error) {
		v, err := b.interval().negate()
		if err != nil {
			return Null, err
		}
		return addInterval(stamp(a), v)
	})
	r.intervals()
}

// addInterval adds months, of which each keeps the day if it has it, then days, then time.
func addInterval(d Datum, v interval) (Datum, error) {
	micros := d.n
	if v.months != 0 {
		t := time.UnixMicro(micros).UTC()
		month := int64(t.Year())*12 + int64(t.Month()) - 1 + int64(v.months)
		year := floorDiv(month, 12)
		if year < -10000 || year > 300000 {
			return checkedTime(d.t, math.MaxInt64)
		}
		first := time.Date(int(year), time.Month(month-year*12+1), 1, 0, 0, 0, 0, time.UTC)
		last := first.AddDate(0, 1, -1).Day()
		day := first.AddDate(0, 0, min(t.Day(), last)-1)
		if day.Year() > 294246 {
			return checkedTime(d.t, math.MaxInt64)
		}
		micros = day.UnixMicro() + micros - floorDiv(micros, microsPerDay)*microsPerDay
	}
	sum, err := addMicros(d.t, micros, 0)
	if err == nil && v.days != 0 {
		span, ok := int64Op('*', int64(v.days), microsPerDay)
		if !ok {
			return checkedTime(d.t, math.MaxInt64)
		}
		sum, err = addMicros(d.t, sum.n, span)
	}
	if err != nil {
		return Null, err
	}
	return addMicros(d.t, sum.n, v.micros)
}
