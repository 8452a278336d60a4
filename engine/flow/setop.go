package flow

import "unsafe"

// SetKind is what a [Set] computes.
type SetKind uint8

// The set operations. Distinct has one input, the others two.
const (
	DistinctRows SetKind = iota
	Except
	ExceptAll
	Intersect
	IntersectAll
)

// Set computes how often each row is there from how often it is in the inputs.
type Set struct {
	Kind SetKind
	In   []Operator

	rows    map[string]*setRow
	touched []*setRow
	state   State
	buf     []byte
	out     Delta
}

type setRow struct {
	key     string
	row     Row
	n       [2]int64 // in the inputs
	out     int64    // in the output
	touched bool
}

// Step implements [Operator].
func (o *Set) Step(s *Step) Delta {
	o.out.reset()
	if o.rows == nil {
		o.rows = make(map[string]*setRow)
	}
	for side, op := range o.In {
		in := op.Step(s)
		o.out.Errors = append(o.out.Errors, in.Errors...)
		for _, u := range in.Rows {
			o.buf = u.Row.AppendKey(o.buf[:0])
			r := o.rows[string(o.buf)]
			if r == nil {
				r = &setRow{key: string(o.buf), row: u.Row}
				o.rows[r.key] = r
				o.state.Add(State{1, setRowBytes(r)})
			}
			r.n[side] += u.Diff
			if !r.touched {
				r.touched = true
				o.touched = append(o.touched, r)
			}
		}
	}
	for _, r := range o.touched {
		r.touched = false
		out := o.Kind.count(r.n[0], r.n[1])
		if out != r.out {
			o.out.add(r.row, out-r.out)
			r.out = out
		}
		if r.n == [2]int64{} {
			delete(o.rows, r.key)
			o.state.Add(State{-1, -setRowBytes(r)})
		}
	}
	clear(o.touched)
	o.touched = o.touched[:0]
	return o.out
}

func setRowBytes(r *setRow) int64 {
	return int64(unsafe.Sizeof(*r)) + mapSlot + int64(len(r.key)) + int64(r.row.Size())
}

func (k SetKind) count(l, r int64) int64 {
	switch k {
	case ExceptAll:
		return max(l-r, 0)
	case IntersectAll:
		return max(min(l, r), 0)
	case Except:
		return int64(b2i(l > 0 && r <= 0))
	case Intersect:
		return int64(b2i(l > 0 && r > 0))
	}
	return int64(b2i(l > 0))
}

// State implements [Operator].
func (o *Set) State() State { return o.state }

// Inputs implements [Operator].
func (o *Set) Inputs() []Operator { return o.In }

func (o *Set) String() string {
	return [...]string{"Distinct", "Except", "Except All", "Intersect", "Intersect All"}[o.Kind]
}
