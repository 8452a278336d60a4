package viewlog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/durable/durabletest"
	"github.com/mzdio/mzd/core/viewlog"
)

// opened is a log on a file system, running.
type opened struct {
	*viewlog.Log
	t    *testing.T
	stop func() error
}

func open(t *testing.T, fs *durabletest.FS) opened {
	t.Helper()
	return openWith(t, viewlog.Options{FS: fs, Retain: retain})
}

func openWith(t *testing.T, options viewlog.Options) opened {
	t.Helper()
	l, err := viewlog.Open("dir", "v", options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	return opened{l, t, func() error {
		cancel()
		return <-done
	}}
}

// step appends one batch: row n comes, row n-3 goes.
func (o opened) step(n int) {
	o.t.Helper()
	updates := []core.Update{{Time: core.Time(n), Diff: 1, Row: core.Row(fmt.Sprintf(`["row %d"]`, n))}}
	if n > 3 {
		updates = append(updates, core.Update{Time: core.Time(n), Diff: -1, Row: core.Row(fmt.Sprintf(`["row %d"]`, n-3))})
	}
	must(o.t, o.Append(core.Time(n), core.Time(n+1), core.Consolidate(updates)))
}

// wanted are the contents after step n.
func wanted(n int) map[core.Row]core.Diff {
	rows := map[core.Row]core.Diff{}
	for i := max(1, n-2); i <= n; i++ {
		rows[core.Row(fmt.Sprintf(`["row %d"]`, i))] = 1
	}
	return rows
}

// holds checks that the log is what it was after the step that its frontier
// tells, and returns that step.
func (o opened) holds() int {
	o.t.Helper()
	upper, _ := o.Frontier()
	if upper.IsZero() {
		return 0
	}
	b, err := o.Read(core.Token{}, upper.Time)
	must(o.t, err)
	got := map[core.Row]core.Diff{}
	for u := range b.Updates.All() {
		got[u.Row] = u.Diff
	}
	n := int(upper.Time) - 1
	if want := wanted(n); !maps.Equal(got, want) {
		o.t.Fatalf("after step %d: got %v, want %v", n, got, want)
	}
	if b.Sum != sumOf(got) {
		o.t.Fatalf("after step %d: checksum %016x of %v", n, b.Sum, got)
	}
	return n
}

// written makes the files of a log of some steps: with a base, several syncs,
// and a clean end or none.
func written(t *testing.T, steps int, clean bool) (fs *durabletest.FS, durable int) {
	t.Helper()
	fs = durabletest.New()
	o := open(t, fs)
	must(t, o.Reset(&core.View{Name: "v"}, "upstream", 1, snapshot(o, nil)))
	for n := 1; n <= steps; n++ {
		o.step(n)
		if n%2 == 0 {
			synctest.Wait()
		}
	}
	synctest.Wait()
	token, _ := o.Durable()
	if clean {
		must(t, o.stop())
		return fs, int(token.Time) - 1
	}
	left := fs.Kill()
	o.stop()
	return left, int(token.Time) - 1
}

// damage opens a copy of the files with one of them changed. The log must be
// what it was at some step, at least the last that is known to be durable, or be
// refused with the name of the file and a place in it.
func damage(t *testing.T, files *durabletest.FS, name, what string, data []byte, known int) {
	t.Helper()
	fs := durabletest.New()
	for n, d := range files.Files() {
		fs.Put(n, d)
	}
	fs.Put(name, data)
	l, err := viewlog.Open("dir", "v", viewlog.Options{FS: fs})
	if err != nil {
		var d *viewlog.DamageError
		switch {
		case errors.Is(err, viewlog.ErrNewer): // a flipped version, with a checksum that fits, is none of ours
			t.Errorf("%s: %v", what, err)
		case !errors.As(err, &d), d.File != name, d.Offset < 0, d.Offset > int64(len(data)):
			t.Errorf("%s: the refusal does not say where: %v", what, err)
		}
		return
	}
	if n := (opened{Log: l, t: t}).holds(); n < known {
		t.Errorf("%s: opened at step %d, and %d was known to be durable", what, n, known)
	}
}

// TestEveryByte cuts the files of a log at every byte, and flips every byte.
func TestEveryByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const steps = 12
		for _, clean := range []bool{true, false} {
			files, durable := written(t, steps, clean)
			if durable != steps {
				t.Fatalf("durable until step %d, want %d", durable, steps)
			}
			// What a frame says was durable before it was written is known; of
			// the last sync nobody knows, unless the end was a clean one.
			known := steps - 2
			if clean {
				known = steps
			}
			for name, whole := range files.Files() {
				for i := range whole {
					damage(t, files, name, fmt.Sprintf("%s (clean %v) cut at %d of %d", name, clean, i, len(whole)), whole[:i:i], cutAt(name, known, clean))
					flipped := slices.Clone(whole)
					flipped[i] ^= 0x20
					damage(t, files, name, fmt.Sprintf("%s (clean %v) flipped at %d of %d", name, clean, i, len(whole)), flipped, known)
				}
			}
		}
	})
}

