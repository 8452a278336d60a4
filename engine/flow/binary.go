package flow

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// CheckText refuses what no text may hold: anything but UTF-8, and NUL. Its error is an [EvalError].
func CheckText(text string) error {
	if !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 {
		return &EvalError{Code: "22021", Message: `invalid byte sequence for encoding "UTF8"`}
	}
	return nil
}

// FromText reads PostgreSQL's text form of a value. Its error is an [EvalError].
func FromText(t Type, text string) (Datum, error) {
	if err := CheckText(text); err != nil {
		return Null, err
	}
	x, ok := CastTo(&Col{T: Text}, t)
	if !ok {
		return Null, &EvalError{Code: "0A000", Message: "type " + t.SQL() + " cannot be read from text"}
	}
	return x.Eval(&Context{}, Row{NewText(text)})
}

// FromBinary reads what [Datum.AppendBinary] writes, the form in which drivers send parameters. Its error is an [EvalError].
func FromBinary(t Type, b []byte) (Datum, error) { return fromBinary(t, b, false) }

// fromBinary reads a value that is our own, which AppendBinary has made of a value of the type, or a stranger's, which may be anything.
// What has been a value is one, whatever bounds reading has.
func fromBinary(t Type, b []byte, own bool) (Datum, error) {
	if n := int(t.Size()); n >= 0 && len(b) != n {
		return Null, badBinary(t)
	}
	switch t {
	case Bool:
		return NewBool(b[0] != 0), nil
	case Int2:
		return NewInt(t, int64(int16(binary.BigEndian.Uint16(b)))), nil
	case Int4:
		return NewInt(t, int64(int32(binary.BigEndian.Uint32(b)))), nil
	case Int8:
		return NewInt(t, int64(binary.BigEndian.Uint64(b))), nil
	case Float4:
		return NewFloat(t, float64(math.Float32frombits(binary.BigEndian.Uint32(b)))), nil
	case Float8:
		return NewFloat(t, math.Float64frombits(binary.BigEndian.Uint64(b))), nil
	case Numeric:
		return numericFromBinary(b, own)
	case Text, Unknown:
		if own {
			return NewText(string(b)), nil
		}
		return FromText(Text, string(b))
	case Jsonb:
		if len(b) == 0 || b[0] != 1 {
			return Null, badBinary(t)
		}
		if own {
			return newJSON(string(b[1:])), nil
		}
		return FromText(t, string(b[1:]))
	case Date:
		return checkedDate(int64(int32(binary.BigEndian.Uint32(b))) + pgEpochDays)
	case Timestamp, Timestamptz:
		return addMicros(t, int64(binary.BigEndian.Uint64(b)), pgEpochDays*microsPerDay)
	case Interval:
		word := func(at int) int32 { return int32(binary.BigEndian.Uint32(b[at:])) }
		return newInterval(interval{months: word(12), days: word(8), micros: int64(binary.BigEndian.Uint64(b))}), nil
	case UUID:
		return newUUID(b), nil
	case Bytea:
		return NewBytea(string(b)), nil
	}
	if t.IsArray() {
		return arrayFromBinary(t, b, own)
	}
	return Null, &EvalError{Code: "0A000", Message: "the binary format of type " + t.SQL() + " is not supported"}
}

// arrayFromBinary reads an array of at most one dimension; see appendArrayBinary.
func arrayFromBinary(t Type, b []byte, own bool) (Datum, error) {
	const head, dimension = 12, 8
	if len(b) < head || binary.BigEndian.Uint32(b[8:]) != t.Elem().OID() {
		return Null, badBinary(t)
	}
	var elements []Datum
	rest := b[head:]
	switch binary.BigEndian.Uint32(b) {
	case 0:
	case 1:
		if len(rest) < dimension {
			return Null, badBinary(t)
		}
		count := binary.BigEndian.Uint32(rest)
		for rest = rest[dimension:]; count > 0; count-- {
			value, behind, ok := cutValue(rest)
			if !ok {
				return Null, badBinary(t)
			}
			rest = behind
			var d Datum
			if value != nil {
				var err error
				if d, err = fromBinary(t.Elem(), value, own); err != nil {
					return Null, err
				}
			}
			elements = append(elements, d)
		}
	default:
		return Null, &EvalError{Code: "0A000", Message: "an array of more than one dimension is not supported"}
	}
	if len(rest) > 0 {
		return Null, badBinary(t)
	}
	return NewArray(t.Elem(), elements), nil
}

