package hub_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/durable/durabletest"
	"github.com/mzdio/mzd/core/hub"
)

// upstream is a database whose streams the test drives.
type upstream struct {
	mu      sync.Mutex
	down    error
	streams map[string]*stream
	opened  []hub.Request
}

type stream struct {
	columns  []core.Column
	identity string
	resumed  bool
	batches  chan any // core.Batch or error
}

func (s *stream) Columns() []core.Column { return s.columns }
func (s *stream) Identity() string       { return s.identity }
func (s *stream) Resumed() bool          { return s.resumed }
func (s *stream) Restarted() string      { return "the test says so" }
func (s *stream) Close()                 {}

func (s *stream) Next(ctx context.Context) (core.Batch, error) {
	select {
	case x := <-s.batches:
		if err, ok := x.(error); ok {
			return core.Batch{}, err
		}
		return x.(core.Batch), nil
	case <-ctx.Done():
		return core.Batch{}, ctx.Err()
	}
}

func (s *stream) Snapshot(ctx context.Context, add func([]byte, core.Diff)) (core.Time, error) {
	return snapshotOf(ctx, s, add)
}

// snapshotOf passes the first batch of a stream on as a snapshot.
func snapshotOf(ctx context.Context, s hub.Stream, add func([]byte, core.Diff)) (core.Time, error) {
	b, err := s.Next(ctx)
	for u := range b.Updates.All() {
		add([]byte(u.Row), u.Diff)
	}
	return b.Upper.Time, err
}

// offer makes the next subscription of a view answer with s.
func (u *upstream) offer(view string, s *stream) *stream {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s.batches == nil {
		s.batches = make(chan any)
	}
	if u.streams == nil {
		u.streams = make(map[string]*stream)
	}
	u.streams[view], u.down = s, nil
	return s
}

// offers reports whether nobody has taken the stream of a view yet.
func (u *upstream) offers(view string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.streams[view] != nil
}

func (u *upstream) fail(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.down = err
}

func (u *upstream) subscribe(_ context.Context, r hub.Request) (hub.Stream, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.opened = append(u.opened, r)
	s := u.streams[r.Name]
	if u.down != nil || s == nil {
		return nil, errors.Join(u.down, unreachable("nobody there"))
	}
	delete(u.streams, r.Name)
	return s, nil
}

type unreachable string

func (e unreachable) Error() string   { return string(e) }
func (e unreachable) Reason() string  { return "unreachable" }
func (e unreachable) Retryable() bool { return true }

// away is an unreachable that says nothing about the view.
type away struct{ unreachable }

func (away) Away() bool { return true }

// batch makes the batch [lower, upper) of updates written "a+1 b-2".
func batch(lower, upper core.Time, updates string) core.Batch {
	var list []core.Update
	for _, f := range strings.Fields(updates) {
		var d core.Diff
		fmt.Sscan(f[1:], &d)
		list = append(list, core.Update{Time: upper - 1, Diff: d, Row: core.Row(`["` + f[:1] + `"]`)})
	}
	return core.Batch{Lower: core.Token{Time: lower}, Upper: core.Token{Time: upper}, Updates: core.UpdatesOf(list)}
}

// recorder is a sink that notes what it is written, and refuses while told to.
type recorder struct {
	mu     sync.Mutex
	cuts   []string
	refuse error
}

func (r *recorder) Write(_ context.Context, cut []core.Batch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var parts []string
	for _, b := range cut {
		parts = append(parts, text(b))
	}
	line := strings.Join(parts, " | ")
	if r.refuse != nil {
		line = "refused " + line
	}
	r.cuts = append(r.cuts, line)
	return r.refuse
}

func (r *recorder) Close() error { return nil }

func (r *recorder) setRefuse(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse = err
}

// take returns what was written since the last call.
func (r *recorder) take() string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := strings.Join(r.cuts, "; ")
	r.cuts = nil
	return s
}

func text(b core.Batch) string {
	s := fmt.Sprintf("%s[%d,%d)", b.View.Name, b.Lower.Time, b.Upper.Time)
	for u := range b.Updates.All() {
		s += fmt.Sprintf(" %s%+d", u.Row[2:3], u.Diff)
	}
	return s
}

var oneColumn = []core.Column{{Name: "c", Type: "text"}}

// start runs a hub until the test ends.
func start(t *testing.T, o hub.Options) *hub.Hub {
	t.Helper()
	h, err := hub.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) // and not the test's, which ends before its clean-up
	done := make(chan error)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		select {
		case err := <-done:
			t.Errorf("run ended by itself: %v", err)
		default:
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		}
	})
	return h
}