// cutAt is what must be left of a file that is cut: a segment that ends early
// has lost what told about its syncs too.
func cutAt(name string, known int, clean bool) int {
	if strings.HasSuffix(name, ".log") && !clean {
		return 0
	}
	return known
}

// TestEveryFault fails each call to the file system in turn, once or from then
// on for a while, also those of rewrites. What the log says is durable must be there after a crash, and
// once the trouble is over it goes on.
func TestEveryFault(t *testing.T) {
	const steps = 30
	run := func(t *testing.T, name string, fail func(call int, op string) error) (calls int) {
		fs := durabletest.New()
		fs.Fail(fail)
		l, err := viewlog.Open("dir", "v", viewlog.Options{FS: fs, Retain: retain, RewriteBytes: 100})
		if err != nil {
			return fs.Calls() // refused: nothing was promised
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		o := opened{Log: l, t: t}
		must(t, o.Reset(&core.View{Name: "v"}, "upstream", 1, snapshot(o, nil)))
		for n := 1; n <= steps; n++ {
			o.step(n)
			if o.holds() != n {
				t.Fatalf("%s: readers do not see step %d", name, n)
			}
			if n%3 == 0 {
				synctest.Wait()
			}
		}
		pass(time.Minute) // the trouble is over, and was tried again
		synctest.Wait()
		token, _ := o.Durable()
		if token.Time != steps+1 {
			t.Errorf("%s: durable until %s, want all %d steps; trouble: %v", name, token, steps, o.Stats().Trouble)
		}
		calls = fs.Calls()
		left := fs.Kill()
		cancel()
		<-done
		again := open(t, left)
		if n := again.holds(); n != steps {
			t.Errorf("%s: came back at step %d, want %d", name, n, steps)
		}
		must(t, again.stop())
		return calls
	}
	synctest.Test(t, func(t *testing.T) {
		calls := run(t, "no fault", nil)
		for i := 1; i <= calls; i++ {
			run(t, fmt.Sprintf("call %d fails", i), func(call int, op string) error {
				if call == i {
					return fmt.Errorf("%s: %w", op, syscall.ENOSPC)
				}
				return nil
			})
			run(t, fmt.Sprintf("calls %d to %d fail", i, i+9), func(call int, op string) error {
				if call >= i && call < i+10 {
					return fmt.Errorf("%s: %w", op, syscall.ENOSPC)
				}
				return nil
			})
		}
		t.Logf("%d calls", calls)
	})
}

// TestRewriteInDoubt fails calls while a log that has grown is written anew:
// afterwards either manifest may be the one on disk. Whatever is said to be
// durable must come back from both.
func TestRewriteInDoubt(t *testing.T) {
	for _, failing := range []string{"open", "write", "sync", "rename", "syncdir", "close", "remove"} {
		synctest.Test(t, func(t *testing.T) {
			fs := durabletest.New()
			o := openWith(t, viewlog.Options{FS: fs, Retain: retain, RewriteBytes: 4000})
			must(t, o.Reset(&core.View{Name: "v"}, "upstream", 1, snapshot(o, nil)))
			synctest.Wait()
			failures := 0
			opened := false
			fs.Fail(func(_ int, op string) error {
				opened = opened || op == "open" // the rewrite begins
				if opened && op == failing && failures < 3 {
					failures++
					return fmt.Errorf("%s: %w", op, syscall.ENOSPC)
				}
				return nil
			})
			large := strings.Repeat("x", 400)
			for n := core.Time(1); n <= 24; n++ {
				must(t, o.Append(n, n+1, []core.Update{{Time: n, Diff: 1, Row: core.Row(fmt.Sprintf("[%d,%q]", n, large))}}))
				synctest.Wait()
				durable, _ := o.Durable()
				left := fs.Copy()
				again, err := viewlog.Open("dir", "v", viewlog.Options{FS: left})
				if err != nil {
					t.Fatalf("%s fails: %v", failing, err)
				}
				if upper, _ := again.Frontier(); upper.Time < durable.Time {
					t.Fatalf("%s fails: durable until %d, came back at %d", failing, durable.Time, upper.Time)
				}
			}
			pass(time.Minute)
			fs.Fail(nil) // from here on failures is not written any more
			if failures == 0 {
				t.Errorf("%s: nothing failed", failing)
			}
			must(t, o.stop())
		})
	}
}

// TestRewriteBytes checks when the files are written anew, and that their size
// and their syncs are told.
func TestRewriteBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, grace := range []int64{1, 2000} {
			fs, syncs, rewrites := durabletest.New(), 0, 0
			o := openWith(t, viewlog.Options{
				FS: fs, Retain: time.Second, RewriteBytes: grace, Synced: func(time.Duration) { syncs++ },
			})
			must(t, o.Reset(&core.View{Name: "v"}, "upstream", 1, snapshot(o, nil)))
			synctest.Wait()
			segment := "dir/00000001.log"
			small := o.Stats().DiskBytes
			for n := 1; n <= 100; n++ {
				told := syncs
				o.step(n)
				synctest.Wait()
				pass(time.Second)
				o.Compact()
				size, files, want := o.Stats().DiskBytes, fs.Files(), 1
				if files[segment] == nil {
					rewrites++
					segment = fmt.Sprintf("dir/%08d.log", rewrites+1)
					want, small = 2, size // the header of the new segment is one
				}
				if size != int64(len(files[segment])) || size > 2*small+grace+200 {
					t.Fatalf("grace %d, step %d: told of %d bytes on disk, and there are %d; were %d when small", grace, n, size, len(files[segment]), small)
				}
				if syncs != told+want {
					t.Fatalf("grace %d, step %d: told of %d syncs, want %d", grace, n, syncs-told, want)
				}
			}
			if grace == 1 && rewrites < 10 || grace == 2000 && (rewrites < 1 || rewrites > 4) {
				t.Errorf("grace %d: written anew %d times in 100 steps", grace, rewrites)
			}
			must(t, o.stop())
		}
	})
}

