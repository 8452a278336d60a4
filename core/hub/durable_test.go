package hub_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/durable/durabletest"
	"github.com/mzdio/mzd/core/hub"
	"github.com/mzdio/mzd/core/viewlog"
)

// process is a hub on a file system that outlives it.
type process struct {
	*hub.Hub
	log  bytes.Buffer
	end  context.CancelFunc
	done chan error
}

// launch runs a hub until stop or kill.
func launch(t *testing.T, o hub.Options) *process {
	t.Helper()
	p, err := newProcess(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newProcess(o hub.Options) (*process, error) {
	p := &process{done: make(chan error, 1)}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(&p.log, nil))
	}
	if o.Dir == "" {
		o.Dir = "data"
	}
	h, err := hub.New(o)
	if err != nil {
		return nil, err
	}
	p.Hub = h
	ctx, end := context.WithCancel(context.Background())
	p.end = end
	go func() { p.done <- h.Run(ctx) }()
	return p, nil
}

// stop ends the hub in order.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.end()
	if err := <-p.done; err != nil {
		t.Errorf("run: %v", err)
	}
}

// kill ends the hub with its file system, as SIGKILL does, and returns what the
// next process finds.
func (p *process) kill(fs *durabletest.FS) *durabletest.FS {
	after := fs.Kill()
	p.end()
	<-p.done
	return after
}

// tokens is a sink that notes whole tokens, and refuses while told to.
type tokens struct {
	recorder
	writes []string
}

func (s *tokens) Write(ctx context.Context, cut []core.Batch) error {
	s.mu.Lock()
	for _, b := range cut {
		s.writes = append(s.writes, fmt.Sprintf("%s %s..%s %v", b.View.Name, b.Lower, b.Upper, b.Updates))
	}
	s.mu.Unlock()
	return s.recorder.Write(ctx, cut)
}

func (s *tokens) last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes[len(s.writes)-1]
}

func TestRestartContinues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs, u, r := durabletest.New(), &upstream{}, &tokens{}
		options := func() hub.Options {
			return hub.Options{
				Views: []hub.View{{Name: "v"}}, Subscribe: u.subscribe, FS: fs,
				Sinks: []hub.Sink{{Name: "out", Sink: r, Views: []string{"v"}}},
			}
		}
		s := u.offer("v", &stream{columns: oneColumn, identity: "env"})
		p := launch(t, options())
		s.batches <- batch(0, 10, "a+1 b+2")
		equal(t, "snapshot", r.take(), "v[0,10) a+1 b+2")
		s.batches <- batch(10, 12, "a-1")
		equal(t, "change", r.take(), "v[10,12) a-1")
		p.stop(t)

		// In order: nothing comes again; the upstream is asked for what is new.
		s = u.offer("v", &stream{columns: oneColumn, identity: "env", resumed: true})
		p = launch(t, options())
		synctest.Wait()
		if last := u.opened[len(u.opened)-1]; last.Upper != 12 || last.Identity != "env" {
			t.Errorf("resumed with %+v, want Upper 12 and env", last)
		}
		s.batches <- batch(12, 14, "c+1")
		equal(t, "after an orderly restart", strings.ReplaceAll(r.take(), "v[12,12); ", ""), "v[12,14) c+1")

		// Killed while the sink is away: the attempt comes again as it was,
		// though there is more by then.
		r.setRefuse(errors.New("away"))
		s.batches <- batch(14, 16, "d+1")
		equal(t, "refused", r.take(), "refused v[14,16) d+1")
		attempt := r.last()
		s.batches <- batch(16, 18, "e+1")
		synctest.Wait()
		fs = p.kill(fs)
		r.take()
		s = u.offer("v", &stream{columns: oneColumn, identity: "env", resumed: true})
		p = launch(t, options())
		synctest.Wait()
		if got := r.last(); got != attempt {
			t.Errorf("the attempt after a kill:\n got %s\nwant %s", got, attempt)
		}
		status := p.Status().Sinks[0].Views[0]
		if !strings.HasPrefix(status.Token, "14-") || status.Attempt == nil || !strings.HasPrefix(status.Attempt.To, "16-") {
			t.Errorf("status: %+v, attempt %+v; want position 14 and an attempt to 16", status, status.Attempt)
		}
		r.setRefuse(nil)
		r.take()
		<-time.After(time.Minute)
		equal(t, "when the sink is back", r.take(), "v[14,16) d+1; v[16,18) e+1")

		// A sink that is new begins with a base, whatever the log is.
		more := &recorder{}
		fs = p.kill(fs)
		u.offer("v", &stream{columns: oneColumn, identity: "env", resumed: true})
		o := options()
		o.Sinks = append(o.Sinks, hub.Sink{Name: "more", Sink: more, Views: []string{"v"}})
		p = launch(t, o)
		equal(t, "a new sink", more.take(), "v[0,18) b+2 c+1 d+1 e+1")
		p.stop(t)
	})
}

