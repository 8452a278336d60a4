package viewlog_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/durable/durabletest"
	"github.com/mzdio/mzd/core/viewlog"
)

func TestDirName(t *testing.T) {
	for view, want := range map[string]string{
		"top10":       "top10",
		"a.b-c_d":     "a.b-c_d",
		".":           "%2E",
		"..":          "%2E%2E",
		"...":         "...",
		"a/b":         "a%2Fb",
		"../../etc":   "..%2F..%2Fetc",
		`a\b:c`:       `a%5Cb:c`,
		"%2E":         "%252E",
		"Größe\n\x00": "Gr%C3%B6%C3%9Fe%0A%00",
	} {
		got := viewlog.DirName(view)
		if got != want || filepath.Base(got) != got {
			t.Errorf("%q: got directory %q, want %q", view, got, want)
		}
		if back, err := viewlog.ViewName(got); back != view || err != nil {
			t.Errorf("%q: got view %q back, %v", view, back, err)
		}
	}
	for _, dir := range []string{"", ".", "..", "a/b", "%", "%2", "%zz", "%2f", "%61", "a b", "ä"} {
		if view, err := viewlog.ViewName(dir); err == nil {
			t.Errorf("directory %q: got view %q, want an error", dir, view)
		}
	}
}

// dump writes the files of a log to a directory.
func dump(t *testing.T, files map[string][]byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, data := range files {
		must(t, os.WriteFile(filepath.Join(dir, filepath.Base(name)), data, 0o644))
	}
	return dir
}

// inspected is everything that an inspection tells about a log.
type inspected struct {
	facts   *viewlog.Inspection // closed
	summary viewlog.Summary
	batches []viewlog.StoredBatch
}

func inspect(dir, view string) (in inspected, err error) {
	in.facts, err = viewlog.Inspect(dir, view, viewlog.InspectOptions{})
	if err != nil {
		return in, err
	}
	defer in.facts.Close()
	in.summary, err = in.facts.Scan(context.Background(), func(b viewlog.StoredBatch) error {
		in.batches = append(in.batches, b)
		return nil
	})
	return in, err
}

// netOf is the net change between two positions, by row.
func netOf(dir, view string, from, to core.Token) (core.Batch, map[core.Row]core.Diff, error) {
	i, err := viewlog.Inspect(dir, view, viewlog.InspectOptions{})
	if err != nil {
		return core.Batch{}, nil, err
	}
	defer i.Close()
	b, err := i.Net(context.Background(), from, to)
	rows := map[core.Row]core.Diff{}
	for u := range b.Updates.All() {
		rows[u.Row] = u.Diff
	}
	if err == nil && b.IsBase() && b.Sum != sumOf(rows) {
		err = fmt.Errorf("checksum %016x of %v", b.Sum, rows)
	}
	return b, rows, err
}

