package engine

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/mzdio/mzd/engine/flow"
)

func relationDropped(name string) *Error {
	return errorf("42704", "relation 'materialize.public.%s' was dropped", name)
}

// readable tells whether an input can be read: not yet, yes, or never. The caller holds mu.
func (in *input) readable() (bool, error) {
	switch {
	case in.src != nil:
		if in.src.dropped {
			return false, relationDropped(in.src.name)
		}
		if in.src.broken != nil {
			return false, in.src.broken
		}
		return in.src.caughtUp, nil
	case in.view != nil:
		return in.view.readable()
	}
	return true, nil
}

func (v *view) readable() (bool, error) {
	if v.dropped {
		return false, relationDropped(v.name)
	}
	if v.broken != nil {
		return false, v.broken
	}
	return v.ready, nil
}

// since is the earliest time that a readable input can be read at, and the id of what it reads. The caller holds mu.
func (in *input) since() (id string, since uint64) {
	switch {
	case in.src != nil:
		return in.src.id, in.src.marks[0].time
	case in.view != nil:
		return in.view.id, in.view.since
	}
	return "", 0
}

// obstacle is why inputs that cannot be read yet will not soon be: the file of a source, perhaps of a view's, that cannot be read. It is
// nil while they are on their way. The caller holds mu.
func obstacle(inputs []input) error {
	for _, in := range inputs {
		switch {
		case in.src != nil && !in.src.caughtUp && in.src.err != nil:
			return &Error{Code: "58030", Message: fmt.Sprintf("source %s cannot be read: %v", in.src.name, in.src.err),
				Hint: "It is tried again all the time, and read as soon as it can be."}
		case in.view != nil && !in.view.ready:
			if err := obstacle(in.view.inputs); err != nil {
				return err
			}
		}
	}
	return nil
}

// filling is the work of bringing a dataflow to a time.
type filling struct {
	e    *Engine
	v    *view
	at   uint64 // what has been taken in
	cuts []mark // how far each source had been read at that time
	c    flow.Context
	hold hold
	once bool // the view is for the result of a SELECT
	stop atomic.Bool

	counted int64 // bytes in Engine.filling, or in Engine.reading
}

// now asks for the newest time.
const now = math.MaxUint64

// newFilling begins to fill a view, which belongs to the caller, who has to call release.
func (e *Engine) newFilling(v *view) *filling {
	f := &filling{e: e, v: v, cuts: make([]mark, len(v.inputs))}
	f.c = flow.Context{Budget: e.opt.MaxBytes, Stop: &f.stop}
	return f
}

// endWith stops what is computed, in the middle of a step, when the context ends. The caller calls the function that it returns.
func (f *filling) endWith(ctx context.Context) func() bool {
	return context.AfterFunc(ctx, func() { f.stop.Store(true) })
}

// fill waits until the inputs can be read at a time, or at the newest one if it is gone and any later one will do, and brings the
// dataflow there. The history from that time on is held.
func (f *filling) fill(ctx context.Context, at uint64, atLeast bool) error {
	err := f.begin(ctx, at)
	if isHistoryGone(err) && atLeast {
		err = f.begin(ctx, now)
	}
	if err != nil {
		return err
	}
	for slot, in := range f.v.inputs {
		if err := f.take(ctx, slot, in); err != nil {
			return err
		}
	}
	return f.step(change{}, false)
}

// begin waits for the inputs and chooses the time.
func (f *filling) begin(ctx context.Context, at uint64) error {
	return f.e.await(ctx, func() (bool, error) {
		ok, err := f.cut(at)
		if !ok && err == nil && f.v.id == "" { // somebody waits; a view of the catalog can
			err = obstacle(f.v.inputs)
		}
		return ok, err
	})
}

// cut chooses the time, once all inputs are readable at it. The caller holds mu.
func (f *filling) cut(at uint64) (bool, error) {
	if f.v.dropped {
		return false, relationDropped(f.v.name)
	}
	if f.e.opening {
		return false, nil
	}
	for i := range f.v.inputs {
		if ok, err := f.v.inputs[i].readable(); !ok {
			return false, err
		}
	}
	f.at = f.e.upper - 1
	if at != now {
		if at >= f.e.upper {
			return false, nil
		}
		f.at = at
	}
	var ids []string
	since := uint64(0)
	for i := range f.v.inputs {
		in := &f.v.inputs[i]
		id, from := in.since()
		ids, since = append(ids, id), max(since, from)
		if in.src != nil {
			f.cuts[i] = in.src.at(f.at)
		}
	}
	if f.at < since {
		return false, historyGone(f.at, since, ids...)
	}
	f.hold.time = f.at
	f.e.holds[&f.hold] = struct{}{}
	return true, nil
}

