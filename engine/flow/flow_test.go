package flow_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/mzdio/mzd/engine/flow"
)

// cast evaluates a cast of a text.
func cast(text string, t flow.Type) (flow.Datum, error) {
	x, ok := flow.CastTo(&flow.Const{D: flow.NewText(text), T: flow.Text}, t)
	if !ok {
		return flow.Null, fmt.Errorf("no cast to %s", t.Name())
	}
	return x.Eval(&flow.Context{}, nil)
}

func must(t *testing.T, text string, typ flow.Type) flow.Datum {
	t.Helper()
	d, err := cast(text, typ)
	if err != nil {
		t.Fatalf("%s::%s: %v", text, typ.Name(), err)
	}
	return d
}

// aggregate runs a global aggregate over batches of changes and returns what it says in the end.
func aggregate(f flow.AggregateFunc, in flow.Type, batches ...[]flow.Update) flow.Datum {
	df := &flow.Dataflow{Root: &flow.Reduce{In: &flow.Input{Map: &flow.Map{}}, Aggregates: []flow.Aggregate{{Func: f, Args: []int{0}, In: in, Filter: -1}}}}
	var last flow.Datum
	for _, b := range batches {
		for _, u := range df.Step(&flow.Context{}, []flow.Delta{{Rows: b}}).Rows {
			if u.Diff > 0 {
				last = u.Row[0]
			}
		}
	}
	return last
}

