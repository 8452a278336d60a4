package plugins_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
)

// bench is a keeper that is open, and what it needs.
type bench struct {
	t    *testing.T
	sink core.Sink
	file string
	mode string // a file
}

func newBench(t *testing.T, change ...func(*plugins.Command)) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{t: t, file: filepath.Join(dir, "kept"), mode: filepath.Join(dir, "mode")}
	c := command(t, "keeper")
	for _, f := range change {
		f(&c)
	}
	b.sink = openSink(t, c, keeperSettings{File: b.file, Mode: b.mode})
	return b
}

// goes says what goes wrong from now on.
func (b *bench) goes(mode string) {
	b.t.Helper()
	if err := os.WriteFile(b.mode, []byte(mode), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) write(cut ...core.Batch) {
	b.t.Helper()
	if err := b.sink.Write(b.t.Context(), cut); err != nil {
		b.t.Fatal(err)
	}
}

// holds checks that the sink was written just these cuts.
func (b *bench) holds(want ...[]core.Batch) {
	b.t.Helper()
	got, _ := kept(b.t, b.file)
	if len(got) != len(want) {
		b.t.Fatalf("the plugin has %d cuts, want %d", len(got), len(want))
	}
	for i, cut := range want {
		same(b.t, got[i], cut)
	}
}

func same(t *testing.T, got []keptBatch, want []core.Batch) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("a cut of %d batches, want %d", len(got), len(want))
	}
	for i, b := range want {
		g, w := got[i], keep(b)
		if g.View != w.View || g.Lower != w.Lower || g.Upper != w.Upper || g.Sum != w.Sum || !slices.Equal(g.Columns, w.Columns) || !slices.Equal(g.Updates, w.Updates) {
			t.Errorf("got  %.300v\nwant %.300v", g, w)
		}
	}
}

func TestWrite(t *testing.T) {
	t.Parallel()
	for _, tls := range []string{"auto", "off"} {
		t.Run("tls "+tls, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, func(c *plugins.Command) { c.TLS = tls })
			summed := delta("v", 5, 7, "[3]")
			summed.Sum = 1<<64 - 1
			wide := base("v", 9, `["a",1]`)
			wide.View = &core.View{Name: "v", Columns: []core.Column{{Name: "a", Type: "text"}, {Name: "n", Type: "int8"}}, Key: []int{1, 0}}
			minus := delta("v", 9, 12)
			minus.Updates = core.UpdatesOf([]core.Update{{Time: 9, Diff: -3, Row: `["a",1]`}, {Time: 11, Diff: 2, Row: `["ü\n",2]`}})
			cuts := [][]core.Batch{
				{base("v", 5, "[1]", "[2]")},
				{summed},
				{delta("v", 7, 8)},           // progress
				{base("w", 8), base("v", 8)}, // another group
				{wide},                       // other columns
				{minus},
			}
			for _, cut := range cuts {
				b.write(cut...)
			}
			b.holds(cuts...)
			at, err := b.sink.(core.Positioner).Position(t.Context(), wide.View)
			if err != nil || at != minus.Upper {
				t.Errorf("the position is %v, %v, want %v", at, err, minus.Upper)
			}
			if at, err := b.sink.(core.Positioner).Position(t.Context(), &core.View{Name: "none"}); err != nil || !at.IsZero() {
				t.Errorf("a view without a position: %v, %v", at, err)
			}
			if err := b.sink.Close(); err != nil {
				t.Fatal(err)
			}
			if _, closed := kept(t, b.file); !closed {
				t.Error("the sink was not closed")
			}
			if err := b.sink.Close(); err != nil {
				t.Errorf("closed again: %v", err)
			}
			if err := b.sink.Write(t.Context(), cuts[0]); err == nil {
				t.Error("written after Close")
			}
		})
	}
}

// TestAwkwardSizes sends rows that are larger than a piece, and many pieces; see
// TestPieces for the rest.
func TestAwkwardSizes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	row := func(n int) string { return `["` + strings.Repeat("x", n-4) + `"]` }
	var rows []string
	for _, n := range []int{5, 900 << 10, 1100 << 10, core.MaxRowBytes} {
		rows = append(rows, row(n))
	}
	cuts := [][]core.Batch{
		{base("big", 5, rows...)},
		{base("many", 5, numbers(1e6, 100_000)...)},
		{base("a", 5), base("b", 5, numbers(0, 1e4)...), base("c", 5, row(2<<20)), base("d", 5)},
	}
	for _, cut := range cuts {
		b.write(cut...)
	}
	b.holds(cuts...)
}