// letGo lets the history go. It may be called twice.
func (f *filling) letGo() {
	f.e.mu.Lock()
	defer f.e.mu.Unlock()
	delete(f.e.holds, &f.hold)
}

// release lets the history go, and stops counting what has been filled. It may be called twice.
func (f *filling) release() {
	f.letGo()
	f.e.mu.Lock()
	defer f.e.mu.Unlock()
	f.count(0)
}

// take gives a slot what its input holds at the time.
func (f *filling) take(ctx context.Context, slot int, in input) error {
	switch {
	case in.src != nil:
		return f.lines(ctx, slot, in, mark{}, f.cuts[slot], func() error { return f.step(change{}, false) })
	case in.view != nil:
		rows, errs, err := f.e.snapshot(in.view, f.at)
		if err != nil {
			return err
		}
		f.v.feed(&f.c, slot, rows, errs)
	default:
		for _, r := range in.rows {
			in.work.Apply(&f.c, r, 1, &f.v.deltas[slot])
		}
	}
	return nil
}

// lines gives a slot the lines of a source between two marks, and calls each after every piece.
func (f *filling) lines(ctx context.Context, slot int, in input, from, to mark, each func() error) error {
	if from.offset == to.offset {
		return nil
	}
	f.e.mu.Lock()
	file := in.src.file
	f.e.mu.Unlock()
	if file == nil {
		return relationDropped(in.src.name)
	}
	number := from.lines
	return readLines(ctx, file, from.offset, to.offset, func(lines string) error {
		f.e.mu.Lock()
		dropped := f.v.dropped
		f.e.mu.Unlock()
		if dropped {
			return relationDropped(f.v.name)
		}
		in.src.decode(&f.c, lines, number+1, []*projection{in.proj}, f.v.deltas[slot:slot+1])
		number += int64(strings.Count(lines, "\n"))
		return each()
	})
}

// step takes what the slots have been given into the view, as a change of its history or as part of what it begins with.
func (f *filling) step(c change, remember bool) error {
	c.rows, c.errors = f.v.step(&f.c)
	f.v.clear()
	f.e.mu.Lock()
	defer f.e.mu.Unlock()
	f.v.apply(c, remember)
	return f.afford()
}

// piece is what happened to an input at one time.
type piece struct {
	slot     int
	time     uint64
	change   change // of a view
	from, to mark   // of a source
}

// catchUp takes in, one time after the other, what has been published since, and returns how many times that were.
func (f *filling) catchUp(ctx context.Context) (int, error) {
	f.e.mu.Lock()
	upper := f.e.upper
	var pieces []piece
	for slot, in := range f.v.inputs {
		if ok, err := in.readable(); !ok {
			f.e.mu.Unlock()
			return 0, err
		}
		switch {
		case in.src != nil:
			from := f.cuts[slot]
			for _, m := range in.src.marks {
				if m.time > f.at {
					pieces = append(pieces, piece{slot: slot, time: m.time, from: from, to: m})
					from = m
				}
			}
			f.cuts[slot] = from
		case in.view != nil:
			for _, c := range in.view.after(f.at, upper) {
				pieces = append(pieces, piece{slot: slot, time: c.time, change: c})
			}
		}
	}
	f.e.mu.Unlock()
	slices.SortStableFunc(pieces, func(a, b piece) int {
		switch {
		case a.time < b.time:
			return -1
		case a.time > b.time:
			return 1
		}
		return 0
	})
	times := 0
	for i, p := range pieces {
		in := f.v.inputs[p.slot]
		if in.src != nil {
			if err := f.lines(ctx, p.slot, in, p.from, p.to, func() error { return nil }); err != nil {
				return times, err
			}
		} else {
			f.v.feed(&f.c, p.slot, p.change.rows, p.change.errors)
		}
		if i+1 == len(pieces) || pieces[i+1].time != p.time {
			if err := f.step(change{time: p.time}, true); err != nil {
				return times, err
			}
			times++
		}
	}
	f.at = upper - 1
	f.e.mu.Lock()
	f.hold.time = f.at
	f.e.mu.Unlock()
	return times, nil
}

