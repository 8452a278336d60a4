package viewlog

import (
	"github.com/mzdio/mzd/core"
)

// net adds runs up that are each ordered by row and stamps the sum with one
// time. Rows are shared with the runs, which are not changed.
func net(at core.Time, runs ...[]core.Update) []core.Update {
	m := merger{runs: make([][]core.Update, 0, len(runs))}
	largest := 0
	for _, r := range runs {
		if len(r) > 0 {
			m.runs = append(m.runs, r)
			largest = max(largest, len(r))
		}
	}
	if len(m.runs) == 0 {
		return nil
	}
	m.init()
	out := make([]core.Update, 0, largest)
	for len(m.runs) > 0 {
		u := core.Update{Time: at, Row: m.runs[0][0].Row}
		for len(m.runs) > 0 && m.runs[0][0].Row == u.Row {
			u.Diff += m.next()
		}
		if u.Diff != 0 {
			out = append(out, u)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
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

// solid makes a run of the contents of a view at upper, whatever the times
// of the updates are.
func solid(upper core.Time, contents []core.Update) []core.Update {
	for i := range contents {
		contents[i].Time = upper - 1
	}
	return core.Consolidate(contents)
}

// subtract returns contents minus the sum of held, as a run that ends at upper.
func subtract(upper core.Time, contents []core.Update, held [][]core.Update) []core.Update {
	minus := net(upper-1, held...)
	for i := range minus {
		minus[i].Diff = -minus[i].Diff
	}
	return net(upper-1, contents, minus)
}

// size is about what a run costs in memory: 32 bytes an update and the rows.
func size(run []core.Update) int64 {
	n := int64(len(run)) * 32
	for _, u := range run {
		n += int64(len(u.Row))
	}
	return n
}
