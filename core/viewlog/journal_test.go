package viewlog_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/durable/durabletest"
	"github.com/mzdio/mzd/core/viewlog"
)

// contents are the rows of a journal, a text for each.
func contents(rows []core.Update) []string {
	var out []string
	for _, u := range rows {
		out = append(out, fmt.Sprintf("%s*%d", u.Row, u.Diff))
	}
	return out
}

// TestJournalFaults fails calls of the file system at random while a journal is written. A batch whose Append failed is not there after
// a crash, unless it was in doubt and has not been settled; all others are.
func TestJournalFaults(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		fs := durabletest.New()
		j, rows, err := viewlog.OpenJournal("dir", "tables", viewlog.Options{FS: fs})
		if err != nil || len(rows) != 0 {
			t.Fatal(err)
		}
		faults := rnd.Float64() * 0.3
		r := rand.New(rand.NewPCG(seed, 1))
		fs.Fail(func(int, string) error {
			if r.Float64() < faults {
				return []error{syscall.ENOSPC, syscall.EIO}[r.IntN(2)]
			}
			return nil
		})
		var held []core.Update // what must be there
		var doubt []core.Update
		for i := range 60 {
			if doubt != nil {
				if j.Settle() != nil {
					continue
				}
				doubt = nil
			}
			upper := j.Upper() + 1 + core.Time(rnd.IntN(3))
			batch := []core.Update{{Time: upper - 1, Diff: 1, Row: core.Row(fmt.Sprintf("row %02d", i))}}
			if len(held) > 0 && rnd.IntN(2) == 0 {
				batch = append(batch, core.Update{Time: upper - 1, Diff: -held[0].Diff, Row: held[0].Row})
			}
			batch = core.Consolidate(batch)
			all := slices.Concat(held, batch)
			for k := range all {
				all[k].Time = 0
			}
			all = core.Consolidate(all)
			switch err := j.Append(upper, slices.Clone(batch)); {
			case err == nil:
				held = all
			case errors.Is(err, viewlog.ErrInDoubt):
				doubt = all
			}
			if rnd.IntN(10) == 0 {
				now := slices.Clone(held)
				for k := range now {
					now[k].Time = j.Upper() - 1
				}
				if doubt == nil {
					j.Rewrite(now) // it may fail, and changes nothing
				}
			}
		}
		again, rows, err := viewlog.OpenJournal("dir", "tables", viewlog.Options{FS: fs.Crash(rnd)})
		if err != nil {
			t.Fatalf("seed %d: open again: %v", seed, err)
		}
		got := contents(rows)
		if !slices.Equal(got, contents(held)) && (doubt == nil || !slices.Equal(got, contents(doubt))) {
			t.Errorf("seed %d: got %q, want %q, in doubt %q", seed, got, contents(held), contents(doubt))
		}
		if err := again.Append(again.Upper()+1, nil); err != nil {
			t.Errorf("seed %d: go on: %v", seed, err)
		}
		if err := again.Close(); err != nil {
			t.Errorf("seed %d: close: %v", seed, err)
		}
	}
}

// TestJournalRefusesWhatItCannotRead appends rows up to the length that frames
// end at, and beyond: either the batch is refused, or a restart finds it.
func TestJournalRefusesWhatItCannotRead(t *testing.T) {
	fs := durabletest.New()
	open := func() (*viewlog.Journal, []core.Update) {
		j, rows, err := viewlog.OpenJournal("dir", "tables", viewlog.Options{FS: fs})
		must(t, err)
		return j, rows
	}
	j, _ := open()
	want := 0
	for i, n := range []int{core.MaxRowBytes, core.MaxRowBytes + 1} {
		row := bytes.Repeat([]byte{'a' + byte(i)}, n)
		err := j.Append(j.Upper()+1, []core.Update{{Diff: 1, Row: core.Row(row)}})
		if errors.Is(err, viewlog.ErrInDoubt) || (err == nil) != (n <= core.MaxRowBytes) {
			t.Errorf("a row of %d bytes: %v", n, err)
		}
		if err == nil {
			want++
		}
	}
	must(t, j.Append(j.Upper()+1, []core.Update{{Diff: 1, Row: "short"}}))
	must(t, j.Close())
	j, rows := open()
	if len(rows) != want+1 {
		t.Errorf("%d batches were durable, and %d came back", want+1, len(rows))
	}
	must(t, j.Close())
}

// TestJournalDamage looks at what is said about a journal whose file is not what was written: never that the database has it, too.
func TestJournalDamage(t *testing.T) {
	fs := durabletest.New()
	j, _, err := viewlog.OpenJournal("dir", "tables", viewlog.Options{FS: fs})
	must(t, err)
	must(t, j.Append(j.Upper()+1, []core.Update{{Diff: 1, Row: "a row"}}))
	must(t, j.Close())
	must(t, fs.Remove("dir/00000001.log"))
	_, _, err = viewlog.OpenJournal("dir", "tables", viewlog.Options{FS: fs})
	want := "open the journal tables: dir/00000001.log is damaged at offset 0: it is named by the manifest, and is not there; " +
		"restore it from a backup, or remove the directory dir to begin again without what it had, which is nowhere else"
	if damage := (*viewlog.DamageError)(nil); !errors.As(err, &damage) || !damage.OnlyCopy || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}
