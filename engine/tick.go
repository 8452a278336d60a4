package engine

import (
	"context"
	"time"

	"github.com/mzdio/mzd/engine/flow"
)

// dataflow is the goroutine that ticks.
func (e *Engine) dataflow(ctx context.Context) error {
	c := &flow.Context{Budget: e.opt.MaxBytes}
	e.advance(c)
	idle := time.NewTicker(idleTick)
	defer idle.Stop()
	var lastTick time.Time
	progress := time.Now()
	for {
		var batch []*chunk
		select {
		case <-ctx.Done():
			return nil
		case <-idle.C:
			e.advance(c)
			continue
		case <-e.wake:
		case first := <-e.chunks:
			batch = []*chunk{first}
		}
		batch, ok := e.collect(ctx, batch, lastTick)
		if !ok {
			return nil
		}
		lastTick = time.Now()
		if !e.tick(ctx, c, batch) {
			return nil
		}
		e.report(&progress)
	}
}

// collect gathers the chunks of a tick: what arrives until the interval since the last tick has passed, up to the events of a tick.
func (e *Engine) collect(ctx context.Context, batch []*chunk, lastTick time.Time) ([]*chunk, bool) {
	lines := 0
	for _, c := range batch {
		lines += c.count
	}
	timer := time.NewTimer(time.Until(lastTick.Add(e.opt.TickInterval)))
	defer timer.Stop()
	for due := false; lines < e.opt.TickEvents; {
		select {
		case c := <-e.chunks:
			batch, lines = append(batch, c), lines+c.count
			continue
		default:
		}
		if due {
			break
		}
		select {
		case c := <-e.chunks:
			batch, lines = append(batch, c), lines+c.count
		case <-timer.C:
			due = true
		case <-ctx.Done():
			return nil, false
		}
	}
	for _, c := range batch {
		select {
		case <-c.done:
		case <-ctx.Done():
			return nil, false
		}
	}
	return batch, true
}

// outcome is what a step did to a view.
type outcome struct {
	view *view
	change
}

// stepGraph steps the views with what has been read, and what has been written to tables. The caller holds graphMu.
func (e *Engine) stepGraph(c *flow.Context, batch []*chunk, written map[*view][]flow.Update) []outcome {
	var outcomes []outcome
	by := map[*view]int{}
	due := e.due()
	for _, v := range e.graph {
		var rows []flow.Keyed
		var errs []flow.ErrorUpdate
		switch {
		case v.observe != nil:
			if due {
				rows = e.observe(v)
			}
		case v.flow == nil:
			rows = v.net.Rows(written[v])
		default:
			e.feedInputs(c, v, batch, func(in *view) *outcome {
				if i, ok := by[in]; ok {
					return &outcomes[i]
				}
				return nil
			})
			rows, errs = v.step(c)
			v.clear()
		}
		if len(rows) > 0 || len(errs) > 0 {
			by[v] = len(outcomes)
			outcomes = append(outcomes, outcome{v, change{rows: rows, errors: errs}})
		}
	}
	return outcomes
}

// feedInputs gives the slots of a view what has been read of its sources, and what happened to its views. The caller holds graphMu.
func (e *Engine) feedInputs(c *flow.Context, v *view, batch []*chunk, happened func(*view) *outcome) {
	for slot, in := range v.inputs {
		if in.view != nil {
			if o := happened(in.view); o != nil {
				v.feed(c, slot, o.rows, o.errors)
			}
			continue
		}
		for _, k := range batch {
			if k.src == in.src && k.lines != "" {
				v.deltas[slot].Append(k.out(c, in.proj))
			}
		}
	}
}

// tick commits the transactions that wait, steps the views with them and with what has been read, and publishes. While no time can
// be reserved, because the disk is full for one, what has been read waits, and who writes is told. It is false when the context has
// ended before.
func (e *Engine) tick(ctx context.Context, c *flow.Context, batch []*chunk) bool {
	e.graphMu.Lock()
	at, err := e.reserve()
	for err != nil {
		e.refuseWaiting(err)
		e.graphMu.Unlock()
		if len(batch) == 0 {
			return true
		}
		if sleep(ctx, retryWait); ctx.Err() != nil {
			return false
		}
		e.graphMu.Lock()
		at, err = e.reserve()
	}
	defer e.graphMu.Unlock()
	transactions := e.harden(at, e.takeWriters())
	if len(batch) == 0 && len(transactions) == 0 {
		return true
	}
	began := time.Now()
	outcomes := e.stepGraph(c, batch, sumWrites(transactions))
	e.mu.Lock()
	defer e.mu.Unlock()
	lines, changes := 0, 0
	for _, k := range batch {
		lines += k.count
	}
	for _, o := range outcomes {
		changes += len(o.rows)
	}
	e.ticks.add(lines, changes, time.Since(began))
	e.conclude(at, outcomes, batch)
	e.committed(transactions)
	return true
}

