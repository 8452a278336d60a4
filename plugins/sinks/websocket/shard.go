package websocket

import (
	"errors"
	"runtime"
	"slices"
	"time"

	"github.com/mzdio/mzd/core"
)

// A shard writes what happens to the cohorts of its connections. When a log has
// moved it takes everything since the position of a cohort as one cut, so that
// what happened while it was writing is joined, by load alone; encodes it once,
// and writes it to every member. It never waits for one: a connection without
// room goes to the waiter, with what it has not taken.
type shard struct {
	loop
	srv    *server
	groups map[subscriptionKey]*group
	byView map[core.CutReader][]*group
	agenda agenda
	left   []*conn // they go to the waiter at the end of the turn

	news []core.CutReader // logs that have moved; guarded by mu
}

// hotBytes is the size of a cut up to which the shard writes it. A larger one
// goes to the waiter with all who need it.
const hotBytes = partBytes

func newShard(srv *server) (*shard, error) {
	s := &shard{srv: srv, groups: make(map[subscriptionKey]*group), byView: make(map[core.CutReader][]*group)}
	if err := s.init(srv.backend); err != nil {
		return nil, err
	}
	return s, nil
}

// moved says that a log has moved, or that its view has stopped.
func (s *shard) moved(r core.CutReader) {
	s.mu.Lock()
	known := slices.Contains(s.news, r)
	if !known {
		s.news = append(s.news, r)
	}
	s.mu.Unlock()
	if !known {
		s.poller.wake()
	}
}

func (s *shard) takeNews() []core.CutReader {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := s.news
	s.news = nil
	return news
}

// run runs the shard until it is stopped. Then it hands its connections to the
// waiter, which ends them.
func (s *shard) run() {
	for {
		var until time.Time
		if len(s.agenda) > 0 {
			until = s.agenda[0].due
		}
		events := s.poller.wait(until)
		now := time.Now()
		for _, e := range events {
			if c := s.conns[e.slot]; c != nil {
				s.heard(c, s.hear(c), now)
			}
		}
		arrived, stopped := s.arrived()
		for _, c := range arrived {
			s.join(c, now)
		}
		for _, r := range s.takeNews() {
			s.settle(r)
			for _, g := range s.byView[r] {
				s.happened(g, now)
			}
		}
		for len(s.agenda) > 0 && !s.agenda[0].due.After(now) {
			s.step(s.agenda[0], now)
		}
		if stopped {
			s.dissolve(now)
			return
		}
		s.handOver()
	}
}

// settle lets a burst of changes end, so that it is one cut: who has just begun to
// write a message to thousands of clients gets to the next one only when all of
// them have it. It costs less than a hundredth of what writing takes.
func (s *shard) settle(r core.CutReader) {
	clients := 0
	for _, g := range s.byView[r] {
		for _, co := range g.cohorts {
			clients += len(co.members)
		}
	}
	quiet := clients / settleClients
	last, _ := r.Frontier()
	for looks, still := 0, 0; still < quiet && looks < 10*quiet; looks++ {
		runtime.Gosched()
		upper, _ := r.Frontier()
		if still++; upper != last {
			last, still = upper, 0
		}
	}
}

// settleClients is for how many clients a shard looks once more whether a log
// still moves. A look takes a tenth of a microsecond, a write to a client three.
const settleClients = 64

// join gives a connection its place, and it gets what it has missed meanwhile.
func (s *shard) join(c *conn, now time.Time) {
	if err := s.adopt(c, false); err != nil {
		s.srv.log.Warn("lost a connection", "err", err)
		s.leave(c, &delivery{end: endGone})
		return
	}
	g := s.groups[c.sub.subscriptionKey]
	if g == nil {
		g = &group{subscription: c.sub, place: -1}
		s.groups[g.subscriptionKey] = g
		for _, r := range g.readers {
			s.byView[r] = append(s.byView[r], g)
		}
	}
	g.join(c)
	s.happened(g, now)
}

// happened schedules a look for a cut.
func (s *shard) happened(g *group, now time.Time) {
	if g.interval > 0 && g.tick.IsZero() {
		g.tick = g.subscription.tick(now)
	}
	if slices.ContainsFunc(g.cohorts, func(co *cohort) bool { return !co.waits(g) || g.failure() != nil }) {
		g.due = now
	} else {
		g.schedule()
	}
	s.agenda.put(g)
}

// step does what is due for a group.
func (s *shard) step(g *group, now time.Time) {
	ticked := g.interval == 0 || !g.tick.IsZero() && !now.Before(g.tick)
	for _, co := range g.cohorts {
		switch {
		case co.waits(g) && !ticked:
			s.speak(g, co, now)
		case !s.advance(g, co, now):
			s.speak(g, co, now)
		}
	}
	if ticked {
		g.tick = time.Time{}
	}
	g.merge()
	g.schedule()
	s.agenda.put(g)
	if len(g.cohorts) == 0 {
		s.forget(g)
	}
}

