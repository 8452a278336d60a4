package ingest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/backoff"
	"github.com/mzdio/mzd/core/ingest"
)

// script is a source that does something else each time it is run.
type script []func(ctx context.Context, cursor string, emit core.EmitFunc) error

func (s *script) Run(ctx context.Context, cursor string, emit core.EmitFunc) error {
	if len(*s) == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	step := (*s)[0]
	*s = (*s)[1:]
	return step(ctx, cursor, emit)
}

func (s *script) Rejected() map[string]uint64 { return map[string]uint64{"canary": 3} }

// memory is a landing in memory.
type memory struct {
	mu     sync.Mutex // guards the rest
	events []core.Event
	fail   error
}

func (m *memory) setFail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

func (m *memory) Land(_ context.Context, events []core.Event) (ingest.Landed, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return ingest.Landed{}, m.fail
	}
	m.events = append(m.events, events...)
	return ingest.Landed{Events: len(events), Bytes: 10 * int64(len(events)), Duplicates: 1, Rejected: map[string]int{"nul": 2}}, nil
}

func (m *memory) Position() ingest.Position {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := ingest.Position{Target: "memory", Bytes: 10 * int64(len(m.events))}
	if len(m.events) > 0 {
		p.Cursor = m.events[len(m.events)-1].Cursor
	}
	return p
}

func (m *memory) Close() error { return nil }

// failure is an error that knows more.
type failure struct {
	reason string
	after  time.Duration
}

func (f failure) Error() string             { return "it " + f.reason }
func (f failure) Reason() string            { return f.reason }
func (f failure) RetryAfter() time.Duration { return f.after }

// TestRunner plays a source through all that can happen, and looks at the
// status in between.
func TestRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &memory{}
		var src script
		r := ingest.New("wiki", &src, to, ingest.Options{})
		// now is the status once everything waits.
		now := func() ingest.Status { synctest.Wait(); return r.Status() }
		begun := time.Now()
		check := func(what string, got, want any) {
			if got != want {
				t.Errorf("after %s: %s: got %v, want %v", time.Since(begun), what, got, want)
			}
		}
		var cursors []string
		step := func(f func(ctx context.Context, emit core.EmitFunc) error) {
			src = append(src, func(ctx context.Context, cursor string, emit core.EmitFunc) error {
				cursors = append(cursors, cursor)
				return f(ctx, emit)
			})
		}
		check("state", r.Status().State, ingest.Connecting)

		step(func(ctx context.Context, emit core.EmitFunc) error { // connects, streams, ends as streams do
			time.Sleep(time.Second)
			check("state", r.Status().State, ingest.Connecting)
			emit(ctx)
			check("state", r.Status().State, ingest.Streaming)
			check("events", r.Status().Events, uint64(0))
			time.Sleep(time.Minute)
			return emit(ctx, core.Event{Cursor: "1", Time: time.Now()}, core.Event{Cursor: "2", Time: time.Now().Add(-time.Hour)})
		})
		step(func(ctx context.Context, emit core.EmitFunc) error { // begins at once; the network goes away
			check("time", time.Since(begun), time.Minute+time.Second)
			check("reconnects", r.Status().Reconnects[ingest.ReasonEnded], uint64(1))
			check("newest event", r.Status().LastEvent.Equal(time.Now()), true)
			check("error", r.Status().Error, "")
			return failure{"network", 0}
		})
		step(func(ctx context.Context, emit core.EmitFunc) error { // the server wants to be left alone
			check("waited", time.Since(begun) <= time.Minute+time.Second+100*time.Millisecond, true)
			check("error", r.Status().Error, "it network")
			return fmt.Errorf("source: %w", failure{"refused", time.Hour})
		})
		step(func(ctx context.Context, emit core.EmitFunc) error { // a reason nobody knows
			return failure{"made up", 0}
		})
		step(func(ctx context.Context, emit core.EmitFunc) error { // the target is full
			to.setFail(fmt.Errorf("land: %w", ingest.ErrFull))
			emit(ctx, core.Event{Cursor: "3"})
			return errors.New("something else")
		})
		step(func(ctx context.Context, emit core.EmitFunc) error { // and has room again
			to.setFail(nil)
			emit(ctx, core.Event{Cursor: "3"})
			return fmt.Errorf("no: %w", core.ErrPermanent)
		})
		ended := make(chan error, 1)
		go func() { ended <- r.Run(t.Context()) }()

		time.Sleep(2 * time.Minute)
		s := now()
		check("state", s.State, ingest.Waiting)
		check("reason", s.Reason, ingest.ReasonRefused)
		check("error", s.Error, "source: it refused")
		if wait := s.NextTry.Sub(begun); wait < time.Hour+time.Minute || wait > time.Hour+2*time.Minute {
			t.Errorf("next try after %s", wait)
		}
		time.Sleep(time.Hour)
		s = now()
		check("state", s.State, ingest.Waiting)
		check("reason", s.Reason, ingest.ReasonLanding)
		check("error", s.Error, "land: max_bytes reached")
		check("cursor", s.Cursor, "2")
		check("waits for somebody", time.Until(s.NextTry) > 0, true)
		check("reconnects for other reasons", s.Reconnects[ingest.ReasonOther], uint64(1))
		time.Sleep(2 * time.Minute)
		if err := <-ended; !errors.Is(err, core.ErrPermanent) {
			t.Errorf("Run returned %v", err)
		}
		s = now()
		check("state", s.State, ingest.Failed)
		check("error", s.Error, "no: trying again cannot help")
		check("events", s.Events, uint64(3))
		check("bytes", s.Bytes, uint64(30))
		check("duplicates", s.Duplicates, uint64(3))
		check("rejected", fmt.Sprint(s.Rejected), "map[canary:3 json:0 newline:0 nul:6 refused:0 too_large:0]")
		check("cursors", strings.Join(cursors, ","), ",2,2,2,2,2")
		check("landed bytes", s.LandedBytes, int64(30))
		if text, err := json.Marshal(s); err != nil || !strings.Contains(string(text), `"state":"failed"`) {
			t.Errorf("as JSON: %s, %v", text, err)
		}
	})
}