// conclude makes what a step did, and what the chunks say of their sources, part of a time, and closes it. The caller holds mu.
func (e *Engine) conclude(at uint64, outcomes []outcome, batch []*chunk) {
	for _, o := range outcomes {
		o.time = at
		o.view.apply(o.change, o.view.ready)
	}
	for _, k := range batch {
		e.settle(k, at)
	}
	if !e.opening || e.opened(at) {
		e.settled(at)
		e.close(at + 1)
	}
	e.enforce()
}

// settle publishes what a chunk says about its source. The caller holds mu.
func (e *Engine) settle(k *chunk, at uint64) {
	s := k.src
	s.extent = k.after
	e.leaveOut(s, k.bad)
	switch {
	case k.failure != nil:
		news := s.err == nil || s.err.Error() != k.failure.Error()
		s.err = k.failure
		s.state = SourceFailed
		if k.ended {
			s.state = SourceShrunk
		}
		if news {
			e.log.Error("source stopped", "source", s.name, "state", s.state, "error", s.problem())
		}
		if k.ended && !s.caughtUp {
			s.broken = brokenSource(s)
			e.breakDependents()
		}
	case k.ended:
		s.state = SourceDone
	case k.caughtUp:
		s.caughtUp = true
		s.err = nil
		if s.file == nil {
			s.state = SourceMissing
			e.log.Warn("source has no file yet; it is read once there is one", "source", s.name, "path", s.path)
			break
		}
		s.state = SourceTailing
		e.log.Info("source read", "source", s.name, "state", s.state, "bytes", s.extent.Offset, "lines", s.extent.Lines)
	case s.state == SourceFailed: // lines again
		s.err, s.state = nil, SourceTailing
		if !s.caughtUp {
			s.state = SourceLoading
		}
	}
	if s.caughtUp {
		if n := len(s.marks); n == 0 || s.marks[n-1].offset != s.extent.Offset {
			s.marks = append(s.marks, mark{at, s.extent.Offset, s.extent.Lines})
		}
	}
}

// opened ends the opening if all sources that can be read have been read again. The caller holds mu.
func (e *Engine) opened(at uint64) bool {
	for _, o := range e.objects {
		if s := o.source; s != nil && !s.caughtUp && s.broken == nil && s.err == nil {
			return false
		}
	}
	e.opening = false
	e.settled(at)
	signal(e.wake) // for who wrote meanwhile
	return true
}

// settled lets the views be read, from a time on, whose inputs now can be. The caller holds mu.
func (e *Engine) settled(at uint64) {
	for _, v := range e.graph {
		if v.ready || v.broken != nil {
			continue
		}
		ready := true
		for i := range v.inputs {
			ok, _ := v.inputs[i].readable()
			ready = ready && ok
		}
		if ready {
			v.readyFrom(at)
		}
	}
}

// close closes all times below upper and forgets history. The caller holds mu.
func (e *Engine) close(upper uint64) {
	e.upper = max(e.upper, upper)
	keep := uint64(e.opt.History.Milliseconds())
	until, held := uint64(0), e.upper
	if e.upper > keep {
		until = e.upper - 1 - keep
	}
	for h := range e.holds {
		held = min(held, h.time)
	}
	for _, v := range e.graph {
		limit := e.opt.HistoryBytes
		if v.observe != nil {
			limit = min(limit, systemHistory)
		}
		v.trim(until, held+1, limit)
	}
	for _, o := range e.objects {
		if o.source != nil {
			o.source.trim(min(until, held))
		}
	}
	e.notify()
}

// advance closes the times until now when nothing has come in. If no time can be reserved, the next call tries again.
func (e *Engine) advance(c *flow.Context) {
	e.graphMu.Lock()
	defer e.graphMu.Unlock()
	at, err := e.reserve()
	if err != nil {
		e.refuseWaiting(err)
		return
	}
	outcomes := e.stepGraph(c, nil, nil)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.conclude(at, outcomes, nil)
}

// reserve returns the next time, the clock's but never one that has been closed, and makes sure that it may be used. The caller
// holds graphMu, so that nobody else uses it.
func (e *Engine) reserve() (uint64, error) {
	if err := e.settleJournal(); err != nil {
		return 0, err
	}
	e.mu.Lock()
	at := max(uint64(time.Now().UnixMilli()), e.upper)
	enough := at+1 < e.reserved
	e.mu.Unlock()
	if enough {
		return at, nil
	}
	return at, e.save(false)
}

// report logs how far the sources have been read while that takes long.
func (e *Engine) report(last *time.Time) {
	if time.Since(*last) < 2*time.Second {
		return
	}
	*last = time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, o := range e.objects {
		if s := o.source; s != nil && s.state == SourceLoading {
			e.log.Info("source loading", "source", s.name, "percent", 100*s.extent.Offset/max(s.target, 1), "bytes", s.extent.Offset, "of", s.target, "lines", s.extent.Lines)
		}
	}
}
