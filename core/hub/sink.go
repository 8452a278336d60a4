package hub

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/backoff"
	"github.com/mzdio/mzd/core/viewlog"
)

// group is some views of one sink that move together: a single view, all views
// of a sink that wants one cut, or all views of a broadcaster.
type group struct {
	name    string // of the sink
	sink    core.Sink
	views   []*view
	skip    bool // start with what happens from now on
	log     *slog.Logger
	metrics sinkMetrics

	// These belong to New, and then to run.
	kept  *positions      // nil: positions are in memory only
	fresh []bool          // by view: the sink has never stood anywhere
	dirty bool            // places has an acknowledgement that was not saved
	holds []*viewlog.Hold // what keeps the places that were saved last readable

	mu        sync.Mutex // guards what follows; only run writes it
	places    []place    // by view
	trouble   trouble
	permanent bool
	serving   bool   // a broadcaster's code runs
	restarts  uint64 // of it, after it has ended by itself
}

func newGroup(c Sink, views []*view, o Options, m *metrics) *group {
	g := &group{
		name:   c.Name,
		sink:   c.Sink,
		views:  views,
		skip:   c.SkipSnapshot,
		log:    o.Logger.With("sink", c.Name),
		places: make([]place, len(views)),
		fresh:  make([]bool, len(views)),
	}
	g.metrics = m.ofSink(c.Name, g.viewNames())
	return g
}

func (g *group) viewNames() []string {
	var names []string
	for _, v := range g.views {
		names = append(names, v.Name)
	}
	return names
}

// broadcasts reports whether the sink serves readers with positions of their
// own.
func (g *group) broadcasts() bool {
	_, ok := g.sink.(core.Broadcaster)
	return ok
}

// run serves or writes the sink until ctx ends. Its error is that an
// acknowledgement could not be saved, so that what was acknowledged comes again.
func (g *group) run(ctx context.Context) error {
	b, ok := g.sink.(core.Broadcaster)
	if !ok {
		return g.write(ctx)
	}
	var readers []core.Reader
	for _, v := range g.views {
		readers = append(readers, reader{v.data, v})
	}
	begun := false
	g.persist(ctx, func() error {
		g.startServing(begun)
		begun = true
		defer g.stopServing()
		// It says nothing while it works: it works again when it has served for
		// longer than any wait between tries.
		recovered := time.AfterFunc(longestWait, g.succeeded)
		defer recovered.Stop()
		if err := b.Serve(ctx, readers); err != nil || ctx.Err() != nil {
			return err
		}
		return errors.New("ended without an error")
	})
	return nil
}

func (g *group) startServing(again bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.serving = true
	if again {
		g.restarts++
	}
}

func (g *group) stopServing() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.serving = false
}

// reader is the log of a view for a broadcaster.
type reader struct {
	*viewlog.Log
	view *view
}

var _ core.TroubledReader = reader{}

// Trouble returns why the view has stopped.
func (r reader) Trouble() error { return r.view.Trouble() }

// persist tries until it works or ctx ends, and then returns the error of ctx.
// It tries at least once.
func (g *group) persist(ctx context.Context, try func() error) error {
	retry := retryWait
	for {
		begun := time.Now()
		err := try()
		if time.Since(begun) > longestWait {
			retry.Reset()
		}
		if err == nil {
			g.succeeded()
			return nil
		}
		if ctx.Err() != nil || !g.failed(ctx, err, &retry) {
			return ctx.Err()
		}
	}
}

// succeeded notes that the trouble is over, if there was any.
func (g *group) succeeded() {
	g.mu.Lock()
	after := g.trouble
	g.trouble, g.permanent = trouble{}, false
	g.mu.Unlock()
	if after.err != nil {
		g.log.Info("sink works again", "after", time.Since(after.since).Round(time.Millisecond).String())
	}
}

// failed notes trouble and waits for the next try. It returns false when there
// is no next try: ctx ended. A permanent error waits for that.
func (g *group) failed(ctx context.Context, err error, retry *backoff.Backoff) bool {
	permanent := errors.Is(err, core.ErrPermanent)
	wait := retry.Next() + retryAfter(err) // the receiver knows when not to come back before
	next := time.Now().Add(wait)
	if permanent {
		next = time.Time{}
	}
	g.mu.Lock()
	news := g.trouble.set(err, next)
	g.permanent = permanent
	g.mu.Unlock()
	args := []any{"views", strings.Join(g.viewNames(), ","), "error", err}
	switch {
	case permanent:
		g.log.Error("sink failed for good; fix it and restart", args...)
		<-ctx.Done()
		return false
	case news:
		g.log.Warn("sink failed; trying again until it works", args...)
	default:
		g.log.Debug("sink failed again", args...)
	}
	return backoff.Wait(ctx, wait) == nil
}
