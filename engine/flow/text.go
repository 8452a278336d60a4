package flow

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math"
	"strconv"
	"strings"
	"time"
)

// AppendText appends PostgreSQL's text form of the value: t and f, digits, ISO 8601 times in UTC, canonical jsonb, bytes in hex. A NULL
// appends nothing; callers that can tell NULL from the empty text ask IsNull first.
func (d Datum) AppendText(dst []byte) []byte {
	switch d.t {
	case Unknown:
		return dst
	case Bool:
		if d.n != 0 {
			return append(dst, 't')
		}
		return append(dst, 'f')
	case Float4:
		return appendFloat(dst, d.Float(), 32)
	case Float8:
		return appendFloat(dst, d.Float(), 64)
	case Text, Jsonb, UUID:
		return append(dst, d.s...)
	case Bytea:
		return hex.AppendEncode(append(dst, `\x`...), []byte(d.s))
	case Interval:
		return d.interval().append(dst)
	case Numeric:
		if d.s != "" {
			return append(dst, d.s...)
		}
	case Date:
		return appendTime(dst, time.Unix(d.n*86400, 0), "-01-02", "")
	case Timestamp:
		return appendTime(dst, time.UnixMicro(d.n), "-01-02 15:04:05.999999", "")
	case Timestamptz:
		return appendTime(dst, time.UnixMicro(d.n), "-01-02 15:04:05.999999", "+00")
	}
	if d.t.IsArray() {
		return appendArrayText(dst, d)
	}
	return strconv.AppendInt(dst, d.n, 10)
}

// String is the text form, and NULL for NULL.
func (d Datum) String() string {
	if d.IsNull() {
		return "NULL"
	}
	return string(d.AppendText(nil))
}

// appendFloat writes the shortest text that reads back as the same number, with an exponent where PostgreSQL writes one.
func appendFloat(dst []byte, f float64, bits int) []byte {
	switch {
	case f != f:
		return append(dst, "NaN"...)
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	}
	places := 15 // before the point
	if bits == 32 {
		places = 6
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'e', -1, bits)
	// It is the written number that decides: 0.0001 is less than that as a real.
	exponent, _ := strconv.Atoi(string(dst[bytes.LastIndexByte(dst, 'e')+1:]))
	if exponent < -4 || exponent >= places {
		return dst
	}
	return strconv.AppendFloat(dst[:start], f, 'f', -1, bits)
}

func appendTime(dst []byte, t time.Time, layout, zone string) []byte {
	t = t.UTC()
	year, era := t.Year(), ""
	if year <= 0 {
		year, era = 1-year, " BC"
	}
	y := strconv.Itoa(year)
	dst = append(dst, strings.Repeat("0", max(0, 4-len(y)))...)
	dst = append(dst, y...)
	dst = t.AppendFormat(dst, layout)
	dst = append(dst, zone...)
	return append(dst, era...)
}

// pgEpochDays is 2000-01-01, from which PostgreSQL's binary formats count, in days since 1970.
const pgEpochDays = 10957

// AppendBinary appends PostgreSQL's binary form of the value, without its length. A NULL appends nothing.
func (d Datum) AppendBinary(dst []byte) []byte {
	switch d.t {
	case Bool:
		return append(dst, byte(d.n))
	case Int2:
		return binary.BigEndian.AppendUint16(dst, uint16(d.n))
	case Int4:
		return binary.BigEndian.AppendUint32(dst, uint32(d.n))
	case Int8:
		return binary.BigEndian.AppendUint64(dst, uint64(d.n))
	case Float4:
		return binary.BigEndian.AppendUint32(dst, math.Float32bits(float32(d.Float())))
	case Float8:
		return binary.BigEndian.AppendUint64(dst, uint64(d.n))
	case Numeric:
		return appendNumericBinary(dst, string(d.AppendText(nil)))
	case Text, Bytea:
		return append(dst, d.s...)
	case UUID:
		b, _ := hex.DecodeString(strings.ReplaceAll(d.s, "-", "")) // canonical, so it decodes
		return append(dst, b...)
	case Interval:
		v := d.interval()
		dst = binary.BigEndian.AppendUint64(dst, uint64(v.micros))
		dst = binary.BigEndian.AppendUint32(dst, uint32(v.days))
		return binary.BigEndian.AppendUint32(dst, uint32(v.months))
	case Jsonb:
		return append(append(dst, 1), d.s...)
	case Date:
		return binary.BigEndian.AppendUint32(dst, uint32(d.n-pgEpochDays))
	case Timestamp, Timestamptz:
		return binary.BigEndian.AppendUint64(dst, uint64(d.n-pgEpochDays*86400*1e6))
	}
	if d.t.IsArray() {
		return appendArrayBinary(dst, d)
	}
	return dst
}

// appendNumericBinary writes a plain decimal as PostgreSQL sends it: number of digits, weight, sign, scale, and the digits in
// base 10,000.
func appendNumericBinary(dst []byte, s string) []byte {
	switch s {
	case "NaN":
		return append(dst, 0, 0, 0, 0, 0xC0, 0, 0, 0)
	case "Infinity":
		return append(dst, 0, 0, 0, 0, 0xD0, 0, 0, 0)
	case "-Infinity":
		return append(dst, 0, 0, 0, 0, 0xF0, 0, 0, 0)
	}
	var sign uint16
	s, negative := strings.CutPrefix(s, "-")
	if negative {
		sign = 0x4000
	}
	whole, frac, _ := strings.Cut(s, ".")
	scale := len(frac)
	whole = strings.TrimLeft(whole, "0")
	whole = strings.Repeat("0", (4-len(whole)%4)%4) + whole
	frac += strings.Repeat("0", (4-len(frac)%4)%4)
	weight := len(whole)/4 - 1
	digits := whole + frac
	for strings.HasPrefix(digits, "0000") {
		digits, weight = digits[4:], weight-1
	}
	for strings.HasSuffix(digits, "0000") {
		digits = digits[:len(digits)-4]
	}
	if digits == "" {
		weight, sign = 0, 0
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(digits)/4))
	dst = binary.BigEndian.AppendUint16(dst, uint16(int16(weight)))
	dst = binary.BigEndian.AppendUint16(dst, sign)
	dst = binary.BigEndian.AppendUint16(dst, uint16(scale))
	for ; digits != ""; digits = digits[4:] {
		v, _ := strconv.ParseUint(digits[:4], 10, 16)
		dst = binary.BigEndian.AppendUint16(dst, uint16(v))
	}
	return dst
}