// TestBackoff counts how often sources are run that fail or end. Only a run
// that had events and lasted makes the waits small again: a server that ends
// each stream after one event is not called all the time.
func TestBackoff(t *testing.T) {
	for _, c := range []struct {
		name      string
		err       error
		event     bool
		lasts     time.Duration
		low, high int // runs in ten minutes
	}{
		{"fails", errors.New("no"), false, 0, 20, 120},
		{"ends", nil, false, 0, 20, 120},
		{"fails after an event", errors.New("no"), true, 0, 20, 120},
		{"ends after an event", nil, true, 0, 20, 120},
		{"ends after an event and a while", nil, true, 9 * time.Second, 20, 60},
		{"lasts, without events, and fails", errors.New("no"), false, 10 * time.Second, 15, 45},
		{"lasts, with events, and fails", errors.New("no"), true, 10 * time.Second, 60, 60},
		{"lasts, without events, and ends", nil, false, 10 * time.Second, 60, 61},
	} {
		synctest.Test(t, func(t *testing.T) {
			runs := 0
			src := sourceFunc(func(ctx context.Context, _ string, emit core.EmitFunc) error {
				runs++
				if c.event {
					emit(ctx, core.Event{})
				}
				if err := backoff.Wait(ctx, c.lasts); err != nil {
					return err
				}
				return c.err
			})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			r := ingest.New("x", src, &memory{}, ingest.Options{})
			if err := r.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: got %v", c.name, err)
			}
			if got := r.Status().State; got != ingest.Stopped {
				t.Errorf("%s: got %s", c.name, got)
			}
			if runs < c.low || runs > c.high {
				t.Errorf("%s: %d runs in ten minutes, want %d to %d", c.name, runs, c.low, c.high)
			}
		})
	}
}

type sourceFunc func(context.Context, string, core.EmitFunc) error

func (f sourceFunc) Run(ctx context.Context, cursor string, emit core.EmitFunc) error {
	return f(ctx, cursor, emit)
}

// logText is a log that is read while it is written.
type logText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestRecovery says that a source works again only when it does: when it brings
// events, or has run for a while. That it has connected is not enough.
func TestRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logText
		fails := func(_ context.Context, _ string, emit core.EmitFunc) error {
			emit(t.Context())
			return errors.New("exit status 1")
		}
		quiet := func(ctx context.Context, _ string, emit core.EmitFunc) error {
			emit(ctx)
			<-ctx.Done()
			return ctx.Err()
		}
		brings := func(ctx context.Context, _ string, emit core.EmitFunc) error {
			emit(ctx, core.Event{Cursor: "1"})
			return errors.New("exit status 2")
		}
		src := script{fails, fails, fails, brings, fails, quiet}
		r := ingest.New("wiki", &src, &memory{}, ingest.Options{
			Logger: slog.New(slog.NewTextHandler(&log, nil)), Backoff: backoff.Backoff{Max: time.Second},
		})
		go r.Run(t.Context())
		time.Sleep(9 * time.Second) // of tries, and of the last one, which lasts
		synctest.Wait()
		if s := r.Status(); s.State != ingest.Streaming || s.Error != "exit status 1" || strings.Count(log.String(), "streams again") != 1 {
			t.Errorf("got %+v and the log\n%s\nwant an error that is not over, and one that was", s, &log)
		}
		if n := strings.Count(log.String(), "will be tried again"); n != 3 {
			t.Errorf("%d errors are told, want each once until it is over:\n%s", n, &log)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := r.Status(); s.State != ingest.Streaming || s.Error != "" || s.Reason != "" || strings.Count(log.String(), "streams again") != 2 {
			t.Errorf("got %+v and the log\n%s\nwant no error", s, &log)
		}
	})
}