// TestGroups writes many groups at the same time.
func TestGroups(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const groups, cuts = 8, 50
	var wg sync.WaitGroup
	for g := range groups {
		wg.Go(func() {
			for i := range core.Time(cuts) {
				if err := b.sink.Write(t.Context(), []core.Batch{delta(fmt.Sprint("v", g), i+1, i+2, fmt.Sprintf("[%d]", i))}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	next := make(map[string]core.Time)
	got, _ := kept(t, b.file)
	for _, cut := range got {
		v := cut[0].View
		if next[v]++; cut[0].Upper != (core.Token{Time: next[v] + 1, Generation: "g"}).String() {
			t.Fatalf("%s: cut %d ends at %s", v, next[v], cut[0].Upper)
		}
	}
	if len(got) != groups*cuts {
		t.Errorf("%d cuts, want %d", len(got), groups*cuts)
	}
}

// TestErrors maps what a sink returns there to what is seen of it here.
func TestErrors(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cut := []core.Batch{base("v", 5, "[1]")}
	pid := pidOf(b.sink)
	for mode, want := range map[string]struct {
		text    string
		forGood bool
		after   time.Duration
	}{
		"permanent": {": table is gone: trying again cannot help", true, 0},
		"later":     {": too many requests", false, 42 * time.Second},
		"long":      {": long \ufffdlong", false, 0},
		"escapes":   {": \ufffd[2Jgone\nfor now", false, 0},
	} {
		b.goes(mode)
		err := b.sink.Write(t.Context(), cut)
		if err == nil || !strings.Contains(err.Error(), want.text) || len(err.Error()) > 8<<10 {
			t.Errorf("%s: got %.300v", mode, err)
		}
		if got := errors.Is(err, core.ErrPermanent); got != want.forGood {
			t.Errorf("%s: permanent is %v", mode, got)
		}
		var later interface{ RetryAfter() time.Duration }
		if !errors.As(err, &later) || later.RetryAfter() != want.after {
			t.Errorf("%s: not before %v", mode, later)
		}
	}
	b.goes("permanent")
	if _, err := b.sink.(core.Positioner).Position(t.Context(), cut[0].View); !errors.Is(err, core.ErrPermanent) {
		t.Errorf("position: got %v, want a permanent error", err)
	}
	b.goes("")
	b.write(cut...)
	if pidOf(b.sink) != pid {
		t.Error("the process was started again because of an error of the sink")
	}
	b.holds(cut)
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	c := command(t, "keeper")
	info := describe(t, c)
	_, err := c.Sink(info).Open(t.Context(), []byte(`{"fil": 1}`))
	if !errors.Is(err, core.ErrPermanent) || !strings.Contains(err.Error(), `file: is required; fil: unknown key; did you mean "file"?`) {
		t.Errorf("got %v", err)
	}
	dir := t.TempDir()
	mode := filepath.Join(dir, "mode")
	for text, want := range map[string]bool{"gone": true, "taken": false} {
		if err := os.WriteFile(mode, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		log := &logged{}
		ctx := plugins.WithEnv(t.Context(), plugins.Env{Logger: log.logger()})
		sink, err := c.Sink(info).Open(ctx, marshal(t, keeperSettings{File: filepath.Join(dir, "f"), Mode: mode}))
		if got := errors.Is(err, core.ErrPermanent); got != want {
			t.Errorf("%s: got %v", text, err)
		}
		if sink == nil {
			continue
		}
		// What may pass is tried again with the first call, which tells it.
		if err := sink.Write(t.Context(), []core.Batch{base("v", 5)}); err == nil || !strings.Contains(err.Error(), "port taken") {
			t.Errorf("%s: got %v", text, err)
		}
		if got := sink.(plugins.Supervised).Process(); got.Up || got.Restarts != 1 || got.Err == nil || !strings.Contains(got.Err.Error(), "port taken") {
			t.Errorf("got %+v", got)
		}
		if strings.Contains(log.String(), "port taken") {
			t.Errorf("told twice:\n%s", log)
		}
		if err := os.Remove(mode); err != nil {
			t.Fatal(err)
		}
		if err := sink.Write(t.Context(), []core.Batch{base("v", 5)}); err != nil {
			t.Error(err)
		}
		if got := sink.(plugins.Supervised).Process(); !got.Up || got.Restarts != 2 || got.Err != nil {
			t.Errorf("got %+v", got)
		}
		if err := sink.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestCancel stops a write in the middle. The plugin is told, and goes on.
func TestCancel(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.goes("block")
	pid := pidOf(b.sink)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.sink.Write(ctx, []core.Batch{base("v", 5, "[1]")}) }()
	until(t, "the plugin writes", func() bool { return exists(b.file + ".writing") })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	until(t, "the plugin is told", func() bool { return exists(b.file + ".cancelled") })
	b.goes("")
	b.write(base("v", 5, "[1]"))
	b.holds([]core.Batch{base("v", 5, "[1]")})
	if pidOf(b.sink) != pid {
		t.Error("the process was started again")
	}
	if err := b.sink.Write(ctx, []core.Batch{base("v", 5)}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// TestEnds lets the process end in every phase. The call that notices says why, and
// the next one starts it again.
func TestEnds(t *testing.T) {
	t.Parallel()
	cut := []core.Batch{base("v", 5, "[1]")}
	kill := func(b *bench) {
		if err := syscall.Kill(pidOf(b.sink), syscall.SIGKILL); err != nil {
			b.t.Error(err)
		}
	}
	for name, tt := range map[string]struct {
		end  func(b *bench) error
		want string
	}{
		"between writes": {func(b *bench) error {
			b.write(cut...)
			kill(b)
			until(b.t, "it is gone", func() bool { return !b.sink.(plugins.Supervised).Process().Up })
			return nil
		}, ""},
		"in a write": {func(b *bench) error {
			b.goes("block")
			done := make(chan error, 1)
			go func() { done <- b.sink.Write(b.t.Context(), cut) }()
			until(b.t, "the plugin writes", func() bool { return exists(b.file + ".writing") })
			kill(b)
			return <-done
		}, "signal: killed"},
		"by a panic": {func(b *bench) error {
			b.goes("panic")
			return b.sink.Write(b.t.Context(), cut)
		}, `exit status 2; the last it said is "panic: boom: no more paper`},
		"on its own": {func(b *bench) error {
			b.goes("exit")
			return b.sink.Write(b.t.Context(), cut)
		}, "ended: exit status 0"},
		"while it is asked": {func(b *bench) error {
			kill(b)
			_, err := b.sink.(core.Positioner).Position(b.t.Context(), cut[0].View)
			if err == nil { // it was gone before, and was started again
				err = errors.New("signal: killed")
			}
			return err
		}, "signal: killed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			pid := pidOf(b.sink)
			if err := tt.end(b); tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) || tt.want == "" && err != nil {
				t.Errorf("got %v, want ...%s...", err, tt.want)
			} else if errors.Is(err, core.ErrPermanent) {
				t.Errorf("permanent: %v", err)
			}
			b.goes("")
			b.write(delta("v", 5, 9, "[2]"))
			got, _ := kept(t, b.file)
			same(t, got[len(got)-1], []core.Batch{delta("v", 5, 9, "[2]")})
			if s := b.sink.(plugins.Supervised).Process(); !s.Up || s.Pid == pid || s.Restarts != 1 {
				t.Errorf("got %+v, before it was %d", s, pid)
			}
			if err := b.sink.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestEndsWhileItIsSentPieces kills a process that takes none of them.
func TestEndsWhileItIsSentPieces(t *testing.T) {
	t.Parallel()
	c := command(t, "reads nothing")
	started := filepath.Join(t.TempDir(), "started")
	c.Env["STARTED"] = started
	sink := openSink(t, c, struct{}{})
	large := []core.Batch{base("v", 5, slices.Repeat([]string{strings.Repeat("x", 1<<20)}, 20)...)}
	for range 2 {
		done := make(chan error, 1)
		go func() { done <- sink.Write(t.Context(), large) }()
		until(t, "the stream is there", func() bool { return exists(started) })
		if err := syscall.Kill(pidOf(sink), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err == nil || !strings.Contains(err.Error(), "signal: killed") {
			t.Errorf("got %v, want signal: killed", err)
		}
		if err := os.Remove(started); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHangs stops the process, which then does not answer any more.
func TestHangs(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *plugins.Command) { *c = plugins.Impatient(*c, time.Minute, time.Minute, 3*time.Second) })
	cuts := [][]core.Batch{{base("v", 5)}}
	b.write(cuts[0]...)
	if err := syscall.Kill(pidOf(b.sink), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var err error
	for at := core.Time(5); err == nil; at++ { // it stops soon, and not at once
		cuts = append(cuts, []core.Batch{delta("v", at, at+1)})
		err = b.sink.Write(t.Context(), cuts[len(cuts)-1])
	}
	if !strings.Contains(err.Error(), "hangs: it did not answer the health check within 3s, and was ended") {
		t.Errorf("got %v", err)
	}
	b.write(cuts[len(cuts)-1]...)
	got, _ := kept(t, b.file)
	got = slices.CompactFunc(got, func(a, b []keptBatch) bool { return a[0].Upper == b[0].Upper }) // the last may have been applied
	if len(got) != len(cuts) {
		t.Errorf("the plugin has %d cuts, want %d", len(got), len(cuts))
	}
}

// TestDeserted lets a process live on in which nobody listens any more.
func TestDeserted(t *testing.T) {
	t.Parallel()
	c := plugins.Impatient(command(t, "deserted"), time.Minute, time.Minute, 2*time.Second)
	sink := openSink(t, c, struct{}{})
	process := sink.(plugins.Supervised).Process
	pid := process().Pid
	if err := sink.Write(t.Context(), []core.Batch{base("v", 5)}); err == nil {
		t.Error("acknowledged by nobody")
	}
	until(t, "it is ended", func() bool { return process().Pid != pid })
	if _, err := sink.(core.Positioner).Position(t.Context(), &core.View{Name: "v"}); err == nil || !strings.Contains(err.Error(), "yesterday") {
		t.Errorf("got %v", err)
	}
}

func TestHangsInOpen(t *testing.T) {
	t.Parallel()
	c := command(t, "keeper")
	info := describe(t, c)
	mode := filepath.Join(t.TempDir(), "mode")
	if err := os.WriteFile(mode, []byte("hang"), 0o600); err != nil {
		t.Fatal(err)
	}
	c = plugins.Impatient(c, time.Minute, 300*time.Millisecond, time.Minute)
	sink, err := c.Sink(info).Open(t.Context(), marshal(t, keeperSettings{File: mode + "x", Mode: mode}))
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.Write(t.Context(), []core.Batch{base("v", 5)}); err == nil || !strings.Contains(err.Error(), "hangs: it did not open within 300ms") {
		t.Errorf("got %v", err)
	}
	if err := sink.Close(); err != nil {
		t.Error(err)
	}
}

// TestOneTries lets many wait for a process that does not start: they do not start it
// one after the other.
func TestOneTries(t *testing.T) {
	t.Parallel()
	c := plugins.Impatient(command(t, "silent"), time.Second, time.Minute, time.Minute)
	sink, err := c.Sink(plugins.Info{}).Open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var writes sync.WaitGroup
	for range 8 {
		writes.Go(func() {
			if err := sink.Write(t.Context(), []core.Batch{base("v", 5)}); err == nil || !strings.Contains(err.Error(), "not said its address") {
				t.Errorf("got %v", err)
			}
		})
	}
	writes.Wait()
	if got := sink.(plugins.Supervised).Process().Restarts; got > 3 {
		t.Errorf("started again %d times", got)
	}
	if err := sink.Close(); err != nil {
		t.Error(err)
	}
}

func TestHangsInClose(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *plugins.Command) { *c = plugins.Impatient(*c, time.Minute, time.Minute, time.Minute) })
	b.write(base("v", 5))
	b.goes("stuck")
	pid := pidOf(b.sink)
	if err := b.sink.Close(); err == nil || !strings.Contains(err.Error(), "hangs: it did not close within 300ms") {
		t.Errorf("got %v", err)
	}
	if alive(pid) {
		t.Error("the process is still there")
	}
}

// TestModel writes random cuts, with processes that are killed at any time. A cut
// that fails comes again; what the plugin has is every cut, in order, at least
// once.
func TestModel(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	b := newBench(t)
	var want []string
	at := core.Time(1)
	for range 12 {
		next := at + 1 + core.Time(rnd.IntN(5))
		cut := []core.Batch{delta("v", at, next, numbers(rnd.IntN(1000), rnd.IntN(5000))...), delta("w", at, next)}
		victim := pidOf(b.sink)
		killed := make(chan struct{})
		wait := time.NewTimer(time.Duration(rnd.IntN(20)) * time.Millisecond)
		go func() {
			defer close(killed)
			<-wait.C
			if victim > 0 {
				syscall.Kill(victim, syscall.SIGKILL)
			}
		}()
		for tries := 0; b.sink.Write(t.Context(), cut) != nil; tries++ {
			if tries > 3 {
				t.Fatalf("seed %d: the cut to %d fails again and again", seed, next)
			}
		}
		<-killed
		want = append(want, cut[0].Upper.String())
		at = next
	}
	got, _ := kept(t, b.file)
	var uppers []string
	for _, cut := range got {
		uppers = append(uppers, cut[0].Upper)
	}
	if uppers = slices.Compact(uppers); !slices.Equal(uppers, want) {
		t.Errorf("seed %d: the plugin was written\n%v, want\n%v", seed, uppers, want)
	}
}