func equal(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

func TestUpstreamTroubleIsInvisible(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, r := &upstream{}, &recorder{}
		s := u.offer("v", &stream{columns: oneColumn, identity: "env1"})
		start(t, hub.Options{
			Views: []hub.View{{Name: "v"}}, Subscribe: u.subscribe,
			Sinks: []hub.Sink{{Name: "out", Sink: r, Views: []string{"v"}}},
		})
		s.batches <- batch(0, 10, "a+1 b+2")
		equal(t, "snapshot", r.take(), "v[0,10) a+1 b+2")
		s.batches <- batch(10, 12, "a-1")
		equal(t, "change", r.take(), "v[10,12) a-1")

		// The connection breaks; the upstream still has the history.
		next := u.offer("v", &stream{columns: oneColumn, identity: "env1", resumed: true})
		s.batches <- unreachable("connection reset")
		next.batches <- batch(12, 20, "c+1")
		equal(t, "resumed", r.take(), "v[12,20) c+1")
		if last := u.opened[len(u.opened)-1]; last.Upper != 12 || last.Identity != "env1" {
			t.Errorf("resumed with %+v, want Upper 12 and env1", last)
		}

		// It breaks again and the history is gone: readers see the difference.
		s = u.offer("v", &stream{columns: oneColumn, identity: "env1"})
		next.batches <- unreachable("connection reset")
		s.batches <- batch(0, 30, "b+2 d+1")
		equal(t, "resnapshot", r.take(), "v[20,30) c-1 d+1")

		// Another database answers: a new history, even with a smaller time.
		next = u.offer("v", &stream{columns: oneColumn, identity: "env2"})
		s.batches <- unreachable("connection reset")
		next.batches <- batch(0, 7, "z+1")
		equal(t, "other upstream", r.take(), "v[0,7) z+1")

		// The same one, with its clock set back: a new history too.
		s = u.offer("v", &stream{columns: oneColumn, identity: "env2"})
		next.batches <- unreachable("connection reset")
		s.batches <- batch(0, 5, "y+1")
		equal(t, "times that go back", r.take(), "v[0,5) y+1")
	})
}

func TestSinkRetriesTheSameCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, slow, other := &upstream{}, &recorder{}, &recorder{}
		s := u.offer("v", &stream{columns: oneColumn, identity: "env"})
		h := start(t, hub.Options{
			Views: []hub.View{{Name: "v"}}, Subscribe: u.subscribe,
			Sinks: []hub.Sink{{Name: "slow", Sink: slow, Views: []string{"v"}}, {Name: "other", Sink: other, Views: []string{"v"}}},
		})
		slow.setRefuse(errors.New("away"))
		s.batches <- batch(0, 10, "a+1")
		first := slow.take()
		if !strings.HasPrefix(first, "refused v[0,10) a+1") {
			t.Fatalf("first try: %s", first)
		}
		s.batches <- batch(10, 11, "b+1")
		s.batches <- batch(11, 12, "b-1")
		s.batches <- batch(12, 13, "c+1")
		<-time.After(time.Minute)
		for _, line := range strings.Split(slow.take(), "; ") {
			equal(t, "retry", line, "refused v[0,10) a+1")
		}
		if got := other.take(); !strings.Contains(got, "c+1") {
			t.Errorf("the other sink was held up: %s", got)
		}
		if p := h.Status().Sinks[0].Trouble; p == nil || p.Error != "away" || p.NextTry == nil {
			t.Errorf("status of the slow sink: %+v", p)
		}
		slow.setRefuse(nil)
		<-time.After(time.Minute)
		equal(t, "after the outage", slow.take(), "v[0,10) a+1; v[10,13) c+1")
		if p := h.Status().Sinks[0].Trouble; p != nil {
			t.Errorf("status after the outage: %+v", p)
		}
	})
}

// busy is an error of a receiver that says when to come back.
type busy time.Duration

func (b busy) Error() string             { return "busy" }
func (b busy) RetryAfter() time.Duration { return time.Duration(b) }

func TestSinkIsLeftAloneForAsLongAsItWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, r := &upstream{}, &recorder{}
		s := u.offer("v", &stream{columns: oneColumn, identity: "env"})
		r.refuse = fmt.Errorf("write: %w", busy(10*time.Minute))
		start(t, hub.Options{
			Views: []hub.View{{Name: "v"}}, Subscribe: u.subscribe,
			Sinks: []hub.Sink{{Name: "out", Sink: r, Views: []string{"v"}}},
		})
		s.batches <- batch(0, 10, "a+1")
		<-time.After(10*time.Minute - time.Second)
		equal(t, "tries before", r.take(), "refused v[0,10) a+1")
		r.setRefuse(nil)
		<-time.After(time.Minute)
		equal(t, "tries after", r.take(), "v[0,10) a+1")
	})
}

