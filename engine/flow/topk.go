package flow

import (
	"fmt"
	"math"
	"strings"

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
	for _, k := range keys {
		x, y := a[k.Column], b[k.Column]
		if x.IsNull() || y.IsNull() {
			c := Compare(x, y)
			if c != 0 && k.NullsFirst {
				c = -c
			}
			if c != 0 {
				return c
			}
			continue
		}
		if c := Compare(x, y); c != 0 {
			if k.Desc {
				return -c
			}
			return c
		}
	}
	return CompareRows(a, b)
}

// NoLimit is the limit of a [TopK] that only skips.
const NoLimit = math.MaxInt64

// TopK keeps, for each group, Limit rows after the first Offset ones in order. It holds all rows of its input in order, so that
// it knows who moves up when one goes.
type TopK struct {
	In     Operator
	Group  []int
	Order  []SortKey
	Limit  int64
	Offset int64

	groups  map[string]*topGroup
	touched []*topGroup
	buf     []byte
	keys    Row
	out     Delta
}

type topGroup struct {
	key    string
	tree   *btree.BTreeG[Update]
	size   int64    // rows in the tree, with their counts
	window []Update // what is shown, in order
	dirty  bool     // the window may have changed in this step
}

// Step implements [Operator].
func (o *TopK) Step(s *Step) Delta {
	in := o.In.Step(s)
	o.out.reset()
	o.out.Errors = append(o.out.Errors, in.Errors...)
	if o.groups == nil {
		o.groups = make(map[string]*topGroup)
	}
	for _, u := range in.Rows {
		o.put(o.group(u.Row), u)
	}
	for _, g := range o.touched {
		g.dirty = false
		o.answer(g)
		if g.tree.Len() == 0 {
			delete(o.groups, g.key)
		}
	}
	clear(o.touched)
	o.touched = o.touched[:0]
	return o.out
}

func (o *TopK) group(r Row) *topGroup {
	o.keys = o.keys[:0]
	for _, c := range o.Group {
		o.keys = append(o.keys, r[c])
	}
	o.buf = o.keys.AppendKey(o.buf[:0])
	g := o.groups[string(o.buf)]
	if g == nil {
		less := func(a, b Update) bool { return CompareSorted(o.Order, a.Row, b.Row) < 0 }
		g = &topGroup{key: string(o.buf), tree: btree.NewBTreeGOptions(less, btree.Options{NoLocks: true})}
		o.groups[g.key] = g
	}
	return g
}

func (o *TopK) put(g *topGroup, u Update) {
	// A change behind the end of a full window does not show.
	full := g.size >= o.end() && len(g.window) > 0
	if !g.dirty && !(full && CompareSorted(o.Order, u.Row, g.window[len(g.window)-1].Row) > 0) {
		g.dirty = true
		o.touched = append(o.touched, g)
	}
	g.size += u.Diff
	// Mostly a row comes that is not there, or one goes that is there once: either is one descent.
	var old Update
	if u.Diff < 0 {
		old, _ = g.tree.Delete(u)
	} else {
		old, _ = g.tree.Set(u)
	}
	switch n := old.Diff + u.Diff; {
	case n == 0:
		g.tree.Delete(u)
	case n != u.Diff || u.Diff < 0:
		g.tree.Set(Update{u.Row, n})
	}
}

// end is the position behind the window.
func (o *TopK) end() int64 {
	if o.Limit > math.MaxInt64-o.Offset {
		return math.MaxInt64
	}
	return o.Offset + o.Limit
}

// answer computes a window anew and says what changed in it.
func (o *TopK) answer(g *topGroup) {
	var window []Update
	at, end := int64(0), o.end()
	g.tree.Scan(func(u Update) bool {
		from := max(at, o.Offset)
		at += max(u.Diff, 0)
		if n := min(at, end) - from; n > 0 {
			window = append(window, Update{u.Row, n})
		}
		return at < end
	})
	old := g.window
	g.window = window
	for len(old) > 0 || len(window) > 0 {
		c := 0
		switch {
		case len(old) == 0:
			c = 1
		case len(window) == 0:
			c = -1
		default:
			c = CompareSorted(o.Order, old[0].Row, window[0].Row)
		}
		switch {
		case c < 0:
			o.out.add(old[0].Row, -old[0].Diff)
			old = old[1:]
		case c > 0:
			o.out.add(window[0].Row, window[0].Diff)
			window = window[1:]
		default:
			if d := window[0].Diff - old[0].Diff; d != 0 {
				o.out.add(window[0].Row, d)
			}
			old, window = old[1:], window[1:]
		}
	}
}

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
