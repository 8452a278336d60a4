package flow

import (
	"fmt"
	"slices"
	"unsafe"
)

// Join pairs the rows of two inputs whose keys are equal. Both inputs are indexed. The first Keys columns of either input are its
// key; the output has the other columns of the left input and then those of the right one. Keys with a NULL equal nothing.
//
// Without keys every change of one side is held against all rows of the other.
type Join struct {
	Left, Right Operator
	Keys        int
	Widths      [2]int  // columns of either input that are not keys
	On          []Expr  // what else must be true of a pair, over the columns of the output
	Outer       [2]bool // the rows of this side that have no partner come with NULLs for the other

	index   [2]map[string]*bucket
	touched []*partners
	state   State
	scratch Row
	buf     []byte
	out     Delta
}

// bucket holds the rows of one key on one side: a list, and for long lists where each row stands.
type bucket struct {
	rows  []joinRow
	where map[string]int
}

type joinRow struct {
	Update
	partners *partners // of an outer side; nil otherwise
}

// partners is what decides whether a row of an outer side comes with NULLs.
type partners struct {
	row     Row
	side    int
	n       int64 // copies of the row
	matches int64 // copies of rows on the other side that it pairs with
	padded  int64 // copies that have been put out with NULLs
	touched bool
}

// indexFrom is the length from which a bucket's rows are looked up by a map and not one by one.
const indexFrom = 16

// bucketBytes is what a bucket takes up beside its rows and its key.
const bucketBytes = int64(unsafe.Sizeof(bucket{})) + mapSlot

// Step implements [Operator]. The change of a product is dL x R + L' x dR: the right side is taken first, against the left side as
// it was, then the left side against the right one as it is.
func (o *Join) Step(s *Step) Delta {
	deltas := [2]Delta{o.Left.Step(s), o.Right.Step(s)}
	o.out.reset()
	o.out.Errors = append(append(o.out.Errors, deltas[0].Errors...), deltas[1].Errors...)
	if o.index[0] == nil {
		o.index = [2]map[string]*bucket{{}, {}}
	}
	for _, side := range []int{1, 0} {
		for _, u := range deltas[side].Rows {
			o.change(s.Context, side, u)
		}
	}
	for _, p := range o.touched {
		p.touched = false
		padded := p.n
		if p.matches > 0 {
			padded = 0
		}
		if d := padded - p.padded; d != 0 {
			o.pad(p.side, p.row, d)
			p.padded = padded
		}
	}
	clear(o.touched)
	o.touched = o.touched[:0]
	return o.out
}

// change pairs a change of one side with what the other side holds, and takes it in.
func (o *Join) change(c *Context, side int, u Update) {
	if !o.key(u.Row) {
		if o.Outer[side] {
			o.pad(side, u.Row, u.Diff)
		}
		return
	}
	var matches int64
	if b := o.index[1-side][string(o.buf)]; b != nil {
		for i := range b.rows {
			if c.Exhausted() {
				return
			}
			x := &b.rows[i]
			l, r := u.Row, x.Row
			if side == 1 {
				l, r = r, l
			}
			if !o.pair(c, l, r, c.times(x.Diff, u.Diff)) {
				continue
			}
			matches += x.Diff
			if x.partners != nil {
				x.partners.matches += u.Diff
				o.touch(x.partners)
			}
		}
	}
	if p := o.put(side, u, matches); p != nil {
		p.n += u.Diff
		o.touch(p)
	}
}

func (o *Join) touch(p *partners) {
	if !p.touched {
		p.touched = true
		o.touched = append(o.touched, p)
	}
}

// key makes buf the key of a row. It is false for a key that equals nothing.
func (o *Join) key(r Row) bool {
	for _, d := range r[:o.Keys] {
		if d.IsNull() {
			return false
		}
	}
	o.buf = r[:o.Keys].AppendKey(o.buf[:0])
	return true
}

// pair puts a pair out if it meets the condition, and tells whether it does.
func (o *Join) pair(c *Context, l, r Row, diff int64) bool {
	row := append(append(o.scratch[:0], l[o.Keys:]...), r[o.Keys:]...)
	o.scratch = row
	for _, e := range o.On {
		d, err := e.Eval(c, row)
		if err != nil {
			o.out.fail(err.Error(), diff)
			return false
		}
		if d.IsNull() || !d.Bool() {
			return false
		}
	}
	c.spend(row)
	o.out.add(slices.Clone(row), diff)
	return true
}