// TestRewritesOverRestarts opens and closes a log again and again, each time
// before it has grown enough to be written anew: the files must not grow for ever.
func TestRewritesOverRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs, n := durabletest.New(), 0
		for round := range 100 {
			o := openWith(t, viewlog.Options{FS: fs, Retain: time.Second, RewriteBytes: 2000})
			if round == 0 {
				must(t, o.Reset(&core.View{Name: "v"}, "upstream", 1, snapshot(o, nil)))
			}
			for range 10 {
				n++
				o.step(n)
				synctest.Wait()
				pass(time.Second)
				o.Compact()
			}
			if size := o.Stats().DiskBytes; size > 5000 {
				t.Fatalf("%d bytes on disk after %d restarts", size, round)
			}
			must(t, o.stop())
		}
	})
}

// TestDiskFull looks at what people are told while the disk is full, and that
// what waits is merged.
func TestDiskFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := durabletest.New()
		o := open(t, fs)
		must(t, o.Reset(&core.View{Name: "v"}, "upstream", 1, snapshot(o, nil)))
		o.step(1)
		synctest.Wait()
		fs.Fail(func(_ int, op string) error {
			if op == "write" {
				return syscall.ENOSPC
			}
			return nil
		})
		for n := 2; n <= 2000; n++ {
			o.step(n)
			if n%100 == 0 {
				pass(time.Second)
			}
		}
		s := o.Stats()
		if s.Trouble == nil || !strings.Contains(s.Trouble.Error(), "dir/00000001.log") || !strings.Contains(s.Trouble.Error(), "no space left") {
			t.Errorf("trouble: %v, want the file and what is wrong", s.Trouble)
		}
		if s.Durable != 2 || s.Upper != 2001 {
			t.Errorf("durable until %d of %d, want 2 of 2001", s.Durable, s.Upper)
		}
		fs.Fail(nil)
		pass(time.Minute)
		if s = o.Stats(); s.Trouble != nil || s.Durable != 2001 {
			t.Errorf("with space again: durable until %d, trouble %v", s.Durable, s.Trouble)
		}
		must(t, o.stop())
		again := open(t, fs)
		if n := again.holds(); n != 2000 {
			t.Errorf("came back at step %d, want 2000", n)
		}
		must(t, again.stop())
		if size := len(fs.Files()["dir/00000001.log"]); size > 50_000 {
			t.Errorf("2000 steps that cancel out took %d bytes", size)
		}
	})
}