func (s *shard) forget(g *group) {
	delete(s.groups, g.subscriptionKey)
	for _, r := range g.readers {
		rest := slices.DeleteFunc(s.byView[r], func(o *group) bool { return o == g })
		if s.byView[r] = rest; len(rest) == 0 {
			delete(s.byView, r)
		}
	}
}

// advance gives a cohort the next cut, and reports false if there is none.
func (s *shard) advance(g *group, co *cohort, now time.Time) bool {
	cut, err := g.next(co.at)
	switch {
	case errors.Is(err, errNothingNew):
		return false
	case err != nil:
		s.srv.log.Error("streams ended", "err", err)
		s.dismiss(co, func() *delivery { return &delivery{end: endInternal} })
		return true
	case g.breaksOff(cut, co.begun):
		s.dismiss(co, func() *delivery { return &delivery{end: endNewHistory} })
		return true
	case kindOf(cut) == kindBase || g.form.size(cut) > hotBytes:
		s.dismiss(co, func() *delivery { return &delivery{standing: co.standing, owed: true} })
		return true
	}
	f := s.srv.cache.cut(g.subscription, cut)
	if f.kind == kindDelta && g.interval > 0 {
		s.srv.metrics.netted.Add(float64(len(co.members)))
	}
	s.write(g, co, f, now)
	s.srv.metrics.fanout.Observe(time.Since(f.born).Seconds())
	return true
}

// speak tells a cohort why there is no cut, or that the connection is alive, if
// it is time for that.
func (s *shard) speak(g *group, co *cohort, now time.Time) {
	failed := co.said && !co.named && g.failure() != nil
	switch {
	case failed || !now.Before(co.speaks(g)):
		co.said, co.quiet = true, now // also if there is nothing to say
		s.write(g, co, g.words(co.at), now)
	case !now.Before(co.idle.Add(keepAlive)):
		s.write(g, co, g.form.idleFrames(), now)
	}
}

// write writes the first part of frames to all members of a cohort. Those that
// do not take it at once, or get more than a part, leave.
func (s *shard) write(g *group, co *cohort, f *frames, now time.Time) {
	p := f.part(0)
	sent := 0
	for i := len(co.members) - 1; i >= 0; i-- { // from the end, as one who leaves is replaced by the last
		m := co.members[i]
		n, blocked, err := m.wire.write(p.data, false)
		switch {
		case err != nil:
			s.leave(m.conn, &delivery{end: endGone})
		case blocked || n < len(p.data) || !p.last:
			s.leave(m.conn, &delivery{
				standing: co.standing, owed: g.interval == 0, frames: f, number: 1, part: p, rest: p.data[n:], blocked: blocked, marked: now,
			})
		default:
			sent++
		}
	}
	s.srv.metrics.sent(f.kind, p, sent)
	co.sent(f, now)
}

// heard answers what a client has said.
func (s *shard) heard(c *conn, h heard, now time.Time) {
	co := c.cohort
	pong := h.pong()
	switch {
	case h.end != nil:
		s.leave(c, &delivery{pong: pong, end: h.end})
	case pong != nil:
		n, blocked, err := c.wire.write(pong, false)
		switch {
		case err != nil:
			s.leave(c, &delivery{end: endGone})
		case blocked || n < len(pong):
			s.leave(c, &delivery{standing: co.standing, owed: c.sub.interval == 0, rest: pong[n:], blocked: blocked, marked: now})
		}
	}
	if g := s.groups[c.sub.subscriptionKey]; g != nil && len(co.members) == 0 {
		s.happened(g, now) // it may be the last
	}
}

// dismiss has all members of a cohort leave.
func (s *shard) dismiss(co *cohort, with func() *delivery) {
	for i := len(co.members) - 1; i >= 0; i-- {
		s.leave(co.members[i].conn, with())
	}
}

// leave takes a connection out of its cohort. It goes to the waiter.
func (s *shard) leave(c *conn, d *delivery) {
	if c.cohort != nil {
		c.cohort.remove(c)
	}
	c.out = d
	s.release(c)
	s.left = append(s.left, c)
}

func (s *shard) handOver() {
	if len(s.left) > 0 {
		s.srv.waiter.hand(s.left...)
		clear(s.left)
		s.left = s.left[:0]
	}
}

// dissolve hands all connections to the waiter, now and from now on.
func (s *shard) dissolve(now time.Time) {
	for _, c := range s.conns {
		if c != nil {
			s.leave(c, &delivery{standing: c.cohort.standing})
		}
	}
	s.left = append(s.left, s.close()...)
	s.handOver()
}