// TestInspect looks at a log that was opened twice.
func TestInspect(t *testing.T) {
	dir := t.TempDir()
	view := &core.View{Name: "v", Columns: []core.Column{{Name: "a", Type: "text"}}, Key: []int{0}}
	var tokens []core.Token
	for round := range 2 {
		l, err := viewlog.Open(dir, "v", viewlog.Options{})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		if round == 0 {
			must(t, l.Reset(view, "upstream", 10, snapshot(l, []core.Update{{Diff: 2, Row: `["x"]`}})))
			for k, moved := l.Durable(); k.IsZero(); k, moved = l.Durable() {
				<-moved
			}
		}
		upper, _ := l.Frontier()
		must(t, l.Append(upper.Time, upper.Time+5, []core.Update{
			{Time: upper.Time + 1, Diff: -1, Row: `["x"]`}, {Time: upper.Time + 3, Diff: 1, Row: `["y"]`},
		}))
		token, _ := l.Frontier()
		tokens = append(tokens, token)
		cancel()
		must(t, <-done)
	}
	in, err := inspect(dir, "v")
	must(t, err)
	if got, want := fmt.Sprintf("%+v %s", *in.facts.View, in.facts.Identity), "{Name:v Columns:[{Name:a Type:text}] Key:[0]} upstream"; got != want {
		t.Errorf("facts: got %s, want %s", got, want)
	}
	generations := []viewlog.GenerationInfo{{ID: tokens[0].Generation, End: 15}, {ID: tokens[1].Generation}}
	if got := in.facts.Generations; !slices.Equal(got, generations) {
		t.Errorf("generations: got %v, want %v", got, generations)
	}
	path := filepath.Join(dir, "00000001.log")
	info, err := os.Stat(path)
	must(t, err)
	if got := in.facts.Segments; len(got) != 1 || got[0].Path != path || got[0].Bytes != info.Size() || in.facts.Bytes() != info.Size() {
		t.Errorf("segments: got %+v, want one of %d bytes", got, info.Size())
	}
	if got, want := in.summary, (viewlog.Summary{Since: 10, Upper: 20, Durable: 20, Rows: 2, Batches: 3, Updates: 5}); got != want {
		t.Errorf("summary: got %+v, want %+v", got, want)
	}
	for n, want := range []string{"0-10 solid true", "10-15 solid false", "15-20 solid false"} {
		b := in.batches[n]
		if got := fmt.Sprintf("%d-%d solid %v", b.Lower, b.Upper, b.Solid); got != want || !b.First || b.More || b.IsBase() != (n == 0) || b.Arrived.IsZero() != (n == 0) {
			t.Errorf("batch %d: got %+v, want %s", n, b, want)
		}
	}

	at := func(t core.Time) core.Token { return core.Token{Time: t} }
	for _, c := range []struct {
		from, to core.Token
		want     string // the batch, or the error
	}{
		{at(0), at(0), `base 20: [y]+2`},
		{at(0), at(10), `base 10: [x]+2`},
		{at(0), at(12), `base 12: [x]+1`},
		{at(0), tokens[0], `base 15: [x]+1 [y]+1`},
		{at(0), core.Token{Time: 13, Generation: tokens[1].Generation}, `base 13: [x]+1`},
		{at(11), at(14), `delta 11-14: [x]-1 [y]+1`},
		{tokens[0], tokens[1], `delta 15-20: [x]-1 [y]+1`},
		{at(15), at(15), `delta 15-15:`},
		{at(0), at(9), "9 is outside; on disk are the times from 10 to 20"},
		{at(3), at(12), "3 is outside"},
		{at(0), at(21), "21 is outside"},
		{at(14), at(12), "14 comes after 12"},
		{at(0), core.Token{Time: 12, Generation: "abc"}, "12-abc is of a history that is not in this log"},
		{at(0), core.Token{Time: 16, Generation: tokens[0].Generation}, "was never durable: its generation ended at 15"},
	} {
		b, _, err := netOf(dir, "v", c.from, c.to)
		if err == nil {
			expect(t, b, c.want)
			if b.Upper.Generation == "" || b.Lower != (core.Token{}) && b.Lower.Generation == "" {
				t.Errorf("net from %v to %v: tokens %q, %q", c.from, c.to, b.Lower, b.Upper)
			}
		} else if !strings.Contains(err.Error(), c.want) || !errors.Is(err, core.ErrNotReadable) {
			t.Errorf("net from %v to %v: got %v, want %s", c.from, c.to, err, c.want)
		}
	}
	if _, err := inspect(filepath.Join(dir, "absent"), "v"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no log: got %v, want ErrNotExist", err)
	}
}