// TestDiskHangs goes on while a sync neither ends nor fails. What waits behind it
// must not cost the more memory the longer that lasts.
func TestDiskHangs(t *testing.T) {
	for _, first := range []bool{true, false} { // over the first snapshot, or later
		synctest.Test(t, func(t *testing.T) { diskHangs(t, first) })
	}
}

func diskHangs(t *testing.T, first bool) {
	fs := durabletest.New()
	options := viewlog.Options{FS: fs, Retain: retain, RetainBytes: 4 << 10}
	o := openWith(t, options)
	begin := func() { must(t, o.Reset(&core.View{Name: "v"}, "upstream", 1, snapshot(o, nil))) }
	if !first {
		begin()
		synctest.Wait()
	}
	wake := fs.Hang()
	if first {
		begin()
		synctest.Wait()
	}
	const steps = 5000
	for n := 1; n <= steps; n++ {
		o.step(n)
		if n%100 == 0 {
			pass(time.Second)
		}
	}
	if s := o.Stats(); s.Durable > 1 || s.Upper != steps+1 {
		t.Errorf("durable until %d of %d, want 1 of %d", s.Durable, s.Upper, steps+1)
	}
	wake()
	pass(time.Second)
	s := o.Stats()
	if s.Durable != steps+1 {
		t.Errorf("with the disk back: durable until %d", s.Durable)
	}
	middle, _ := o.Frontier()
	middle.Time, _ = o.DurableReader().Readable(steps / 2)
	if s.DiskBytes > 20<<10 {
		t.Errorf("%d steps that cancel out took %d bytes", steps, s.DiskBytes)
	}
	must(t, o.stop())
	again := openWith(t, options)
	if n := again.holds(); n != steps {
		t.Errorf("came back at step %d, want %d", n, steps)
	}
	if _, err := again.Hold(middle); err != nil {
		t.Errorf("a sink could stand there: %v", err)
	}
	must(t, again.stop())
}

