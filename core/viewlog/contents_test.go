package viewlog

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/mzdio/mzd/core"
)

// TestContents changes contents of many chunks in random ways, and holds them
// against a map; every earlier state must stay what it was.
func TestContents(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 0))
		rows := 1 + r.IntN(4000)
		type state struct {
			contents
			want map[core.Row]core.Diff
		}
		states := []state{{want: map[core.Row]core.Diff{}}}
		for range 40 {
			from := states[r.IntN(len(states))]
			changed := map[core.Row]core.Diff{}
			first, width := r.IntN(rows), 1+r.IntN(rows) // near each other, or everywhere
			for range r.IntN(rows) {
				changed[core.Row(fmt.Sprintf("%05d", first+r.IntN(width)))] = core.Diff(1 - 2*r.IntN(2))
			}
			var run []core.Update
			for _, row := range slices.Sorted(maps.Keys(changed)) {
				run = append(run, core.Update{Row: row, Diff: changed[row]})
			}
			sign := core.Diff(1)
			next := state{want: maps.Clone(from.want)}
			if r.IntN(3) == 0 {
				next.contents, sign = from.minus(run), -1
			} else {
				next.contents = from.plus(run)
			}
			for row, d := range changed {
				if next.want[row] += sign * d; next.want[row] == 0 {
					delete(next.want, row)
				}
			}
			states = append(states, next)
		}
		for i, s := range states {
			checkContents(t, fmt.Sprintf("seed %d, state %d", seed, i), s.contents, s.want)
		}
	}
}

func checkContents(t *testing.T, what string, c contents, want map[core.Row]core.Diff) {
	t.Helper()
	got := map[core.Row]core.Diff{}
	last, bytes := core.Row(""), int64(0)
	at := place{index: -1}
	for u := range c.all() {
		if u.Row <= last {
			t.Fatalf("%s: %s after %s", what, u.Row, last)
		}
		last, got[u.Row] = u.Row, u.Diff
		found, ok := c.find([]byte(u.Row))
		if at, _ = c.next(at); !ok || found != at || c.row(at) != u.Row {
			t.Fatalf("%s: %s is at %v, found at %v, %v", what, u.Row, at, found, ok)
		}
	}
	if _, more := c.next(at); more {
		t.Fatalf("%s: a row after the last", what)
	}
	if !maps.Equal(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
	small := 0
	for _, chunk := range c.chunks {
		bytes += size(chunk)
		switch n := len(chunk); {
		case n == 0 || n > chunkRows:
			t.Fatalf("%s: a chunk of %d rows", what, n)
		case n <= chunkRows/4:
			small++
		}
	}
	if bytes != c.bytes {
		t.Fatalf("%s: %d bytes, counted as %d", what, bytes, c.bytes)
	}
	if small > 2+len(c.chunks)/2 {
		t.Fatalf("%s: %d of %d chunks are small", what, small, len(c.chunks))
	}
	for _, row := range []string{"", "00000x", "zzz"} {
		if _, ok := c.find([]byte(row)); ok {
			t.Fatalf("%s: found %q", what, row)
		}
	}
}
