package websocket

import (
	"container/heap"
	"slices"
	"time"
)

// A group is the connections of a shard with one subscription. It has a cohort
// for each position at which any of them stands, which is one in most moments.
type group struct {
	*subscription
	cohorts []*cohort
	tick    time.Time // when a group with an interval looks again; zero: when something happens
	due     time.Time // when something is to be done
	place   int       // in the shard's agenda; -1: it is in none
}

// A cohort is connections that have everything up to one position, and nothing
// to write. What comes next is encoded once and written to each of them.
type cohort struct {
	standing
	members []member
}

// with reports whether streams that stand here and there belong together.
func (s *standing) with(other *standing) bool {
	return s.begun == other.begun && s.said == other.said && slices.Equal(s.at, other.at)
}

// A member is a connection of a cohort. The wire is here, too, because that is
// all it takes to write to one who keeps up.
type member struct {
	wire wire
	conn *conn
}

// join puts a connection into the cohort of its position.
func (g *group) join(c *conn) {
	i := slices.IndexFunc(g.cohorts, func(co *cohort) bool { return co.with(&c.out.standing) })
	if i < 0 {
		i = len(g.cohorts)
		g.cohorts = append(g.cohorts, &cohort{standing: c.out.standing})
	}
	c.sub = g.subscription // lets go of its own
	c.out = nil
	g.cohorts[i].add(c)
}

func (co *cohort) add(c *conn) {
	c.cohort, c.index = co, int32(len(co.members))
	co.members = append(co.members, member{c.wire, c})
}

// remove takes a connection out of its cohort. The last member takes its place.
func (co *cohort) remove(c *conn) {
	last := len(co.members) - 1
	co.members[c.index] = co.members[last]
	co.members[c.index].conn.index = c.index
	co.members[last] = member{}
	co.members = co.members[:last]
	c.cohort = nil
}

// merge makes one cohort of those that have come to the same position, and
// forgets those without members.
func (g *group) merge() {
	merged := g.cohorts[:0]
	for _, co := range g.cohorts {
		if len(co.members) == 0 {
			continue
		}
		i := slices.IndexFunc(merged, func(o *cohort) bool { return o.with(&co.standing) })
		if i < 0 {
			merged = append(merged, co)
			continue
		}
		into, from := merged[i], co
		if len(into.members) < len(from.members) {
			into, from = from, into
			merged[i] = into
		}
		for _, m := range from.members {
			into.add(m.conn)
		}
	}
	clear(g.cohorts[len(merged):])
	g.cohorts = merged
}

// waits reports whether the cohort gets nothing before the tick of its group.
func (co *cohort) waits(g *group) bool { return co.begun && g.interval > 0 }

// speaks returns when the cohort is to be told something if there is no cut: soon
// if it has heard nothing at all, and from then on to keep its connections alive.
func (co *cohort) speaks(g *group) time.Time {
	switch {
	case !co.said:
		return co.quiet.Add(firstWait)
	case co.waits(g):
		return g.subscription.tick(co.quiet.Add(keepAlive - 1))
	default:
		return co.quiet.Add(keepAlive)
	}
}

// next returns when something is to be done for the cohort.
func (co *cohort) next(g *group) time.Time {
	at := co.speaks(g)
	if idle := co.idle.Add(keepAlive); idle.Before(at) {
		at = idle
	}
	return at
}

// schedule sets when the group is due, if nothing happens before.
func (g *group) schedule() {
	g.due = g.tick
	for _, co := range g.cohorts {
		if at := co.next(g); g.due.IsZero() || at.Before(g.due) {
			g.due = at
		}
	}
}

// An agenda has the group that is due first at its front.
type agenda []*group

var _ heap.Interface = (*agenda)(nil)

// Len implements heap.Interface, like the other methods.
func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].due.Before(a[j].due) }

func (a agenda) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].place, a[j].place = i, j
}

// Push appends a group.
func (a *agenda) Push(g any) {
	g.(*group).place = len(*a)
	*a = append(*a, g.(*group))
}

// Pop takes the last group away.
func (a *agenda) Pop() any {
	g := (*a)[len(*a)-1]
	(*a)[len(*a)-1] = nil
	*a = (*a)[:len(*a)-1]
	g.place = -1
	return g
}

// put schedules a group anew, or takes one without members away.
func (a *agenda) put(g *group) {
	switch {
	case len(g.cohorts) > 0 && g.place >= 0:
		heap.Fix(a, g.place)
	case len(g.cohorts) > 0:
		heap.Push(a, g)
	case g.place >= 0:
		heap.Remove(a, g.place)
	}
}
