package mz_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/mzdio/mzd/core/mz"
)

func TestEncode(t *testing.T) {
	for _, tt := range []struct {
		oid        uint32
		text, want string
	}{
		{16, "t", `[true]`},
		{16, "f", `[false]`},
		{20, "-9223372036854775808", `[-9223372036854775808]`},
		{1700, "123456789012345678901234567890.000000001", `[123456789012345678901234567890.000000001]`},
		{1700, "1.50", `[1.50]`},
		{1700, "NaN", `["NaN"]`},
		{701, "-Infinity", `["-Infinity"]`},
		{701, "1e+20", `[100000000000000000000]`},
		{701, "1.25e-07", `[0.000000125]`},
		{701, "-1.5e1", `[-15]`},
		{701, "123e-2", `[1.23]`},
		{701, "-0", `[0]`},
		{701, "1e0", `[1]`},
		{701, "1e999", `["1e999"]`},
		{16464, "18446744073709551615", `[18446744073709551615]`},
		{16552, "1721310000000", `[1721310000000]`},
		{25, "", `[""]`},
		{25, "a\"b\\c\b\f\n\r\t\x01\x1f\x7f/<>&é😀\u2028", `["a\"b\\c\b\f\n\r\t\u0001\u001f` + "\x7f/<>&é😀\u2028" + `"]`},
		{3802, `{"a": [1, 2.50, "x y"], "b": null}`, `[{"a":[1,2.50,"x y"],"b":null}]`},
		{1114, "2024-01-02 03:04:05.678", `["2024-01-02T03:04:05.678"]`},
		{1184, "2024-01-02 03:04:05+00", `["2024-01-02T03:04:05+00:00"]`},
		{1184, "2024-01-02 03:04:05.1-05:30", `["2024-01-02T03:04:05.1-05:30"]`},
		{1184, "0044-03-15 00:00:00+00 BC", `["0044-03-15T00:00:00+00:00 BC"]`},
		{1184, "infinity", `["infinity"]`},
		{1082, "2024-01-02", `["2024-01-02"]`},
		{17, `\x00ff`, `["\\x00ff"]`},
		{1016, `{}`, `[[]]`},
		{1016, `{1,NULL,3}`, `[[1,null,3]]`},
		{1016, `[0:1]={1,2}`, `[[1,2]]`},
		{1016, `{{1,2},{3,4}}`, `[[[1,2],[3,4]]]`},
		{1009, `{"a b","NULL",c,"q\"\\",""}`, `[["a b","NULL","c","q\"\\",""]]`},
		{3807, `{"{\"a\": 1}","null"}`, `[[{"a":1},null]]`},
		{1185, `{"2024-01-02 03:04:05+00"}`, `[["2024-01-02T03:04:05+00:00"]]`},
		{16384, `{1,2}`, `["{1,2}"]`},
		{99999, `(1,"a")`, `["(1,\"a\")"]`},
	} {
		if got, err := mz.Encode(tt.oid, []byte(tt.text)); err != nil || got != tt.want {
			t.Errorf("%s %q:\n got %s, %v\nwant %s", mz.TypeName(tt.oid), tt.text, got, err, tt.want)
		}
	}
	for _, tt := range []struct {
		oid  uint32
		text string
	}{
		{16, "yes"}, {3802, "{"}, {3802, "1 2"}, {3802, ""}, {25, "\xff"}, {3802, "\"\xff\""},
		{1016, ""}, {1016, "{"}, {1016, "{1"}, {1016, "{1,}"}, {1016, "{,1}"}, {1016, "{1}2"}, {1016, `{"1}`}, {1016, `{"1"2}`}, {1016, "[0:1]"},
		{1016, strings.Repeat("{", 1000)},
	} {
		if got, err := mz.Encode(tt.oid, []byte(tt.text)); err == nil {
			t.Errorf("%s %q: got %s, want an error", mz.TypeName(tt.oid), tt.text, got)
		}
	}
	if got, err := mz.Encode(25, nil); err != nil || got != "[null]" {
		t.Errorf("NULL: got %s, %v", got, err)
	}
}

// Whatever a server sends, a row is one line of compact JSON or an error.
func FuzzEncode(f *testing.F) {
	f.Add(uint8(0), "t")
	f.Add(uint8(1), "-1.5e-7")
	f.Add(uint8(2), "a\"\x00\xff")
	f.Add(uint8(3), "2024-01-02 03:04:05+00 BC")
	f.Add(uint8(4), `{"a b",NULL,{1}}`)
	f.Add(uint8(5), `{"a": [1, 2]}`)
	known := mz.KnownTypes()
	f.Fuzz(func(t *testing.T, which uint8, text string) {
		oid := known[int(which)%len(known)]
		got, err := mz.Encode(oid, []byte(text))
		if err != nil {
			return
		}
		if !json.Valid([]byte(got)) || !utf8.ValidString(got) || strings.ContainsAny(got, "\n\r") {
			t.Fatalf("%s %q encodes as %q", mz.TypeName(oid), text, got)
		}
		// A string comes back as it was.
		var back []any
		d := json.NewDecoder(strings.NewReader(got))
		d.UseNumber()
		if err := d.Decode(&back); err != nil || len(back) != 1 {
			t.Fatalf("%q: %v, %v", got, back, err)
		}
		if s, ok := back[0].(string); ok && oid == 25 && s != text {
			t.Fatalf("%q comes back as %q", text, s)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	for _, tt := range []struct {
		name string
		oid  uint32
		text string
	}{
		{"int8", 20, "1234567"}, {"text", 25, "Ada Lovelace"}, {"numeric", 1700, "12345.678"}, {"timestamptz", 1184, "2024-01-02 03:04:05.678+00"},
		{"jsonb", 3802, `{"id": 1234567, "bot": false, "title": "Ada Lovelace", "user": "someone", "wiki": "enwiki"}`},
	} {
		text := []byte(tt.text)
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				mz.Encode(tt.oid, text)
			}
		})
	}
}

// Escapes are found wherever they are in a string.
func TestEncodeStringPlaces(t *testing.T) {
	for n := range 40 {
		for at := range n {
			for _, c := range []byte{0, 0x1f, '"', '\\', 0x20, '!', '#', '[', ']', 0x7f} {
				text := bytes.Repeat([]byte("x"), n)
				text[at] = c
				got, err := mz.Encode(25, text)
				if err != nil {
					t.Fatal(err)
				}
				var back []string
				if err := json.Unmarshal([]byte(got), &back); err != nil || len(back) != 1 || back[0] != string(text) {
					t.Errorf("%q became %s, %v", text, got, err)
				}
			}
		}
	}
}
