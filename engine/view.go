package engine

import (
	"hash/maphash"
	"slices"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
)

// view is a collection that is kept up to date: a materialized view or source, a table, or a query that somebody streams.
type view struct {
	id      string // "" for a streamed query
	name    string
	columns []plan.Column
	inputs  []input
	uses    []string // ids of the objects named in its query
	wanted  uint64   // the time it is to begin at, or now
	atLeast bool     // or a later one, if that is gone
	builtAt uint64   // the time it began at; set before it is ready
	sealed  bool     // a constant: what it holds it holds at all times

	// Guarded by Engine.graphMu.
	flow    *flow.Dataflow // nil for a table and a relation of the engine itself
	deltas  []flow.Delta   // of the inputs, reused
	started bool           // the first step has been taken
	net     flow.Consolidator
	overrun bool              // the last step needed more memory than there is, or made more copies of a row than can be counted
	endless bool              // it was the copies
	observe func() []flow.Row // what a relation of the engine itself is now, asked with mu held; nil for the rest

	// Guarded by Engine.mu.
	contents contents
	errors   map[string]int64
	history  []change // ascending; what since hides has been dropped
	since    uint64   // the earliest time that can be read; 0 if it is sealed
	bytes    int      // of history
	updates  uint64   // so far
	ready    bool     // since is valid and the contents are those at the engine's upper
	dropped  bool
	lost     string // the relation whose drop ended the view, if it is not itself
	broken   *Error // why it can never be read
	state    int64  // bytes of the operators, when they were last asked
	before   int64  // bytes held when memory was last looked at
}

// input is where a slot of a dataflow gets its rows from: one of the three.
type input struct {
	work *flow.Map
	src  *source
	proj *projection // what src's decoders do for the slot
	view *view
	rows []flow.Row // of the catalog
}

// change is what happened to a view at one time.
type change struct {
	time   uint64
	rows   []flow.Keyed
	errors []flow.ErrorUpdate
	bytes  int
}

// contents is a multiset of rows, in shards so that a reader can copy it without holding the lock for long.
type contents struct {
	shards [64]map[string]*flow.Update
	seed   maphash.Seed
	rows   int64
	bytes  int
}

func newView(id, name string, columns []plan.Column, df *flow.Dataflow, inputs []input) *view {
	v := &view{id: id, name: name, columns: columns, flow: df, inputs: inputs, deltas: make([]flow.Delta, len(inputs))}
	v.contents = newContents()
	v.errors = map[string]int64{}
	v.sealed = df != nil && !slices.ContainsFunc(inputs, func(in input) bool { return in.view == nil || !in.view.sealed })
	return v
}

func newContents() contents { return contents{seed: maphash.MakeSeed()} }

// rowOverhead is what a row of the contents takes up beside itself and its key: an update, and a slot of a map.
const rowOverhead = 80

func (c *contents) shard(key string) int {
	return int(maphash.String(c.seed, key) % uint64(len(c.shards)))
}

func (c *contents) add(k flow.Keyed) {
	i := c.shard(k.Key)
	if c.shards[i] == nil {
		c.shards[i] = make(map[string]*flow.Update)
	}
	c.rows += k.Diff
	u := c.shards[i][k.Key]
	if u == nil {
		c.shards[i][k.Key] = &flow.Update{Row: k.Row, Diff: k.Diff}
		c.bytes += k.Row.Size() + len(k.Key) + rowOverhead
		return
	}
	if u.Diff += k.Diff; u.Diff == 0 {
		delete(c.shards[i], k.Key)
		c.bytes -= u.Row.Size() + len(k.Key) + rowOverhead
	}
}

// apply adds a change; with a time it is remembered. The caller holds Engine.mu.
func (v *view) apply(c change, remember bool) {
	for _, k := range c.rows {
		v.contents.add(k)
	}
	for _, e := range c.errors {
		if v.errors[e.Message] += e.Diff; v.errors[e.Message] == 0 {
			delete(v.errors, e.Message)
		}
	}
	if !remember || len(c.rows) == 0 && len(c.errors) == 0 {
		return
	}
	for _, k := range c.rows {
		c.bytes += k.Row.Size() + len(k.Key)
	}
	v.bytes += c.bytes
	v.updates += uint64(len(c.rows))
	v.history = append(v.history, c)
}

