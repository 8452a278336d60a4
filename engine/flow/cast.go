package flow

import (
	"strings"
	"time"
)

// makeCasts lists the explicit casts, less those from and to jsonb, which [ReadJSON] does.
func makeCasts() map[[2]Type]*Func {
	m := map[[2]Type]*Func{}
	add := func(from, to Type, f func(Datum) (Datum, error)) {
		m[[2]Type{from, to}] = &Func{Name: to.Name(), Params: []Type{from}, Result: to, Cast: true,
			F1: func(_ *Context, d Datum) (Datum, error) { return f(d) }}
	}
	ints := []Type{Int2, Int4, Int8}
	floats := []Type{Float4, Float8}
	for _, from := range ints {
		for _, to := range ints {
			if from != to {
				add(from, to, func(d Datum) (Datum, error) { return checkedInt(to, d.n) })
			}
		}
		for _, to := range floats {
			add(from, to, func(d Datum) (Datum, error) { return checkedFloat(to, float64(d.n), true) })
		}
		add(from, Numeric, func(d Datum) (Datum, error) { return NewInt(Numeric, d.n), nil })
		add(Numeric, from, func(d Datum) (Datum, error) { return numericToInt(d, from) })
		add(Text, from, func(d Datum) (Datum, error) { return parseInt(d.s, from) })
	}
	for _, from := range floats {
		for _, to := range ints {
			add(from, to, func(d Datum) (Datum, error) { return floatToInt(d.Float(), to) })
		}
		add(from, Numeric, floatToNumeric)
		add(Numeric, from, func(d Datum) (Datum, error) { return numericToFloat(d, from) })
		add(Text, from, func(d Datum) (Datum, error) { return parseFloat(d.s, from) })
	}
	add(Float4, Float8, func(d Datum) (Datum, error) { return NewFloat(Float8, d.Float()), nil })
	add(Float8, Float4, func(d Datum) (Datum, error) { return checkedFloat(Float4, d.Float(), finite(d.Float())) })
	add(Text, Numeric, func(d Datum) (Datum, error) { return parseNumeric(d.s) })
	add(Bool, Int4, func(d Datum) (Datum, error) { return NewInt(Int4, d.n), nil })
	add(Int4, Bool, func(d Datum) (Datum, error) { return NewBool(d.n != 0), nil })
	add(Text, Bool, func(d Datum) (Datum, error) { return parseBool(d.s) })

	add(Text, Date, func(d Datum) (Datum, error) { return parseTime(d.s, Date) })
	add(Text, Timestamp, func(d Datum) (Datum, error) { return parseTime(d.s, Timestamp) })
	add(Text, Timestamptz, func(d Datum) (Datum, error) { return parseTime(d.s, Timestamptz) })
	for _, to := range []Type{Timestamp, Timestamptz} {
		add(Date, to, func(d Datum) (Datum, error) { return NewInt(to, d.n*86400e6), nil })
		add(to, Date, func(d Datum) (Datum, error) { return NewInt(Date, floorDiv(d.n, 86400e6)), nil })
	}
	add(Timestamp, Timestamptz, func(d Datum) (Datum, error) { return NewInt(Timestamptz, d.n), nil })
	add(Timestamptz, Timestamp, func(d Datum) (Datum, error) { return NewInt(Timestamp, d.n), nil })

	for t := Bool; t <= Timestamptz; t++ {
		switch t {
		case Text, Jsonb:
		case Bool: // cast in full, though its output form is one letter
			add(t, Text, func(d Datum) (Datum, error) {
				if d.Bool() {
					return NewText("true"), nil
				}
				return NewText("false"), nil
			})
		default:
			add(t, Text, func(d Datum) (Datum, error) { return NewText(d.String()), nil })
		}
	}
	return m
}

func parseBool(text string) (Datum, error) {
	s := strings.ToLower(strings.TrimSpace(text))
	switch {
	case s == "1" || s == "on" || s != "" && (strings.HasPrefix("true", s) || strings.HasPrefix("yes", s)):
		return NewBool(true), nil
	case s == "0" || s == "off" || s == "of" || s != "" && (strings.HasPrefix("false", s) || strings.HasPrefix("no", s)):
		return NewBool(false), nil
	}
	return Null, invalidInput(Bool, text)
}

// timeLayouts are the ISO 8601 forms read as times; a missing zone is UTC, the only zone the engine has.
var timeLayouts = []string{
	"2006-01-02", "2006-01-02 15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999Z07",
	"2006-01-02 15:04:05.999999999Z0700", "2006-01-02 15:04", "2006-01-02 15:04Z07:00", "2006-01-02 15:04Z07",
}

func parseTime(text string, t Type) (Datum, error) {
	s := strings.TrimSpace(text)
	if len(s) > 10 && (s[10] == 'T' || s[10] == 't') {
		s = s[:10] + " " + s[11:]
	}
	for _, layout := range timeLayouts {
		v, err := time.Parse(layout, s)
		if err != nil {
			continue
		}
		switch t {
		case Timestamptz:
			return NewInt(t, v.Round(time.Microsecond).UnixMicro()), nil
		case Timestamp: // a zone is read and ignored
			_, zone := v.Zone()
			return NewInt(t, v.Round(time.Microsecond).UnixMicro()+int64(zone)*1e6), nil
		}
		_, zone := v.Zone()
		return NewInt(t, floorDiv(v.Unix()+int64(zone), 86400)), nil
	}
	return Null, &EvalError{Code: "22007", Message: "invalid input syntax for type " + t.SQL() + ": " + excerpt(text)}
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && (a < 0) != (b < 0) {
		q--
	}
	return q
}
