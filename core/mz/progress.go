package mz

import (
	"github.com/mzdio/mzd/core"
)

// progress turns the updates and progress marks of a stream into closed
// batches (I2). It is where the releases' different ways to complete a snapshot
// end: what leaves it is the same for all.
//
// A mark at p promises that nothing below p will come any more. So once a
// stream is under way, each mark closes a batch. At the beginning of a snapshot
// the marks up to its AS OF say nothing yet: some releases send them before the
// rows, others begin with one at the AS OF itself.
type progress struct {
	lower core.Time // everything below has been handed out
	begun bool      // the first batch has been handed out, or the stream resumed

	// Of a snapshot, until begun:
	known bool      // asOf is known
	asOf  core.Time // the time of the snapshot's rows
	floor core.Time // the first batch must reach beyond this, see [backwards]

	pending []core.Update
}

// backwards is how far below the floor a snapshot may be complete and is still
// awaited there. A server may choose a time somewhat before what it has said to
// be complete; one that is so far behind has had its clock set back, and who
// waits until it has caught up would show nothing meanwhile.
const backwards core.Time = 60_000

// resumeAt expects a stream of what happens from upper on.
func resumeAt(upper core.Time) progress { return progress{lower: upper, begun: true} }

// snapshotAnywhere expects a snapshot at a time that the server will announce.
func snapshotAnywhere() progress { return progress{} }

// snapshotAt expects a snapshot at a given time.
func snapshotAt(asOf core.Time) progress { return progress{asOf: asOf, known: true} }

// opening reports whether an update belongs to the snapshot whatever mark will
// close it, so that it need not be kept until then; it is taken note of.
func (p *progress) opening(t core.Time) bool {
	t = min(t, core.EndOfTime-1) // as update does
	if !p.begun && !p.known {
		p.asOf, p.known = t, true
	}
	return !p.begun && t <= p.asOf
}

// update takes an update.
func (p *progress) update(u core.Update) error {
	if u.Time == core.EndOfTime { // constant; see core.EndOfTime
		u.Time--
	}
	if u.Time < p.lower {
		return protocolError("an update at %v came after everything below %v was complete", u.Time, p.lower)
	}
	if !p.known {
		p.asOf, p.known = u.Time, true
	}
	p.pending = append(p.pending, u)
	return nil
}

// mark takes a progress mark. If it closes a batch it returns it, with true.
func (p *progress) mark(t core.Time) (core.Batch, bool) {
	if !p.begun {
		if !p.known {
			p.asOf, p.known = t, true
		}
		if t <= p.asOf || t <= p.floor && p.floor-t < backwards {
			return core.Batch{}, false
		}
	}
	if t <= p.lower {
		return core.Batch{}, false
	}
	return p.close(t), true
}

// end takes the end of the stream where that is the end of all change: what came
// since the last mark closes the last batch. A server sends no mark at the end of
// time, whatever time the rows have: that of a constant is the end of time, and
// before v0.26 that of its AS OF; a materialized view that will never be refreshed
// again has its rows when they came. It is false before there is anything to end.
func (p *progress) end() (core.Batch, bool) {
	if !p.begun && !p.known {
		return core.Batch{}, false
	}
	return p.close(core.EndOfTime), true
}

// close cuts the batch up to upper off the pending updates. The first batch of
// a snapshot is solid: only its end can be read, so all its updates carry the
// last time before that.
func (p *progress) close(upper core.Time) core.Batch {
	var batch, rest []core.Update
	batch = p.pending
	for i, u := range p.pending {
		if u.Time >= upper { // seldom: the time of a mark is that of what follows it
			batch, rest = split(p.pending, i, upper)
			break
		}
	}
	if !p.begun {
		for i := range batch {
			batch[i].Time = upper - 1
		}
	}
	b := core.Batch{
		Lower:   core.Token{Time: p.lower},
		Upper:   core.Token{Time: upper},
		Updates: core.UpdatesOf(core.Consolidate(batch)),
	}
	p.pending, p.lower, p.begun = rest, upper, true
	return b
}

// split separates updates, of which the first from are below upper, into those
// below upper and the rest.
func split(updates []core.Update, from int, upper core.Time) (below, rest []core.Update) {
	below = updates[:from]
	for _, u := range updates[from:] {
		if u.Time < upper {
			below = append(below, u)
		} else {
			rest = append(rest, u)
		}
	}
	return below, rest
}
