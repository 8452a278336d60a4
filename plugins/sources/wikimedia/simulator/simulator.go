// Package simulator is a server that speaks Wikimedia's EventStreams with
// edits that it makes up, or with recorded ones. It lets the whole of mzd run
// and be tested without a network.
//
// [New] makes a stream that never happened, with the rates, sizes, users and
// oddities of the real one; [Replay] serves events that somebody recorded. Both
// resume as the real server does, which means as Kafka does: at the first
// message of a topic whose timestamp is the one asked for or above.
package simulator

import (
	"cmp"
	"math"
	"time"
)

// Options are the options of [New].
type Options struct {
	Rate  float64   // events a second, on average; 0: 30
	Seed  uint64    // who edits what
	Start time.Time // when the stream began; zero: now
	Total int       // the stream ends after so many events (connections stay open); 0: never

	// History is the number of events that the server still has; who wants to
	// resume from before that starts with the oldest. 0: a million.
	History int
	// CloseAfter is how long a connection lasts; 0: 15 minutes. It breaks off in
	// the middle of an event.
	CloseAfter time.Duration
}

const defaultHistory = 1_000_000

// New returns a server of made-up edits, at the path /v2/stream/recentchange.
//
// The stream is a function of the options: the content of event i follows from
// seed and i, its time from start, rate and i, and its meta.id from all of
// them. Nothing runs and nothing is stored; each connection computes what it
// sends. So a stream with a given Start is the same for every connection and
// every process. Who asks for the events since Start gets all of them.
//
// One event in 300 is followed by a "canary", which is not counted among the
// events.
func New(o Options) *Server {
	g := &generated{
		rate:    cmp.Or(o.Rate, 30),
		seed:    o.Seed,
		start:   o.Start,
		total:   o.Total,
		history: cmp.Or(o.History, defaultHistory),
		active:  int(o.Seed % 2),
	}
	if g.start.IsZero() {
		g.start = time.Now()
	}
	g.run = mix(g.seed ^ mix(uint64(g.start.UnixMilli())))
	g.oldest = g.start.Add(time.Second-1).Unix() * 1000
	return &Server{tape: g, closeAfter: o.CloseAfter}
}

// generated is a tape of made-up edits. It is immutable.
type generated struct {
	rate    float64
	seed    uint64
	start   time.Time
	total   int
	history int
	active  int    // the data centre that is in use
	run     uint64 // tells streams apart, for meta.id
	oldest  int64  // the first timestamp, but for those of years ago
}

var topics = []string{"eqiad.mediawiki.recentchange", "codfw.mediawiki.recentchange"}

func (g *generated) topics() []string { return topics }
func (g *generated) topic(int) int    { return g.active }
func (g *generated) fresh() place     { return place{kind: atEnd} }

// burst is the number of events within which the rate varies.
const burst = 64

// due implements tape. Each burst takes its share of time, but its events come
// crowded at its beginning or its end: sometimes half, sometimes twice the
// rate.
func (g *generated) due(i int) (time.Time, bool) {
	if g.total > 0 && i >= g.total {
		return time.Time{}, false
	}
	d := newDice(g.seed, uint64(i/burst), saltBurst)
	within := math.Pow((float64(i%burst)+0.5)/burst, 0.6+d.float())
	seconds := (float64(i-i%burst) + within*burst) / g.rate
	return g.start.Add(time.Duration(seconds * float64(time.Second))), true
}

// timestamp returns the Kafka timestamp of event i, in milliseconds: whole
// seconds, mostly of some time ago.
func (g *generated) timestamp(i int) int64 {
	at, _ := g.due(i)
	stamp := at.Add(-g.delay(i)).Unix() * 1000
	if g.isOldUpload(i) {
		return stamp
	}
	return max(stamp, g.oldest)
}

// delay returns how long after it happened event i arrives.
func (g *generated) delay(i int) time.Duration {
	d := newDice(g.seed, uint64(i), saltDelay)
	var seconds float64
	switch p := d.float(); {
	case g.isOldUpload(i):
		seconds = (1 + 8*d.float()) * 365 * 86400
	case p < 0.38:
		seconds = 0.05 + 0.5*d.float()
	case p < 0.985:
		seconds = 0.6 - 1.6*math.Log(1-d.float())
	case p < 0.9995:
		seconds = 7 + 7*d.float()
	default:
		seconds = 30 + 66*d.float()
	}
	return time.Duration(seconds * float64(time.Second))
}

// end implements tape.
func (g *generated) end(now time.Time) int {
	i := g.burstAt(now)
	for {
		at, ok := g.due(i)
		if !ok || at.After(now) {
			return i
		}
		i++
	}
}

// burstAt returns the first event of the burst under way at t.
func (g *generated) burstAt(t time.Time) int {
	bursts := t.Sub(g.start).Seconds() * g.rate / burst
	i := int(min(max(bursts, 0), 1<<40)) * burst
	if g.total > 0 {
		i = min(i, g.total)
	}
	return i
}

// seek implements tape.
func (g *generated) seek(topic int, p place, now time.Time) int {
	end := g.end(now)
	first := max(0, end-g.history)
	switch {
	case topic != g.active || p.kind == atEnd:
		return end
	case p.kind == atOffset:
		return int(min(max(p.value-firstOffset, int64(first)), int64(end)))
	}
	// None that arrived before the timestamp can have it, except at the very
	// beginning.
	if p.value > g.oldest {
		first = max(first, g.burstAt(time.UnixMilli(p.value)))
	}
	for i := first; i < end; i++ {
		if g.timestamp(i) >= p.value {
			return i
		}
	}
	return end
}
