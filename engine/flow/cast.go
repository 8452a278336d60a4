package flow

import (
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/cockroachdb/apd/v3"
)

// makeCasts lists the explicit casts, less those from and to jsonb, which [ReadJSON] does.
func makeCasts() map[[2]Type]*Func {
	m := map[[2]Type]*Func{}
	add := func(from, to Type, f func(Datum) (Datum, error)) {
		m[[2]Type{from, to}] = &Func{Name: to.castName(), Params: []Type{from}, Result: to, Cast: true,
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
	add(Text, UUID, func(d Datum) (Datum, error) { return parseUUID(d.s) })
	add(Text, Bytea, func(d Datum) (Datum, error) { return parseBytea(d.s) })
	add(Text, Interval, func(d Datum) (Datum, error) { return parseInterval(d.s, intervalUnits["second"]) })

	for _, to := range []Type{Date, Timestamp, Timestamptz} {
		add(Text, to, func(d Datum) (Datum, error) { return parseTime(d.s, to) })
	}
	for _, to := range []Type{Timestamp, Timestamptz} {
		add(Date, to, func(d Datum) (Datum, error) { return NewInt(to, d.n*microsPerDay), nil })
		add(to, Date, func(d Datum) (Datum, error) { return NewInt(Date, floorDiv(d.n, microsPerDay)), nil })
	}
	add(Timestamp, Timestamptz, func(d Datum) (Datum, error) { return NewInt(Timestamptz, d.n), nil })
	add(Timestamptz, Timestamp, func(d Datum) (Datum, error) { return NewInt(Timestamp, d.n), nil })

	for _, t := range Scalars() {
		if t != Text && t != Jsonb {
			add(t, Text, func(d Datum) (Datum, error) { return NewText(d.castText()), nil })
		}
		add(ArrayOf(t), Text, func(d Datum) (Datum, error) { return NewText(d.String()), nil })
	}
	for _, t := range Scalars() {
		of := m[[2]Type{Text, t}]
		switch t {
		case Text:
			of = &Func{Result: t, F1: func(_ *Context, d Datum) (Datum, error) { return d, nil }}
		case Jsonb:
			of = &Func{Result: t, F1: func(c *Context, d Datum) (Datum, error) { return buildJSON(c, d.s) }}
		}
		m[[2]Type{Text, ArrayOf(t)}] = &Func{Name: ArrayOf(t).castName(), Params: []Type{Text}, Result: ArrayOf(t), Cast: true,
			F1: func(c *Context, d Datum) (Datum, error) { return parseArray(c, d.s, of) }}
	}
	return m
}

// castName is the type as it is written behind ::.
func (t Type) castName() string {
	if t.IsArray() {
		return t.Elem().castName() + "[]"
	}
	return t.Name()
}

// castText is the value as text. A boolean is spelled out, though its output form is one letter.
func (d Datum) castText() string {
	if d.t == Bool {
		return strconv.FormatBool(d.Bool())
	}
	return d.String()
}

// trimSpace removes what PostgreSQL takes for white space around an input.
func trimSpace(s string) string { return strings.Trim(s, " \t\n\r\v\f") }

func parseBool(text string) (Datum, error) {
	s := strings.ToLower(trimSpace(text))
	switch {
	case s == "1" || s == "on" || s != "" && (strings.HasPrefix("true", s) || strings.HasPrefix("yes", s)):
		return NewBool(true), nil
	case s == "0" || s == "off" || s == "of" || s != "" && (strings.HasPrefix("false", s) || strings.HasPrefix("no", s)):
		return NewBool(false), nil
	}
	return Null, invalidInput(Bool, text)
}

// parseUUID reads 32 digits, perhaps in braces, with hyphens after any group of four.
func parseUUID(text string) (Datum, error) {
	s := text
	if inner, ok := strings.CutPrefix(s, "{"); ok {
		if s, ok = strings.CutSuffix(inner, "}"); !ok {
			return Null, invalidInput(UUID, text)
		}
	}
	var digits []byte
	for i := range len(s) {
		if s[i] == '-' && len(digits) > 0 && len(digits)%4 == 0 && len(digits) < 32 && s[i-1] != '-' {
			continue
		}
		digits = append(digits, s[i])
	}
	b, err := hex.DecodeString(string(digits))
	if err != nil || len(b) != 16 {
		return Null, invalidInput(UUID, text)
	}
	return newUUID(b), nil
}

func newUUID(b []byte) Datum {
	return Datum{s: fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), t: UUID}
}

// parseBytea reads \x and digits, or bytes with octal escapes.
func parseBytea(text string) (Datum, error) {
	if digits, ok := strings.CutPrefix(text, `\x`); ok {
		return parseHex(digits)
	}
	b := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			b = append(b, text[i])
			continue
		}
		if strings.HasPrefix(text[i+1:], `\`) {
			b = append(b, '\\')
			i++
			continue
		}
		v, err := strconv.ParseUint(text[i+1:min(i+4, len(text))], 8, 8)
		if err != nil || i+4 > len(text) {
			return Null, &EvalError{Code: "22P02", Message: "invalid input syntax for type bytea"}
		}
		b = append(b, byte(v))
		i += 3
	}
	return NewBytea(string(b)), nil
}

func parseHex(digits string) (Datum, error) {
	digits = strings.Map(func(c rune) rune {
		if strings.ContainsRune(" \t\n\r", c) {
			return -1
		}
		return c
	}, digits)
	b, err := hex.DecodeString(digits)
	if bad, ok := err.(hex.InvalidByteError); ok {
		i := strings.IndexByte(digits, byte(bad))
		_, size := utf8.DecodeRuneInString(digits[i:])
		return Null, &EvalError{Code: "22023", Message: "invalid hexadecimal digit: " + excerpt(digits[i:i+size])}
	}
	if err != nil {
		return Null, &EvalError{Code: "22023", Message: "invalid hexadecimal data: odd number of digits"}
	}
	return NewBytea(string(b)), nil
}

// Modifier is the cast of a type to itself that a type modifier asks for, as varchar(10), numeric(10,2) or timestamp(3) do. It
// returns nil if the type takes no such modifier.
func Modifier(t Type, mods []int64) *Func {
	parts := make([]string, len(mods))
	for i, m := range mods {
		parts[i] = strconv.FormatInt(m, 10)
	}
	f := &Func{Name: t.Name() + "(" + strings.Join(parts, ",") + ")", Params: []Type{t}, Result: t, Cast: true}
	switch {
	case t == Text && len(mods) == 1 && mods[0] >= 1 && mods[0] <= 10485760:
		f.Name = "varchar(" + parts[0] + ")"
		f.F1 = func(_ *Context, d Datum) (Datum, error) { return substring(d.s, 1, mods[0]) }
	case t == Numeric && len(mods) >= 1 && len(mods) <= 2 && mods[0] >= 1 && mods[0] <= 1000:
		var scale int64
		if len(mods) == 2 {
			if scale = mods[1]; scale < -1000 || scale > 1000 {
				return nil
			}
		}
		f.F1 = func(_ *Context, d Datum) (Datum, error) { return fitNumeric(d, mods[0], int32(scale)) }
	case (t == Timestamp || t == Timestamptz || t == Interval) && len(mods) == 1 && mods[0] >= 0 && mods[0] <= 6:
		unit := int64(math.Pow10(6 - int(mods[0])))
		zero := int64(pgEpochDays * microsPerDay) // halves are rounded away from it
		if t == Interval {
			zero = 0
		}
		f.F1 = func(_ *Context, d Datum) (Datum, error) {
			n, half := d.n-zero, unit/2
			if n < 0 {
				half = -half
			}
			n, ok := int64Op('+', n, half)
			switch d.n = zero + n/unit*unit; {
			case t != Interval:
				return checkedTime(t, d.n)
			case !ok:
				return Null, errIntervalRange
			}
			return d, nil
		}
	default:
		return nil
	}
	return f
}

// Fit is the cast of a value that is written to a column of a type with modifiers. It is [Modifier] but for a text: one that is too long
// is refused, unless it is only by spaces. It returns nil if the type takes no such modifier.
func Fit(t Type, mods []int64) *Func {
	f := Modifier(t, mods)
	if f == nil || t != Text {
		return f
	}
	cut := f.F1
	f.F1 = func(c *Context, d Datum) (Datum, error) {
		short, err := cut(c, d)
		if err == nil && strings.Trim(d.s[len(short.s):], " ") != "" {
			return Null, &EvalError{Code: "22001", Message: "value too long for type character varying(" + strconv.FormatInt(mods[0], 10) + ")"}
		}
		return short, err
	}
	return f
}

// fitNumeric rounds to a scale and refuses what then has more than precision digits.
func fitNumeric(d Datum, precision int64, scale int32) (Datum, error) {
	if d.s == "NaN" {
		return d, nil
	}
	r := roundNumeric(d, scale, apd.RoundHalfUp)
	x := r.Decimal()
	if r.numClass() != 0 || !x.IsZero() && x.NumDigits()+int64(x.Exponent) > precision-int64(scale) {
		return Null, &EvalError{Code: "22003", Message: "numeric field overflow"}
	}
	return r, nil
}

// Restriction is the cast of a text or an interval to an interval that keeps nothing below a field: year, month, day, hour, minute or
// second. A number without a unit in the text is of that field. It returns nil for other types and fields.
func Restriction(from Type, field string) *Func {
	u := intervalUnits[field]
	if u == nil || u.name != field || from != Text && from != Interval {
		return nil
	}
	return &Func{Name: "interval " + field, Params: []Type{from}, Result: Interval, Cast: true,
		F1: func(_ *Context, d Datum) (Datum, error) {
			if d.t == Text {
				var err error
				if d, err = parseInterval(d.s, u); err != nil {
					return Null, err
				}
			}
			if field == "second" {
				return d, nil
			}
			return newInterval(d.interval().cut(u)), nil
		}}
}
