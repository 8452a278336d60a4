package plugintest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

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
		if err := b.stop(); err != nil {
			return err
		}
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

// serveWait is how long to wait before Serve is called again when it has failed.
const serveWait = 50 * time.Millisecond

// serve serves all logs; their lock is held.
func (b *broadcast) serve() {
	ctx, cancel := context.WithCancel(b.p.ctx)
	s := &serving{cancel: cancel, views: len(b.logs.all)}
	var readers []core.Reader
	for _, log := range b.logs.all {
		readers = append(readers, log)
	}
	s.ended = b.p.start(func() {
		for ctx.Err() == nil {
			err := b.Broadcaster.Serve(ctx, readers)
			b.p.note("Serve returns: %s", answer(err))
			if ctx.Err() == nil { // a failure, which mzd waits out
				b.p.pause(serveWait)
			}
		}
	})
	b.p.note("Serve of %d views", s.views)
	b.serving = s
}

// stop ends Serve, as mzd does before it closes the sink. Its error is that Serve
// does not end as it ought to.
func (b *broadcast) stop() error {
	s := b.serving
	if s == nil {
		return nil
	}
	b.serving = nil
	s.cancel()
	timer := time.NewTimer(b.p.patience)
	defer timer.Stop()
	select {
	case x := <-s.ended:
		if x != nil {
			return fmt.Errorf("Serve panicked: %v\n%s", x.value, x.stack)
		}
		return nil
	case <-timer.C:
		return fmt.Errorf("Serve has not returned within %v after its context has ended%s", b.p.patience, b.p.whereCalls())
	}
}