func TestStop(t *testing.T) {
	f := openFile(t, filepath.Join(t.TempDir(), "events"), ingest.FileOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	r := ingest.New("x", sourceFunc(func(ctx context.Context, _ string, emit core.EmitFunc) error {
		cancel()
		return emit(ctx, event("a"))
	}), f, ingest.Options{})
	if err := r.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if s := r.Status(); s.State != ingest.Stopped || s.Error != "" {
		t.Errorf("got %+v", s)
	}
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		src := script{func(ctx context.Context, _ string, emit core.EmitFunc) error {
			emit(ctx, core.Event{Time: time.Now()}, core.Event{})
			<-ctx.Done()
			return nil
		}}
		r := ingest.New("wiki", &src, &memory{}, ingest.Options{})
		other := ingest.New("other", sourceFunc(nil), &memory{}, ingest.Options{})
		for _, r := range []*ingest.Runner{r, other} {
			if err := reg.Register(r); err != nil {
				t.Fatal(err)
			}
		}
		if err := reg.Register(ingest.New("wiki", sourceFunc(nil), &memory{}, ingest.Options{})); err == nil {
			t.Error("two sources of one name: no error")
		}
		if n, err := testutil.GatherAndCount(reg, "mzd_source_reconnects_total"); err != nil || n != 12 {
			t.Errorf("reconnects at the start: %d series, %v", n, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		synctest.Wait()
		time.Sleep(90 * time.Second)
		const want = `
# HELP mzd_source_bytes_total Bytes of events that became durable.
# TYPE mzd_source_bytes_total counter
mzd_source_bytes_total{source="other"} 0
mzd_source_bytes_total{source="wiki"} 20
# HELP mzd_source_duplicates_total Events left out because they had become durable before.
# TYPE mzd_source_duplicates_total counter
mzd_source_duplicates_total{source="other"} 0
mzd_source_duplicates_total{source="wiki"} 1
# HELP mzd_source_events_total Events that became durable.
# TYPE mzd_source_events_total counter
mzd_source_events_total{source="other"} 0
mzd_source_events_total{source="wiki"} 2
# HELP mzd_source_lag_seconds Wall clock minus the time of the newest event.
# TYPE mzd_source_lag_seconds gauge
mzd_source_lag_seconds{source="wiki"} 90
# HELP mzd_source_rejected_total Events left out because they cannot or should not be kept.
# TYPE mzd_source_rejected_total counter
mzd_source_rejected_total{reason="canary",source="wiki"} 3
mzd_source_rejected_total{reason="json",source="other"} 0
mzd_source_rejected_total{reason="json",source="wiki"} 0
mzd_source_rejected_total{reason="newline",source="other"} 0
mzd_source_rejected_total{reason="newline",source="wiki"} 0
mzd_source_rejected_total{reason="nul",source="other"} 0
mzd_source_rejected_total{reason="nul",source="wiki"} 2
mzd_source_rejected_total{reason="refused",source="other"} 0
mzd_source_rejected_total{reason="refused",source="wiki"} 0
mzd_source_rejected_total{reason="too_large",source="other"} 0
mzd_source_rejected_total{reason="too_large",source="wiki"} 0
# HELP mzd_source_up 1 while the source streams, 0 while it connects, waits or has failed.
# TYPE mzd_source_up gauge
mzd_source_up{source="other"} 0
mzd_source_up{source="wiki"} 1
`
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "mzd_source_bytes_total", "mzd_source_duplicates_total",
			"mzd_source_events_total", "mzd_source_lag_seconds", "mzd_source_rejected_total", "mzd_source_up"); err != nil {
			t.Error(err)
		}
		if !reg.Unregister(r) {
			t.Error("the runner's metrics cannot be taken away")
		}
		cancel()
		synctest.Wait()
	})
}