// gated is a sink whose writes wait to be let through, and end with their context.
type gated struct {
	recorder
	gate chan error // what a write returns
}

func (s *gated) Write(ctx context.Context, cut []core.Batch) error {
	err := s.recorder.Write(ctx, cut)
	if ctx.Err() != nil {
		return errors.Join(err, errors.New("begun when all was over"))
	}
	select {
	case answer := <-s.gate:
		return errors.Join(err, answer)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestStopRepeatsNothing stops mzd in the middle of a write, which is answered then,
// and between its announcement and its begin: what was taken does not come again, and
// what was not written comes.
func TestStopRepeatsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs, u, r := durabletest.New(), &upstream{}, &gated{gate: make(chan error, 1)}
		var p *process
		begin := func() *stream {
			s := u.offer("v", &stream{columns: oneColumn, identity: "env", resumed: p != nil})
			p = launch(t, hub.Options{
				Views: []hub.View{{Name: "v"}}, Subscribe: u.subscribe, FS: fs,
				Sinks: []hub.Sink{{Name: "out", Sink: r, Views: []string{"v"}}},
			})
			synctest.Wait() // what there is to write is being written
			return s
		}
		s := begin()
		s.batches <- batch(0, 10, "a+1")
		equal(t, "the first", r.take(), "v[0,10) a+1")
		p.end()
		<-time.After(time.Second)
		r.gate <- nil
		p.stop(t)

		s = begin()
		r.gate <- nil // the new generation
		s.batches <- batch(10, 12, "b+1")
		equal(t, "after an answer on the way down", r.take(), "v[10,10); v[10,12) b+1")
		s.batches <- batch(12, 14, "c+1")
		synctest.Wait()
		wake := fs.Hang()
		r.gate <- nil
		synctest.Wait() // the next one is being announced
		p.end()
		synctest.Wait()
		wake()
		p.stop(t)
		equal(t, "written on the way down", r.take(), "")

		begin()
		equal(t, "announced, but not written", r.take(), "v[12,14) c+1")
		p.end()
		<-time.After(time.Second)
		r.gate <- errors.New("away")
		p.stop(t)
		begin()
		equal(t, "refused on the way down", r.take(), "v[12,14) c+1")
		begun := time.Now()
		p.stop(t)
		if took := time.Since(begun); took != 5*time.Second {
			t.Errorf("a sink that does not answer held up the end for %s, want 5s", took)
		}
	})
}

// TestSkippedSnapshotIsAPosition restarts a sink that was never written
// anything: what happens meanwhile is not lost.
func TestSkippedSnapshotIsAPosition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs, u, r := durabletest.New(), &upstream{}, &recorder{}
		options := func() hub.Options {
			return hub.Options{
				Views: []hub.View{{Name: "v"}}, Subscribe: u.subscribe, FS: fs,
				Sinks: []hub.Sink{{Name: "late", Sink: r, Views: []string{"v"}, SkipSnapshot: true}},
			}
		}
		s := u.offer("v", &stream{columns: oneColumn, identity: "env"})
		p := launch(t, options())
		s.batches <- batch(0, 10, "a+1")
		equal(t, "snapshot", r.take(), "")
		fs = p.kill(fs)
		u.offer("v", &stream{columns: oneColumn, identity: "env"})
		s = u.streams["v"]
		r.setRefuse(errors.New("away"))
		p = launch(t, options())
		s.batches <- batch(0, 20, "a+1 b+1")
		<-time.After(time.Minute)
		p.kill(fs)
		r.setRefuse(nil)
		got := r.take()
		if !strings.Contains(got, "v[10,") || strings.Contains(got, "a+1") || strings.Contains(got, "v[0,") {
			t.Errorf("after a restart: %s; want changes from 10 on", got)
		}
	})
}