// TestTroubleLastsUntilItIsOver has a sink that fails in another way each time. What
// is told is since when it does not work, and not since when in that way.
func TestTroubleLastsUntilItIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		u, r := &upstream{}, &recorder{refuse: errors.New("first")}
		s := u.offer("v", &stream{columns: oneColumn, identity: "env"})
		h := start(t, hub.Options{
			Views: []hub.View{{Name: "v"}}, Subscribe: u.subscribe,
			Sinks:  []hub.Sink{{Name: "out", Sink: r, Views: []string{"v"}}},
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		s.batches <- batch(0, 10, "a+1")
		began := time.Now()
		for port := range 6 {
			<-time.After(10 * time.Minute)
			r.setRefuse(fmt.Errorf("read tcp 10.0.0.1:%d: connection reset by peer", 40_000+port))
		}
		p := h.Status().Sinks[0].Trouble
		if p == nil || !p.Since.Equal(began) || !strings.Contains(p.Error, "connection reset") {
			t.Errorf("after an hour: %+v, want since %s", p, began)
		}
		r.setRefuse(nil)
		<-time.After(time.Minute)
		synctest.Wait()
		if text := log.String(); !strings.Contains(text, `"sink works again" sink=out after=1h0m`) {
			t.Errorf("an hour's trouble is over:\n%s", text)
		}
	})
}

func TestPermanentErrorWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, r := &upstream{}, &recorder{}
		s := u.offer("v", &stream{columns: oneColumn, identity: "env"})
		r.refuse = fmt.Errorf("no such target: %w", core.ErrPermanent)
		h := start(t, hub.Options{
			Views: []hub.View{{Name: "v"}}, Subscribe: u.subscribe,
			Sinks: []hub.Sink{{Name: "out", Sink: r, Views: []string{"v"}}},
		})
		s.batches <- batch(0, 10, "a+1")
		<-time.After(time.Hour)
		equal(t, "tries", r.take(), "refused v[0,10) a+1")
		if s := h.Status().Sinks[0]; s.Trouble == nil || !s.Trouble.Permanent || !s.Failed {
			t.Errorf("status: %+v, want a permanent problem", s)
		}
	})
}

func TestTogetherAndSkippedSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, together, late := &upstream{}, &recorder{}, &recorder{}
		a := u.offer("a", &stream{columns: oneColumn, identity: "env"})
		b := u.offer("b", &stream{columns: oneColumn, identity: "env"})
		start(t, hub.Options{
			Views: []hub.View{{Name: "a"}, {Name: "b"}}, Subscribe: u.subscribe,
			Sinks: []hub.Sink{
				{Name: "together", Sink: together, Views: []string{"a", "b"}, Together: true},
				{Name: "late", Sink: late, Views: []string{"a"}, SkipSnapshot: true},
			},
		})
		a.batches <- batch(0, 10, "x+1")
		equal(t, "half a cut", together.take(), "")
		b.batches <- batch(0, 12, "y+1")
		a.batches <- batch(10, 12, "x-1")
		equal(t, "cut", together.take(), "a[0,12) | b[0,12) y+1")
		equal(t, "without the snapshot", late.take(), "a[10,12) x-1")
	})
}

// TestOneCutOfAnyViews has a view that moves, one that is sealed and one that
// stops in one cut: the sealed one delays nothing, and the one that has stopped
// is named until it goes on.
func TestOneCutOfAnyViews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, r := &upstream{}, &recorder{}
		live := u.offer("live", &stream{columns: oneColumn, identity: "env"})
		constant := u.offer("constant", &stream{columns: oneColumn, identity: "env"})
		failing := u.offer("failing", &stream{columns: oneColumn, identity: "env"})
		views := []string{"live", "constant", "failing"}
		h := start(t, hub.Options{
			Views: []hub.View{{Name: "live"}, {Name: "constant"}, {Name: "failing"}}, Subscribe: u.subscribe,
			Sinks: []hub.Sink{{Name: "out", Sink: r, Views: views, Together: true}},
		})
		live.batches <- batch(0, 10, "x+1")
		constant.batches <- batch(0, core.EndOfTime, "c+1")
		failing.batches <- batch(0, 10, "f+1")
		equal(t, "the first cut", r.take(), "live[0,10) x+1 | constant[0,10) c+1 | failing[0,10) f+1")
		live.batches <- batch(10, 20, "y+1")
		failing.batches <- batch(10, 20, "")
		equal(t, "the next", r.take(), "live[10,20) y+1 | constant[10,20) | failing[10,20)")

		failing.batches <- unreachable("gone")
		live.batches <- batch(20, 30, "z+1")
		equal(t, "one has stopped", r.take(), "")
		if s := h.Status().Sinks[0]; !slices.Equal(s.WaitsFor, []string{"failing"}) || !s.Ready {
			t.Errorf("status: %+v, want a sink that works and waits for failing", s)
		}
		failing = u.offer("failing", &stream{columns: oneColumn, identity: "env", resumed: true})
		<-time.After(time.Minute)
		failing.batches <- batch(20, 30, "f-1")
		equal(t, "it goes on", r.take(), "live[20,30) z+1 | constant[20,30) | failing[20,30) f-1")
		if s := h.Status().Sinks[0]; s.WaitsFor != nil {
			t.Errorf("status: %+v, want nothing to wait for", s)
		}
	})
}

