package plugins_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
)

// landing is what a daemon does with events.
type landing struct {
	events []core.Event
	calls  int
	fail   func(n int) error // after n events
}

func (l *landing) emit(_ context.Context, events ...core.Event) error {
	l.calls++
	if l.fail != nil {
		if err := l.fail(len(l.events)); err != nil {
			return err
		}
	}
	l.events = append(l.events, events...)
	return nil
}

func TestSource(t *testing.T) {
	t.Parallel()
	for _, tls := range []string{"auto", "off"} {
		t.Run("tls "+tls, func(t *testing.T) {
			t.Parallel()
			c := command(t, "count")
			c.TLS = tls
			source := openSource(t, c, counterSettings{To: 4200}) // more than the window
			var l landing
			if err := source.Run(t.Context(), "3", l.emit); err != nil {
				t.Fatal(err)
			}
			if got, want := len(l.events), 4197; got != want {
				t.Fatalf("%d events, want %d", got, want)
			}
			for i, e := range l.events {
				text := fmt.Sprint(i + 4)
				if e.ID != "id"+text || e.Cursor != text || string(e.Data) != text || !e.Time.Equal(time.Unix(int64(i+4), 0)) {
					t.Fatalf("event %d: %+v", i, e)
				}
			}
			i := source.(interface {
				core.Identifier
				IdentifyAll(events [][]byte) []string
			})
			if one, all := i.Identify([]byte("7")), i.IdentifyAll([][]byte{[]byte("8"), {}, []byte("9")}); one != "id7" || !slices.Equal(all, []string{"id8", "id", "id9"}) {
				t.Errorf("got %q and %q", one, all)
			}
			// It goes on in the same process.
			pid := pidOf(source)
			if err := source.Run(t.Context(), "4199", l.emit); err != nil || len(l.events) != 4198 {
				t.Errorf("%d events, %v", len(l.events), err)
			}
			if pidOf(source) != pid {
				t.Error("the process was started again")
			}
		})
	}
}

// TestConnected checks that a source can say that it is connected before it has
// anything else to say.
func TestConnected(t *testing.T) {
	t.Parallel()
	source := openSource(t, command(t, "count"), counterSettings{To: 0})
	var l landing
	if err := source.Run(t.Context(), "10", l.emit); err != nil || l.calls != 1 || len(l.events) != 0 {
		t.Errorf("got %d calls with %d events, %v", l.calls, len(l.events), err)
	}
}

// TestBulk emits more than the window, and large events, in one call.
func TestBulk(t *testing.T) {
	t.Parallel()
	source := openSource(t, command(t, "count"), counterSettings{To: 0, Mode: "bulk"})
	var l landing
	if err := source.Run(t.Context(), "", l.emit); err != nil {
		t.Fatal(err)
	}
	if got, want := len(l.events), 10_004; got != want {
		t.Fatalf("%d events, want %d", got, want)
	}
	for i, e := range l.events[:10_000] {
		if e.Cursor != fmt.Sprint(i) {
			t.Fatalf("event %d is %+v", i, e)
		}
	}
	if got := len(l.events[10_003].Data); got != 31<<20 {
		t.Errorf("the largest has %d bytes", got)
	}
}

// TestSourceErrors maps errors in both ways.
func TestSourceErrors(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]struct {
		text    string
		forGood bool
		after   time.Duration
	}{
		"fail":      {": stream broke", false, 42 * time.Second},
		"permanent": {": no such stream: trying again cannot help", true, 0},
		"panic":     {`the last it said is "panic: boom"`, false, 0},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			source := openSource(t, command(t, "count"), counterSettings{To: 3, Mode: mode})
			for range 2 { // again too
				var l landing
				err := source.Run(t.Context(), "", l.emit)
				if err == nil || !strings.Contains(err.Error(), want.text) || errors.Is(err, core.ErrPermanent) != want.forGood || len(l.events) != 3 {
					t.Errorf("got %d events and %v", len(l.events), err)
				}
				var later interface{ RetryAfter() time.Duration }
				if errors.As(err, &later); want.after != 0 && (later == nil || later.RetryAfter() != want.after) {
					t.Errorf("not before %v", later)
				}
			}
		})
	}
	for _, landErr := range []error{errors.New("disk full"), fmt.Errorf("no such table: %w", core.ErrPermanent)} {
		t.Run(landErr.Error(), func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "said")
			source := openSource(t, command(t, "count"), counterSettings{To: 100, File: file})
			l := landing{fail: func(n int) error {
				if n > 10 {
					return landErr
				}
				return nil
			}}
			if err := source.Run(t.Context(), "", l.emit); !errors.Is(err, landErr) {
				t.Errorf("got %v, want %v", err, landErr)
			}
			want := fmt.Sprintf("%v permanent=%v", landErr, errors.Is(landErr, core.ErrPermanent))
			until(t, "the plugin has seen the error", func() bool {
				text, _ := os.ReadFile(file)
				return strings.Contains(string(text), want)
			})
			// It begins again where the events are durable.
			l.fail = nil
			if err := source.Run(t.Context(), l.events[len(l.events)-1].Cursor, l.emit); err != nil || len(l.events) != 100 {
				t.Errorf("%d events, %v", len(l.events), err)
			}
		})
	}
}