// TestTogetherAndBack changes cut: with an attempt under way.
func TestTogetherAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs, u, r := durabletest.New(), &upstream{}, &recorder{}
		var p *process
		var a, b *stream
		begin := func(together bool, views ...string) {
			a = u.offer("a", &stream{columns: oneColumn, identity: "env", resumed: p != nil})
			b = u.offer("b", &stream{columns: oneColumn, identity: "env", resumed: p != nil})
			p = launch(t, hub.Options{
				Views: []hub.View{{Name: "a"}, {Name: "b"}}, Subscribe: u.subscribe, FS: fs,
				Sinks: []hub.Sink{{Name: "out", Sink: r, Views: views, Together: together}},
			})
		}
		begin(true, "a", "b")
		a.batches <- batch(0, 10, "x+1")
		b.batches <- batch(0, 10, "y+1")
		equal(t, "together", r.take(), "a[0,10) x+1 | b[0,10) y+1")
		r.setRefuse(errors.New("away"))
		a.batches <- batch(10, 12, "x+1")
		b.batches <- batch(10, 12, "y+1")
		equal(t, "refused", r.take(), "refused a[10,12) x+1 | b[10,12) y+1")
		fs = p.kill(fs)

		// Each view makes its part of the attempt again.
		begin(false, "a", "b")
		got := r.take()
		if !strings.Contains(got, "refused a[10,12) x+1") || !strings.Contains(got, "refused b[10,12) y+1") {
			t.Errorf("separate: %s", got)
		}
		a.batches <- batch(12, 14, "z+1")
		r.setRefuse(nil)
		<-time.After(time.Minute)
		got = r.take()
		if !strings.Contains(got, "a[12,14) z+1") || strings.Contains(got, "[0,") {
			t.Errorf("separate, taken: %s", got)
		}

		// Together again, at different positions but without an attempt.
		fs = p.kill(fs)
		begin(true, "a", "b")
		b.batches <- batch(12, 14, "")
		equal(t, "together again", r.take(), "a[14,14) | b[12,14)")

		// One of two attempts cannot be a cut: only bases are right.
		fs = p.kill(fs)
		begin(false, "a", "b")
		r.take()
		r.setRefuse(errors.New("away"))
		a.batches <- batch(14, 16, "w+1")
		r.take()
		fs = p.kill(fs)
		r.setRefuse(nil)
		begin(true, "a", "b")
		b.batches <- batch(14, 16, "")
		if got := r.take(); !strings.HasPrefix(got, "a[0,") || !strings.Contains(got, " | b[0,") || !strings.Contains(got, "w+1") {
			t.Errorf("an attempt of one: %s; want bases of both", got)
		}
		if !strings.Contains(p.log.String(), "cannot be written again") {
			t.Errorf("no word about it in the log:\n%s", p.log.String())
		}

		// A view that leaves and comes back goes on where it was.
		p.stop(t)
		begin(true, "b")
		b.batches <- batch(16, 18, "y-1")
		equal(t, "without a", lastOf(r.take()), "b[16,18) y-1")
		p.stop(t)
		begin(true, "a", "b")
		a.batches <- batch(16, 18, "w-1")
		equal(t, "with a", lastOf(r.take()), "a[16,18) w-1 | b[18,18)")
		p.stop(t)
	})
}