// cutValue splits off a value with its length before it; nil is NULL.
func cutValue(b []byte) (value, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, b, false
	}
	size := int32(binary.BigEndian.Uint32(b))
	rest = b[4:]
	switch {
	case size < 0:
		return nil, rest, true
	case int(size) > len(rest):
		return nil, b, false
	}
	return rest[:size:size], rest[size:], true
}

func badBinary(t Type) error {
	return &EvalError{Code: "22P03", Message: "incorrect binary data format for type " + t.SQL()}
}

// numericFromBinary reads base 10,000 digits; see appendNumericBinary.
func numericFromBinary(b []byte, own bool) (Datum, error) {
	if len(b) < 8 {
		return Null, badBinary(Numeric)
	}
	n, weight := int(binary.BigEndian.Uint16(b)), int(int16(binary.BigEndian.Uint16(b[2:])))
	sign, digits := binary.BigEndian.Uint16(b[4:]), b[8:]
	switch sign {
	case 0xC000:
		return parseNumeric("NaN")
	case 0xD000:
		return parseNumeric("Infinity")
	case 0xF000:
		return parseNumeric("-Infinity")
	}
	if sign != 0 && sign != 0x4000 || len(digits) != 2*n {
		return Null, badBinary(Numeric)
	}
	s := []byte("0")
	if sign != 0 {
		s = []byte("-0")
	}
	for ; len(digits) > 0; digits = digits[2:] {
		d := binary.BigEndian.Uint16(digits)
		if d > 9999 {
			return Null, badBinary(Numeric)
		}
		s = fmt.Appendf(s, "%04d", d)
	}
	text := fmt.Sprintf("%se%d", s, 4*(weight-n+1))
	if own {
		return NewDecimal(Datum{s: text, t: Numeric}.Decimal()), nil
	}
	return parseNumeric(text)
}

// AppendTuple appends a row as COPY's binary format has it: the number of columns, and the length and binary form of each value,
// where -1 is NULL.
func AppendTuple(dst []byte, r Row) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(r)))
	for _, d := range r {
		at := len(dst)
		dst = append(dst, 0xff, 0xff, 0xff, 0xff)
		if d.IsNull() {
			continue
		}
		dst = d.AppendBinary(dst)
		binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	}
	return dst
}

// Tuple splits the first row off what [AppendTuple] has written: its values in binary form, nil for NULL. ok is false if it is cut off.
func Tuple(b []byte) (values [][]byte, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, b, false
	}
	n := int(binary.BigEndian.Uint16(b))
	rest = b[2:]
	for range n {
		var v []byte
		if v, rest, ok = cutValue(rest); !ok {
			return nil, b, false
		}
		values = append(values, v)
	}
	return values, rest, true
}

// FromTuple reads the values of a row of known types that [AppendTuple] has written.
func FromTuple(types []Type, values [][]byte) (Row, error) {
	if len(values) != len(types) {
		return nil, &EvalError{Code: "22P04", Message: "row has " + strconv.Itoa(len(values)) + " values for " + strconv.Itoa(len(types)) + " columns"}
	}
	row := make(Row, len(types))
	for i, v := range values {
		if v == nil {
			continue
		}
		d, err := fromBinary(types[i], v, true)
		if err != nil {
			return nil, err
		}
		row[i] = d
	}
	return row, nil
}