// TestSourceGoesOn lets a source go on whose events cannot be landed. Its process is
// ended, or the next run would wait for it.
func TestSourceGoesOn(t *testing.T) {
	t.Parallel()
	c := plugins.Impatient(command(t, "count"), time.Minute, time.Minute, time.Minute)
	source := openSource(t, c, counterSettings{To: 5, Mode: "deaf"})
	pid := pidOf(source)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	full := errors.New("disk full")
	l := landing{fail: func(int) error { return full }}
	if err := source.Run(ctx, "", l.emit); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
	l.fail = nil
	if err := source.Run(ctx, "", l.emit); err != nil || len(l.events) != 5 {
		t.Errorf("%d events, %v", len(l.events), err)
	}
	if pidOf(source) == pid {
		t.Error("the process was not started again")
	}
}

// TestIdentifyStartsNothing asks a plugin that has ended for IDs: it is asked for
// many, while everything else waits.
func TestIdentifyStartsNothing(t *testing.T) {
	t.Parallel()
	source := openSource(t, command(t, "count"), counterSettings{To: 1})
	if err := syscall.Kill(pidOf(source), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "it is gone", func() bool { return !source.(plugins.Supervised).Process().Up })
	if id := source.(core.Identifier).Identify([]byte("1")); id != "" {
		t.Errorf("got %q", id)
	}
	if got := source.(plugins.Supervised).Process(); got.Up || got.Restarts != 0 {
		t.Errorf("got %+v", got)
	}
	var l landing
	if err := source.Run(t.Context(), "", l.emit); err != nil || len(l.events) != 1 {
		t.Errorf("%d events, %v", len(l.events), err)
	}
}

func TestSourceStops(t *testing.T) {
	t.Parallel()
	source := openSource(t, command(t, "count"), counterSettings{To: 3, Mode: "stay"})
	pid := pidOf(source)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	emit := func(_ context.Context, events ...core.Event) error {
		if len(events) > 0 && events[len(events)-1].Cursor == "3" {
			cancel()
		}
		return nil
	}
	if err := source.Run(ctx, "", emit); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if alive(pid) {
		t.Error("the process outlives Run")
	}
}

// TestSourceIsKilled kills the process again and again. Every event is landed, in
// order, and some twice.
func TestSourceIsKilled(t *testing.T) {
	t.Parallel()
	const all = 5000
	source := openSource(t, command(t, "count"), counterSettings{To: all})
	cursor, last := "", 0
	var kills atomic.Int64
	emit := func(_ context.Context, events ...core.Event) error {
		for _, e := range events {
			var n int
			fmt.Sscan(e.Cursor, &n)
			if n > last+1 {
				t.Fatalf("event %d after event %d", n, last)
			}
			last, cursor = n, e.Cursor
		}
		if int64(last) > 500*kills.Load() && kills.Load() < 8 {
			kills.Add(1)
			syscall.Kill(pidOf(source), syscall.SIGKILL)
		}
		return nil
	}
	for last < all {
		if err := source.Run(t.Context(), cursor, emit); err != nil && !strings.Contains(err.Error(), "signal: killed") {
			t.Fatal(err)
		}
	}
	if got := source.(plugins.Supervised).Process().Restarts; got != 8 {
		t.Errorf("%d restarts, want 8", got)
	}
}