// TestInspectEveryByte changes the files of a log in every way that
// TestEveryByte does. An inspection must find what opening the log finds.
func TestInspectEveryByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, clean := range []bool{true, false} {
			made, _ := written(t, 8, clean)
			files := made.Files()
			dir := dump(t, files)
			for name, data := range files {
				path := filepath.Join(dir, filepath.Base(name))
				try := func(what string, changed []byte) {
					must(t, os.WriteFile(path, changed, 0o644))
					opened := durabletest.New()
					for n, d := range files {
						opened.Put(n, d)
					}
					opened.Put(name, changed)
					agree(t, fmt.Sprintf("%s (clean %v) %s", name, clean, what), dir, opened)
				}
				for i := range data {
					try(fmt.Sprint("cut at ", i), data[:i])
					flipped := slices.Clone(data)
					flipped[i] ^= 0x20
					try(fmt.Sprint("flipped at ", i), flipped)
				}
				must(t, os.WriteFile(path, data, 0o644))
			}
		}
	})
}

// agree checks that an inspection of a directory tells what opening its copy
// tells.
func agree(t *testing.T, what, dir string, opened *durabletest.FS) {
	t.Helper()
	l, wrong := viewlog.Open("dir", "v", viewlog.Options{FS: opened})
	in, err := inspect(dir, "v")
	var want, got *viewlog.DamageError
	switch {
	case (err == nil) != (wrong == nil):
		t.Errorf("%s: inspection: %v; opening: %v", what, err, wrong)
	case err == nil:
		upper, _ := l.Frontier()
		if in.summary.Upper != upper.Time || in.summary.Durable > upper.Time || in.summary.Rows != l.Stats().Rows {
			t.Errorf("%s: got %+v, opened at %s with %d rows", what, in.summary, upper, l.Stats().Rows)
		}
	case errors.As(wrong, &want) && (!errors.As(err, &got) || filepath.Base(got.File) != filepath.Base(want.File) || got.Offset < want.Offset):
		t.Errorf("%s: inspection: %v; opening: %v", what, err, wrong)
	}
}

// TestInspectHistory compares random histories, as the disk has them at random
// moments, with a plain list of updates.
func TestInspectHistory(t *testing.T) {
	everything := mix{
		{12, (*model).append}, {1, (*model).rebase}, {1, (*model).reset}, {2, (*model).wait}, {2, (*model).compact},
		{1, (*model).crash}, {4, (*model).inspect},
	}
	for seed := *firstSeed; seed < *firstSeed+*seeds; seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { everything.play(t, seed, 80, true) })
	}
}

// inspect reads the files at random times.
func (m *model) inspect() {
	synctest.Wait()
	dir := dump(m.t, m.fs.Files())
	for range 10 {
		at := 1 + core.Time(m.r.Uint64N(uint64(m.upper)+1))
		m.tell("inspect at %d", at)
		_, got, err := netOf(dir, "v", core.Token{}, core.Token{Time: at})
		readable, ok := m.log.DurableReader().Readable(at)
		switch {
		case err != nil && ok && readable == at:
			m.fail("a sink may read at %d, not so the files: %v", at, err)
		case err == nil && at > m.upper:
			m.fail("read at %d, where the log ends at %d", at, m.upper)
		case err == nil && !maps.Equal(got, contentsAt(m.updates, at)):
			m.fail("at %d: got %v, want %v", at, got, contentsAt(m.updates, at))
		}
	}
}

