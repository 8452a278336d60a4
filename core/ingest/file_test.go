package ingest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/durable"
	"github.com/mzdio/mzd/core/ingest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// event returns an event whose ID is in its data, as identifier finds it.
func event(id string) core.Event {
	return core.Event{ID: id, Cursor: "after " + id, Data: []byte("event " + id)}
}

func events(ids ...string) []core.Event {
	var all []core.Event
	for _, id := range ids {
		all = append(all, event(id))
	}
	return all
}

type identifier struct{ core.Source }

func (identifier) Identify(line []byte) string {
	id, ok := strings.CutPrefix(string(line), "event ")
	if !ok {
		return ""
	}
	return id
}

func openFile(t *testing.T, path string, o ingest.FileOptions) *ingest.File {
	t.Helper()
	if o.Identifier == nil {
		o.Identifier = identifier{}
	}
	f, err := ingest.OpenFile(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func land(t *testing.T, f *ingest.File, all ...core.Event) ingest.Landed {
	t.Helper()
	landed, err := f.Land(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	return landed
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// lines returns the content of a file of the events with these IDs.
func lines(ids ...string) string {
	var b strings.Builder
	for _, id := range ids {
		b.WriteString("event " + id + "\n")
	}
	return b.String()
}

func TestLand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "directory", "events")
	f := openFile(t, path, ingest.FileOptions{})
	if got := content(t, path); got != "" {
		t.Errorf("a new file has %q", got)
	}
	if got := land(t, f, events("a", "b", "a")...); got.Events != 2 || got.Bytes != 16 || got.Duplicates != 1 || got.Rejected != nil {
		t.Errorf("got %+v", got)
	}
	if got := land(t, f, events("b", "c")...); got.Events != 1 || got.Duplicates != 1 {
		t.Errorf("got %+v", got)
	}
	nameless := core.Event{Data: []byte("event without ID")}
	if got := land(t, f, nameless, nameless); got.Events != 2 || got.Duplicates != 0 {
		t.Errorf("got %+v", got)
	}
	bad := []core.Event{{ID: "n", Data: []byte("two\nlines"), Cursor: "after n"}, {ID: "z", Data: []byte("a\x00b")}}
	if got := land(t, f, bad...); got.Events != 0 || got.Rejected["newline"] != 1 || got.Rejected["nul"] != 1 {
		t.Errorf("got %+v", got)
	}
	want := lines("a", "b", "c", "without ID", "without ID")
	if got := content(t, path); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := f.Position(), (ingest.Position{Target: path, Bytes: int64(len(want)), Cursor: "after n"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if land(t, f); content(t, path) != want {
		t.Error("landing nothing changed the file")
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Land(ended, events("d")); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if _, err := f.Land(t.Context(), events("d")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
}

// TestReopen checks that repeats are told apart over restarts, and that what
// the file holds stays as it is.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	f := openFile(t, path, ingest.FileOptions{})
	land(t, f, events("a", "b", "c")...)
	f.Close()

	f = openFile(t, path, ingest.FileOptions{})
	if got := f.Position().Cursor; got != "after c" {
		t.Errorf("got the cursor %q", got)
	}
	if got := land(t, f, events("c", "d", "a")...); got.Duplicates != 2 {
		t.Errorf("got %+v", got)
	}
	f.Close()
	if got, want := content(t, path), lines("a", "b", "c", "d"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestWindow checks how many IDs are remembered: while running, and from a
// file that is read again, with lines long and short, known and not.
func TestWindow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	const window = 10
	f := openFile(t, path, ingest.FileOptions{Window: window})
	long := strings.Repeat("x", 3<<20)
	var ids []string
	for i := range 25 {
		id := fmt.Sprint(i)
		if i == 20 {
			id += long
		}
		ids = append(ids, id)
		land(t, f, event(id))
	}
	check := func(f *ingest.File) {
		t.Helper()
		for i, id := range ids[len(ids)-window:] {
			if got := land(t, f, event(id)); got.Duplicates != 1 {
				t.Errorf("event %d of the window is not known", i)
			}
		}
		old := ids[len(ids)-window-1]
		if got := land(t, f, event(old)); got.Events != 1 {
			t.Error("an event is known for longer than the window")
		}
		ids = append(ids, old)
	}
	check(f)
	f.Close()
	check(openFile(t, path, ingest.FileOptions{Window: window}))
}

// TestRecover opens what crashes, and people, leave behind.
func TestRecover(t *testing.T) {
	cursor := func(offset int) string { return fmt.Sprintf(`{"version":1,"offset":%d,"cursor":"x"}`, offset) }
	for _, c := range []struct {
		name, file, cursor string
		want               string // in the file; the error, if it begins with "!"
		logs               bool
	}{
		{"nothing", "", "", "", false},
		{"whole lines", lines("a", "b"), cursor(16), lines("a", "b"), false},
		{"an old cursor", lines("a", "b"), cursor(8), lines("a", "b"), false},
		{"no cursor", lines("a", "b"), "", lines("a", "b"), false},
		{"a torn line", lines("a") + "event", cursor(8), lines("a"), true},
		{"only a torn line", "event", cursor(0), "", true},
		{"a torn line and no cursor", lines("a") + "event", "", lines("a"), true},
		{"zeros", lines("a") + "\x00\x00\x00", cursor(8), lines("a"), true},
		{"zeros and a line behind them", lines("a", "b") + "even\x00\x00\x00\n" + lines("d"), cursor(8), lines("a", "b"), true},
		{"zeros that were synced", "\x00\x00\n" + lines("a"), cursor(3), "\x00\x00\n" + lines("a"), false},
		{"a line over two reads", strings.Repeat("x", 3<<20) + "\nevent", "", strings.Repeat("x", 3<<20) + "\n", true},
		{"zeros in a line over two reads", lines("a") + strings.Repeat("x", 3<<20) + "\x00\n", cursor(8), lines("a"), true},
		{"a file too short", lines("a"), cursor(16), "!landed events were removed", false},
		{"no file", "", cursor(16), "!landed events were removed", false},
		{"an empty file", "", cursor(1), "!landed events were removed", false},
		{"a file that was changed", "event abcdef\n" + lines("b"), cursor(8), "!no line ends at offset 8", false},
		{"a damaged cursor", lines("a"), `{"version":1,`, "!is damaged", false},
		{"an empty cursor", lines("a"), "\x00\x00", "!is damaged", false},
		{"a cursor of another version", lines("a"), `{"version":2,"offset":8}`, "!has version 2", false},
		{"not a file of events", strings.Repeat("x", 20<<20), "", "!is this a file of events?", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "events")
			if c.name != "no file" {
				os.WriteFile(path, []byte(c.file), 0o644)
			}
			if c.cursor != "" {
				os.WriteFile(path+".cursor", []byte(c.cursor), 0o644)
			}
			var log bytes.Buffer
			f, err := ingest.OpenFile(path, ingest.FileOptions{Identifier: identifier{}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if want, refused := strings.CutPrefix(c.want, "!"); refused {
				if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
					t.Fatalf("got %v, want %q", err, want)
				}
				if c.name != "no file" && content(t, path) != c.file {
					t.Error("a file that was refused has been changed")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got := content(t, path); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if logged := log.Len() > 0; logged != c.logs {
				t.Errorf("log: %q", &log)
			}
			land(t, f, event("new"))
			if got := content(t, path); got != c.want+lines("new") {
				t.Errorf("after landing: got %q", got)
			}
		})
	}
}

// batchIdentifier counts how often it is asked.
type batchIdentifier struct {
	identifier
	asked, events int
}

func (b *batchIdentifier) Identify([]byte) string { panic("asked for one") }

func (b *batchIdentifier) IdentifyAll(events [][]byte) []string {
	b.asked++
	b.events += len(events)
	var ids []string
	for _, e := range events {
		ids = append(ids, b.identifier.Identify(e))
	}
	return ids
}

// TestIdentifyInBatches asks for the IDs of all that landed before in a few calls, of
// few events and of not too many bytes, and knows them then.
func TestIdentifyInBatches(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	f := openFile(t, path, ingest.FileOptions{})
	var all []core.Event
	for i := range 10_000 {
		all = append(all, event(fmt.Sprint("id ", i)))
	}
	long := event(strings.Repeat("x", 3<<20)) // a batch of its own
	land(t, f, all...)
	land(t, f, core.Event{Data: []byte("without an ID")}, long)
	f.Close()

	b := &batchIdentifier{}
	f = openFile(t, path, ingest.FileOptions{Identifier: b})
	if b.asked != 3 || b.events != 10_002 {
		t.Errorf("asked %d times for %d events, want 3 times for 10,002", b.asked, b.events)
	}
	if got := land(t, f, append(all, long)...); got.Duplicates != 10_001 || got.Events != 0 {
		t.Errorf("repeats: got %+v", got)
	}
	f.Close()

	b = &batchIdentifier{}
	f = openFile(t, path, ingest.FileOptions{Identifier: b, Window: 100})
	if got := land(t, f, all[9_902:]...); b.asked != 1 || got.Duplicates != 98 {
		t.Errorf("of the last 100, asked %d times: got %+v", b.asked, got)
	}
	f.Close()
	openFile(t, filepath.Join(t.TempDir(), "empty"), ingest.FileOptions{Identifier: b})
	if b.asked != 1 {
		t.Error("asked for the IDs of nothing")
	}
}

// TestRecoveredIsSynced opens what a killed process leaves: its writes, of
// which nobody knows whether they were synced. Everything that is taken as
// landed must be synced then, or repeats of it would be acknowledged, and the
// cursor would move past them, while a loss of power can still take them away.
func TestRecoveredIsSynced(t *testing.T) {
	for _, c := range []struct{ name, file, cursor, want string }{
		{"whole lines and no cursor", lines("a", "b"), "", lines("a", "b")},
		{"whole lines behind the cursor", lines("a", "b"), `{"version":1,"offset":8,"cursor":"after a"}`, lines("a", "b")},
		{"a torn line", lines("a", "b") + "event", "", lines("a", "b")},
		{"zeros", lines("a", "b") + "\x00\x00\n", "", lines("a", "b")},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "events")
			os.WriteFile(path, []byte(c.file), 0o644)
			if c.cursor != "" {
				os.WriteFile(path+".cursor", []byte(c.cursor), 0o644)
			}

			d := &disk{sync: fail(syscall.EIO)}
			f, err := ingest.OpenFile(path, ingest.WithDisk(ingest.FileOptions{}, d.use))
			if !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), path) {
				t.Errorf("lines that cannot be synced: got %v", err)
			}
			if err == nil {
				f.Close()
			}

			durable := "" // what a loss of power leaves
			d = &disk{sync: func() error {
				durable = content(t, path)
				return nil
			}}
			f = openFile(t, path, ingest.WithDisk(ingest.FileOptions{}, d.use))
			if durable != c.want {
				t.Errorf("%q is durable once the file is open, want %q", durable, c.want)
			}
			if got := land(t, f, events("a", "b")...); got.Duplicates != 2 {
				t.Errorf("repeats: got %+v", got)
			}
			if durable != c.want {
				t.Errorf("%q is durable where repeats are acknowledged, want %q", durable, c.want)
			}
		})
	}
}

func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	f := openFile(t, path, ingest.FileOptions{})
	if _, err := ingest.OpenFile(path, ingest.FileOptions{}); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	f.Close()
	openFile(t, path, ingest.FileOptions{})
	if _, err := ingest.OpenFile(filepath.Dir(path), ingest.FileOptions{}); err == nil {
		t.Error("opened a directory")
	}
}

func TestMaxBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	f := openFile(t, path, ingest.FileOptions{MaxBytes: 20})
	land(t, f, events("a", "b")...)
	for range 2 {
		_, err := f.Land(t.Context(), events("a", "c"))
		if !errors.Is(err, ingest.ErrFull) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "raise max_bytes") {
			t.Errorf("got %v", err)
		}
	}
	if got := land(t, f, events("b", "a")...); got.Duplicates != 2 {
		t.Errorf("repeats, of which nothing is written: got %+v", got)
	}
	if got := f.Position(); got.Bytes != 16 || got.Cursor != "after a" {
		t.Errorf("got %+v", got)
	}
	f.Close()
	f = openFile(t, path, ingest.FileOptions{MaxBytes: 24})
	land(t, f, event("c"))
	if got, want := content(t, path), lines("a", "b", "c"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// disk fails as it is told, and counts.
type disk struct {
	ingest.Disk
	writes, syncs                  atomic.Int64
	reserve, write, sync, truncate func() error // nil: works
	partial                        int          // of a write that fails, what is written
}

func (d *disk) Check(int64) error { return nil }

func (d *disk) Reserve(off, n int64) error {
	if d.reserve != nil {
		if err := d.reserve(); err != nil {
			return err
		}
	}
	return d.Disk.Reserve(off, n)
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	d.writes.Add(1)
	if d.write != nil {
		if err := d.write(); err != nil {
			n, _ := d.Disk.WriteAt(p[:min(d.partial, len(p))], off)
			return n, err
		}
	}
	return d.Disk.WriteAt(p, off)
}

func (d *disk) Sync() error {
	d.syncs.Add(1)
	if d.sync != nil {
		if err := d.sync(); err != nil {
			return err
		}
	}
	return d.Disk.Sync()
}

func (d *disk) Truncate(size int64) error {
	if d.truncate != nil {
		if err := d.truncate(); err != nil {
			return err
		}
	}
	return d.Disk.Truncate(size)
}

func (d *disk) use(under ingest.Disk) ingest.Disk {
	d.Disk = under
	return d
}

func fail(err error) func() error { return func() error { return err } }

// TestDiskFull has a disk that is full, and then is not. Nobody who reads the
// file meanwhile may see anything of what does not land.
// TestFileLost takes the file away, or changes it, under a process that lands
// in it: nothing may be acknowledged into a place where nobody looks.
func TestFileLost(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(path string) error
		want string
	}{
		"removed":  {os.Remove, "it was removed or renamed"},
		"renamed":  {func(path string) error { return os.Rename(path, path+".old") }, "it was removed or renamed"},
		"replaced": {func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, []byte("x"), 0o644)) }, "it was replaced by another file"},
		"cut":      {func(path string) error { return os.Truncate(path, 3) }, "somebody changed it: it has 3 bytes, not 16"},
		"grown":    {func(path string) error { return os.Truncate(path, 30) }, "somebody changed it: it has 30 bytes, not 16"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "events")
			f := openFile(t, path, ingest.FileOptions{})
			land(t, f, events("a", "b")...)
			if err := c.do(path); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				_, err := f.Land(t.Context(), events("c"))
				if !errors.Is(err, core.ErrPermanent) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
					t.Errorf("got %v, want a permanent error: %s", err, c.want)
				}
			}
			if got := f.Position(); got.Bytes != 16 || got.Cursor != "after b" {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestDiskFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	d := &disk{}
	f := openFile(t, path, ingest.WithDisk(ingest.FileOptions{}, d.use))
	land(t, f, events("a", "b")...)
	writes := d.writes.Load()
	d.reserve = fail(syscall.ENOSPC)
	d.write = fail(syscall.ENOSPC)
	d.partial = 12
	d.truncate = func() error {
		t.Errorf("a reader could see %q before it was taken back", content(t, path))
		return nil
	}
	_, err := f.Land(t.Context(), events("c", "d"))
	if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, core.ErrPermanent) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if got := d.writes.Load() - writes; got != 0 {
		t.Errorf("%d writes to a disk that is full", got)
	}
	if got := f.Position(); got.Bytes != 16 || got.Cursor != "after b" {
		t.Errorf("got %+v", got)
	}
	d.reserve, d.write = nil, nil
	if got := land(t, f, events("b", "c", "d")...); got.Events != 2 || got.Duplicates != 1 {
		t.Errorf("got %+v", got)
	}
	if got, want := content(t, path), lines("a", "b", "c", "d"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestWriteFails lets writes fail, with more or less of them done, and then
// work again: space that cannot be reserved, limits, a disk with errors.
func TestWriteFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	d := &disk{}
	f := openFile(t, path, ingest.WithDisk(ingest.FileOptions{Window: 4}, d.use))
	land(t, f, events("a", "b")...)
	for _, d.partial = range []int{0, 1, 8, 12, 100} {
		d.write = fail(syscall.ENOSPC)
		_, err := f.Land(t.Context(), events("c", "d"))
		if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, core.ErrPermanent) || !strings.Contains(err.Error(), path) {
			t.Errorf("got %v", err)
		}
		if got, want := content(t, path), lines("a", "b"); got != want {
			t.Errorf("after a write that failed at %d: got %q, want %q", d.partial, got, want)
		}
	}
	if got := f.Position().Cursor; got != "after b" {
		t.Errorf("got the cursor %q", got)
	}
	d.write = nil
	if got := land(t, f, events("a", "b", "c", "d")...); got.Events != 2 || got.Duplicates != 2 {
		t.Errorf("got %+v", got) // trying has not used up the window
	}
	if got, want := content(t, path), lines("a", "b", "c", "d"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBrokenDisk(t *testing.T) {
	for name, breakIt := range map[string]func(*disk){
		"sync":     func(d *disk) { d.sync = fail(syscall.EIO) },
		"truncate": func(d *disk) { d.write, d.truncate = fail(syscall.EIO), fail(syscall.EIO) },
	} {
		path := filepath.Join(t.TempDir(), "events")
		d := &disk{}
		f := openFile(t, path, ingest.WithDisk(ingest.FileOptions{}, d.use))
		breakIt(d)
		_, err := f.Land(t.Context(), events("a"))
		if !errors.Is(err, core.ErrPermanent) || !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v", name, err)
		}
		writes, syncs := d.writes.Load(), d.syncs.Load()
		d.write, d.sync, d.truncate = nil, nil, nil
		if _, again := f.Land(t.Context(), events("b")); !errors.Is(again, core.ErrPermanent) {
			t.Errorf("%s: tried again: got %v", name, again)
		}
		if d.writes.Load() != writes || d.syncs.Load() != syncs {
			t.Errorf("%s: the file was used after that", name)
		}
		f.Close()
		if _, err := os.Stat(path + ".cursor"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a cursor was saved: %v", name, err)
		}
	}
}