// join catches up and makes the view part of the ticks. The last of it happens while no tick can.
func (f *filling) join(ctx context.Context) error {
	for {
		n, err := f.catchUp(ctx)
		if err != nil {
			return err
		}
		if n <= 4 {
			break
		}
	}
	f.e.graphMu.Lock()
	defer f.e.graphMu.Unlock()
	if _, err := f.catchUp(ctx); err != nil {
		return err
	}
	f.e.mu.Lock()
	defer f.e.mu.Unlock()
	if f.v.dropped {
		return relationDropped(f.v.name)
	}
	f.e.attach(f.v)
	f.v.readyFrom(f.v.builtAt)
	f.e.notify()
	return nil
}

// hydrator fills the views that have been created, each on its own: one that waits for its source keeps no other waiting.
func (e *Engine) hydrator(ctx context.Context, wg *sync.WaitGroup) error {
	for {
		e.mu.Lock()
		hydrating := e.hydrating
		e.hydrating = nil
		changed := e.changed
		e.mu.Unlock()
		for _, v := range hydrating {
			wg.Go(func() {
				err := e.hydrate(ctx, v)
				if err == nil || ctx.Err() != nil {
					return
				}
				e.mu.Lock()
				defer e.mu.Unlock()
				if v.dropped {
					return
				}
				v.broken = asError(err)
				v.forget()
				if v.id != "" {
					e.log.Error("view not built", "view", v.name, "error", err)
				}
				e.notify()
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (e *Engine) hydrate(ctx context.Context, v *view) error {
	f := e.newFilling(v)
	defer f.release()
	defer f.endWith(ctx)()
	if err := f.fill(ctx, v.wanted, v.atLeast); err != nil {
		return err
	}
	v.builtAt = f.at
	if err := f.join(ctx); err != nil {
		return err
	}
	if v.id != "" {
		e.log.Info("view built", "view", v.name)
	}
	return nil
}

// snapshot returns a view's rows and errors at a closed time. The lock is held for one shard at a time; what happens in between is taken
// back by means of the history.
func (e *Engine) snapshot(v *view, at uint64) ([]flow.Keyed, []flow.ErrorUpdate, error) {
	var rows []flow.Keyed
	var errs []flow.ErrorUpdate
	var history []change
	seen := make([]uint64, len(v.contents.shards))
	for i := range v.contents.shards {
		e.mu.Lock()
		if v.broken != nil {
			e.mu.Unlock()
			return nil, nil, v.broken
		}
		for key, u := range v.contents.shards[i] {
			rows = append(rows, flow.Keyed{Key: key, Update: *u})
		}
		seen[i] = e.upper
		if i == len(seen)-1 {
			if v.since > at {
				e.mu.Unlock()
				return nil, nil, historyGone(at, v.since, v.id)
			}
			for m, n := range v.errors {
				errs = append(errs, flow.ErrorUpdate{Message: m, Diff: n})
			}
			history = v.after(at, e.upper)
		}
		e.mu.Unlock()
	}
	if len(history) == 0 {
		return rows, errs, nil
	}
	index := make(map[string]int, len(rows))
	for i, r := range rows {
		index[r.Key] = i
	}
	for _, c := range history {
		for _, r := range c.rows {
			if c.time >= seen[v.contents.shard(r.Key)] {
				continue
			}
			i, ok := index[r.Key]
			if !ok {
				i = len(rows)
				index[r.Key] = i
				rows = append(rows, flow.Keyed{Key: r.Key, Update: flow.Update{Row: r.Row}})
			}
			rows[i].Diff -= r.Diff
		}
		for _, x := range c.errors {
			errs = append(errs, flow.ErrorUpdate{Message: x.Message, Diff: -x.Diff})
		}
	}
	rows = slices.DeleteFunc(rows, func(k flow.Keyed) bool { return k.Diff == 0 })
	return rows, consolidateErrors(errs), nil
}