// TestConstantJoinsACut has a sink that stands at the end of time with a constant,
// and is to get it together with a view that moves.
func TestConstantJoinsACut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs, u, r := durabletest.New(), &upstream{}, &recorder{}
		var p *process
		begin := func(together bool) (a, b *stream) {
			a = u.offer("a", &stream{columns: oneColumn, identity: "env"})
			b = u.offer("b", &stream{columns: oneColumn, identity: "env", resumed: p != nil})
			p = launch(t, hub.Options{
				Views: []hub.View{{Name: "a"}, {Name: "b"}}, Subscribe: u.subscribe, FS: fs,
				Sinks: []hub.Sink{{Name: "out", Sink: r, Views: []string{"a", "b"}, Together: together}},
			})
			return a, b
		}
		a, b := begin(false)
		b.batches <- batch(0, 10, "y+1")
		equal(t, "what moves", r.take(), "b[0,10) y+1")
		a.batches <- batch(0, core.EndOfTime, "x+1")
		equal(t, "the constant", r.take(), fmt.Sprintf("a[0,%d) x+1", core.EndOfTime))
		p.stop(t)

		a, b = begin(true)
		equal(t, "together", r.take(), "a[0,10) x+1 | b[10,10)")
		b.batches <- batch(10, 20, "y+1")
		equal(t, "what moves moves it", r.take(), "a[10,20) | b[10,20) y+1")
		a.batches <- batch(0, core.EndOfTime, "x+1") // it is asked for again
		b.batches <- batch(20, 30, "y-1")
		equal(t, "and on", r.take(), "a[20,30) | b[20,30) y-1")
		p.stop(t)
	})
}

func lastOf(cuts string) string {
	parts := strings.Split(cuts, "; ")
	return parts[len(parts)-1]
}

// positioner keeps its own position.
type positioner struct {
	recorder
	at  core.Token
	err error
}

func (s *positioner) Write(ctx context.Context, cut []core.Batch) error {
	err := s.recorder.Write(ctx, cut)
	if err == nil || err == errApplied {
		s.set(cut[0].Upper, nil)
	}
	return err
}

func (s *positioner) Position(context.Context, *core.View) (core.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at, s.err
}

func (s *positioner) set(at core.Token, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at, s.err = at, err
}

var errApplied = errors.New("connection lost")

func TestPositionerWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs, u, r := durabletest.New(), &upstream{}, &positioner{}
		var p *process
		begin := func() *stream {
			s := u.offer("v", &stream{columns: oneColumn, identity: "env", resumed: p != nil})
			p = launch(t, hub.Options{
				Views: []hub.View{{Name: "v"}}, Subscribe: u.subscribe, FS: fs,
				Sinks: []hub.Sink{{Name: "own", Sink: r, Views: []string{"v"}}},
			})
			return s
		}
		s := begin()
		s.batches <- batch(0, 10, "a+1")
		equal(t, "snapshot", r.take(), "v[0,10) a+1")
		ten := r.at

		r.setRefuse(errApplied)
		s.batches <- batch(10, 12, "b+1")
		r.take()
		fs = p.kill(fs)
		r.setRefuse(nil)
		r.take()
		s = begin()
		s.batches <- batch(12, 14, "c+1")
		equal(t, "applied, but not acknowledged", lastOf(r.take()), "v[12,14) c+1")

		fs = p.kill(fs)
		r.set(ten, nil)
		s = begin()
		equal(t, "set back", lastOf(r.take()), "v[10,14) b+1 c+1")

		fs = p.kill(fs)
		r.set(core.Token{}, nil)
		s = begin()
		equal(t, "emptied", lastOf(r.take()), "v[0,14) a+1 b+1 c+1")

		fs = p.kill(fs)
		r.set(r.at, errors.New("no connection"))
		s = begin()
		equal(t, "unreachable", r.take(), "")
		r.set(r.at, nil)
		<-time.After(time.Minute)
		s.batches <- batch(14, 15, "d+1")
		equal(t, "reachable", lastOf(r.take()), "v[14,15) d+1")
		p.stop(t)
	})
}