// TestGroupCommit lands from many goroutines while a sync is under way: all of
// them share the next one.
func TestGroupCommit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	syncing, proceed := make(chan struct{}), make(chan struct{})
	d := &disk{}
	f := openFile(t, path, ingest.WithDisk(ingest.FileOptions{}, d.use))
	opened := d.syncs.Load()
	d.sync = func() error {
		d.sync = nil
		close(syncing)
		<-proceed
		return nil
	}
	var wg sync.WaitGroup
	wg.Go(func() { f.Land(t.Context(), events("first")) })
	<-syncing
	const n = 50
	var events, duplicates atomic.Int64
	for i := range n {
		wg.Go(func() {
			landed, err := f.Land(t.Context(), []core.Event{event(fmt.Sprint(i / 2))})
			if err != nil {
				t.Error(err)
			}
			events.Add(int64(landed.Events))
			duplicates.Add(int64(landed.Duplicates))
		})
	}
	for ingest.WaitingCalls(f) < n {
		runtime.Gosched()
	}
	close(proceed)
	wg.Wait()
	if events.Load() != n/2 || duplicates.Load() != n/2 {
		t.Errorf("got %d events, %d duplicates; want %d of each", events.Load(), duplicates.Load(), n/2)
	}
	if got := strings.Count(content(t, path), "\n"); got != n/2+1 {
		t.Errorf("got %d lines, want %d", got, n/2+1)
	}
	if syncs := d.syncs.Load() - opened; syncs != 2 {
		t.Errorf("%d calls took %d syncs, want 2", n+1, syncs)
	}
}