// TestTogetherWithoutSnapshot starts two views that are at different times: no
// base may slip in.
func TestTogetherWithoutSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, r := &upstream{}, &recorder{}
		a := u.offer("a", &stream{columns: oneColumn, identity: "env"})
		b := u.offer("b", &stream{columns: oneColumn, identity: "env"})
		start(t, hub.Options{
			Views: []hub.View{{Name: "a"}, {Name: "b"}}, Subscribe: u.subscribe,
			Sinks: []hub.Sink{{Name: "out", Sink: r, Views: []string{"a", "b"}, Together: true, SkipSnapshot: true}},
		})
		a.batches <- batch(0, 10, "x+1")
		b.batches <- batch(0, 20, "y+1")
		equal(t, "before the first cut", r.take(), "")
		a.batches <- batch(10, 25, "z+1")
		first := r.take() // whatever it has of the first cut
		a.batches <- batch(25, 30, "x-1")
		b.batches <- batch(20, 30, "y-1")
		if got := first + r.take(); strings.Contains(got, "[0,") || !strings.Contains(got, "x-1") || !strings.Contains(got, "y-1") {
			t.Errorf("got %s, want changes only", got)
		}
	})
}

// broadcaster fails once, and serves from then on.
type broadcaster struct {
	recorder
	served  int
	readers []core.Reader
}

func (b *broadcaster) Serve(ctx context.Context, readers []core.Reader) error {
	b.readers = readers
	if b.served++; b.served == 1 {
		return errors.New("too many open files")
	}
	<-ctx.Done()
	return nil
}

func TestBroadcasterRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, web := &upstream{}, &broadcaster{}
		h := start(t, hub.Options{
			Views: []hub.View{{Name: "v"}}, Subscribe: u.subscribe,
			Sinks: []hub.Sink{{Name: "web", Sink: web, Views: []string{"v"}}},
		})
		synctest.Wait()
		if err := web.readers[0].(core.TroubledReader).Trouble(); err == nil || !strings.Contains(err.Error(), "nobody there") {
			t.Errorf("trouble of the view, as its readers hear: %v", err)
		}
		if p := h.Status().Sinks[0].Trouble; p == nil || p.Error != "too many open files" {
			t.Errorf("after the failure: %+v", p)
		}
		<-time.After(time.Minute)
		if s := h.Status().Sinks[0]; s.Trouble != nil || !s.Ready {
			t.Errorf("a minute later: %+v, trouble %+v", s, s.Trouble)
		}
	})
}

// TestStreamsThatDieOfTheirSnapshot must not be opened again and again without
// a pause.
func TestStreamsThatDieOfTheirSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{}
		dying := func(_ context.Context, r hub.Request) (hub.Stream, error) {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.opened = append(u.opened, r)
			s := &stream{columns: oneColumn, identity: "env", batches: make(chan any, 2)}
			s.batches <- batch(0, r.Upper+10, "a+1")
			s.batches <- unreachable("fell behind")
			return s, nil
		}
		start(t, hub.Options{Views: []hub.View{{Name: "v"}}, Subscribe: dying})
		<-time.After(10 * time.Minute)
		u.mu.Lock()
		defer u.mu.Unlock()
		if n := len(u.opened); n > 200 {
			t.Errorf("%d streams in ten minutes", n)
		}
	})
}

func TestStatusTellsWhatIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{down: unreachable("connection refused")}
		h := start(t, hub.Options{Views: []hub.View{{Name: "v", Key: []string{"k"}}}, Subscribe: u.subscribe})
		<-time.After(time.Minute)
		s := h.Status().Views[0]
		if s.State != hub.Failed || s.Trouble == nil || s.Trouble.Reason != "unreachable" || s.Reconnects < 3 {
			t.Errorf("status while the upstream is down: %+v, trouble %+v", s, s.Trouble)
		}
		if ok, missing := h.Complete(); ok || len(missing) != 1 {
			t.Errorf("complete: %v %v, want v to be missing", ok, missing)
		}
		u.offer("v", &stream{columns: oneColumn, identity: "env"})
		for u.offers("v") {
			<-time.After(time.Second)
		}
		s = h.Status().Views[0]
		if s.Trouble == nil || s.Trouble.Error != "key: view v has no column k; its columns: c" {
			t.Errorf("status with a wrong key: %+v, trouble %+v", s, s.Trouble)
		}
	})
}

func TestSealedView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, r := &upstream{}, &recorder{}
		s := u.offer("v", &stream{columns: oneColumn, identity: "env"})
		h := start(t, hub.Options{
			Views: []hub.View{{Name: "v"}}, Subscribe: u.subscribe,
			Sinks: []hub.Sink{{Name: "out", Sink: r, Views: []string{"v"}}},
		})
		b := batch(0, core.EndOfTime, "a+1")
		s.batches <- b
		equal(t, "constant", r.take(), fmt.Sprintf("v[0,%d) a+1", core.EndOfTime))
		if st := h.Status().Views[0]; st.State != hub.Sealed || st.LagSeconds != nil {
			t.Errorf("status: %+v, want sealed and no lag", st)
		}
	})
}