// TestAnotherUpstreamMeanwhile restarts with an attempt of a history that is
// gone.
func TestAnotherUpstreamMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs, u, r := durabletest.New(), &upstream{}, &recorder{}
		options := func() hub.Options {
			return hub.Options{
				Views: []hub.View{{Name: "v"}}, Subscribe: u.subscribe, FS: fs,
				Sinks: []hub.Sink{{Name: "out", Sink: r, Views: []string{"v"}, SkipSnapshot: true}},
			}
		}
		s := u.offer("v", &stream{columns: oneColumn, identity: "env1"})
		p := launch(t, options())
		s.batches <- batch(0, 10, "a+1")
		r.take()
		r.setRefuse(errors.New("away"))
		s.batches <- batch(10, 12, "b+1")
		equal(t, "attempt", r.take(), "refused v[10,12) b+1")
		fs = p.kill(fs)
		r.take()
		s = u.offer("v", &stream{columns: oneColumn, identity: "env2"})
		p = launch(t, options())
		synctest.Wait()
		s.batches <- batch(0, 7, "z+1")
		<-time.After(time.Minute)
		fs = p.kill(fs)
		r.setRefuse(nil)
		r.take()
		u.offer("v", &stream{columns: oneColumn, identity: "env2", resumed: true})
		p = launch(t, options())
		<-time.After(time.Minute)
		equal(t, "base, though it skips snapshots", r.take(), "v[0,7) z+1")
		if !strings.Contains(p.log.String(), "sink gets whole views") {
			t.Errorf("no word about it in the log:\n%s", p.log.String())
		}
		p.stop(t)
	})
}

// TestLogGone removes the log, but not the positions.
func TestLogGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, u, r := t.TempDir(), &upstream{}, &recorder{}
		options := hub.Options{
			Views: []hub.View{{Name: "a/b"}}, Subscribe: u.subscribe, Dir: dir,
			Sinks: []hub.Sink{{Name: "out", Sink: r, Views: []string{"a/b"}, SkipSnapshot: true}},
		}
		s := u.offer("a/b", &stream{columns: oneColumn, identity: "env"})
		p := launch(t, options)
		s.batches <- batch(0, 10, "a+1")
		s.batches <- batch(10, 12, "b+1")
		<-time.After(time.Minute)
		p.stop(t)
		r.take()
		if err := os.RemoveAll(filepath.Join(dir, "views", "a%2Fb")); err != nil {
			t.Fatal(err)
		}
		s = u.offer("a/b", &stream{columns: oneColumn, identity: "env"})
		p = launch(t, options)
		s.batches <- batch(0, 20, "a+1 b+1 c+1")
		<-time.After(time.Minute)
		equal(t, "base", r.take(), "a/b[0,20) a+1 b+1 c+1")
		p.stop(t)
		if !strings.Contains(p.log.String(), "sink gets the whole view") {
			t.Errorf("no word about it in the log:\n%s", p.log.String())
		}

		// What leaves the configuration stays on disk, and is mentioned.
		options.Views, options.Sinks = []hub.View{{Name: "c"}}, nil
		p = launch(t, options)
		p.stop(t)
		for _, want := range []string{"view=a/b", "sink=out"} {
			if !strings.Contains(p.log.String(), want) {
				t.Errorf("no %s in the log:\n%s", want, p.log.String())
			}
		}
		if saved, err := hub.SavedPositions(dir); err != nil || len(saved) != 1 || saved[0].Position.Time != 20 {
			t.Errorf("saved positions: %+v, %v; want one at 20", saved, err)
		}
	})
}

