package websocket_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

func TestParsePosition(t *testing.T) {
	for _, tt := range []struct {
		text  string
		views int
		want  string
		bad   bool
	}{
		{"", 1, "", false},
		{"1000-abcd", 1, "1000-abcd", false},
		{"1000-abcd.efgh", 2, "1000-abcd.efgh", false},
		{"18446744073709551615-a", 1, "18446744073709551615-a", false},
		{"1000-abcd", 2, "", false},
		{"1000-abcd.efgh", 1, "", false},
		{"1000-abcd.", 2, "", true},
		{"1000-.", 2, "", true},
		{"1000", 1, "", true},
		{"-abcd", 1, "", true},
		{"1000-ABCD", 1, "", true},
		{"1000-abcd\n", 1, "", true},
		{"+1000-abcd", 1, "", true},
		{strings.Repeat("9", 5000), 1, "", true},
	} {
		got, err := websocket.ParsePosition(tt.text, tt.views)
		if got != tt.want || (err != nil) != tt.bad || err != nil && !errors.Is(err, core.ErrToken) {
			t.Errorf("%q for %d views: got %q, %v, want %q, an error: %v", tt.text, tt.views, got, err, tt.want, tt.bad)
		}
	}
}

func FuzzParsePosition(f *testing.F) {
	f.Add("1000-abcd.efgh", 2)
	f.Add("", 1)
	f.Fuzz(func(t *testing.T, text string, views int) {
		got, err := websocket.ParsePosition(text, views)
		if err != nil || got == "" {
			return
		}
		again, err := websocket.ParsePosition(got, views)
		if err != nil || again != got {
			t.Errorf("%q reads as %q, which reads as %q, %v", text, got, again, err)
		}
	})
}

var numberColumns = []core.Column{{Name: "a", Type: "int8"}, {Name: "b", Type: "text"}, {Name: "c", Type: "numeric"}, {Name: "d", Type: "int4"}, {Name: "e", Type: "jsonb"}}

func TestNumbersAsStrings(t *testing.T) {
	for _, tt := range []struct{ row, want string }{
		{`[1,"2",3.50,4,{"a":5}]`, `["1","2","3.50",4,{"a":5}]`},
		{`[-9223372036854775808,"a,\"]\\",null,0,[1,"],["]]`, `["-9223372036854775808","a,\"]\\",null,0,[1,"],["]]`},
		{`[null,null,"NaN",null,1]`, `[null,null,"NaN",null,1]`},
		{`[]`, `[]`},
		{`[1]`, `["1"]`},
		{`[1,2,3,4,5,6]`, `["1",2,"3",4,5,6]`},
		{`[1`, `[1`},
		{`["a]`, `["a]`},
		{`[1,]`, `[1,]`},
		{``, ``},
	} {
		if got := websocket.QuoteNumbers(core.Row(tt.row), numberColumns); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.row, got, tt.want)
		}
	}
}

// FuzzRow holds the scanner against encoding/json.
func FuzzRow(f *testing.F) {
	f.Add(`[1,"2",3.50,4,{"a":[5,"}"]}]`)
	f.Add(`["\\",-1e5,"\"",null,[[]]]`)
	f.Add(`[1,`)
	f.Add(`[]]`)
	f.Fuzz(func(t *testing.T, text string) {
		quoted := websocket.QuoteNumbers(core.Row(text), numberColumns)
		strs := websocket.Strings(core.Row(text))
		var compact bytes.Buffer
		var values []json.RawMessage
		if json.Compact(&compact, []byte(text)) != nil || compact.String() != text || json.Unmarshal([]byte(text), &values) != nil {
			return // no row: whatever came out, nothing broke
		}
		if text == "null" {
			return
		}
		var gotQuoted, gotStrings []json.RawMessage
		if err := errors.Join(json.Unmarshal([]byte(quoted), &gotQuoted), json.Unmarshal([]byte(strs), &gotStrings)); err != nil {
			t.Fatalf("%s became %s and %s: %v", text, quoted, strs, err)
		}
		if len(gotQuoted) != len(values) || len(gotStrings) != len(values) {
			t.Fatalf("%s became %s and %s", text, quoted, strs)
		}
		for i, v := range values {
			number := v[0] == '-' || v[0] >= '0' && v[0] <= '9'
			want := string(v)
			if number && (i == 0 || i == 2) {
				want = `"` + want + `"`
			}
			if got := string(gotQuoted[i]); got != want {
				t.Errorf("%s: value %d became %s, want %s", text, i, got, want)
			}
			if string(v) == "null" {
				if got := string(gotStrings[i]); got != "null" {
					t.Errorf("%s: null became %s", text, got)
				}
				continue
			}
			var got, original string
			if err := json.Unmarshal(gotStrings[i], &got); err != nil {
				t.Fatalf("%s: value %d became %s: %v", text, i, gotStrings[i], err)
			}
			if v[0] == '"' {
				json.Unmarshal(v, &original)
			} else if original = string(v); strings.ContainsAny(original, "\ufffd") || !isUTF8(original) {
				continue // encoding/json replaces what is not UTF-8
			}
			if got != original {
				t.Errorf("%s: value %d became %q, want %q", text, i, got, original)
			}
		}
	})
}

func isUTF8(s string) bool { return strings.ToValidUTF8(s, "") == s }

func gzipped(t *testing.T, s string) int {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write([]byte(s))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Len()
}