// TestConstantIsReplaced has an upstream with a constant that is another view one
// day. While it is the same nothing moves, also where the upstream cannot tell.
func TestConstantIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		var mu sync.Mutex
		identity, rows, upper, asked := "first", "a+1", core.EndOfTime, 0
		down := error(nil)
		h := start(t, hub.Options{
			Views: []hub.View{{Name: "v"}}, Sinks: []hub.Sink{{Name: "out", Sink: r, Views: []string{"v"}}},
			Subscribe: func(context.Context, hub.Request) (hub.Stream, error) {
				mu.Lock()
				defer mu.Unlock()
				asked++
				if down != nil {
					return nil, down
				}
				s := &stream{columns: oneColumn, identity: identity, batches: make(chan any, 1)}
				if identity == "" {
					s.identity = fmt.Sprint("unknown ", asked)
				}
				s.batches <- batch(0, upper, rows)
				return s, nil
			},
		})
		become := func(i, r string, t core.Time, err error) {
			mu.Lock()
			defer mu.Unlock()
			identity, rows, upper, down = i, r, t, err
		}
		state := func(want hub.State) {
			t.Helper()
			if got := h.Status().Views[0].State; got != want {
				t.Errorf("state %s, want %s", got, want)
			}
		}
		sealed := fmt.Sprintf("v[0,%d) ", core.EndOfTime)
		equal(t, "a constant", r.take(), sealed+"a+1")

		<-time.After(time.Hour)
		become("", "a+1", core.EndOfTime, nil)
		<-time.After(time.Hour)
		equal(t, "the same", r.take(), "")
		state(hub.Sealed)
		mu.Lock()
		if asked < 100 || asked > 1000 {
			t.Errorf("asked %d times in two hours", asked)
		}
		mu.Unlock()

		become("second", "b+1", core.EndOfTime, nil)
		<-time.After(time.Minute)
		equal(t, "another constant", r.take(), sealed+"b+1")
		state(hub.Sealed)

		become("second", "b+1", core.EndOfTime, unreachable("dropped"))
		<-time.After(time.Minute)
		equal(t, "dropped", r.take(), "")
		state(hub.Failed)
		become("second", "b+1", core.EndOfTime, nil)
		<-time.After(time.Minute)
		equal(t, "there again", r.take(), "")
		state(hub.Sealed)

		become("third", "c+1", 10, nil)
		<-time.After(time.Minute)
		equal(t, "no constant any more", r.take(), "v[0,10) c+1")
		state(hub.Live)
	})
}

// TestSealedByMistake has an upstream that says that a view is complete, and says a
// little later something else. It is asked for all of it once more, and not again.
func TestSealedByMistake(t *testing.T) {
	for name, tt := range map[string]struct {
		later []core.Batch
		want  string
		state hub.State
	}{
		"it moves":        {[]core.Batch{batch(0, 50, "a+1"), batch(0, 60, "a+1 b+1")}, "v[0,60) a+1 b+1", hub.Live},
		"it has more":     {[]core.Batch{batch(0, core.EndOfTime, "a+1 b+1"), batch(0, core.EndOfTime, "a+1 b+1"), batch(0, core.EndOfTime, "a+1 b+1")}, fmt.Sprintf("v[0,%d) a+1 b+1", core.EndOfTime), hub.Sealed},
		"it was complete": {[]core.Batch{batch(0, core.EndOfTime, "a+1")}, "", hub.Sealed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, batches := &recorder{}, make(chan any, 9)
				h := start(t, hub.Options{
					Views: []hub.View{{Name: "v"}}, Sinks: []hub.Sink{{Name: "out", Sink: r, Views: []string{"v"}}},
					Subscribe: func(context.Context, hub.Request) (hub.Stream, error) {
						return &stream{columns: oneColumn, identity: "env", batches: batches}, nil
					},
				})
				batches <- batch(0, core.EndOfTime, "a+1")
				equal(t, "complete", r.take(), fmt.Sprintf("v[0,%d) a+1", core.EndOfTime))
				for _, b := range tt.later {
					batches <- b
				}
				<-time.After(time.Hour)
				equal(t, "an hour later", r.take(), tt.want)
				if v := h.Status().Views[0]; v.State != tt.state || len(batches) > 0 {
					t.Errorf("state %s, %d batches were not asked for; want %s, none", v.State, len(batches), tt.state)
				}
			})
		})
	}
}

