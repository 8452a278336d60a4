package hub

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/backoff"
	"github.com/mzdio/mzd/core/viewlog"
)

// The life of a cut. It is read from what is durable in the logs; both its ends
// are held there; it is announced, which saves where the sink stands and the
// ends of the attempt; it is written until the sink takes it. The next
// announcement says that it was taken, or, if there is nothing to announce yet,
// a save of its own. A process that begins finds the last announcement, and
// makes the same attempt again first: the log between two tokens is a pure
// function of the two.

// recover takes up where the sink stood when its places were saved last, and
// holds it, before anything can be compacted.
func (g *group) recover(kept *positions) {
	g.kept = kept
	for i, v := range g.views {
		g.fresh[i] = true
		if kept != nil {
			p, found := kept.places[v.Name]
			g.places[i], g.fresh[i] = p, !found
		}
	}
	if g.attempting() && !g.repeatable() {
		if _, ok := g.sink.(core.Positioner); !ok {
			g.startOver()
			return
		}
		// The sink will tell what has become of it.
		for i := range g.places {
			g.places[i] = place{position: g.places[i].position}
		}
	}
	for i, v := range g.views {
		g.checkPosition(v, g.places[i].position)
	}
	g.holds, _ = g.hold(g.places)
}

// attempting reports whether an attempt was announced and not acknowledged.
func (g *group) attempting() bool {
	return slices.ContainsFunc(g.places, func(p place) bool { return !p.to.IsZero() })
}

// repeatable reports whether the attempt can be made again with the same bytes:
// the logs have it, and it is one of all views of the group, which it need not
// be when the configuration was changed.
func (g *group) repeatable() bool {
	for _, p := range g.places {
		if p.to.IsZero() || p.to.Time != g.places[0].to.Time {
			return false
		}
	}
	holds, ok := g.hold(g.places)
	release(holds)
	return ok
}

// startOver gives the places up: the sink gets bases. It is for when an attempt
// cannot be made again. Whether the sink has applied it nobody knows, so that
// only a base is right in both cases.
func (g *group) startOver() {
	g.log.Warn("what was being written to the sink cannot be written again as it was, because its view's history or the sink's views are others now: the sink gets whole views", "views", g.viewNames())
	g.move(make([]place, len(g.views)))
	release(g.holds)
	g.holds = nil
}

// checkPosition says once if a sink cannot go on where it stood.
func (g *group) checkPosition(v *view, position core.Token) {
	if position.IsZero() {
		return
	}
	h, err := v.data.Hold(position)
	if err != nil {
		g.log.Warn("the log cannot continue where the sink stood: the sink gets the whole view", "view", v.Name, "position", position)
		return
	}
	h.Release()
}

// hold makes the logs keep the places readable. ok is false if they are not
// readable any more; then it holds what is.
func (g *group) hold(places []place) (holds []*viewlog.Hold, ok bool) {
	ok = true
	for i, p := range places {
		for _, t := range p.tokens() {
			h, err := g.views[i].data.Hold(t)
			if err != nil {
				ok = false
				continue
			}
			holds = append(holds, h)
		}
	}
	return holds, ok
}

func release(holds []*viewlog.Hold) {
	for _, h := range holds {
		h.Release()
	}
}

// write writes the sink until ctx ends. Its error is that the last
// acknowledgement could not be saved.
func (g *group) write(ctx context.Context) error {
	g.writeCuts(ctx) // which ends with ctx only
	release(g.holds)
	if !g.dirty {
		return nil
	}
	return g.save(g.places)
}

