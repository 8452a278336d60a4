package plugintest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
)

// Source is a source to be tested.
type Source struct {
	Plugin plugins.Source

	// Settings are what it is opened with. All instances read the same outside
	// world, which must still have what it had, so that it can be read again.
	Settings json.RawMessage

	// Cursor is where the first run begins.
	Cursor string

	// Produce makes n more events happen in the outside world. Without it they
	// must happen by themselves, or be there already.
	Produce func(ctx context.Context, n int) error

	// Events is how many events the suite reads, and then reads again from each of
	// their cursors. Zero: 30.
	Events int

	// Refused are settings, beyond those that its schema rules out, that the
	// source must refuse.
	Refused []json.RawMessage

	// Exempt names rules that the source does not keep on purpose, each with the
	// reason. They are reported as not checked.
	Exempt map[string]string

	// External says that the source runs in a process of its own, of which the
	// suite cannot see the inside.
	External bool

	// Patience is how long to wait for an event that ought to come, or for a call
	// that ought to return. Zero: 10 seconds.
	Patience time.Duration
}

// TestSource holds a source against each rule, as subtests by the rules' names.
func TestSource(t *testing.T, s Source) {
	t.Helper()
	s.suite().test(t)
}

// CheckSource holds a source against the rules whose names match, nil for all of
// them, one after the other.
func CheckSource(ctx context.Context, s Source, match func(rule string) bool) iter.Seq[Result] {
	return s.suite().results(ctx, match)
}

// produce is what the author of a source can give.
const produce need = "produce"

// defaultEvents is how many events the suite reads.
const defaultEvents = 30

func (s Source) suite() *suite[*sourceProbe] {
	s.Patience = cmp.Or(s.Patience, defaultPatience)
	s.Events = cmp.Or(s.Events, defaultEvents)
	missing := make(map[need]string)
	if s.Produce == nil {
		missing[produce] = "nobody makes events happen: give Produce, or -produce"
	}
	known := new(recording)
	return &suite[*sourceProbe]{
		rules:    sourceRules,
		exempt:   s.Exempt,
		missing:  missing,
		patience: s.Patience,
		outcomes: make(map[string]Status),
		begin:    func(p *probe) *sourceProbe { return &sourceProbe{probe: p, Source: s, known: known} },
	}
}

// recording is the events that the first run brought, for all rules.
type recording struct {
	events []core.Event
}

// sourceProbe is what a rule about sources works with. It plays mzd's part.
type sourceProbe struct {
	*probe
	Source
	known *recording
}

// open opens the source.
func (p *sourceProbe) open() core.Source {
	source, err := p.tryOpen(p.Settings)
	if err != nil {
		p.fail("Open with the settings given returns a source", "the error: %v", err)
	}
	return source
}

func (p *sourceProbe) tryOpen(settings json.RawMessage) (source core.Source, err error) {
	p.call("Open", func() { source, err = p.Plugin.Open(p.environment(), settings) })
	p.note("Open %s: %s", shorten(string(settings)), answer(err))
	if closer, ok := source.(io.Closer); ok && err == nil {
		p.cleanups = append(p.cleanups, func() { p.call("Close", func() { closer.Close() }) })
	}
	return source, err
}

// landing is where emitted events go, in place of mzd's.
type landing struct {
	mu      sync.Mutex // guards what follows
	events  []core.Event
	calls   int           // of emit
	pending int           // events of calls under way
	ended   bool          // the run has returned
	late    bool          // emit was called after that
	news    chan struct{} // closed when something has changed

	// refuse says what happens to a call of emit, counted from 0: nil lands its
	// events. It is called without the lock.
	refuse func(ctx context.Context, call int) error
}

func newLanding() *landing { return &landing{news: make(chan struct{})} }

// emit takes events over.
func (l *landing) emit(ctx context.Context, events ...core.Event) error {
	l.mu.Lock()
	call := l.calls
	if len(events) > 0 {
		l.calls++
	}
	l.late = l.late || l.ended
	l.pending += len(events)
	l.changed()
	l.mu.Unlock()

	err := ctx.Err()
	if err == nil && l.refuse != nil && len(events) > 0 {
		err = l.refuse(ctx, call)
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending -= len(events)
	if err == nil {
		for _, e := range events {
			e.Data = slices.Clone(e.Data) // the source may use it again
			l.events = append(l.events, e)
		}
	}
	l.changed()
	return err
}

func (l *landing) changed() {
	close(l.news)
	l.news = make(chan struct{})
}

// cursor returns where to go on: that of the last event landed, or the given one.
func (l *landing) cursor(first string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.events); n > 0 {
		return l.events[n-1].Cursor
	}
	return first
}

// look returns the events that have landed, and a channel that is closed when
// anything has changed.
func (l *landing) look() ([]core.Event, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.events[:len(l.events):len(l.events)], l.news
}

// waiting returns how many events wait for emit to return.
func (l *landing) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pending
}

// isLate reports whether emit was called when no run was under way.
func (l *landing) isLate() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.late
}

func (l *landing) landed() []core.Event {
	events, _ := l.look()
	return events
}

