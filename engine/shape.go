package engine

import (
	"slices"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
	"github.com/mzdio/mzd/engine/sql"
)

// shape is the form that the rows of a stream have: mz_timestamp, mz_progressed if it was asked for, mz_diff, and the columns of the
// relation. Under ENVELOPE UPSERT there is mz_state in place of mz_diff, and the key stands before the other columns.
type shape struct {
	columns  []plan.Column // of the relation
	progress bool
	key      []int // nil without an envelope
	rest     []int // the columns that are not in the key
}

// newShape resolves the output clause of a stream of a relation.
func newShape(columns []plan.Column, s *sql.Subscribe) (shape, error) {
	h := shape{columns: columns, progress: s.Progress}
	for _, name := range s.Key {
		found := -1
		for i, c := range columns {
			if c.Name != name.Base() {
				continue
			}
			if found >= 0 {
				return h, sql.Errorf(name.Pos(), "42702", "column %s is ambiguous", name)
			}
			found = i
		}
		if found < 0 {
			return h, sql.Errorf(name.Pos(), "42703", "column %s does not exist", name)
		}
		if slices.Contains(h.key, found) {
			return h, sql.Errorf(name.Pos(), "42701", `column "%s" appears more than once in SUBSCRIBE ENVELOPE KEY clause`, name.Base())
		}
		h.key = append(h.key, found)
	}
	for i := range columns {
		if h.key != nil && !slices.Contains(h.key, i) {
			h.rest = append(h.rest, i)
		}
	}
	return h, nil
}

// fields are the columns of the stream's rows.
func (h *shape) fields() []Field {
	f := []Field{{"mz_timestamp", flow.StreamTime}}
	if h.progress {
		f = append(f, Field{"mz_progressed", flow.Bool})
	}
	if h.key == nil {
		return append(append(f, Field{"mz_diff", flow.Int8}), fields(h.columns)...)
	}
	f = append(f, Field{"mz_state", flow.Text})
	for _, i := range slices.Concat(h.key, h.rest) {
		f = append(f, Field(h.columns[i]))
	}
	return f
}

// head begins a row of the stream.
func (h *shape) head(time uint64) flow.Row {
	r := make(flow.Row, 0, 3+len(h.columns))
	r = append(r, flow.NewUint(time))
	if h.progress {
		r = append(r, flow.NewBool(false))
	}
	return r
}

// rows are the rows of the stream for all changes of a time, which are consolidated.
func (h *shape) rows(time uint64, changes []flow.Keyed) []flow.Row {
	if h.key != nil {
		return h.upserts(time, changes)
	}
	out := make([]flow.Row, len(changes))
	for i, c := range changes {
		out[i] = append(append(h.head(time), flow.NewInt(flow.Int8, c.Diff)), c.Row...)
	}
	return out
}

// upserts says for each key what has become of it. As in Materialize it is told from the changes alone: a key that has got a second row
// shows only when both rows have come at one time, or when one of them goes.
func (h *shape) upserts(time uint64, changes []flow.Keyed) []flow.Row {
	type state struct {
		row         flow.Row // the new one, if there is one
		plus, minus int64
	}
	states := map[string]*state{}
	var order []*state
	var buf []byte
	key := make(flow.Row, len(h.key))
	for _, c := range changes {
		for i, k := range h.key {
			key[i] = c.Row[k]
		}
		buf = key.AppendKey(buf[:0])
		s := states[string(buf)]
		if s == nil {
			s = &state{row: c.Row}
			states[string(buf)], order = s, append(order, s)
		}
		if c.Diff > 0 {
			s.row, s.plus = c.Row, s.plus+c.Diff
		} else {
			s.minus -= c.Diff
		}
	}
	out := make([]flow.Row, len(order))
	for i, s := range order {
		what, values := "key_violation", false
		switch {
		case s.plus == 1 && s.minus <= 1:
			what, values = "upsert", true
		case s.plus == 0 && s.minus == 1:
			what = "delete"
		}
		r := append(h.head(time), flow.NewText(what))
		for _, k := range h.key {
			r = append(r, s.row[k])
		}
		for _, k := range h.rest {
			if values {
				r = append(r, s.row[k])
			} else {
				r = append(r, flow.Null)
			}
		}
		out[i] = r
	}
	return out
}

// progressed is the row that says that all times below have been sent.
func (h *shape) progressed(time uint64) flow.Row {
	r := make(flow.Row, 3+len(h.columns))
	r[0], r[1] = flow.NewUint(time), flow.NewBool(true)
	return r
}
