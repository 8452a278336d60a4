package viewlog

import (
	"sort"
	"time"

	"github.com/mzdio/mzd/core"
)

// span is the net change of [lower, upper), ordered by row. If the interval is
// one timestamp long the span is exact, otherwise solid: it cannot be read at a
// time inside.
type span struct {
	lower, upper core.Time
	arrived      time.Time
	run          []core.Update
	bytes        int64  // the size of run, which is asked for with every batch
	sum          uint64 // the checksum of the view at upper; of a span that is in no log, of its changes
}

// spanOf makes a span, without its checksum.
func spanOf(lower, upper core.Time, arrived time.Time, run []core.Update) span {
	return span{lower: lower, upper: upper, arrived: arrived, run: run, bytes: size(run)}
}

// summed gives spans that are to be pushed their checksums.
func summed(list []span) []span {
	for i := range list {
		list[i].sum = core.ChecksumOf(list[i].run)
	}
	return list
}

// spans are the spans of a log in the order of their times. Between two spans
// nothing happened.
//
// Reading many small spans at once would cost their number, so that groups of
// fanout spans are merged when first read, groups of groups too, and kept: a
// read takes at most 2*fanout pieces per level. Spans are numbered from the
// first that was ever pushed; groups begin at multiples of their size, so that
// numbers, and with them the groups, stay when old spans are merged away.
type spans struct {
	list   []span
	offset int    // number of list[0]
	before uint64 // the checksum of the view where list[0] begins
	merged map[group][]core.Update
	places int64 // bytes that merged holds; the rows are those of list
}

type group struct{ level, index int }

const fanout = 16

// appendExact appends the updates of an exact batch, a span for each time.
func appendExact(list []span, arrived time.Time, updates []core.Update) []span {
	for len(updates) > 0 {
		t, n := updates[0].Time, 1
		for n < len(updates) && updates[n].Time == t {
			n++
		}
		list = append(list, spanOf(t, t+1, arrived, updates[:n:n]))
		updates = updates[n:]
	}
	return list
}

// push appends spans that are [summed].
func (s *spans) push(list []span) {
	for _, sp := range list {
		sp.sum += s.checksum(len(s.list))
		s.list = append(s.list, sp)
	}
}

// checksum returns the checksum of the view after the first n spans.
func (s *spans) checksum(n int) uint64 {
	if n == 0 {
		return s.before
	}
	return s.list[n-1].sum
}

// at returns how many spans end at or before t. t must be readable.
func (s *spans) at(t core.Time) int {
	return sort.Search(len(s.list), func(i int) bool { return s.list[i].upper > t })
}

// readable lowers t to the beginning of the span that t lies inside of.
func (s *spans) readable(t core.Time) core.Time {
	if i := s.at(t); i < len(s.list) && s.list[i].lower < t {
		return s.list[i].lower
	}
	return t
}

// piece is a part of a read: the run of one group, or, until it is merged, the
// runs that add up to it.
type piece struct {
	group group
	runs  [][]core.Update
}

// pieces returns what adds up to the spans from number i up to, not including,
// j, counted from the first that is kept.
func (s *spans) pieces(i, j int) []piece {
	var pieces []piece
	for i, j := i+s.offset, j+s.offset; i < j; {
		level, n := 0, 1
		for i%(n*fanout) == 0 && i+n*fanout <= j {
			level, n = level+1, n*fanout
		}
		g := group{level, i / n}
		pieces = append(pieces, piece{g, s.parts(g, nil)})
		i += n
	}
	return pieces
}

// parts appends the runs that add up to a group, as far as they are merged.
func (s *spans) parts(g group, runs [][]core.Update) [][]core.Update {
	if g.level == 0 {
		return append(runs, s.list[g.index-s.offset].run)
	}
	if run, ok := s.merged[g]; ok {
		return append(runs, run)
	}
	for i := range fanout {
		runs = s.parts(group{g.level - 1, g.index*fanout + i}, runs)
	}
	return runs
}

// keep remembers the groups that a reader has merged. The spans must be those
// that the pieces were taken from.
//
// Groups that hold more than limit bytes are all forgotten: whoever reads there
// merges them again.
func (s *spans) keep(pieces []piece, limit int64) {
	for _, p := range pieces {
		if p.group.level > 0 {
			if s.merged == nil {
				s.merged = make(map[group][]core.Update)
			}
			s.forget(p.group)
			s.merged[p.group] = p.runs[0]
			s.places += updateBytes * int64(len(p.runs[0]))
		}
	}
	if s.places > limit {
		clear(s.merged)
		s.places = 0
	}
}

