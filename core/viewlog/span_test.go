package viewlog

import (
	"fmt"
	"testing"

	"github.com/mzdio/mzd/core"
)

// TestReaderOverANewBase has a reader add history up while the log, a copy, begins
// anew under the same generation, which gives its spans the same numbers. What the
// reader has added up is of spans that are gone.
func TestReaderOverANewBase(t *testing.T) {
	l := New("v", Options{})
	generation := core.NewGeneration()
	view := &core.View{Name: "v"}
	token := func(at core.Time) core.Token { return core.Token{Time: at, Generation: generation} }
	row := func(at core.Time) []core.Update { // of each time there is another one
		return []core.Update{{Time: at, Diff: 1, Row: core.Row(fmt.Sprintf("[%d]", at))}}
	}
	begin := func(at core.Time) {
		t.Helper()
		base := core.UpdatesOf(row(at - 1))
		if err := l.Copy(core.Batch{View: view, Upper: token(at), Updates: base, Sum: core.Checksum(base.All())}); err != nil {
			t.Fatal(err)
		}
		for i := range core.Time(fanout) {
			if err := l.Append(at+i, at+i+1, row(at+i)); err != nil {
				t.Fatal(err)
			}
		}
	}

	begin(100)
	l.mu.Lock()
	changes := l.changes(100, 100+fanout)
	whole := l.whole(100 + fanout)
	l.mu.Unlock()
	begin(500)
	changes()
	whole()

	for from, want := range map[core.Token]int{{}: fanout + 1, token(500): fanout} {
		b, err := l.Read(from, 500+fanout)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for u := range b.Updates.All() {
			if n++; u.Row < "[499]" {
				t.Errorf("from %q: row %s is of the history before", from, u.Row)
			}
		}
		if n != want || b.IsBase() != from.IsZero() {
			t.Errorf("from %q: %d rows, want %d", from, n, want)
		}
	}
}