// TestInspectPieces looks at a batch that is stored in pieces: whole, and with
// its end missing.
func TestInspectPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := durabletest.New()
		o := open(t, fs)
		must(t, o.Reset(&core.View{Name: "v"}, "upstream", 1, snapshot(o, nil)))
		synctest.Wait()
		var updates []core.Update
		for n := range 25 {
			updates = append(updates, core.Update{Time: 1, Diff: 1, Row: core.Row(fmt.Sprintf(`["%02d%s"]`, n, strings.Repeat("x", 100_000)))})
		}
		must(t, o.Append(1, 2, updates))
		synctest.Wait()
		files := fs.Files()
		must(t, o.stop())

		dir := dump(t, files)
		in, err := inspect(dir, "v")
		must(t, err)
		if got := in.batches[1:]; len(got) != 3 || !got[0].First || !got[0].More || got[1].First || !got[1].More || got[2].More || in.summary.Rows != 25 {
			t.Errorf("got %d pieces, %+v", len(got), in.summary)
		}
		if in.summary.Durable != 1 {
			t.Errorf("durable until %d, want 1: nothing says more", in.summary.Durable)
		}
		segment := filepath.Join(dir, "00000001.log")
		must(t, os.Truncate(segment, in.facts.Bytes()-1))
		in, err = inspect(dir, "v")
		must(t, err)
		torn := in.summary.Torn
		if len(in.batches) != 1 || in.summary.Upper != 1 || torn == nil || torn.File != segment || torn.Offset+torn.Bytes != in.facts.Bytes() {
			t.Errorf("without its end: %d batches, %+v, torn %+v", len(in.batches), in.summary, torn)
		}

		// Once it is known to be durable, the same is damage, and where it is known.
		dir = dump(t, fs.Files())
		segment = filepath.Join(dir, "00000001.log")
		data, err := os.ReadFile(segment)
		must(t, err)
		data[len(data)-1] ^= 1
		must(t, os.WriteFile(segment, data, 0o644))
		_, err = inspect(dir, "v")
		var damage *viewlog.DamageError
		if !errors.As(err, &damage) || damage.File != segment || damage.Offset < 2_000_000 {
			t.Errorf("damaged last piece: got %v", err)
		}
	})
}

// TestInspectProgress checks that long work shows how far it is, and can be
// stopped.
func TestInspectProgress(t *testing.T) {
	dir := t.TempDir()
	l, err := viewlog.Open(dir, "v", viewlog.Options{})
	must(t, err)
	var contents []core.Update
	for n := range 50 {
		contents = append(contents, core.Update{Diff: 1, Row: core.Row(fmt.Sprintf(`["%02d%s"]`, n, strings.Repeat("x", 100_000)))})
	}
	must(t, l.Reset(&core.View{Name: "v"}, "upstream", 1, snapshot(l, contents)))
	stopped, stop := context.WithCancel(t.Context())
	stop()
	must(t, l.Run(stopped))

	var seen []int64
	i, err := viewlog.Inspect(dir, "v", viewlog.InspectOptions{Progress: func(read, total int64) {
		if total < 5_000_000 || read > total {
			t.Errorf("%d of %d bytes", read, total)
		}
		seen = append(seen, read)
	}})
	must(t, err)
	defer i.Close()
	if _, err := i.Scan(t.Context(), func(viewlog.StoredBatch) error { return nil }); err != nil || len(seen) < 4 || !slices.IsSorted(seen) {
		t.Errorf("progress %v, %v", seen, err)
	}
	if _, err := i.Scan(stopped, func(viewlog.StoredBatch) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: got %v", err)
	}
	enough := errors.New("enough")
	if _, err := i.Scan(t.Context(), func(viewlog.StoredBatch) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("an error of the caller: got %v", err)
	}
}