// readyFrom lets the view be read from a time on. The caller holds Engine.mu.
func (v *view) readyFrom(time uint64) {
	if v.ready = true; !v.sealed {
		v.since = time
	}
}

// trim forgets changes up to a time, and the oldest ones while the history is too large. The caller holds Engine.mu.
func (v *view) trim(until uint64, hold uint64, limit int) {
	n := 0
	for n < len(v.history) && v.history[n].time < hold && (v.history[n].time <= until || v.bytes > limit) {
		v.since = v.history[n].time
		v.bytes -= v.history[n].bytes
		v.history[n] = change{}
		n++
	}
	// The list moves to a new array once as much has been dropped as is left, so that trimming costs a constant per change.
	v.history = v.history[n:]
	if n > 0 && cap(v.history) > 64 && len(v.history) < cap(v.history)/4 {
		v.history = slices.Clone(v.history)
	}
}

// after returns the changes with from < time < to. The caller holds Engine.mu; the result may be read without it, because changes
// are immutable.
func (v *view) after(from, to uint64) []change {
	less := func(c change, t uint64) int {
		if c.time < t {
			return -1
		}
		return 1
	}
	i, _ := slices.BinarySearchFunc(v.history, from+1, less)
	j, _ := slices.BinarySearchFunc(v.history, to, less)
	return slices.Clone(v.history[i:j])
}

// step takes one step of the view's dataflow. The caller holds Engine.graphMu, or is the only one who knows the view.
func (v *view) step(c *flow.Context) ([]flow.Keyed, []flow.ErrorUpdate) {
	defer c.Renew()
	if v.overrun = c.Exhausted(); v.overrun { // by what feeds it
		return nil, nil
	}
	if v.started && !slices.ContainsFunc(v.deltas, func(d flow.Delta) bool { return !d.Empty() }) {
		return nil, nil
	}
	v.started = true
	out := v.flow.Step(c, v.deltas)
	if v.overrun, v.endless = c.Exhausted(), c.Overflowed(); v.overrun {
		return nil, nil
	}
	return v.net.Rows(out.Rows), consolidateErrors(out.Errors)
}

func consolidateErrors(in []flow.ErrorUpdate) []flow.ErrorUpdate {
	if len(in) == 0 {
		return nil
	}
	sum := map[string]int64{}
	for _, e := range in {
		sum[e.Message] += e.Diff
	}
	var out []flow.ErrorUpdate
	for m, d := range sum {
		if d != 0 {
			out = append(out, flow.ErrorUpdate{Message: m, Diff: d})
		}
	}
	return out
}

// feed gives a slot the changes of a view that it reads.
func (v *view) feed(c *flow.Context, slot int, rows []flow.Keyed, errors []flow.ErrorUpdate) {
	d := &v.deltas[slot]
	in := &v.inputs[slot]
	same := in.work.Identity(len(in.view.columns))
	for _, k := range rows {
		if same {
			d.Rows = append(d.Rows, k.Update)
		} else {
			in.work.Apply(c, k.Row, k.Diff, d)
		}
	}
	d.Errors = append(d.Errors, errors...)
}

// clear forgets what the slots were given.
func (v *view) clear() {
	for i := range v.deltas {
		d := &v.deltas[i]
		clear(d.Rows)
		d.Rows, d.Errors = d.Rows[:0], d.Errors[:0]
		if cap(d.Rows) > 1<<16 {
			d.Rows = nil
		}
	}
}

// evaluationError is the error that readers of the view get, or nil. The caller holds Engine.mu.
func evaluationError(errors map[string]int64, name string) *Error {
	first := ""
	for m := range errors {
		if first == "" || m < first {
			first = m
		}
	}
	if first == "" {
		return nil
	}
	return &Error{Code: "XX000", Message: "Evaluation error: " + first, Detail: "While evaluating " + name + "."}
}
