package flow

import (
	"fmt"
	"math"
	"strings"
	"unsafe"

	"github.com/tidwall/btree"
)

// SortKey is a column to sort by.
type SortKey struct {
	Column     int
	Desc       bool
	NullsFirst bool
}

// CompareSorted orders two rows by sort keys, and ties by the whole row, so that the order is a function of the contents.
func CompareSorted(keys []SortKey, a, b Row) int {
	for i := range keys {
		k := &keys[i]
		x, y := &a[k.Column], &b[k.Column]
		c := compare(x, y)
		if c == 0 {
			continue
		}
		reverse := k.Desc
		if x.t == Unknown || y.t == Unknown {
			reverse = k.NullsFirst
		}
		if reverse {
			return -c
		}
		return c
	}
	return CompareRows(a, b)
}

// NoLimit is the limit of a [TopK] that only skips.
const NoLimit = math.MaxInt64

// TopK keeps, for each group, Limit rows after the first Offset ones in order. It holds all rows of its input in order, so that
// it knows who moves up when one goes. A change costs the logarithm of the rows of its group, however large limit and offset are.
type TopK struct {
	In     Operator
	Group  []int
	Order  []SortKey
	Limit  int64
	Offset int64

	groups  map[string]*topGroup
	touched []*topGroup
	state   State
	buf     []byte
	keys    Row
	out     Delta
}

// topGroup is the rows of a group, each with its count, and the two ends of the window that is shown of them.
type topGroup struct {
	key     string
	tree    *btree.BTreeG[Update]
	size    int64 // copies of rows in the tree
	window  [2]cursor
	touched bool
}

// cursor is a position between two copies in the order of a group.
type cursor struct {
	row Row   // nil: before all rows
	n   int64 // copies of row before the position
	at  int64 // copies of all rows before the position
}

// topGroupBytes is what a group takes up beside its rows and its key.
const topGroupBytes = 128 + mapSlot + treeBase

// treeItemBytes is what a row of a group takes up.
func treeItemBytes(r Row) int64 { return treeSlack*int64(unsafe.Sizeof(Update{})) + int64(r.Size()) }

// Step implements [Operator]. The insertions of a step come before its deletions, so that there is something to delete.
func (o *TopK) Step(s *Step) Delta {
	in := o.In.Step(s)
	o.out.reset()
	o.out.Errors = append(o.out.Errors, in.Errors...)
	if o.groups == nil {
		o.groups = make(map[string]*topGroup)
	}
	for _, u := range in.Rows {
		if u.Diff > 0 {
			o.put(o.group(u.Row), u)
		}
	}
	for _, u := range in.Rows {
		if u.Diff < 0 {
			o.put(o.group(u.Row), u)
		}
	}
	for _, g := range o.touched {
		g.touched = false
		o.move(g, 0, min(o.Offset, g.size))
		o.move(g, 1, min(o.end(), g.size))
		if g.tree.Len() == 0 {
			delete(o.groups, g.key)
			o.state.Bytes -= topGroupBytes + int64(len(g.key))
		}
	}
	clear(o.touched)
	o.touched = o.touched[:0]
	return o.out
}

// end is the position behind the window.
func (o *TopK) end() int64 {
	if o.Limit > math.MaxInt64-o.Offset {
		return math.MaxInt64
	}
	return o.Offset + o.Limit
}

// group returns the group of a row, to be settled at the end of the step.
func (o *TopK) group(r Row) *topGroup {
	o.keys = o.keys[:0]
	for _, c := range o.Group {
		o.keys = append(o.keys, r[c])
	}
	o.buf = o.keys.AppendKey(o.buf[:0])
	g := o.groups[string(o.buf)]
	if g == nil {
		g = &topGroup{key: string(o.buf), tree: btree.NewBTreeGOptions(o.less, btree.Options{NoLocks: true})}
		o.groups[g.key] = g
		o.state.Bytes += topGroupBytes + int64(len(g.key))
	}
	if !g.touched {
		g.touched = true
		o.touched = append(o.touched, g)
	}
	return g
}

