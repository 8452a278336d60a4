package viewlog_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/viewlog"
)

// step gives what a reader at a token would be given next.
func step(t *testing.T, l *viewlog.Log, from core.Token) core.Batch {
	t.Helper()
	for b, err := range l.Follow(t.Context(), from) {
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	panic("Follow ended without an error")
}

func resetTo(t *testing.T, l *viewlog.Log, upper core.Time, rows ...string) {
	t.Helper()
	s := l.Snapshot()
	for _, r := range rows {
		s.Add([]byte(r), 1)
	}
	if err := l.Reset(&core.View{Name: "v"}, "", upper, s); err != nil {
		t.Fatal(err)
	}
}

// TestCopy lets a copy follow a log that appends, begins anew, and compacts, and
// asks both the same questions.
func TestCopy(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		original := viewlog.New("v", viewlog.Options{})
		copied := viewlog.New("v", viewlog.Options{Retain: time.Nanosecond})
		resetTo(t, original, 10, "[1]", "[2]")
		var given []core.Token // in this history
		at := core.Token{}
		for range 200 {
			upper, _ := original.Frontier()
			switch rnd.IntN(20) {
			case 0:
				resetTo(t, original, core.Time(1+rnd.IntN(100)), fmt.Sprintf("[%d]", rnd.IntN(9)))
				given = nil
			case 1:
				original.Compact()
			case 2:
				copied.Compact() // forgets a lot
			case 3, 4, 5, 6:
				b := stepNow(original, at)
				if b == nil {
					break
				}
				if err := copied.Copy(*b); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				at = b.Upper
				given = append(given, at)
				if got, _ := copied.Frontier(); got != at || copied.View() != original.View() {
					t.Fatalf("seed %d: the copy is at %s, want %s", seed, got, at)
				}
			default:
				to := upper.Time + 1 + core.Time(rnd.IntN(3))
				var updates []core.Update
				if rnd.IntN(3) > 0 {
					updates = []core.Update{{Time: to - 1, Diff: 1, Row: core.Row(fmt.Sprintf("[%d]", rnd.IntN(9)))}}
				}
				if err := original.Append(upper.Time, to, updates); err != nil {
					t.Fatal(err)
				}
			}
			for _, from := range given {
				b, err := copied.Read(from, at.Time)
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if b.IsBase() {
					from = core.Token{}
				}
				want, err := original.Between(from, at)
				if err != nil {
					continue // compacted there
				}
				if b.Updates.String() != want.Updates.String() || b.Sum != want.Sum || b.Upper != want.Upper {
					t.Fatalf("seed %d: from %s got %v, want %v", seed, from, b, want)
				}
			}
		}
	}
}

// stepNow is step, but nil if there is nothing.
func stepNow(l *viewlog.Log, from core.Token) *core.Batch {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for b, err := range l.Follow(ctx, from) {
		if err != nil {
			return nil
		}
		return &b
	}
	return nil
}

func TestCopyRefuses(t *testing.T) {
	original := viewlog.New("v", viewlog.Options{})
	resetTo(t, original, 10, "[1]")
	base := step(t, original, core.Token{})
	if err := original.Append(10, 20, []core.Update{{Time: 15, Diff: 1, Row: "[2]"}}); err != nil {
		t.Fatal(err)
	}
	delta := step(t, original, base.Upper)
	change := func(b core.Batch, f func(*core.Batch)) core.Batch { f(&b); return b }
	for _, tt := range []struct {
		name string
		b    core.Batch
		want error
	}{
		{"another base than its checksum", change(base, func(b *core.Batch) { b.Sum++ }), viewlog.ErrCopy},
		{"another delta than its checksum", change(delta, func(b *core.Batch) { b.Updates = core.Updates{} }), viewlog.ErrCopy},
		{"a delta from elsewhere", change(delta, func(b *core.Batch) { b.Lower.Time++ }), viewlog.ErrGap},
		{"a delta into another history", change(delta, func(b *core.Batch) { b.Upper.Generation = "other" }), viewlog.ErrGap},
		{"a delta backwards", change(delta, func(b *core.Batch) { b.Upper.Time = 10 }), viewlog.ErrGap},
	} {
		t.Run(tt.name, func(t *testing.T) {
			copied := viewlog.New("v", viewlog.Options{})
			if err := copied.Copy(base); err != nil {
				t.Fatal(err)
			}
			if err := copied.Copy(tt.b); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if err := copied.Copy(delta); err != nil {
				t.Errorf("the copy was changed by what it refused: %v", err)
			}
		})
	}
	empty := viewlog.New("v", viewlog.Options{})
	if err := empty.Copy(delta); !errors.Is(err, viewlog.ErrGap) {
		t.Errorf("a delta to an empty log: got %v, want %v", err, viewlog.ErrGap)
	}
}
