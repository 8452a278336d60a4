package engine

import (
	"fmt"
	"slices"

	"github.com/mzdio/mzd/engine/flow"
)

// held is an estimate of the bytes that a view holds: its operators, its rows, and its history. The caller holds mu.
func (v *view) held() int64 { return v.state + int64(v.contents.bytes) + int64(v.bytes) }

// measure asks the operators of a view what they hold. The caller holds mu and may use the operators.
func (v *view) measure() {
	if v.flow != nil {
		v.state = v.flow.State().Bytes
	}
}

// total is what all views hold. What is being filled or read counts against those who fill and read alone: no view is given up, and no
// writer refused, because of them. The caller holds mu.
func (e *Engine) total() int64 {
	var sum int64
	for _, v := range e.graph {
		sum += v.held()
	}
	return sum
}

// enforce gives up views while all of them hold more than they may: of those that have grown since the last time the one that holds the
// most, and those that read it. Tables only count. The caller holds graphMu and mu.
func (e *Engine) enforce() {
	for _, v := range e.graph {
		v.measure()
	}
	for _, v := range slices.Clone(e.graph) {
		if v.overrun {
			e.giveUp(v, e.tooLarge(v))
		}
	}
	for e.total() > e.opt.MaxBytes {
		var victim *view
		for _, v := range e.graph {
			if v.flow != nil && v.held() > v.before && (victim == nil || v.held() > victim.held()) {
				victim = v
			}
		}
		if victim == nil {
			break
		}
		e.giveUp(victim, e.tooLarge(victim))
	}
	for _, v := range e.graph {
		v.before = v.held()
	}
}

// tooLarge is the error of a view whose growth passes the bound. The caller may use its operators.
func (e *Engine) tooLarge(v *view) *Error {
	var most flow.State
	detail := ""
	v.flow.Each(func(o flow.Operator) {
		if s := o.State(); s.Bytes > most.Bytes {
			most, detail = s, fmt.Sprintf("Most of it: %s, with %d rows in %d bytes.", o, s.Rows, s.Bytes)
		}
	})
	who, hint := "the query", "Let it take fewer rows at once, or raise engine.max_memory."
	if v.id != "" {
		who, hint = v.name, "Let the view keep less, or raise engine.max_memory; then DROP it and create it again."
	}
	if v.endless {
		return errorf("22003", "bigint out of range: %s has more copies of a row than can be counted", who)
	}
	return &Error{
		Code: "53200",
		Message: fmt.Sprintf("out of memory: %s held %d bytes when the views of the embedded engine together passed their %d bytes",
			who, v.held(), e.opt.MaxBytes),
		Detail: detail,
		Hint:   hint,
	}
}

// giveUp drops what a view holds, and what those hold that read it: nobody can read them any more. The caller holds graphMu and mu.
func (e *Engine) giveUp(v *view, why *Error) {
	if v.id != "" {
		e.log.Error("view given up", "view", v.name, "error", why, "detail", why.Detail)
	}
	v.broken = why
	e.unlink(v)
	v.forget()
	for _, d := range slices.Clone(e.graph) {
		if slices.ContainsFunc(d.inputs, func(in input) bool { return in.view == v }) {
			e.giveUp(d, why)
		}
	}
	e.notify()
}

// forget drops all that a view holds that can never be read. The caller holds mu and may use the view's operators.
func (v *view) forget() {
	v.flow, v.deltas = nil, nil
	v.contents = newContents()
	v.errors = map[string]int64{}
	v.history, v.bytes, v.state = nil, 0, 0
}

// afford counts what a view holds while it is being filled, and is an error if that is too much. The caller holds mu and may use the
// view's operators.
func (f *filling) afford() error {
	f.v.measure()
	f.count(f.v.held())
	held := f.e.total() + f.e.filling
	if f.once { // all results together may be as much as all views
		held = max(f.e.total()+f.counted, f.e.reading)
	}
	if f.v.overrun || held > f.e.opt.MaxBytes {
		return f.e.tooLarge(f.v)
	}
	return nil
}

// count makes what is filled count for so many bytes. The caller holds mu.
func (f *filling) count(bytes int64) {
	sum := &f.e.filling
	if f.once {
		sum = &f.e.reading
	}
	*sum += bytes - f.counted
	f.counted = bytes
}
