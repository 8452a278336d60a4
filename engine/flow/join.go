package flow

import "fmt"

// Join pairs the rows of two inputs whose keys are equal. Both inputs are indexed. The first Keys columns of either input are its
// key; the output has the other columns of the left input and then those of the right one. Keys with a NULL equal nothing.
type Join struct {
	Left, Right Operator
	Keys        int
	Outer       bool // LEFT JOIN: rows of the left input without a partner come with NULLs
	RightWidth  int  // columns of the right input that are not keys

	index [2]map[string]*bucket
	buf   []byte
	out   Delta
}

// bucket holds the rows of one key on one side: a list, and for long lists where each row stands.
type bucket struct {
	rows  []Update
	where map[string]int
	total int64
}

// indexFrom is the length from which a bucket's rows are looked up by a map and not one by one.
const indexFrom = 16

// Step implements [Operator]. The change of a product is dL x R + L' x dR: the right side is taken first, against the left side as
// it was, then the left side against the right one as it is.
func (o *Join) Step(s *Step) Delta {
	left, right := o.Left.Step(s), o.Right.Step(s)
	o.out.reset()
	o.out.Errors = append(append(o.out.Errors, left.Errors...), right.Errors...)
	if o.index[0] == nil {
		o.index = [2]map[string]*bucket{{}, {}}
	}
	var before map[string]int64 // rows on the right, for the keys that change
	if o.Outer && len(right.Rows) > 0 {
		before = make(map[string]int64)
	}
	for _, u := range right.Rows {
		key, ok := o.key(u.Row)
		if !ok {
			continue
		}
		if l := o.index[0][string(key)]; l != nil {
			for _, x := range l.rows {
				o.pair(x.Row, u.Row, x.Diff*u.Diff)
			}
		}
		r := o.bucket(1, key)
		if before != nil {
			if _, ok := before[string(key)]; !ok {
				before[string(key)] = r.total
			}
		}
		o.put(1, r, u)
	}
	for key, had := range before {
		has := o.total(1, key)
		if l := o.index[0][key]; l != nil && (had > 0) != (has > 0) {
			for _, x := range l.rows {
				o.pad(x.Row, x.Diff*int64(1-2*b2i(has > 0)))
			}
		}
	}
	for _, u := range left.Rows {
		key, ok := o.key(u.Row)
		if !ok {
			if o.Outer {
				o.pad(u.Row, u.Diff)
			}
			continue
		}
		if r := o.index[1][string(key)]; r != nil {
			for _, x := range r.rows {
				o.pair(u.Row, x.Row, x.Diff*u.Diff)
			}
		}
		if o.Outer && o.total(1, string(key)) <= 0 {
			o.pad(u.Row, u.Diff)
		}
		o.put(0, o.bucket(0, key), u)
	}
	return o.out
}

func (o *Join) key(r Row) ([]byte, bool) {
	for _, d := range r[:o.Keys] {
		if d.IsNull() {
			return nil, false
		}
	}
	o.buf = r[:o.Keys].AppendKey(o.buf[:0])
	return o.buf, true
}

func (o *Join) total(side int, key string) int64 {
	if b := o.index[side][key]; b != nil {
		return b.total
	}
	return 0
}

func (o *Join) bucket(side int, key []byte) *bucket {
	b := o.index[side][string(key)]
	if b == nil {
		b = &bucket{}
		o.index[side][string(key)] = b
	}
	return b
}

// put changes a bucket; o.buf holds its key.
func (o *Join) put(side int, b *bucket, u Update) {
	b.put(u)
	if len(b.rows) == 0 {
		delete(o.index[side], string(o.buf))
	}
}

func (o *Join) pair(l, r Row, diff int64) {
	row := make(Row, 0, len(l)+len(r)-2*o.Keys)
	row = append(row, l[o.Keys:]...)
	o.out.add(append(row, r[o.Keys:]...), diff)
}

func (o *Join) pad(l Row, diff int64) {
	row := make(Row, len(l)-o.Keys+o.RightWidth)
	copy(row, l[o.Keys:])
	o.out.add(row, diff)
}

func (b *bucket) put(u Update) {
	b.total += u.Diff
	i := b.find(u.Row)
	if i < 0 {
		b.rows = append(b.rows, u)
		if b.where != nil {
			b.where[string(u.Row.AppendKey(nil))] = len(b.rows) - 1
		} else if len(b.rows) == indexFrom {
			b.where = make(map[string]int, 2*indexFrom)
			for i, x := range b.rows {
				b.where[string(x.Row.AppendKey(nil))] = i
			}
		}
		return
	}
	if b.rows[i].Diff += u.Diff; b.rows[i].Diff != 0 {
		return
	}
	last := len(b.rows) - 1
	if b.where != nil {
		delete(b.where, string(u.Row.AppendKey(nil)))
		if i != last {
			b.where[string(b.rows[last].Row.AppendKey(nil))] = i
		}
	}
	b.rows[i] = b.rows[last]
	b.rows[last] = Update{}
	b.rows = b.rows[:last]
}

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

// Inputs implements [Operator].
func (o *Join) Inputs() []Operator { return []Operator{o.Left, o.Right} }

func (o *Join) String() string {
	kind := "Join"
	switch {
	case o.Outer:
		kind = "Left Join"
	case o.Keys == 0:
		return "Cross Join"
	}
	return fmt.Sprintf("%s on %d columns", kind, o.Keys)
}