// TestConstantWhileNobodyCanBeAsked has a constant whose upstream is away: it is no
// worse for it, and says so, also after a restart. One that was dropped has failed.
func TestConstantWhileNobodyCanBeAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs, u, web := durabletest.New(), &upstream{}, &broadcaster{served: 1}
		options := hub.Options{
			Views: []hub.View{{Name: "v"}}, Subscribe: u.subscribe, FS: fs,
			Sinks: []hub.Sink{{Name: "web", Sink: web, Views: []string{"v"}}},
		}
		is := func(p *process, want hub.State, trouble string) {
			t.Helper()
			<-time.After(time.Minute)
			synctest.Wait()
			v := p.Status().Views[0]
			if v.State != want || (v.Trouble == nil) != (trouble == "") || v.Trouble != nil && !strings.Contains(v.Trouble.Error, trouble) {
				t.Errorf("state %s, trouble %+v; want %s, %s", v.State, v.Trouble, want, trouble)
			}
			if err := web.readers[0].(core.TroubledReader).Trouble(); (err == nil) != (want == hub.Sealed) {
				t.Errorf("readers of the view that is %s hear: %v", want, err)
			}
		}
		p := launch(t, options)
		s := u.offer("v", &stream{columns: oneColumn, identity: "env"})
		<-time.After(time.Second)
		s.batches <- batch(0, 10, "a+1")
		s.batches <- batch(10, core.EndOfTime, "b+1")
		u.fail(away{"connection refused"})
		is(p, hub.Sealed, "connection refused")
		p.stop(t)

		p = launch(t, options)
		is(p, hub.Sealed, "connection refused")
		u.fail(unreachable("unknown catalog item"))
		is(p, hub.Failed, "unknown catalog item")
		u.fail(away{"connection refused"})
		is(p, hub.Sealed, "connection refused")
		s = u.offer("v", &stream{columns: oneColumn, identity: "env"})
		<-time.After(time.Minute)
		s.batches <- batch(0, core.EndOfTime, "a+1 b+1")
		synctest.Wait()
		if v := p.Status().Views[0]; v.State != hub.Sealed || v.Trouble != nil || v.Rows != 2 {
			t.Errorf("there again: %+v, trouble %+v", v, v.Trouble)
		}
		p.stop(t)

		options.Subscribe = func(ctx context.Context, _ hub.Request) (hub.Stream, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		p = launch(t, options)
		is(p, hub.Sealed, "") // and not "connecting", while nobody answers
		p.stop(t)
	})
}

// TestFewerThanNone has an upstream that takes away what is not there. The view
// fails, names the row, and is right again when a snapshot is.
func TestFewerThanNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, r := &upstream{}, &recorder{}
		s := u.offer("v", &stream{columns: oneColumn, identity: "env"})
		h := start(t, hub.Options{
			Views: []hub.View{{Name: "v"}}, Subscribe: u.subscribe,
			Sinks: []hub.Sink{{Name: "out", Sink: r, Views: []string{"v"}}},
		})
		fails := func(want string) {
			t.Helper()
			synctest.Wait()
			v := h.Status().Views[0]
			if p := v.Trouble; v.State != hub.Failed || p == nil || p.Reason != "evaluation" || !strings.Contains(p.Error, want) || !strings.Contains(p.Error, "correct the view") {
				t.Errorf("state %s, trouble %+v; want %s", v.State, p, want)
			}
		}
		asked := func() hub.Request {
			u.mu.Lock()
			defer u.mu.Unlock()
			return u.opened[len(u.opened)-1]
		}
		s.batches <- batch(0, 10, "a+1 b+1")
		equal(t, "at first", r.take(), "v[0,10) a+1 b+1")
		s.batches <- batch(10, 20, "a-2 c+1")
		fails(`-1 copies of the row ["a"] at 19`)
		equal(t, "as the upstream says", r.take(), "v[10,20) a-2 c+1")

		s = u.offer("v", &stream{columns: oneColumn, identity: "env"})
		<-time.After(2 * time.Minute)
		if last := asked(); last.Upper != 20 || last.Identity != "env" || !last.Afresh {
			t.Errorf("asked for %+v, want the whole view beyond 20", last)
		}
		s.batches <- batch(0, 30, "a-1 b+1 c+1")
		fails(`-1 copies of the row ["a"]`)
		equal(t, "still wrong", r.take(), "")

		s = u.offer("v", &stream{columns: oneColumn, identity: "env"})
		<-time.After(2 * time.Minute)
		s.batches <- batch(0, 40, "b+1 c+2")
		equal(t, "right again", r.take(), "v[20,40) a+1 c+1")
		s.batches <- batch(40, 50, "d+1")
		equal(t, "goes on", r.take(), "v[40,50) d+1")
		if v := h.Status().Views[0]; v.State != hub.Live || v.Rows != 4 {
			t.Errorf("right again: %+v", v)
		}

		next := u.offer("v", &stream{columns: oneColumn, identity: "env", resumed: true})
		s.batches <- unreachable("connection reset")
		<-time.After(time.Minute)
		if last := asked(); last.Upper != 50 || last.Afresh {
			t.Errorf("asked for %+v, want to resume at 50", last)
		}
		next.batches <- batch(50, 60, "d-1")
		equal(t, "resumed", r.take(), "v[50,60) d-1")
	})
}