func (o *TopK) less(a, b Update) bool { return CompareSorted(o.Order, a.Row, b.Row) < 0 }

// put changes the count of a row. The copies of a row that are added come behind those that are there, and those that are taken away
// are the last ones. What the change does to the window is what it puts before its end less what it puts before its beginning.
func (o *TopK) put(g *topGroup, u Update) {
	var old Update
	var found bool
	if u.Diff > 0 {
		old, found = g.tree.Set(u)
	} else {
		old, found = g.tree.Delete(u)
	}
	n := old.Diff
	switch {
	case !found && u.Diff < 0:
		return
	case !found:
		o.state.Rows++
		o.state.Bytes += treeItemBytes(u.Row)
	case n+u.Diff > 0:
		g.tree.Set(Update{old.Row, n + u.Diff})
	default:
		o.state.Rows--
		o.state.Bytes -= treeItemBytes(u.Row)
	}
	g.size += u.Diff
	before := o.shift(&g.window[0], u, n)
	if shown := o.shift(&g.window[1], u, n) - before; shown != 0 {
		o.out.add(u.Row, shown)
	}
}

// shift corrects a cursor for a change of a row that had n copies, and returns how many copies more are before it.
func (o *TopK) shift(c *cursor, u Update, n int64) int64 {
	order := 1
	if c.row != nil {
		order = CompareSorted(o.Order, u.Row, c.row)
	}
	if order > 0 || order == 0 && u.Diff > 0 {
		return 0
	}
	more := u.Diff
	if order == 0 {
		more = -max(0, c.n-(n+u.Diff))
		c.n += more
	}
	c.at += more
	return more
}

// move brings an end of a group's window to a position. What the end passes comes into the window or leaves it.
func (o *TopK) move(g *topGroup, end int, to int64) {
	c := &g.window[end]
	sign := int64(2*end - 1)
	forward := func(u Update) bool {
		passed := int64(0)
		if c.row != nil && CompareRows(u.Row, c.row) == 0 {
			passed = c.n
		}
		if n := min(to-c.at, u.Diff-passed); n > 0 {
			o.out.add(u.Row, sign*n)
			*c = cursor{u.Row, passed + n, c.at + n}
		}
		return c.at < to
	}
	backward := func(u Update) bool {
		passed := u.Diff
		if CompareRows(u.Row, c.row) == 0 {
			passed = c.n
		}
		if n := min(c.at-to, passed); n > 0 {
			o.out.add(u.Row, -sign*n)
			*c = cursor{u.Row, passed - n, c.at - n}
		}
		return c.at > to
	}
	switch {
	case c.at < to && c.row == nil:
		g.tree.Scan(forward)
	case c.at < to:
		g.tree.Ascend(Update{Row: c.row}, forward)
	case c.at > to:
		g.tree.Descend(Update{Row: c.row}, backward)
	}
}

// State implements [Operator].
func (o *TopK) State() State { return o.state }

// Inputs implements [Operator].
func (o *TopK) Inputs() []Operator { return []Operator{o.In} }

func (o *TopK) String() string {
	var b strings.Builder
	b.WriteString("TopK")
	for i, c := range o.Group {
		fmt.Fprintf(&b, "%s#%d", []string{", ", " by "}[b2i(i == 0)], c)
	}
	for i, k := range o.Order {
		fmt.Fprintf(&b, "%s#%d", []string{", ", " order "}[b2i(i == 0)], k.Column)
		if k.Desc {
			b.WriteString(" desc")
		}
	}
	if o.Limit != NoLimit {
		fmt.Fprintf(&b, " limit %d", o.Limit)
	}
	if o.Offset > 0 {
		fmt.Fprintf(&b, " offset %d", o.Offset)
	}
	return b.String()
}
