package schema_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/mzdio/mzd/schema"
)

func TestPath(t *testing.T) {
	tests := []struct {
		steps []string
		path  schema.Path
		want  string
	}{
		{nil, "", ""},
		{[]string{"sinks", "web", "views", "3"}, schema.Path("").Key("sinks").Key("web").Key("views").Index(3), "sinks.web.views[3]"},
		{[]string{"a.b", "", "c\"]d", "é"}, schema.Path("").Key("a.b").Key("").Key("c\"]d").Key("é"), `["a.b"][""]["c\"]d"]["é"]`},
		{[]string{"a", "b", "0"}, schema.Path("a").Join("b[0]"), "a.b[0]"},
		{[]string{"a", "x y"}, schema.Path("a").Join(schema.Path("").Key("x y")), `a["x y"]`},
		{[]string{"a"}, schema.Path("a").Join(""), "a"},
	}
	for _, tt := range tests {
		if got := string(tt.path); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
		if got := tt.path.Split(); !slices.Equal(got, tt.steps) {
			t.Errorf("split %s: got %q, want %q", tt.path, got, tt.steps)
		}
	}
}

func FuzzPath(f *testing.F) {
	f.Add("a", "b.c", `"]`)
	f.Add("", "[", "]")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		p := schema.Path("").Key(a).Index(7).Key(b).Key(c)
		// Quoting keeps what is not UTF-8 too.
		if got, want := p.Split(), []string{a, "7", b, c}; !slices.Equal(got, want) {
			t.Errorf("split %s: got %q, want %q", p, got, want)
		}
		schema.Path(a).Split() // of anything at all it must end
	})
}

func TestFieldErrors(t *testing.T) {
	a, b := schema.Errorf("a", "is %d", 1), schema.Errorf("b.c", "is bad")
	got := schema.FieldErrors(errors.Join(a, errors.Join(b, errors.New("else"))))
	want := []schema.FieldError{a, b, {Message: "else"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := schema.FieldErrors(nil); got != nil {
		t.Errorf("got %v, want none", got)
	}
}

func TestDuration(t *testing.T) {
	tests := []struct {
		in   string
		want time.Duration
		out  string
	}{
		{"10m", 10 * time.Minute, "10m"},
		{"1h", time.Hour, "1h"},
		{"90m", 90 * time.Minute, "1h30m"},
		{"1h0m5s", time.Hour + 5*time.Second, "1h0m5s"},
		{"500ms", 500 * time.Millisecond, "500ms"},
		{"10s", 10 * time.Second, "10s"},
		{"0", 0, "0s"},
	}
	for _, tt := range tests {
		var d schema.Duration
		if err := d.UnmarshalText([]byte(tt.in)); err != nil || time.Duration(d) != tt.want || d.String() != tt.out {
			t.Errorf("%s: got %s (%v), want %s", tt.in, d, err, tt.out)
		}
	}
	for _, in := range []string{"", "10", "-1s", "1d", "ten"} {
		var d schema.Duration
		if err := d.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q: got %s, want an error", in, d)
		}
	}
}

func TestBytes(t *testing.T) {
	tests := []struct {
		in   string
		want schema.Bytes
		out  string
	}{
		{"20GB", 20e9, "20GB"},
		{"64KiB", 64 << 10, "64KiB"},
		{"1.5 gb", 1.5e9, "1500MB"},
		{"0.1GB", 1e8, "100MB"},
		{"0", 0, "0"},
		{"17", 17, "17"},
		{"17B", 17, "17"},
		{"9223372036854775807", 1<<63 - 1, "9223372036854775807"},
	}
	for _, tt := range tests {
		var b schema.Bytes
		if err := b.UnmarshalText([]byte(tt.in)); err != nil || b != tt.want || b.String() != tt.out {
			t.Errorf("%s: got %s (%v), want %s", tt.in, b, err, tt.out)
		}
	}
	for _, in := range []string{"", "GB", "-1GB", "1e3KB", "0x10", "1K", "Inf", "NaN", "9223372036854775808", "9223373TB", "10000000TB", "1 2KB"} {
		var b schema.Bytes
		if err := b.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q: got %s, want an error", in, b)
		}
	}
}

func FuzzUnits(f *testing.F) {
	f.Add("20GB", uint64(1<<40))
	f.Add("1h30m", uint64(0))
	f.Fuzz(func(t *testing.T, text string, n uint64) {
		var b, again schema.Bytes
		if b.UnmarshalText([]byte(text)) == nil && (b < 0 || again.UnmarshalText([]byte(b.String())) != nil || again != b) {
			t.Errorf("%q: %s became %s", text, b, again)
		}
		b = schema.Bytes(n >> 1)
		if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b {
			t.Errorf("%d: %s became %s (%v)", n>>1, b, again, err)
		}
		d, back := schema.Duration(n>>1), schema.Duration(0)
		if err := back.UnmarshalText([]byte(d.String())); err != nil || back != d {
			t.Errorf("%d: %s became %s (%v)", n>>1, d, back, err)
		}
		if back.UnmarshalText([]byte(text)) == nil && back < 0 {
			t.Errorf("%q: %s is negative", text, back)
		}
	})
}

func TestSuggest(t *testing.T) {
	known := []string{"websocket", "stdout", "webhook"}
	tests := []struct{ word, want string }{
		{"websoket", `did you mean "websocket"?`},
		{"Stdout", `did you mean "stdout"?`},
		{"stduot", `did you mean "stdout"?`},
		{"webhok", `did you mean "webhook"?`},
		{"kafka", "known: stdout, webhook, websocket"},
		{"", "known: stdout, webhook, websocket"},
	}
	for _, tt := range tests {
		if got := schema.Suggest(tt.word, known); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.word, got, tt.want)
		}
	}
	if got, want := schema.Suggest("x", nil), "there are none"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