// TestTroubleOfEachView has a receiver that refuses two views for different reasons.
func TestTroubleOfEachView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, r := &upstream{}, &choosy{refuse: map[string]error{}}
		a := u.offer("a", &stream{columns: oneColumn, identity: "env"})
		b := u.offer("b", &stream{columns: oneColumn, identity: "env"})
		c := u.offer("c", &stream{columns: oneColumn, identity: "env"})
		h := start(t, hub.Options{
			Views: []hub.View{{Name: "a"}, {Name: "b"}, {Name: "c"}}, Subscribe: u.subscribe,
			Sinks: []hub.Sink{{Name: "out", Sink: r, Views: []string{"a", "b", "c"}}},
		})
		is := func(worst string, each ...string) {
			t.Helper()
			synctest.Wait()
			s := h.Status().Sinks[0]
			problem := func(p *hub.Problem) string {
				if p == nil {
					return "none"
				}
				return p.Error
			}
			for i, want := range each {
				equal(t, s.Views[i].View, problem(s.Views[i].Trouble), want)
			}
			equal(t, "the sink", problem(s.Trouble), worst)
		}
		r.refuse["a"], r.refuse["b"] = errors.New("first"), errors.New("second")
		a.batches <- batch(0, 10, "x+1")
		<-time.After(time.Second)
		b.batches <- batch(0, 10, "x+1")
		c.batches <- batch(0, 10, "x+1")
		is("first", "first", "second", "none")
		r.set("b", fmt.Errorf("gone: %w", core.ErrPermanent))
		<-time.After(time.Minute)
		is("gone: trying again cannot help", "first", "gone: trying again cannot help", "none")
		r.set("a", nil)
		<-time.After(time.Minute)
		is("gone: trying again cannot help", "none", "gone: trying again cannot help", "none")
	})
}

// choosy refuses some views.
type choosy struct {
	mu     sync.Mutex
	refuse map[string]error
}

func (c *choosy) Write(_ context.Context, cut []core.Batch) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refuse[cut[0].View.Name]
}

func (c *choosy) Close() error { return nil }

func (c *choosy) set(view string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse[view] = err
}

// TestTooManyRows gives a view more rows than it may have, first in its snapshot and
// then by a change. It stands still, and goes on when there are fewer.
func TestTooManyRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, r := &upstream{}, &recorder{}
		s := u.offer("v", &stream{columns: oneColumn, identity: "env"})
		h := start(t, hub.Options{
			Views: []hub.View{{Name: "v"}}, Subscribe: u.subscribe, MaxRows: 5,
			Sinks: []hub.Sink{{Name: "out", Sink: r, Views: []string{"v"}}},
		})
		stands := func(want string) {
			t.Helper()
			equal(t, "written", r.take(), want)
			if p := h.Status().Views[0].Trouble; p == nil || time.Until(*p.NextTry) < 50*time.Second {
				t.Errorf("the next try comes too early: %+v", p)
			}
			if p := h.Status().Views[0].Trouble; p == nil || p.Reason != "too_large" || !strings.Contains(p.Error, "more than 5 rows") || !strings.Contains(p.Error, "max_rows") {
				t.Errorf("trouble: %+v", p)
			}
		}
		s.batches <- batch(0, 10, "a+1 b+5")
		stands("")

		s = u.offer("v", &stream{columns: oneColumn, identity: "env"})
		<-time.After(2 * time.Minute)
		s.batches <- batch(0, 20, "a+1 b+4")
		equal(t, "as many as may be", r.take(), "v[0,20) a+1 b+4")
		s.batches <- batch(20, 30, "a-1 c+2")
		stands("")

		s = u.offer("v", &stream{columns: oneColumn, identity: "env", resumed: true})
		<-time.After(2 * time.Minute)
		u.mu.Lock()
		if last := u.opened[len(u.opened)-1]; last.Upper != 20 {
			t.Errorf("asked for what comes after %d, want 20", last.Upper)
		}
		u.mu.Unlock()
		s.batches <- batch(20, 30, "a-1 c+1")
		equal(t, "fewer", r.take(), "v[20,30) a-1 c+1")
	})
}