// TestKeyChange begins a new history: what a row is to its readers has changed.
func TestKeyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs, u := durabletest.New(), &upstream{}
		options := func(key ...string) hub.Options {
			return hub.Options{Views: []hub.View{{Name: "v", Key: key}}, Subscribe: u.subscribe, FS: fs}
		}
		s := u.offer("v", &stream{columns: oneColumn, identity: "env"})
		p := launch(t, options())
		s.batches <- batch(0, 10, "a+1")
		synctest.Wait()
		fs = p.kill(fs)
		s = u.offer("v", &stream{columns: oneColumn, identity: "env"})
		p = launch(t, options("c"))
		synctest.Wait()
		if last := u.opened[len(u.opened)-1]; last.Upper != 0 || last.Identity != "" {
			t.Errorf("asked for %+v, want the whole view", last)
		}
		before := p.Status().Views[0].Token
		s.batches <- batch(0, 20, "a+1")
		synctest.Wait()
		after := p.Status().Views[0]
		_, g1, _ := strings.Cut(before, "-")
		_, g2, _ := strings.Cut(after.Token, "-")
		if g1 == g2 || len(p.Reader("v").View().Key) != 1 {
			t.Errorf("tokens %s and %s, key %v; want a new history with the key", before, after.Token, p.Reader("v").View().Key)
		}
		p.stop(t)
	})
}

// TestSealedViewAfterRestart asks again, and changes nothing.
func TestSealedViewAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs, u, r := durabletest.New(), &upstream{}, &recorder{}
		var p *process
		for i, want := range []string{fmt.Sprintf("v[0,%d) a+1", core.EndOfTime), fmt.Sprintf("v[%d,%[1]d)", core.EndOfTime)} {
			s := u.offer("v", &stream{columns: oneColumn, identity: "env"})
			p = launch(t, hub.Options{
				Views: []hub.View{{Name: "v"}}, Subscribe: u.subscribe, FS: fs,
				Sinks: []hub.Sink{{Name: "out", Sink: r, Views: []string{"v"}}},
			})
			s.batches <- batch(0, core.EndOfTime, "a+1")
			equal(t, fmt.Sprint("process ", i), r.take(), want)
			if st := p.Status().Views[0]; st.State != hub.Sealed {
				t.Errorf("state %s, want sealed", st.State)
			}
			p.stop(t)
		}
	})
}

// TestDiskFull lets views go on and sinks wait, and says so.
func TestDiskFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs, u, r := durabletest.New(), &upstream{}, &recorder{}
		s := u.offer("v", &stream{columns: oneColumn, identity: "env"})
		p := launch(t, hub.Options{
			Views: []hub.View{{Name: "v"}}, Subscribe: u.subscribe, FS: fs,
			Sinks: []hub.Sink{{Name: "out", Sink: r, Views: []string{"v"}}},
		})
		s.batches <- batch(0, 10, "a+1")
		equal(t, "before", r.take(), "v[0,10) a+1")
		fs.Fail(func(_ int, op string) error {
			if op == "write" {
				return syscall.ENOSPC
			}
			return nil
		})
		s.batches <- batch(10, 12, "b+1")
		s.batches <- batch(12, 14, "c+1")
		<-time.After(time.Minute)
		equal(t, "while full", r.take(), "")
		v := p.Status().Views[0]
		if !strings.HasPrefix(v.Token, "14-") || !strings.HasPrefix(v.Durable, "10-") || v.DiskTrouble == "" {
			t.Errorf("status: %+v; want 14 known, 10 durable, and trouble", v)
		}
		if err := p.Disk(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("disk: %v, want no space", err)
		}
		fs.Fail(nil)
		<-time.After(time.Minute)
		equal(t, "after", r.take(), "v[10,14) b+1 c+1")
		if err := p.Disk(); err != nil {
			t.Errorf("disk: %v, want nothing", err)
		}
		p.stop(t)
	})
}

// TestFilesAreMeasured looks at what operators are told about logs on disk.
func TestFilesAreMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs, u, registry := durabletest.New(), &upstream{}, prometheus.NewPedanticRegistry()
		s := u.offer("v", &stream{columns: oneColumn, identity: "env"})
		p := launch(t, hub.Options{Views: []hub.View{{Name: "v"}}, Subscribe: u.subscribe, FS: fs, Registerer: registry})
		s.batches <- batch(0, 10, "a+1")
		for i := range core.Time(3) {
			synctest.Wait()
			s.batches <- batch(10+i, 11+i, "b+1")
		}
		synctest.Wait()
		// The header of the segment, the base, and three changes.
		if n := syncs(t, registry); n != 5 {
			t.Errorf("mzd_log_fsync_duration_seconds has %d syncs, want 5", n)
		}
		if got, want := p.Status().Views[0].DiskBytes, len(fs.Files()["data/views/v/00000001.log"]); got != int64(want) {
			t.Errorf("log_disk_bytes: %d, want %d", got, want)
		}
		p.stop(t)
	})
}