// TestSealedWhileDiskFull seals a view while the disk is full. What waits is
// merged then, and yet a reader from the middle must get all that it missed
// after a restart: nothing will ever happen that would put it right.
func TestSealedWhileDiskFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := durabletest.New()
		o := open(t, fs)
		must(t, o.Reset(&core.View{Name: "v"}, "upstream", 1, snapshot(o, nil)))
		synctest.Wait()
		fs.Fail(func(_ int, op string) error {
			if op == "write" {
				return syscall.ENOSPC
			}
			return nil
		})
		o.step(1)
		middle, _ := o.Frontier()
		o.step(2)
		must(t, o.Append(3, core.EndOfTime, nil))
		pass(time.Minute) // and several tries
		fs.Fail(nil)
		pass(time.Minute)
		if got, _ := o.DurableReader().Readable(1000); got != 1000 {
			t.Errorf("a sealed view holds cuts up at %d", got)
		}
		must(t, o.stop())
		again := open(t, fs)
		want := maps.Clone(wanted(2))
		b, err := again.Read(middle, core.EndOfTime)
		must(t, err)
		if !b.IsBase() {
			maps.DeleteFunc(want, func(row core.Row, _ core.Diff) bool { return wanted(1)[row] > 0 })
		}
		got := map[core.Row]core.Diff{}
		for u := range b.Updates.All() {
			got[u.Row] = u.Diff
		}
		if !maps.Equal(got, want) {
			t.Errorf("from %s to the end, base %v: got %v, want %v", middle, b.IsBase(), got, want)
		}
		must(t, again.stop())
	})
}

// TestSealedAtOnceWhileDiskFull seals a view with a single record that is not
// written at once, exact and solid. That must not hold up cuts with other views.
func TestSealedAtOnceWhileDiskFull(t *testing.T) {
	for name, seal := range map[string]func(o opened) error{
		"append": func(o opened) error { return o.Append(1, core.EndOfTime, nil) },
		"rebase": func(o opened) error { return o.Rebase(core.EndOfTime, snapshot(o, nil)) },
	} {
		synctest.Test(t, func(t *testing.T) {
			fs := durabletest.New()
			o := open(t, fs)
			must(t, o.Reset(&core.View{Name: "v"}, "upstream", 1, snapshot(o, nil)))
			synctest.Wait()
			fs.Fail(func(_ int, op string) error {
				if op == "write" {
					return syscall.ENOSPC
				}
				return nil
			})
			must(t, seal(o))
			pass(time.Minute)
			fs.Fail(nil)
			pass(time.Minute)
			if got, _ := o.DurableReader().Readable(1000); got != 1000 {
				t.Errorf("%s: a sealed view holds cuts up at %d", name, got)
			}
			must(t, o.stop())
		})
	}
}

// TestSolidProgressStaysReadable takes two snapshots that bring nothing new while
// nothing is written: the time between them must be readable after a restart if
// sinks may stand there.
func TestSolidProgressStaysReadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := durabletest.New()
		l, err := viewlog.Open("dir", "v", viewlog.Options{FS: fs, Retain: retain})
		must(t, err)
		must(t, l.Reset(&core.View{Name: "v"}, "upstream", 1, snapshot(l, nil)))
		flush := func() {
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			must(t, l.Run(ended))
		}
		flush()
		l, err = viewlog.Open("dir", "v", viewlog.Options{FS: fs, Retain: retain})
		must(t, err)
		must(t, l.Rebase(10, snapshot(l, nil)))
		must(t, l.Rebase(20, snapshot(l, nil)))
		flush()
		between, ok := l.DurableReader().Readable(15)
		again := open(t, fs)
		if got, _ := again.DurableReader().Readable(between); !ok || got != between {
			t.Errorf("sinks may stand at %d (%v), and after a restart only at %d", between, ok, got)
		}
		must(t, again.stop())
	})
}