// TestMetrics holds every series against the text that Prometheus scrapes.
func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		<-time.After(4 * 365 * 24 * time.Hour) // bubbles begin in 2000, before timestamps count as wall time
		now := core.Time(time.Now().UnixMilli())
		u, r := &upstream{}, &recorder{}
		s := u.offer("v", &stream{columns: oneColumn, identity: "env"})
		registry := prometheus.NewPedanticRegistry()
		start(t, hub.Options{
			Views: []hub.View{{Name: "v"}}, Subscribe: u.subscribe, Registerer: registry,
			Sinks: []hub.Sink{{Name: "out", Sink: r, Views: []string{"v"}}},
		})
		s.batches <- batch(0, now, "a+1 b+2")
		s.batches <- unreachable("gone")
		<-time.After(time.Second)
		s = u.offer("v", &stream{columns: oneColumn, identity: "env"})
		<-time.After(time.Minute)
		s.batches <- batch(0, now+61_001, "a+1")
		synctest.Wait()
		<-time.After(9 * time.Second)
		metrics := fmt.Sprintf(`
# HELP mzd_log_bytes Memory that the log of the view holds, about; what it has on disk is in /api/status.
# TYPE mzd_log_bytes gauge
mzd_log_bytes{view="v"} 74
# HELP mzd_log_compactions_total Merges done in the log of the view.
# TYPE mzd_log_compactions_total counter
mzd_log_compactions_total{view="v"} 0
# HELP mzd_log_since_timestamp_seconds Time from which on the log of the view keeps history.
# TYPE mzd_log_since_timestamp_seconds gauge
mzd_log_since_timestamp_seconds{view="v"} %[1]v
# HELP mzd_sink_deliveries_total Writes of a sink, by outcome. A sink that cannot tell its position fails, too.
# TYPE mzd_sink_deliveries_total counter
mzd_sink_deliveries_total{outcome="error",sink="out",view="v"} 0
mzd_sink_deliveries_total{outcome="ok",sink="out",view="v"} 2
# HELP mzd_sink_frontier_timestamp_seconds Time below which the sink has taken the view.
# TYPE mzd_sink_frontier_timestamp_seconds gauge
mzd_sink_frontier_timestamp_seconds{sink="out",view="v"} %[2]v
# HELP mzd_sink_lag_seconds How far the sink is behind the wall clock.
# TYPE mzd_sink_lag_seconds gauge
mzd_sink_lag_seconds{sink="out",view="v"} 9
# HELP mzd_sink_retries_total Writes of a sink that were tried again.
# TYPE mzd_sink_retries_total counter
mzd_sink_retries_total{sink="out"} 0
# HELP mzd_upstream_connected 1 while the view's stream from the upstream is open, or the view is sealed and needs none.
# TYPE mzd_upstream_connected gauge
mzd_upstream_connected{view="v"} 1
# HELP mzd_upstream_resnapshots_total Snapshots taken of a view that was there already: the upstream's history was gone, or is another one.
# TYPE mzd_upstream_resnapshots_total counter
mzd_upstream_resnapshots_total{view="v"} 1
# HELP mzd_view_frontier_timestamp_seconds Time below which the view is complete.
# TYPE mzd_view_frontier_timestamp_seconds gauge
mzd_view_frontier_timestamp_seconds{view="v"} %[2]v
# HELP mzd_view_lag_seconds How far the view is behind the wall clock.
# TYPE mzd_view_lag_seconds gauge
mzd_view_lag_seconds{view="v"} 9
# HELP mzd_view_rows Rows in the view.
# TYPE mzd_view_rows gauge
mzd_view_rows{view="v"} 1
# HELP mzd_view_state 1 for the state that the view is in, 0 for the others.
# TYPE mzd_view_state gauge
mzd_view_state{state="catching_up",view="v"} 0
mzd_view_state{state="connecting",view="v"} 0
mzd_view_state{state="failed",view="v"} 0
mzd_view_state{state="live",view="v"} 1
mzd_view_state{state="sealed",view="v"} 0
# HELP mzd_view_updates_total Changes of rows that the view has seen.
# TYPE mzd_view_updates_total counter
mzd_view_updates_total{view="v"} 3
`, now.Seconds(), (now + 61_001).Seconds())
		var names []string
		for _, line := range strings.Split(metrics, "\n") {
			if f := strings.Fields(line); len(f) > 2 && f[1] == "TYPE" {
				names = append(names, f[2])
			}
		}
		if err := testutil.GatherAndCompare(registry, strings.NewReader(metrics), names...); err != nil {
			t.Error(err)
		}
		if n, err := testutil.GatherAndCount(registry, "mzd_upstream_reconnects_total", "mzd_sink_delivery_duration_seconds"); n != 5 || err != nil {
			t.Errorf("reconnects and durations: %d series (%v), want 5", n, err)
		}
	})
}

// TestPositionNotTold counts a sink that cannot tell its position as one that
// fails: nothing else does, since it is never written.
func TestPositionNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, r := &upstream{}, &positioner{err: errors.New("no database")}
		u.offer("v", &stream{columns: oneColumn, identity: "env"})
		registry := prometheus.NewPedanticRegistry()
		start(t, hub.Options{
			Views: []hub.View{{Name: "v"}}, Subscribe: u.subscribe, Registerer: registry,
			Sinks: []hub.Sink{{Name: "own", Sink: r, Views: []string{"v"}}},
		})
		<-time.After(time.Minute)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() != "mzd_sink_deliveries_total" {
					continue
				}
				if n := m.GetCounter().GetValue(); (n > 1) != (m.GetLabel()[0].GetValue() == "error") {
					t.Errorf("%s %v: want tries that failed, and nothing else", f.GetName(), m)
				}
			}
		}
	})
}