// run is a run of a source that is under way.
type run struct {
	*sourceProbe
	landing *landing
	cancel  context.CancelFunc
	ended   <-chan *panicked
	err     error // what Run returned, once ended has said so
}

// run runs the source from a cursor.
func (p *sourceProbe) run(source core.Source, cursor string, l *landing) *run {
	ctx, cancel := context.WithCancel(p.ctx)
	l.mu.Lock()
	l.ended = false
	l.mu.Unlock()
	r := &run{sourceProbe: p, landing: l, cancel: cancel}
	r.ended = p.start(func() {
		defer func() {
			l.mu.Lock()
			l.ended = true
			l.changed()
			l.mu.Unlock()
		}()
		r.err = source.Run(ctx, cursor, l.emit)
	})
	p.note("Run from %q", cursor)
	return r
}

// stop ends the run, as mzd does when it stops.
func (r *run) stop() {
	r.cancel()
	r.wait("Run, whose context has ended,", r.ended, r.patience)
	r.note("Run is told to stop after %d events and returns: %s", len(r.landing.landed()), answer(r.err))
}

// readUntil runs the source from a cursor until nothing is left to come, again
// and again like mzd if it ends before. left says how many events that is; false
// means that it has not become less for too long.
func (p *sourceProbe) readUntil(source core.Source, cursor string, l *landing, left func(landed []core.Event) int) bool {
	w := watch{left: left, quiet: time.NewTimer(p.patience), least: math.MaxInt}
	defer w.quiet.Stop()
	for {
		r := p.run(source, l.cursor(cursor), l)
		before := len(l.landed())
		if complete, over := r.follow(&w); over {
			r.stop()
			return complete
		}
		r.cancel()
		r.note("Run returns after %d events: %s", len(l.landed()), answer(r.err))
		if errors.Is(r.err, core.ErrPermanent) {
			p.fail("Run goes on", "an error that wraps core.ErrPermanent: %v", r.err)
		}
		if len(l.landed()) == before && !p.pause(100*time.Millisecond) {
			return false
		}
	}
}

// watch is how far reading has come.
type watch struct {
	left  func(landed []core.Event) int
	least int         // what left has returned
	quiet *time.Timer // fires when least has not become less for long
}

// follow waits until nothing is left to come, which is complete, or does not come
// any more. If that is not over, the run has returned.
func (r *run) follow(w *watch) (complete, over bool) {
	hungry := time.NewTicker(50 * time.Millisecond)
	defer hungry.Stop()
	for {
		events, news := r.landing.look()
		if n := w.left(events); n < w.least {
			w.least = n
			w.quiet.Reset(r.patience)
		}
		if w.least <= 0 {
			return true, true
		}
		select {
		case <-news:
		case x := <-r.ended:
			if x != nil {
				r.fail("Run returns", "it panicked: %v\n%s", x.value, x.stack)
			}
			return false, false
		case <-hungry.C:
			r.more(5)
		case <-w.quiet.C:
			return false, true
		}
	}
}

// first says how many of the first n events are still to come.
func first(n int) func([]core.Event) int {
	return func(landed []core.Event) int { return n - len(landed) }
}

// more makes events happen, if anybody can.
func (p *sourceProbe) more(n int) {
	if p.Produce == nil {
		return
	}
	var err error
	p.call("the producer", func() { err = p.Produce(p.ctx, n) })
	if err != nil {
		p.fail("the producer makes events happen", "the error: %v", err)
	}
}

// events returns the events of the first run, which all rules compare with.
func (p *sourceProbe) events() []core.Event {
	if p.known.events != nil {
		return p.known.events
	}
	l := newLanding()
	if !p.readUntil(p.open(), p.Cursor, l, first(p.Source.Events)) {
		p.fail("the source brings events", "%d of %d within %s", len(l.landed()), p.Source.Events, p.patience)
	}
	p.known.events = l.landed()[:p.Source.Events]
	return p.known.events
}

// missing returns those of the wanted events that are not among those that came.
// Events without ID are counted.
func missing(want, came []core.Event) []core.Event {
	ids, others := make(map[string]bool), make(map[string]int)
	for _, e := range came {
		if e.ID != "" {
			ids[e.ID] = true
		} else {
			others[string(e.Data)]++
		}
	}
	var not []core.Event
	for _, e := range want {
		switch {
		case e.ID != "" && !ids[e.ID]:
			not = append(not, e)
		case e.ID == "":
			if others[string(e.Data)]--; others[string(e.Data)] < 0 {
				not = append(not, e)
			}
		}
	}
	return not
}

// after returns the events after one of them that are no repeats of it or those
// before.
func after(events []core.Event, at int) []core.Event {
	var rest []core.Event
	for _, e := range events[at+1:] {
		if e.ID == "" || !slices.ContainsFunc(events[:at+1], func(b core.Event) bool { return b.ID == e.ID }) {
			rest = append(rest, e)
		}
	}
	return rest
}

func describeEvents(events []core.Event) string {
	var all []string
	for _, e := range events {
		text := shorten(string(e.Data))
		if e.ID != "" {
			text = e.ID + " " + text
		}
		all = append(all, text)
	}
	return few(all)
}