// TestMemoryAndDiskMergeDifferently merges changes on disk, because it was full, and
// more of them in memory, because a reader holds what was before. A sink must not be
// sent to a time at which only one of the two can be read.
func TestMemoryAndDiskMergeDifferently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := durabletest.New()
		o := open(t, fs)
		must(t, o.Reset(&core.View{Name: "v"}, "upstream", 1, snapshot(o, nil)))
		begin, _ := o.Frontier()
		synctest.Wait()
		fs.Fail(func(_ int, op string) error {
			if op == "write" {
				return syscall.ENOSPC
			}
			return nil
		})
		must(t, o.Append(1, 3, nil))
		for n := 3; n < 10; n++ {
			o.step(n)
		}
		pass(time.Minute)
		fs.Fail(nil)
		pass(time.Minute)
		for n := 10; n < 15; n++ {
			o.step(n)
			synctest.Wait()
		}
		hold, err := o.Hold(begin)
		must(t, err)
		pass(2 * retain)
		if !o.Compact() {
			t.Error("nothing was merged")
		}
		must(t, o.Append(15, 20, nil))
		synctest.Wait()

		for at := core.Time(1); at <= 20; at++ {
			readable, ok := o.DurableReader().Readable(at)
			if !ok {
				t.Errorf("nothing is readable at or before %d", at)
			}
			again, err := viewlog.Open("dir", "v", viewlog.Options{FS: fs.Copy()})
			must(t, err)
			if _, err := again.Hold(core.Token{Time: readable, Generation: begin.Generation}); err != nil {
				t.Errorf("for %d the reader is sent to %d; after a restart: %v", at, readable, err)
			}
		}
		hold.Release()
		must(t, o.stop())
	})
}

// TestFailedRewritesLeaveNothing fails calls while segments are begun: what was
// written of them must not stay and fill the disk, not even while it goes on.
func TestFailedRewritesLeaveNothing(t *testing.T) {
	for _, first := range []bool{true, false} { // the first snapshot, or a log that has grown
		for _, failing := range []string{"open", "write", "sync", "rename", "syncdir"} {
			synctest.Test(t, func(t *testing.T) {
				fs := durabletest.New()
				o := openWith(t, viewlog.Options{FS: fs, Retain: retain, RewriteBytes: 1000})
				segments := func() (names []string) {
					for name := range fs.Files() {
						if strings.HasSuffix(name, ".log") {
							names = append(names, name)
						}
					}
					return names
				}
				large := strings.Repeat("x", 400)
				reset := func() {
					must(t, o.Reset(&core.View{Name: "v"}, "upstream", 1, snapshot(o, []core.Update{{Diff: 1, Row: core.Row(large)}})))
				}
				if !first {
					reset()
					synctest.Wait()
				}
				failed, began := 0, false
				fs.Fail(func(_ int, op string) error {
					began = began || op == "open"
					if began && op == failing {
						failed++
						return fmt.Errorf("%s: %w", op, syscall.ENOSPC)
					}
					return nil
				})
				if first {
					reset()
				}
				for n := core.Time(1); n <= 10; n++ {
					must(t, o.Append(n, n+1, []core.Update{{Time: n, Diff: 1, Row: core.Row(fmt.Sprintf("[%d,%q]", n, large))}}))
					pass(time.Minute)
				}
				synctest.Wait()
				if failed == 0 {
					t.Errorf("%s: nothing failed", failing)
				}
				// Of a manifest that may have been replaced both segments count.
				doubt := failing == "rename" || failing == "syncdir"
				if left := segments(); !doubt && (first && len(left) > 0 || !first && len(left) > 1) {
					t.Errorf("%s fails, first snapshot %v: %d segments are left: %v", failing, first, len(left), left)
				}
				fs.Fail(nil)
				pass(time.Minute)
				must(t, o.Append(11, 12, nil))
				synctest.Wait()
				if left := segments(); len(left) != 1 {
					t.Errorf("%s failed, first snapshot %v: %d segments are left, want 1: %v", failing, first, len(left), left)
				}
				must(t, o.stop())
			})
		}
	}
}