// TestCursorIsSaved checks when the cursor is saved, and that it is never ahead
// of the data.
func TestCursorIsSaved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	saved := func() (c struct {
		Offset int64
		Cursor string
	}) {
		t.Helper()
		if err := json.Unmarshal([]byte(content(t, path+".cursor")), &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	synctest.Test(t, func(t *testing.T) {
		f, err := ingest.OpenFile(path, ingest.FileOptions{Window: 10})
		if err != nil {
			t.Fatal(err)
		}
		land(t, f, event("a"))
		if got := saved(); got.Cursor != "after a" || got.Offset != 8 {
			t.Errorf("the first: got %+v", got)
		}
		time.Sleep(time.Second / 2)
		land(t, f, event("b"))
		if got := saved(); got.Cursor != "after a" {
			t.Errorf("half a second later: got %+v", got)
		}
		time.Sleep(time.Second / 2)
		land(t, f, event("c"))
		if got := saved(); got.Cursor != "after c" || got.Offset != 24 {
			t.Errorf("a second later: got %+v", got)
		}
		// Before the window is half full of events that might come again, at
		// the latest.
		land(t, f, events("d", "e", "f", "g", "h")...)
		if got := saved(); got.Cursor != "after h" {
			t.Errorf("half a window later: got %+v", got)
		}
		land(t, f, event("i"))
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if got := saved(); got.Cursor != "after i" || got.Offset != 72 {
			t.Errorf("at the end: got %+v", got)
		}
	})
}

// TestCursorCannotBeSaved checks that events go on to land, but never more than
// the window can tell apart when they come again.
func TestCursorCannotBeSaved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	if err := os.Mkdir(path+".cursor.tmp", 0o755); err != nil { // in the way
		t.Fatal(err)
	}
	f := openFile(t, path, ingest.FileOptions{Window: 10})
	for i := range 5 {
		land(t, f, event(fmt.Sprint(i)))
	}
	if _, err := f.Land(t.Context(), events("x")); err == nil || errors.Is(err, core.ErrPermanent) || !strings.Contains(err.Error(), "cursor") {
		t.Errorf("got %v", err)
	}
	os.Remove(path + ".cursor.tmp")
	land(t, f, event("x"))
}

func BenchmarkLand(b *testing.B) {
	for _, batch := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			f, err := ingest.OpenFile(filepath.Join(b.TempDir(), "events"), ingest.FileOptions{})
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			data := bytes.Repeat([]byte("x"), 1100)
			all := make([]core.Event, batch)
			n := 0
			for b.Loop() {
				for i := range all {
					n++
					all[i] = core.Event{ID: fmt.Sprint(n), Data: data}
				}
				if _, err := f.Land(b.Context(), all); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
		})
	}
	b.Run("bare", func(b *testing.B) { // the limit: write and sync of as many bytes
		file, err := os.Create(filepath.Join(b.TempDir(), "events"))
		if err != nil {
			b.Fatal(err)
		}
		defer file.Close()
		data := bytes.Repeat([]byte("x"), 100*1101)
		for b.Loop() {
			file.Write(data)
			file.Sync()
		}
		b.ReportMetric(float64(b.N)*100/b.Elapsed().Seconds(), "events/s")
	})
}
