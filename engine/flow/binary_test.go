package flow_test

import (
	"strings"
	"testing"

	"github.com/mzdio/mzd/engine/flow"
)

// TestTuple writes values of all types and reads them back: tables are kept so.
func TestTuple(t *testing.T) {
	samples := map[flow.Type][]string{
		flow.Bool:        {"true", "false"},
		flow.Int2:        {"0", "-32768", "32767"},
		flow.Int4:        {"0", "-2147483648", "2147483647"},
		flow.Int8:        {"0", "-9223372036854775808", "9223372036854775807"},
		flow.Float4:      {"0", "0.1", "-3.4e38", "1e-45", "NaN", "Infinity", "-Infinity"},
		flow.Float8:      {"0", "0.1", "-1.7e308", "5e-324", "NaN", "Infinity", "-Infinity"},
		flow.Numeric:     {"0", "1", "-1", "9999", "10000", "-10000.0001", "0.00000000000000000001", "123456789012345678901234567890.12345", "1e900", "-1e-900", "99999999999999999999", "NaN", "Infinity", "-Infinity"},
		flow.Text:        {"", "x", "zoë \\ \" ' \n\t", "NULL"},
		flow.Jsonb:       {"null", "1.50", `{"b": [1, null, {"": "\u00e9"}], "a": "x"}`, `[]`, `"x"`, "true", "123456789012345678901234567890"},
		flow.Date:        {"1970-01-01", "2000-01-01", "0001-01-01", "9999-12-31"},
		flow.Timestamp:   {"1970-01-01 00:00:00", "1999-12-31 23:59:59.999999", "0001-01-01 00:00:00", "9999-12-31 23:59:59.999999"},
		flow.Timestamptz: {"1970-01-01 00:00:00+00", "1999-12-31 23:59:59.999999+00", "2024-02-29 12:00:00+05:30"},
		flow.Interval:    {"0", "1 mon", "-1 year 2 days -03:04:05.000006", "178000000 years", "00:00:00.000001"},
		flow.UUID:        {"00000000-0000-0000-0000-000000000000", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
		flow.Bytea:       {`\x`, `\x00ff5c22`},
	}
	var row flow.Row
	var types []flow.Type
	for _, typ := range flow.Scalars() {
		if samples[typ] == nil {
			t.Errorf("no sample of %s", typ.Name())
		}
		for _, text := range samples[typ] {
			row, types = append(row, must(t, text, typ), flow.Null), append(types, typ, typ)
		}
	}
	for _, typ := range []flow.Type{flow.Date, flow.Timestamp, flow.Timestamptz} { // where they are known
		for _, text := range []string{"infinity", "-infinity", "0044-03-15 BC", "12345-06-07"} {
			if d, err := cast(text, typ); err == nil {
				row, types = append(row, d), append(types, typ)
			}
		}
	}
	for _, d := range unreadable(t) {
		row, types = append(row, d), append(types, d.Type())
	}
	b := flow.AppendTuple(nil, row)
	values, rest, ok := flow.Tuple(append(b, "next"...))
	if !ok || string(rest) != "next" {
		t.Fatalf("got %q, %t", rest, ok)
	}
	got, err := flow.FromTuple(types, values)
	if err != nil {
		t.Fatal(err)
	}
	for i := range row {
		if got[i] != row[i] {
			t.Errorf("%s: got %s, want %s", types[i].Name(), got[i], row[i])
		}
	}
	for n := range b {
		if _, _, ok := flow.Tuple(b[:n]); ok {
			t.Fatalf("the first %d bytes of %d are a row", n, len(b))
		}
	}
}

// unreadable are values that expressions can make, or once could, and that nobody may send.
func unreadable(t *testing.T) []flow.Datum {
	t.Helper()
	deep := must(t, strings.Repeat("[", 290)+strings.Repeat("]", 290), flow.Jsonb)
	var err error
	for range 20 {
		if deep, err = flow.Resolve("jsonb_build_array", []flow.Type{flow.Jsonb}).FN(&flow.Context{}, []flow.Datum{deep}); err != nil {
			t.Fatal(err)
		}
	}
	large, err := flow.Resolve("round", []flow.Type{flow.Numeric, flow.Int4}).F2(&flow.Context{},
		must(t, strings.Repeat("9", 1000), flow.Numeric), flow.NewInt(flow.Int4, -1))
	if err != nil {
		t.Fatal(err)
	}
	list := []flow.Datum{flow.NewText("a\x00b"), deep, large}
	for _, d := range list {
		if _, err := flow.FromBinary(d.Type(), d.AppendBinary(nil)); err == nil {
			t.Errorf("%.20s of type %s can be read", d, d.Type().Name())
		}
		list = append(list, flow.NewArray(d.Type(), []flow.Datum{d}))
	}
	return list
}

// FuzzFromBinary looks for bytes that make a reader panic, or a value that does not read back as itself.
func FuzzFromBinary(f *testing.F) {
	for _, typ := range flow.Scalars() {
		f.Add(uint8(typ), []byte{0, 0, 0, 1, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6})
	}
	f.Add(uint8(flow.Numeric), []byte{0, 2, 0, 1, 0x40, 0, 0, 4, 0, 7, 0x27, 0x0f})
	f.Add(uint8(flow.Jsonb), []byte("\x01{\"a\": [1.50, \"x\"]}"))
	f.Fuzz(func(t *testing.T, typ uint8, b []byte) {
		d, err := flow.FromBinary(flow.Type(typ%uint8(flow.StreamTime)), b)
		if err != nil || d.IsNull() {
			return
		}
		again, err := flow.FromBinary(d.Type(), d.AppendBinary(nil))
		if err != nil || again != d {
			t.Errorf("%s %q: got %s, %v; want %s", d.Type().Name(), b, again, err, d)
		}
	})
}