// TestTroubleIsNamed reads what people are told about a disk that does not take
// what is written, and checks that the log goes on when it does again.
func TestTroubleIsNamed(t *testing.T) {
	for _, c := range []struct {
		op   string
		err  error
		want string
	}{
		{"write", syscall.ENOSPC, "write dir/00000001.log: no space left on device"},
		{"write", syscall.EROFS, "write dir/00000001.log: read-only file system"},
		{"write", syscall.EIO, "write dir/00000001.log: input/output error"},
		{"sync", syscall.EIO, "sync dir/00000001.log: input/output error"},
	} {
		synctest.Test(t, func(t *testing.T) {
			fs := durabletest.New()
			o := open(t, fs)
			must(t, o.Reset(&core.View{Name: "v"}, "upstream", 1, snapshot(o, nil)))
			synctest.Wait()
			first := true
			fs.Fail(func(_ int, op string) error {
				if op == c.op && first {
					first = false
					return c.err
				}
				return nil
			})
			o.step(1)
			synctest.Wait()
			if s := o.Stats(); s.Trouble == nil || s.Trouble.Error() != c.want || s.Durable != 1 {
				t.Errorf("%s fails with %v: trouble %v, durable until %d; want %s, and 1", c.op, c.err, s.Trouble, s.Durable, c.want)
			}
			pass(time.Second)
			if s := o.Stats(); s.Trouble != nil || s.Durable != 2 {
				t.Errorf("%s failed with %v: trouble %v, durable until %d, want none and 2", c.op, c.err, s.Trouble, s.Durable)
			}
			// A file whose sync failed is not written again.
			if _, another := fs.Files()["dir/00000002.log"]; another != (c.op == "sync") {
				t.Errorf("%s failed with %v: another segment: %v", c.op, c.err, another)
			}
			must(t, o.stop())
		})
	}
}

// TestTroubleIsLoggedOnce has a disk that fails for an hour, and then in another way.
// Each try begins another file, and yet is not news.
func TestTroubleIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		fs := durabletest.New()
		o := openWith(t, viewlog.Options{FS: fs, Logger: slog.New(slog.NewTextHandler(&text, nil))})
		for _, err := range []error{syscall.EIO, syscall.EROFS, nil} {
			fs.Fail(func(_ int, op string) error {
				if op == "sync" {
					return err
				}
				return nil
			})
			if err == syscall.EIO {
				must(t, o.Reset(&core.View{Name: "v"}, "upstream", 1, snapshot(o, nil)))
			}
			pass(time.Hour)
		}
		must(t, o.stop())
		if n := strings.Count(text.String(), "cannot be written"); n != 2 {
			t.Errorf("%d times, want 2:\n%.2000s", n, text.String())
		}
		if n := strings.Count(text.String(), "written again"); n != 1 {
			t.Errorf("well again %d times, want 1:\n%.2000s", n, text.String())
		}
	})
}

// TestTornTailIsLogged checks that the end that is cut off is named.
func TestTornTailIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files, _ := written(t, 4, false)
		const segment = "dir/00000001.log"
		whole := files.Files()[segment]
		files.Put(segment, append(slices.Clone(whole), "torn"...))
		var log strings.Builder
		for _, want := range []string{fmt.Sprintf("file=%s offset=%d bytes=4\n", segment, len(whole)), ""} {
			log.Reset()
			l, err := viewlog.Open("dir", "v", viewlog.Options{FS: files, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			must(t, err)
			if (opened{Log: l, t: t}).holds() != 4 || !strings.HasSuffix(log.String(), want) || want == "" && log.Len() > 0 {
				t.Errorf("log: %q, want %q", log.String(), want)
			}
		}
	})
}

