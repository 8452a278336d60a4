package viewlog

import (
	"iter"

	"github.com/mzdio/mzd/core"
)

// net adds runs up that are each ordered by row and stamps the sum with one
// time. Rows are shared with the runs, which are not changed.
func net(at core.Time, runs ...[]core.Update) []core.Update {
	largest := 0
	for _, r := range runs {
		largest = max(largest, len(r))
	}
	if largest == 0 {
		return nil
	}
	out := make([]core.Update, 0, largest)
	for u := range merged(runs) {
		u.Time = at
		out = append(out, u)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// merged yields the sum of runs that are each ordered by row, ordered by row.
// The times of the sum mean nothing.
func merged(runs [][]core.Update) iter.Seq[core.Update] {
	return func(yield func(core.Update) bool) {
		m := merger{runs: make([][]core.Update, 0, len(runs))}
		for _, r := range runs {
			if len(r) > 0 {
				m.runs = append(m.runs, r)
			}
		}
		m.init()
		for len(m.runs) > 0 {
			u := core.Update{Row: m.runs[0][0].Row}
			for len(m.runs) > 0 && m.runs[0][0].Row == u.Row {
				u.Diff += m.next()
			}
			if u.Diff != 0 && !yield(u) {
				return
			}
		}
	}
}

// merger is a binary heap of runs, ordered by their first row. It is not
// container/heap because this is the innermost loop of every read.
type merger struct{ runs [][]core.Update }

func (m *merger) init() {
	for i := len(m.runs)/2 - 1; i >= 0; i-- {
		m.down(i)
	}
}

func (m *merger) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(m.runs); child++ {
			if m.runs[child][0].Row < m.runs[least][0].Row {
				least = child
			}
		}
		if least == i {
			return
		}
		m.runs[i], m.runs[least] = m.runs[least], m.runs[i]
		i = least
	}
}

// next removes the first update of the first run and returns its diff.
func (m *merger) next() core.Diff {
	d := m.runs[0][0].Diff
	if m.runs[0] = m.runs[0][1:]; len(m.runs[0]) == 0 {
		last := len(m.runs) - 1
		m.runs[0] = m.runs[last]
		m.runs = m.runs[:last]
	}
	m.down(0)
	return d
}

// updateBytes is what an update takes in memory beside its row.
const updateBytes = 32

// size is about what a run costs in memory: the updates and their rows.
func size(run []core.Update) int64 {
	n := int64(len(run)) * updateBytes
	for _, u := range run {
		n += int64(len(u.Row))
	}
	return n
}