// TestFloatSum adds and takes away numbers of very different size: nothing may be left of what has gone.
func TestFloatSum(t *testing.T) {
	update := func(f float64, n int64) flow.Update {
		return flow.Update{Row: flow.Row{flow.NewFloat(flow.Float8, f)}, Diff: n}
	}
	got := aggregate(flow.Sum, flow.Float8,
		[]flow.Update{update(0.1, 1), update(1e300, 1), update(0.2, 1), update(5e-324, 3)},
		[]flow.Update{update(-1e300, 2), update(math.Inf(1), 1), update(math.NaN(), 1)},
		[]flow.Update{update(1e300, -1), update(-1e300, -2), update(math.Inf(1), -1), update(math.NaN(), -1), update(5e-324, -3), update(0.2, -1)})
	if want := flow.NewFloat(flow.Float8, 0.1); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestIntSum sums beyond 64 bits and back.
func TestIntSum(t *testing.T) {
	big := flow.Update{Row: flow.Row{flow.NewInt(flow.Int8, math.MaxInt64)}, Diff: 4}
	low := flow.Update{Row: flow.Row{flow.NewInt(flow.Int8, math.MinInt64)}, Diff: 3}
	if got, want := aggregate(flow.Sum, flow.Int8, []flow.Update{big}).String(), "36893488147419103228"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := aggregate(flow.Sum, flow.Int8, []flow.Update{low}).String(), "-27670116110564327424"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	gone := flow.Update{Row: big.Row, Diff: -3}
	if got, want := aggregate(flow.Sum, flow.Int8, []flow.Update{big, low}, []flow.Update{gone, {Row: low.Row, Diff: -3}}).String(), "9223372036854775807"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestKeys holds keys against comparison: two rows have one key exactly if they are equal.
func TestKeys(t *testing.T) {
	var rows []flow.Row
	for _, s := range []string{"", "a", "aa", "\x00", "\x01a", "日"} {
		for _, r := range []string{"", "a", "\x00\x00"} {
			rows = append(rows, flow.Row{flow.NewText(s), flow.NewText(r)})
		}
		rows = append(rows, flow.Row{flow.NewText(s), flow.Null}, flow.Row{flow.Null, flow.NewText(s)})
	}
	for i, a := range rows {
		for j, b := range rows {
			same := string(a.AppendKey(nil)) == string(b.AppendKey(nil))
			if same != (i == j) || same != (flow.CompareRows(a, b) == 0) {
				t.Errorf("%v and %v: same key: %t, compare: %d", a, b, same, flow.CompareRows(a, b))
			}
		}
	}
	for _, n := range [][2]string{{"1.50", "1.5"}, {"100", "1e2"}, {"0.000", "-0"}, {"10000000000000000000000.0", "1e22"}} {
		a, b := flow.Row{must(t, n[0], flow.Numeric)}, flow.Row{must(t, n[1], flow.Numeric)}
		if string(a.AppendKey(nil)) != string(b.AppendKey(nil)) {
			t.Errorf("%s and %s have different keys", n[0], n[1])
		}
	}
}

// TestNumericBinary holds the binary form of numerics against pgx.
func TestNumericBinary(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	texts := []string{"0", "1", "-1", "10000", "9999", "0.0001", "0.00001", "-0.5", "12345.6789", "123456789012345678901234567890.000000001", "NaN", "Infinity", "-Infinity"}
	for range 2000 {
		s := fmt.Sprint(rnd.Int64N(1 << (1 + rnd.IntN(62))))
		if cut := rnd.IntN(len(s) + 1); cut > 0 && cut < len(s) {
			s = s[:cut] + "." + s[cut:]
		}
		texts = append(texts, s, "-"+s)
	}
	m := pgtype.NewMap()
	for _, s := range texts {
		d := must(t, s, flow.Numeric)
		var n pgtype.Numeric
		if err := m.Scan(pgtype.NumericOID, pgtype.BinaryFormatCode, d.AppendBinary(nil), &n); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		v, err := n.Value()
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		if got := must(t, v.(string), flow.Numeric); got != d {
			t.Errorf("%s: got %s, want %s", s, got, d)
		}
	}
}

// TestCompareFloats puts NaN last.
func TestCompareFloats(t *testing.T) {
	in := []float64{math.NaN(), 1, math.Inf(-1), 0, math.Inf(1), -1}
	var list []flow.Datum
	for _, f := range in {
		list = append(list, flow.NewFloat(flow.Float8, f))
	}
	slices.SortFunc(list, flow.Compare)
	if got, want := fmt.Sprint(list), "[-Infinity -1 0 1 Infinity NaN]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestParseOnce reads two documents in turns, more often than a context remembers.
func TestParseOnce(t *testing.T) {
	c := &flow.Context{}
	a, b := &flow.Col{Index: 0, T: flow.Jsonb}, &flow.Col{Index: 1, T: flow.Jsonb}
	contains := &flow.Call{F: flow.Resolve("@>", []flow.Type{flow.Jsonb, flow.Jsonb}), X: []flow.Expr{a, b}}
	for i := range 100 {
		row := flow.Row{must(t, fmt.Sprintf(`{"a": %d}`, i), flow.Jsonb), must(t, fmt.Sprintf(`{"a": %d}`, i+i%2), flow.Jsonb)}
		d, err := contains.Eval(c, row)
		if err != nil || d.Bool() != (i%2 == 0) {
			t.Fatalf("%d: got %s, %v", i, d, err)
		}
	}
}

// FuzzJSON holds the reader of JSON against encoding/json: what it accepts is valid, and its canonical text is stable and means the same.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":1,"b":[true,null,"x\u00e9"]}`, `1e400`, `01`, `"\ud800"`, `"\u0000"`, `{"a":1,"a":2}`, `[1.0,-0,1e-7]`, " 1 ", "nan", `"` + "\x01" + `"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ToValidUTF8(text, "") != text { // texts are valid UTF-8 before they come here
			return
		}
		d, err := cast(text, flow.Jsonb)
		if err != nil {
			return
		}
		if !json.Valid([]byte(text)) {
			t.Fatalf("accepted %q", text)
		}
		canonical := d.String()
		if !json.Valid([]byte(canonical)) {
			t.Fatalf("%q became %q", text, canonical)
		}
		again, err := cast(canonical, flow.Jsonb)
		if err != nil || again != d {
			t.Fatalf("%q became %q, and that %s, %v", text, canonical, again, err)
		}
	})
}

// FuzzCasts looks for texts that make a cast panic, or that do not read back as what they were read as.
func FuzzCasts(f *testing.F) {
	for _, s := range []string{"1", "-1.50", "1e400", "NaN", "2024-01-02 03:04:05.678+02", "infinity", "t", "99999999999999999999", "1e-1001", "0x10", "1_000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, typ := range flow.Scalars() {
			d, err := cast(text, typ)
			if err != nil {
				continue
			}
			again, err := cast(d.String(), typ)
			if err != nil || flow.Compare(d, again) != 0 {
				t.Fatalf("%q::%s is %s, and that %s, %v", text, typ.Name(), d, again, err)
			}
			d.AppendBinary(nil)
		}
	})
}