// TestClockJumpsBack opens a log under a clock that is a day behind the one it
// was written under: what arrived in the future is exact history until the
// clock has passed it, within the bound in bytes.
func TestClockJumpsBack(t *testing.T) {
	var files *durabletest.FS
	synctest.Test(t, func(t *testing.T) {
		pass(24 * time.Hour)
		files, _ = written(t, 100, true)
	})
	synctest.Test(t, func(t *testing.T) { // a bubble begins at the same time as any other
		o := open(t, files.Copy())
		if n := o.holds(); n != 100 {
			t.Errorf("came back at step %d, want 100", n)
		}
		pass(23 * time.Hour)
		o.Compact()
		if s := o.Stats(); s.Since != 1 {
			t.Errorf("an hour early: history since %d, want 1", s.Since)
		}
		pass(time.Hour + 2*retain)
		o.Compact()
		if s := o.Stats(); s.Since < 100 {
			t.Errorf("when it is old: history since %d, want it merged", s.Since)
		}
		o.step(101)
		if o.holds() != 101 {
			t.Error("it does not go on")
		}
		must(t, o.stop())

		l, err := viewlog.Open("dir", "v", viewlog.Options{FS: files.Copy(), Retain: retain, RetainBytes: 1000})
		must(t, err)
		l.Compact()
		if s := l.Stats(); s.Since < 50 {
			t.Errorf("with a bound in bytes: %d bytes of history since %d", s.History, s.Since)
		}
	})
}

// TestRefusals reads what people are told about directories that cannot be
// opened.
func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files, _ := written(t, 4, true)
		const manifest, segment = "dir/manifest", "dir/00000001.log"
		for _, c := range []struct {
			name string
			make func(fs *durabletest.FS) error
			want string
		}{
			{"missing segment", func(fs *durabletest.FS) error { return fs.Remove(segment) }, "dir/00000001.log is damaged at offset 0: it is named by the manifest, and is not there"},
			{"short segment", func(fs *durabletest.FS) error { fs.Put(segment, fs.Files()[segment][:50]); return nil }, "dir/00000001.log is damaged at offset 50: it ends here, and had"},
			{"no checksum", func(fs *durabletest.FS) error { fs.Put(manifest, []byte("{}\n")); return nil }, "dir/manifest is damaged at offset 0: the checksum does not fit"},
			{"missing manifest", func(fs *durabletest.FS) error { return fs.Remove(manifest) }, "dir/manifest is damaged at offset 0: it is missing, and 00000001.log was named by it"},
			{"another manifest", func(fs *durabletest.FS) error {
				text := []byte(strings.Replace(string(fs.Files()[manifest]), `"number":1`, `"number":2`, 1))
				text = text[:bytes.IndexByte(text, '\n')+1]
				sum := crc32.Checksum(text, crc32.MakeTable(crc32.Castagnoli))
				fs.Put(manifest, fmt.Appendf(text, "crc32c %08x\n", sum))
				return nil
			}, "dir/00000002.log is damaged at offset 0: it is named by the manifest, and is not there"},
			{"another view", func(*durabletest.FS) error { return nil }, `it is the log of view "v", not of "w"`},
		} {
			fs := files.Copy()
			must(t, c.make(fs))
			name := "v"
			if c.name == "another view" {
				name = "w"
			}
			_, err := viewlog.Open("dir", name, viewlog.Options{FS: fs})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want %s", c.name, err, c.want)
			}
		}
	})
}

// TestRealFiles goes once through real files.
func TestRealFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "views", "v")
	var tokens []core.Token
	for round := range 3 {
		l, err := viewlog.Open(dir, "v", viewlog.Options{})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		o := opened{Log: l, t: t}
		if round == 0 {
			must(t, o.Reset(&core.View{Name: "v", Columns: []core.Column{{Name: "a", Type: "text"}}, Key: []int{0}}, "upstream", 1, snapshot(o, nil)))
		}
		for _, k := range tokens {
			if b, err := o.Read(k, core.Time(100*round+1)); err != nil || b.IsBase() {
				t.Errorf("round %d: read from %s: base %v, %v; want a delta", round, k, b.IsBase(), err)
			}
		}
		for n := 100*round + 1; n <= 100*(round+1); n++ {
			o.step(n)
			token, _ := o.Frontier()
			tokens = append(tokens, token)
		}
		cancel()
		must(t, <-done)
		if o.holds() != 100*(round+1) || o.View().Key[0] != 0 || o.Identity() != "upstream" {
			t.Errorf("round %d: %+v", round, o.View())
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "manifest")); err != nil {
		t.Error(err)
	}
}