func (g *group) writeCuts(ctx context.Context) error {
	if err := g.persist(ctx, func() error { return g.start(ctx) }); err != nil {
		return err
	}
	// What was read may be in the memory of the kernel only, since the process
	// that wrote it died over it. Nothing may follow from it before it is safe.
	holds, _ := g.hold(g.places)
	if err := g.settle(ctx, g.places, holds); err != nil {
		return err
	}
	cut := g.unfinished()
	for {
		if cut == nil {
			var err error
			if cut, err = g.announce(ctx); err != nil {
				return err
			}
		}
		if err := g.deliver(ctx, cut); err != nil {
			return err
		}
		taken := make([]place, len(cut))
		for i, b := range cut {
			taken[i].position = b.Upper
		}
		g.move(taken) // I5
		g.dirty, cut = true, nil
	}
}

// start finds out where the sink begins, as far as its places do not say it.
func (g *group) start(ctx context.Context) error {
	if p, ok := g.sink.(core.Positioner); ok {
		if err := g.ask(ctx, p); err != nil {
			return err
		}
	}
	for i, v := range g.views {
		for g.skip && g.fresh[i] && g.places[i].position.IsZero() {
			durable, moved := v.data.Durable()
			if durable.IsZero() {
				select {
				case <-moved:
					continue
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			// From here on nothing may be lost, also if the process ends before
			// the sink was written anything.
			places := slices.Clone(g.places)
			places[i].position = durable
			if holds, ok := g.hold(places); !ok {
				release(holds) // a new history has begun since
			} else if err := g.settle(ctx, places, holds); err != nil {
				return err
			}
		}
	}
	return nil
}

// ask asks a sink that keeps its own positions. What it says counts, and makes
// an announced attempt one that stands, that is done, or that is void.
func (g *group) ask(ctx context.Context, p core.Positioner) error {
	stands := true
	told := make([]place, len(g.views))
	for i, v := range g.views {
		begun := time.Now()
		at, err := p.Position(ctx, v.data.View())
		if err != nil {
			if ctx.Err() == nil {
				g.metrics.delivered(time.Since(begun), err) // it takes nothing before it has told
			}
			return fmt.Errorf("position of %s: %w", v.Name, err)
		}
		ours := g.places[i]
		if at.IsZero() && g.skip {
			at = ours.position // where it was to start
		}
		told[i].position = at
		if at != ours.position && (ours.to.IsZero() || at != ours.from) {
			stands = false
			g.checkPosition(v, at)
		}
	}
	if stands {
		return nil
	}
	g.move(told)
	holds, _ := g.hold(told)
	release(g.holds)
	g.holds = holds
	return nil
}

// unfinished returns the cut of the attempt that was announced before this
// process began; nil: there is none.
func (g *group) unfinished() []core.Batch {
	if !g.attempting() {
		return nil
	}
	var cut []core.Batch
	for i, v := range g.views {
		b, err := v.data.Between(g.places[i].from, g.places[i].to)
		if err != nil { // the view has begun a new history meanwhile
			g.startOver()
			return nil
		}
		cut = append(cut, b)
	}
	return cut
}

// announce waits for the next cut and makes the attempt durable.
func (g *group) announce(ctx context.Context) ([]core.Batch, error) {
	for {
		cut, err := g.next(ctx)
		if err != nil {
			return nil, err
		}
		places := slices.Clone(g.places)
		for i, b := range cut {
			places[i].from, places[i].to = b.Lower, b.Upper
		}
		holds, ok := g.hold(places)
		if !ok || !g.durable(cut) {
			release(holds) // a new history has begun since the cut was read
			continue
		}
		return cut, g.settle(ctx, places, holds)
	}
}

// next waits for the cut after the places. An acknowledgement is saved before
// it waits: it need not wait too.
func (g *group) next(ctx context.Context) ([]core.Batch, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var readers []core.CutReader
	var from []core.Token
	for i, v := range g.views {
		position := g.places[i].position
		readers = append(readers, onward{v.data.DurableReader(), v.data, position})
		from = append(from, position)
	}
	following := func(ctx context.Context) ([]core.Batch, error) {
		for cut, err := range core.FollowCut(ctx, readers, from) {
			return cut, err
		}
		return nil, ctx.Err()
	}
	if g.dirty {
		there, cancel := context.WithCancel(ctx)
		cancel() // a context that has ended gives what is there already
		if cut, err := following(there); err == nil {
			return cut, nil
		}
		holds, _ := g.hold(g.places)
		if err := g.settle(ctx, g.places, holds); err != nil {
			return nil, err
		}
	}
	return following(ctx)
}

// onward reads a log from a position on, and never back: views that moved alone
// before may stand at different times, and then those ahead wait for the others. A
// constant does not: it is the same at all times, and may be at the end of them,
// where nobody ever comes.
type onward struct {
	core.CutReader
	log      *viewlog.Log
	position core.Token
}

// Readable is that of the log, unless it is before the position.
func (r onward) Readable(t core.Time) (core.Time, bool) {
	t, ok := r.CutReader.Readable(t)
	return t, ok && (t >= r.position.Time || r.void() || r.constant(t))
}

// void reports whether the log cannot continue from the position.
func (r onward) void() bool {
	_, err := r.log.Between(r.position, r.position)
	return err != nil
}

// constant reports whether nothing happens any more from t on.
func (r onward) constant(t core.Time) bool {
	upper, _ := r.log.Frontier()
	if upper.Time < core.EndOfTime {
		return false
	}
	since, err := r.log.Between(core.Token{Time: t, Generation: r.position.Generation}, r.position)
	return err == nil && since.Updates.Len() == 0
}

// durable reports whether the cut is durable in the logs as they are now.
func (g *group) durable(cut []core.Batch) bool {
	for i, b := range cut {
		if d, _ := g.views[i].data.Durable(); d.Generation != b.Upper.Generation || d.Time < b.Upper.Time {
			return false
		}
	}
	return true
}

// deliver writes one cut, the same bytes again and again, until the sink takes
// it. Told to stop, it begins no write any more, and gives one that is under way a
// moment: the sink would get twice what it is just taking.
func (g *group) deliver(ctx context.Context, cut []core.Batch) error {
	if ctx.Err() != nil {
		return ctx.Err() // it is announced, so that it comes
	}
	writing, done := outlasting(ctx, lastMoment)
	defer done()
	again := false
	return g.persist(ctx, func() error {
		if again {
			g.metrics.retries.Inc()
		}
		again = true
		begun := time.Now()
		err := g.sink.Write(writing, cut)
		if err == nil || writing.Err() == nil { // otherwise it was told to stop
			g.metrics.delivered(time.Since(begun), err)
		}
		return err
	})
}

// lastMoment is how long a write may go on after the sink was told to stop.
const lastMoment = 5 * time.Second

// outlasting returns a context that ends so long after ctx, or when done is called.
func outlasting(ctx context.Context, d time.Duration) (lasting context.Context, done func()) {
	lasting, end := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		_ = backoff.Wait(lasting, d) // either way it is over
		end()
	})
	return lasting, func() { stop(); end() }
}

// settle saves places and goes by them from then on. holds are what keeps them
// readable; those of the places that were saved before are released only now.
func (g *group) settle(ctx context.Context, places []place, holds []*viewlog.Hold) error {
	if err := g.persist(ctx, func() error { return g.save(places) }); err != nil {
		release(holds)
		return err
	}
	release(g.holds)
	g.holds, g.dirty = holds, false
	g.move(places)
	return nil
}

// save makes places durable.
func (g *group) save(places []place) error {
	if g.kept == nil {
		return nil
	}
	byView := make(map[string]place, len(places))
	for i, v := range g.views {
		if !g.fresh[i] || places[i] != (place{}) {
			byView[v.Name] = places[i]
		}
	}
	if len(byView) == 0 {
		return nil
	}
	return g.kept.save(byView)
}

// move notes where the sink stands.
func (g *group) move(places []place) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.places = places
}

// stands returns where the sink stands, by view. It must not be changed.
func (g *group) stands() []place {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.places
}