// pad puts a row of one side out with NULLs for the other.
func (o *Join) pad(side int, r Row, diff int64) {
	row := make(Row, o.Widths[0]+o.Widths[1])
	copy(row[side*o.Widths[0]:], r[o.Keys:])
	o.out.add(row, diff)
}

// put changes the bucket whose key is in buf, and returns what is known of the row's partners if the side is an outer one. If the row is
// new, it has so many.
func (o *Join) put(side int, u Update, matches int64) *partners {
	b := o.index[side][string(o.buf)]
	if b == nil {
		b = &bucket{}
		o.index[side][string(o.buf)] = b
		o.state.Bytes += bucketBytes + int64(len(o.buf))
	}
	i := b.find(u.Row)
	if i < 0 {
		x := joinRow{Update: u}
		if o.Outer[side] {
			x.partners = &partners{row: u.Row, side: side, matches: matches}
			o.state.Bytes += int64(unsafe.Sizeof(*x.partners))
		}
		o.state.Rows++
		o.state.Bytes += b.add(x)
		return x.partners
	}
	x := &b.rows[i]
	p := x.partners
	if x.Diff += u.Diff; x.Diff != 0 {
		return p
	}
	if p != nil {
		o.state.Bytes -= int64(unsafe.Sizeof(*p))
	}
	o.state.Rows--
	if o.state.Bytes -= b.remove(i); len(b.rows) == 0 {
		delete(o.index[side], string(o.buf))
		o.state.Bytes -= bucketBytes + int64(len(o.buf))
	}
	return p
}

// add appends a row and returns the bytes that it takes up.
func (b *bucket) add(x joinRow) int64 {
	b.rows = append(b.rows, x)
	n := joinRowBytes(x.Row)
	switch {
	case b.where != nil:
		b.where[string(x.Row.AppendKey(nil))] = len(b.rows) - 1
		n += whereBytes(x.Row)
	case len(b.rows) == indexFrom:
		b.where = make(map[string]int, 2*indexFrom)
		for i, x := range b.rows {
			b.where[string(x.Row.AppendKey(nil))] = i
			n += whereBytes(x.Row)
		}
	}
	return n
}

// remove takes a row out and returns the bytes that it took up.
func (b *bucket) remove(i int) int64 {
	last := len(b.rows) - 1
	r := b.rows[i].Row
	n := joinRowBytes(r)
	if b.where != nil {
		delete(b.where, string(r.AppendKey(nil)))
		if i != last {
			b.where[string(b.rows[last].Row.AppendKey(nil))] = i
		}
		n += whereBytes(r)
	}
	b.rows[i] = b.rows[last]
	b.rows[last] = joinRow{}
	b.rows = b.rows[:last]
	return n
}

func joinRowBytes(r Row) int64 { return int64(unsafe.Sizeof(joinRow{})) + int64(r.Size()) }

// whereBytes is what looking a row up by its key takes up; the key is about half as long as the row is large.
func whereBytes(r Row) int64 { return mapSlot + int64(r.Size())/2 }

func (b *bucket) find(r Row) int {
	if b.where != nil {
		if i, ok := b.where[string(r.AppendKey(nil))]; ok {
			return i
		}
		return -1
	}
	for i, x := range b.rows {
		if CompareRows(x.Row, r) == 0 {
			return i
		}
	}
	return -1
}

// State implements [Operator].
func (o *Join) State() State { return o.state }

// Inputs implements [Operator].
func (o *Join) Inputs() []Operator { return []Operator{o.Left, o.Right} }

func (o *Join) String() string {
	s := map[[2]bool]string{{true, false}: "Left ", {false, true}: "Right ", {true, true}: "Full "}[o.Outer] + "Join"
	if o.Keys == 0 && s == "Join" {
		s = "Cross Join"
	}
	if o.Keys > 0 {
		s += fmt.Sprintf(" on %d columns", o.Keys)
	}
	for i, e := range o.On {
		s += []string{" AND ", " where "}[b2i(i == 0)] + e.String()
	}
	return s
}