// syncs returns how many syncs of logs were measured.
func syncs(t *testing.T, g prometheus.Gatherer) uint64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "mzd_log_fsync_duration_seconds" {
			return f.Metric[0].Histogram.GetSampleCount()
		}
	}
	t.Fatal("no mzd_log_fsync_duration_seconds")
	return 0
}

// positionsFile runs a sink over a few cuts and returns its file.
func positionsFile(t *testing.T, fs *durabletest.FS) []byte {
	t.Helper()
	u, r := &upstream{}, &recorder{}
	s := u.offer("v", &stream{columns: oneColumn, identity: "env"})
	p := launch(t, hub.Options{
		Views: []hub.View{{Name: "v"}}, Subscribe: u.subscribe, FS: fs,
		Sinks: []hub.Sink{{Name: "out", Sink: r, Views: []string{"v"}}},
	})
	s.batches <- batch(0, 10, "a+1")
	for i := range 5 {
		s.batches <- batch(core.Time(10+i), core.Time(11+i), "b+1")
		synctest.Wait()
	}
	p.stop(t)
	data, err := fs.ReadFile("data/sinks/out.positions")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestPositionsDamage cuts the file at every byte and flips every byte: the
// positions are those of some line, or the file is refused by name and offset.
func TestPositionsDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := durabletest.New()
		data := positionsFile(t, fs)
		firstLine := bytes.IndexByte(data, '\n') + 1
		open := func(data []byte) error {
			put(t, fs, "data/sinks/out.positions", data)
			_, err := hub.New(hub.Options{
				Subscribe: (&upstream{}).subscribe, Dir: "data", FS: fs,
				Sinks: []hub.Sink{{Name: "out", Sink: &recorder{}}},
			})
			return err
		}
		lastLine := bytes.LastIndexByte(data[:len(data)-1], '\n') + 1
		check := func(what string, err error, refused bool) {
			t.Helper()
			if (err != nil) != refused || err != nil && !strings.Contains(err.Error(), "out.positions is damaged at offset") {
				t.Errorf("%s: %v; want refused: %v", what, err, refused)
			}
		}
		for n := range data {
			check(fmt.Sprint("cut at ", n), open(data[:n]), n < firstLine)
			flipped := bytes.Clone(data)
			flipped[n] ^= 0x20
			check(fmt.Sprint("flipped at ", n), open(flipped), n < lastLine)
		}
		check("of another sink", func() error {
			put(t, fs, "data/sinks/other.positions", data)
			_, err := hub.New(hub.Options{
				Views: []hub.View{{Name: "v"}}, Subscribe: (&upstream{}).subscribe, Dir: "data", FS: fs,
				Sinks: []hub.Sink{{Name: "other", Sink: &recorder{}, Views: []string{"v"}}},
			})
			if err != nil {
				err = errors.New(strings.ReplaceAll(err.Error(), "other.positions", "out.positions"))
			}
			return err
		}(), true)
	})
}

func put(t *testing.T, fs *durabletest.FS, path string, data []byte) {
	t.Helper()
	f, err := fs.Open(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY)
	if err == nil {
		_, err = io.Copy(f, bytes.NewReader(data))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestDamagedLogIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := durabletest.New()
		positionsFile(t, fs)
		data, err := fs.ReadFile("data/views/v/manifest")
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		put(t, fs, "data/views/v/manifest", data)
		_, err = hub.New(hub.Options{Views: []hub.View{{Name: "v"}}, Subscribe: (&upstream{}).subscribe, Dir: "data", FS: fs})
		var damage *viewlog.DamageError
		if !errors.As(err, &damage) || damage.File != "data/views/v/manifest" {
			t.Errorf("got %v, want damage of the manifest", err)
		}
	})
}
