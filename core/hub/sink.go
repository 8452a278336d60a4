package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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

	mu        sync.Mutex // guards what follows
	positions []core.Token
	trouble   trouble
	permanent bool
}

func newGroup(c Sink, views []*view, o Options, m *metrics) *group {
	g := &group{
		name:      c.Name,
		sink:      c.Sink,
		views:     views,
		skip:      c.SkipSnapshot,
		log:       o.Logger.With("sink", c.Name),
		positions: make([]core.Token, len(views)),
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

func (g *group) readers() []core.CutReader {
	var readers []core.CutReader
	for _, v := range g.views {
		readers = append(readers, v.data)
	}
	return readers
}

// run serves or writes the sink until ctx ends.
func (g *group) run(ctx context.Context) {
	work := g.write
	if b, ok := g.sink.(core.Broadcaster); ok {
		work = func(ctx context.Context) error { return g.serve(ctx, b) }
	}
	retry := retryWait
	for {
		begun := time.Now()
		err := work(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(begun) > longestWait {
			retry.Reset()
		}
		if err == nil {
			err = errors.New("ended without an error")
		}
		if !g.failed(ctx, err, &retry) {
			return
		}
	}
}

// serve hands the logs to a broadcaster.
func (g *group) serve(ctx context.Context, b core.Broadcaster) error {
	var readers []core.Reader
	for _, v := range g.views {
		readers = append(readers, reader{v.data, v})
	}
	// It says nothing while it works: it works again when it has served for
	// longer than any wait between tries.
	recovered := time.AfterFunc(longestWait, func() { g.succeeded(nil) })
	defer recovered.Stop()
	return b.Serve(ctx, readers)
}

// reader is the log of a view for a broadcaster.
type reader struct {
	*viewlog.Log
	view *view
}

var _ core.TroubledReader = reader{}

// Trouble returns why the view has stopped.
func (r reader) Trouble() error {
	r.view.mu.Lock()
	defer r.view.mu.Unlock()
	return r.view.trouble.err
}

// write follows the views and writes each cut until it is taken.
func (g *group) write(ctx context.Context) error {
	from, err := g.start(ctx)
	if err != nil {
		return err
	}
	holds := make([]*viewlog.Hold, len(g.views))
	defer func() {
		for _, h := range holds {
			if h != nil {
				h.Release()
			}
		}
	}()
	for cut, err := range core.FollowCut(ctx, g.readers(), from) {
		if err != nil {
			return err
		}
		// While the sink takes its time, or is away, the log keeps where the
		// cut ends: what comes next is one net batch from there. A log that has
		// forgotten the place already answers with a base.
		for i, b := range cut {
			if holds[i] == nil {
				holds[i], _ = g.views[i].data.Hold(b.Upper)
			} else {
				holds[i].Move(b.Upper)
			}
		}
		if err := g.deliver(ctx, cut); err != nil {
			return err
		}
	}
	return nil
}

// start returns where the sink begins.
func (g *group) start(ctx context.Context) ([]core.Token, error) {
	from := make([]core.Token, len(g.views))
	for i, v := range g.views {
		if p, ok := g.sink.(core.Positioner); ok {
			token, err := p.Position(ctx, v.data.View())
			if err != nil {
				return nil, fmt.Errorf("position of %s: %w", v.Name, err)
			}
			from[i] = token
		}
	}
	if !g.skip || !slices.ContainsFunc(from, core.Token.IsZero) {
		return from, nil
	}
	// One cut for all, so that none of them begins above the first cut.
	for cut, err := range core.FollowCut(ctx, g.readers(), nil) {
		if err != nil {
			return nil, err
		}
		for i, b := range cut {
			if from[i].IsZero() {
				from[i] = b.Upper
			}
		}
		break
	}
	return from, nil
}

// deliver writes one cut, the same bytes again and again, until the sink takes
// it.
func (g *group) deliver(ctx context.Context, cut []core.Batch) error {
	retry := retryWait
	for {
		begun := time.Now()
		err := g.sink.Write(ctx, cut)
		if ctx.Err() != nil && err != nil {
			return ctx.Err()
		}
		g.metrics.delivered(time.Since(begun), err)
		if err == nil {
			g.succeeded(cut)
			return nil
		}
		if !g.failed(ctx, err, &retry) {
			return ctx.Err()
		}
		g.metrics.retries.Inc()
	}
}

// succeeded moves the position past a cut (I5).
func (g *group) succeeded(cut []core.Batch) {
	g.mu.Lock()
	after := g.trouble
	g.trouble = trouble{}
	for i, b := range cut {
		g.positions[i] = b.Upper
	}
	g.mu.Unlock()
	if after.err != nil {
		g.log.Info("sink works again", "after", time.Since(after.since).Round(time.Millisecond).String())
	}
}

// failed notes trouble and waits for the next try. It returns false when there
// is no next try: ctx ended. A permanent error waits for that.
func (g *group) failed(ctx context.Context, err error, retry *backoff.Backoff) bool {
	permanent := errors.Is(err, core.ErrPermanent)
	wait := retry.Next()
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

// at returns a copy of the positions.
func (g *group) at() []core.Token {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.positions)
}