// TestInspectWhileWriting inspects a log all the time while it is written, and
// its segments are replaced.
func TestInspectWhileWriting(t *testing.T) {
	const steps = 400
	dir := t.TempDir()
	l, err := viewlog.Open(dir, "v", viewlog.Options{Retain: 1})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	running := make(chan error)
	go func() { running <- l.Run(ctx) }()
	row := func(n core.Time) core.Row { return core.Row(fmt.Sprintf(`["%d%s"]`, n, strings.Repeat("x", 64<<10))) }
	must(t, l.Reset(&core.View{Name: "v"}, "upstream", 1, snapshot(l, []core.Update{{Diff: 1, Row: row(1)}})))
	untilDurable(l)

	written, begun := make(chan struct{}), make(chan struct{}, 2)
	inspected := make(chan error, 2)
	for n := range 2 {
		go func() {
			upper, segments := core.Time(0), map[string]bool{}
			for last := false; !last; {
				select {
				case <-written:
					last = true
				default:
				}
				b, rows, err := netOf(dir, "v", core.Token{}, core.Token{})
				want := map[core.Row]core.Diff{row(b.Upper.Time): 1}
				switch {
				case err != nil:
				case b.Upper.Time < upper:
					err = fmt.Errorf("at %d after %d", b.Upper.Time, upper)
				case !maps.Equal(rows, want):
					err = fmt.Errorf("at %d: %d rows", b.Upper.Time, len(rows))
				}
				in, e := inspect(dir, "v")
				if err = errors.Join(err, e); err != nil {
					inspected <- err
					return
				}
				upper = in.summary.Upper
				if len(segments) == 0 {
					begun <- struct{}{}
				}
				segments[in.facts.Segments[0].Path] = true
			}
			if upper != steps+1 || len(segments) < 2 {
				inspected <- fmt.Errorf("reader %d came to %d, and saw %d segments", n, upper, len(segments))
				return
			}
			inspected <- nil
		}()
	}
	for range 2 {
		select {
		case <-begun:
		case err := <-inspected:
			t.Fatal(err)
		}
	}
	for n := core.Time(1); n <= steps; n++ {
		must(t, l.Append(n, n+1, core.Consolidate([]core.Update{{Time: n, Diff: -1, Row: row(n)}, {Time: n, Diff: 1, Row: row(n + 1)}})))
		l.Compact()
		if n%10 == 0 {
			untilDurable(l)
		}
	}
	untilDurable(l)
	close(written)
	for range 2 {
		if err := <-inspected; err != nil {
			t.Error(err)
		}
	}
	cancel()
	must(t, <-running)
}

// untilDurable waits until everything is.
func untilDurable(l *viewlog.Log) {
	for {
		upper, _ := l.Frontier()
		at, moved := l.Durable()
		if at == upper {
			return
		}
		<-moved
	}
}

// BenchmarkInspect scans a log of small batches, and adds all of it up.
func BenchmarkInspect(b *testing.B) {
	dir := b.TempDir()
	fill(b, dir, 10_000, 100)
	i, err := viewlog.Inspect(dir, "v", viewlog.InspectOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer i.Close()
	b.Run("scan", func(b *testing.B) {
		b.SetBytes(i.Bytes())
		for b.Loop() {
			if _, err := i.Scan(b.Context(), func(viewlog.StoredBatch) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("net", func(b *testing.B) {
		b.SetBytes(i.Bytes())
		for b.Loop() {
			if _, err := i.Net(b.Context(), core.Token{}, core.Token{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// FuzzInspect inspects and opens segments that nobody wrote.
func FuzzInspect(f *testing.F) {
	dir := f.TempDir()
	l, err := viewlog.Open(dir, "v", viewlog.Options{})
	if err != nil {
		f.Fatal(err)
	}
	stopped, stop := context.WithCancel(context.Background())
	stop()
	if err := errors.Join(l.Reset(&core.View{Name: "v"}, "upstream", 1, snapshot(l, nil)), l.Run(stopped)); err != nil {
		f.Fatal(err)
	}
	manifest, err := os.ReadFile(filepath.Join(dir, "manifest"))
	if err != nil {
		f.Fatal(err)
	}
	segment, err := os.ReadFile(filepath.Join(dir, "00000001.log"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(segment, false)
	f.Add([]byte{}, true)
	f.Add(segment[len(segment)/2:], true)
	f.Add([]byte("\xff\xff\xff\xff\x00\x00\x00\x00more"), true)
	f.Fuzz(func(t *testing.T, data []byte, behind bool) {
		if behind { // a good beginning
			data = append(slices.Clone(segment), data...)
		}
		dir := dump(t, map[string][]byte{"manifest": manifest, "00000001.log": data})
		opened := durabletest.New()
		opened.Put("dir/manifest", manifest)
		opened.Put("dir/00000001.log", data)
		agree(t, fmt.Sprintf("%q", data), dir, opened)
	})
}
