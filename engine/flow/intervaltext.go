package flow

import (
	"math"
	"strconv"
	"strings"
)

// intervalUnit is a unit that an interval is written in. Of months, days and micros only one is set.
type intervalUnit struct {
	name                 string
	months, days, micros int64
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
	months, days, micros int64
	large                bool // a part is out of range
	seen                 map[string]bool
	unit                 *intervalUnit // of a number without one
}

// quantity is a number as it is written.
type quantity struct {
	n        int64 // with the sign
	fraction float64
	sign     int64
	large    bool // n is out of range
}

func (p *spans) once(name string) bool {
	if p.seen[name] {
		return false
	}
	p.seen[name] = true
	return true
}

// sum adds n units to a part.
func (p *spans) sum(part *int64, n, unit int64) {
	v, ok := int64Op('*', n, unit)
	if ok {
		v, ok = int64Op('+', *part, v)
	}
	*part, p.large = v, p.large || !ok
}

// put adds a quantity of a unit. The fraction of a year goes to the months, that of a month or week to the days, and that of a day to
// the time.
func (p *spans) put(q quantity, u *intervalUnit) bool {
	if !p.once(u.name) {
		return false
	}
	p.large = p.large || q.large
	p.sum(&p.months, q.n, u.months)
	p.sum(&p.days, q.n, u.days)
	p.sum(&p.micros, q.n, u.micros)
	switch {
	case u.months >= 12:
		p.sum(&p.months, int64(math.RoundToEven(q.fraction*float64(u.months))), 1)
	case u.micros > 0:
		p.sum(&p.micros, wholeMicros(q.fraction*float64(u.micros)), 1)
	default:
		days := q.fraction * float64(u.days+30*u.months)
		p.sum(&p.days, int64(days), 1)
		p.sum(&p.micros, wholeMicros((days-math.Trunc(days))*microsPerDay), 1)
	}
	return true
}

// wholeMicros rounds a fraction of a unit as PostgreSQL does: halves towards zero.
func wholeMicros(f float64) int64 {
	whole, rest := math.Modf(f)
	switch {
	case rest > 0.5:
		whole++
	case rest < -0.5:
		whole--
	}
	return int64(whole)
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
	v := interval{int32(p.months), int32(p.days), p.micros}
	if p.large || int64(v.months) != p.months || int64(v.days) != p.days {
		return Null, &EvalError{Code: "22015", Message: "interval field value out of range: " + excerpt(text)}
	}
	return newInterval(v), nil
}

// postgres reads forms like 1 year 2 mons -3 days 04:05:06 ago.
func (p *spans) postgres(s *scanner) bool {
	s.eat("@")
	if s.space(); s.rest == "" {
		return false
	}
	for s.rest != "" {
		if len(p.seen) > 0 && s.eatWord("ago") {
			for _, part := range []*int64{&p.months, &p.days, &p.micros} {
				n := *part
				*part = 0
				p.sum(part, n, -1)
			}
			return s.rest == ""
		}
		if !p.part(s) {
			return false
		}
		s.space()
	}
	return true
}

// eatWord reads the word if it is next, and the space behind it.
func (s *scanner) eatWord(w string) bool {
	from := *s
	if s.word() != w {
		*s = from
		return false
	}
	s.space()
	return true
}

// quantity reads a number with a sign and a fraction.
func (s *scanner) quantity() (q quantity, ok bool) {
	q.sign = 1
	if s.eat("-") {
		q.sign = -1
	} else {
		s.eat("+")
	}
	s.space()
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
		return q, false
	}
	sign := strings.Repeat("-", b2i(q.sign < 0)) // with it, because the least number has no positive one
	n, err := strconv.ParseInt(sign+"0"+whole, 10, 64)
	f, _ := strconv.ParseFloat(sign+"0"+part, 64)
	q.n, q.fraction, q.large = n, f, err != nil
	return q, true
}

func (p *spans) part(s *scanner) bool {
	q, ok := s.quantity()
	switch {
	case !ok:
		return false
	case s.eat(":"):
		return q.fraction == 0 && p.clock(s, q)
	case q.fraction == 0 && len(s.rest) > 1 && s.rest[0] == '-' && isDigit(s.rest[1]): // years-months
		s.rest = s.rest[1:]
		months, ok := s.digits(1, 2)
		whole := s.rest == "" || strings.IndexByte(" \t\n\r\v\f", s.rest[0]) >= 0 // and not a date
		return ok && whole && months < 12 && p.put(q, intervalUnits["year"]) && p.put(quantity{n: q.sign * months}, intervalUnits["month"])
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
	return p.put(q, u)
}

// clock reads what is left of [h]h:mm[:ss[.f]], or of mm:ss.f.
func (p *spans) clock(s *scanner, first quantity) bool {
	for _, u := range []string{"hour", "minute", "second"} {
		if !p.once(u) {
			return false
		}
	}
	second, ok := s.digits(1, 2)
	if !ok || second > 59 {
		return false
	}
	p.large = p.large || first.large
	units := []int64{microsPerHour, microsPerMinute}
	if strings.HasPrefix(s.rest, ".") {
		units = []int64{microsPerMinute, microsPerSecond}
	}
	p.sum(&p.micros, first.n, units[0])
	p.sum(&p.micros, first.sign*second, units[1])
	if s.eat(":") {
		seconds, ok := s.digits(1, 2)
		if !ok || seconds > 60 {
			return false
		}
		p.sum(&p.micros, first.sign*seconds, microsPerSecond)
	}
	if s.eat(".") {
		p.sum(&p.micros, first.sign*s.fraction(microsPerSecond), 1)
	}
	return true
}

// iso reads P1Y2M3W4DT5H6M7.8S.
func (p *spans) iso(s *scanner) bool {
	s.eat("P")
	units := map[byte]string{'Y': "year", 'M': "month", 'W': "week", 'D': "day"}
	found, clock := false, false
	for s.rest != "" {
		if !clock && s.eat("T") {
			clock, found = true, false
			units = map[byte]string{'H': "hour", 'M': "minute", 'S': "second"}
			continue
		}
		q, ok := s.quantity()
		if !ok || s.rest == "" {
			return false
		}
		u := intervalUnits[units[s.rest[0]]]
		s.rest = s.rest[1:]
		if u == nil || !p.put(q, u) {
			return false
		}
		found = true
	}
	return found
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