// forget forgets a group that was merged, if it was.
func (s *spans) forget(g group) {
	s.places -= updateBytes * int64(len(s.merged[g]))
	delete(s.merged, g)
}

// first returns the number of the first span of the group.
func (g group) first() int {
	n := g.index
	for range g.level {
		n *= fanout
	}
	return n
}

// old returns the first spans: those that arrived before t, and more until they
// hold so many excess bytes.
func (s *spans) old(t time.Time, excess int64) []span {
	n := 0
	for n < len(s.list) && (s.list[n].arrived.Before(t) || excess > 0) {
		excess -= s.list[n].bytes
		n++
	}
	return s.list[:n:n]
}

// replaceFirst puts rest, at most n spans, in the place of the first n. Only
// the writer may hold a slice of the list without the lock, so that it is done
// in place, at the cost of n.
func (s *spans) replaceFirst(n int, rest []span) {
	boundary := s.offset + n
	gone := n - len(rest)
	copy(s.list[gone:n], rest)
	clear(s.list[:gone])
	s.list = s.list[gone:]
	s.offset = boundary - len(rest)
	for g := range s.merged {
		if g.first() < boundary {
			s.forget(g)
		}
	}
}

// minCompaction is how many spans are merged even if they hold little compared
// with what is merged already, so that the number of spans is bounded too.
const minCompaction = 1024

// worthMerging reports whether it pays to merge old spans: to forget those up
// to the first held time, which costs the places of as many chunks as the
// contents have, or to merge others between held times, which costs to copy the
// largest of them.
func worthMerging(chunks int, old []span, held []core.Time) bool {
	changes, n := 0, 0
	for ; n < len(old) && (len(held) == 0 || old[n].upper <= held[0]); n++ {
		changes += len(old[n].run)
	}
	if n > minCompaction || changes >= fanout && changes*8 >= chunks {
		return true
	}
	// What is merged into one, so far: how much in all, the largest part, and
	// the number of parts.
	total, largest, parts := 0, 0, 0
	worth := func() bool {
		return parts > 1 && ((total-largest)*8 >= largest || parts > minCompaction)
	}
	for _, sp := range old[n:] {
		if len(held) > 0 && held[0] < sp.upper { // what is merged with sp begins here
			if worth() {
				return true
			}
			for len(held) > 0 && held[0] < sp.upper {
				held = held[1:]
			}
			total, largest, parts = 0, 0, 0
		}
		total += len(sp.run)
		largest = max(largest, len(sp.run))
		parts++
	}
	return worth()
}

// merge drops the spans up to the first held time and merges the rest between
// held times, each into one solid span. since is where history begins then, 0 if
// that did not move.
func merge(old []span, held []core.Time) (since core.Time, rest []span) {
	i := 0
	for ; i < len(old) && (len(held) == 0 || old[i].upper <= held[0]); i++ {
		since = old[i].upper
	}
	for i < len(old) {
		for len(held) > 0 && held[0] <= old[i].lower {
			held = held[1:]
		}
		j := i
		var between [][]core.Update
		for ; j < len(old) && (len(held) == 0 || old[j].upper <= held[0]); j++ {
			between = append(between, old[j].run)
		}
		sp := old[i]
		if last := old[j-1]; j-i > 1 {
			sp = spanOf(sp.lower, last.upper, last.arrived, net(last.upper-1, between...))
			sp.sum = last.sum
		}
		rest = append(rest, sp)
		i = j
	}
	return since, rest
}

// endOfSolid returns where a solid span ends. One that reaches to the end of
// time seals the view: it never changes again, and so it can be read at any
// time after its beginning, together with views that still move.
func endOfSolid(lower, upper core.Time) core.Time {
	if upper == core.EndOfTime {
		return lower + 1
	}
	return upper
}

// sizeOf is about what spans cost in memory.
func sizeOf(list []span) int64 {
	var n int64
	for _, sp := range list {
		n += sp.bytes
	}
	return n
}

// flatten returns all runs of the pieces.
func flatten(pieces []piece) [][]core.Update {
	var runs [][]core.Update
	for _, p := range pieces {
		runs = append(runs, p.runs...)
	}
	return runs
}
