package plugintest

import (
	"context"
	"slices"
	"sync"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/viewlog"
)

// broadcast makes a [core.Broadcaster] a sink that is written, as mzd does: it
// keeps the logs, and serves them to it.
type broadcast struct {
	core.Broadcaster
	p    *sinkProbe
	logs *logs

	serving *serving // nil: not yet
}

// logs are the logs of a rule's views, which outlive an instance.
type logs struct {
	mu  sync.Mutex // guards all
	all []*viewlog.Log
}

// serving is a call of Serve that is under way.
type serving struct {
	cancel context.CancelFunc
	ended  <-chan *panicked
	err    error // what Serve returned, once ended has said so
	views  int
}

// newBroadcast serves what views there are.
func newBroadcast(p *sinkProbe, sink core.Broadcaster) *broadcast {
	b := &broadcast{Broadcaster: sink, p: p, logs: &p.logs}
	b.logs.mu.Lock()
	defer b.logs.mu.Unlock()
	if len(b.logs.all) > 0 {
		b.serve()
	}
	return b
}

// Write appends the cut to the logs.
func (b *broadcast) Write(ctx context.Context, cut []core.Batch) error {
	b.logs.mu.Lock()
	defer b.logs.mu.Unlock()
	for _, batch := range cut {
		if err := b.append(batch); err != nil {
			return err
		}
	}
	if b.serving == nil || b.serving.views != len(b.logs.all) {
		b.stop()
		b.serve()
	}
	return ctx.Err()
}

func (b *broadcast) append(batch core.Batch) error {
	i := slices.IndexFunc(b.logs.all, func(l *viewlog.Log) bool { return l.View().Name == batch.View.Name })
	if i < 0 {
		b.logs.all = append(b.logs.all, viewlog.New(batch.View.Name, viewlog.Options{}))
		i = len(b.logs.all) - 1
	}
	log := b.logs.all[i]
	switch {
	case batch.IsBase():
		snapshot := log.Snapshot()
		for u := range batch.Updates.All() {
			snapshot.Add([]byte(u.Row), u.Diff)
		}
		return log.Reset(batch.View, "plugintest", batch.Upper.Time, snapshot)
	case batch.Lower.Time == batch.Upper.Time:
		return nil
	}
	return log.Append(batch.Lower.Time, batch.Upper.Time, slices.Clone(batch.Updates.Slice()))
}

// serve serves all logs; their lock is held.
func (b *broadcast) serve() {
	ctx, cancel := context.WithCancel(b.p.ctx)
	s := &serving{cancel: cancel, views: len(b.logs.all)}
	var readers []core.Reader
	for _, log := range b.logs.all {
		readers = append(readers, log)
	}
	s.ended = b.p.start(func() { s.err = b.Broadcaster.Serve(ctx, readers) })
	b.p.note("Serve of %d views", s.views)
	b.serving = s
}

// stop ends Serve, as mzd does before it closes the sink.
func (b *broadcast) stop() {
	s := b.serving
	if s == nil {
		return
	}
	b.serving = nil
	s.cancel()
	b.p.wait("Serve, whose context has ended,", s.ended, b.p.patience)
	b.p.note("Serve is told to stop: %s", answer(s.err))
	if s.err != nil {
		b.p.fail("Serve returns nil when its context has ended", "the error: %v", s.err)
	}
}
