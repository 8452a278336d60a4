package core_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/mzdio/mzd/core"
)

func TestConsolidate(t *testing.T) {
	type u = core.Update
	for name, c := range map[string]struct{ in, want []u }{
		"nothing":       {nil, nil},
		"one":           {[]u{{1, 1, "a"}}, []u{{1, 1, "a"}}},
		"cancel":        {[]u{{1, 1, "a"}, {1, -1, "a"}}, nil},
		"zero":          {[]u{{1, 0, "a"}}, nil},
		"order":         {[]u{{2, 1, "a"}, {1, 1, "b"}, {1, 1, "a"}}, []u{{1, 1, "a"}, {1, 1, "b"}, {2, 1, "a"}}},
		"add":           {[]u{{1, 2, "a"}, {1, 3, "a"}}, []u{{1, 5, "a"}}},
		"times differ":  {[]u{{1, 1, "a"}, {2, -1, "a"}}, []u{{1, 1, "a"}, {2, -1, "a"}}},
		"first cancels": {[]u{{1, 1, "a"}, {1, -1, "a"}, {1, 1, "b"}}, []u{{1, 1, "b"}}},
		"last cancels":  {[]u{{1, 1, "b"}, {1, -1, "b"}, {1, 1, "a"}}, []u{{1, 1, "a"}}},
		"in the middle": {[]u{{1, 1, "a"}, {1, 1, "b"}, {1, -1, "b"}, {1, 1, "c"}}, []u{{1, 1, "a"}, {1, 1, "c"}}},
		"end of time":   {[]u{{core.EndOfTime - 1, 1, "a"}, {0, 1, "a"}}, []u{{0, 1, "a"}, {core.EndOfTime - 1, 1, "a"}}},
	} {
		if got := core.Consolidate(slices.Clone(c.in)); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestConsolidateAddsUp(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		type key struct {
			t core.Time
			r core.Row
		}
		want := make(map[key]core.Diff)
		var in []core.Update
		for range r.IntN(40) {
			u := core.Update{Time: core.Time(r.IntN(3)), Diff: core.Diff(r.IntN(5) - 2), Row: core.Row('a' + byte(r.IntN(4)))}
			in = append(in, u)
			if want[key{u.Time, u.Row}] += u.Diff; want[key{u.Time, u.Row}] == 0 {
				delete(want, key{u.Time, u.Row})
			}
		}
		got := core.Consolidate(in)
		for _, u := range got {
			if want[key{u.Time, u.Row}] != u.Diff {
				t.Errorf("seed %d: got %v, want %v", seed, got, want)
			}
		}
		if len(got) != len(want) {
			t.Errorf("seed %d: got %d updates, want %d", seed, len(got), len(want))
		}
	}
}

// Rows of every shape come out in the order of their bytes, however many there
// are and whatever they share.
func TestSum(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		alphabet := []string{"a", "ab", "\x00", "\x00\x00\x00", "\xff", "0123456789abcdef", "["}[:1+r.IntN(7)]
		row := func() core.Row {
			var s string
			for range r.IntN(1 + int(seed%9)) {
				s += alphabet[r.IntN(len(alphabet))]
			}
			return core.Row(s)
		}
		want := make(map[core.Row]core.Diff)
		pieces := make([][]core.Update, r.IntN(4))
		for i := range pieces {
			for range r.IntN(900) {
				u := core.Update{Time: core.Time(r.IntN(3)), Diff: core.Diff(r.IntN(5) - 2), Row: row()}
				pieces[i] = append(pieces[i], u)
				want[u.Row] += u.Diff
			}
		}
		maps.DeleteFunc(want, func(_ core.Row, d core.Diff) bool { return d == 0 })
		var got []core.Row
		for u := range core.Sum(pieces...) {
			got = append(got, u.Row)
			if want[u.Row] != u.Diff {
				t.Errorf("seed %d: %d copies of %q, want %d", seed, u.Diff, u.Row, want[u.Row])
			}
		}
		if rows := slices.Sorted(maps.Keys(want)); !slices.Equal(got, rows) {
			t.Errorf("seed %d: got %q, want %q", seed, got, rows)
		}
	}
}
