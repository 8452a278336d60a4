package engine

import (
	"fmt"
	"time"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
)

// The engine's own relations describe the engine: its catalog, views, sources and ticks. They are views whose contents the engine
// itself brings up to date in the first tick of each second, so that they are streamed, joined and read at a time like any other. A
// SELECT without AS OF that reads nothing else is answered with what is so now, and does not wait for the engine to have opened.

// kindSystem is what mz_objects calls them.
const kindSystem = "system"

// systemHistory bounds the history of a relation of the engine.
const systemHistory = 1 << 20

// makeSystem makes the engine's own relations.
func (e *Engine) makeSystem() {
	text, count, number, float := flow.Text, flow.Int8, flow.Numeric, flow.Float8
	for id, def := range []struct {
		name    string
		columns []plan.Column
		rows    func() []flow.Row
	}{
		{"mz_objects", []plan.Column{{Name: "id", Type: text}, {Name: "name", Type: text}, {Name: "type", Type: text}}, e.objectRows},
		{"mzd_views", []plan.Column{
			{Name: "id", Type: text}, {Name: "name", Type: text}, {Name: "type", Type: text}, {Name: "state", Type: text},
			{Name: "rows", Type: count}, {Name: "bytes", Type: count}, {Name: "history_bytes", Type: count},
			{Name: "updates", Type: count}, {Name: "errors", Type: count},
			{Name: "since", Type: number}, {Name: "upper", Type: number}, {Name: "problem", Type: text},
		}, e.viewRows},
		{"mzd_sources", []plan.Column{
			{Name: "id", Type: text}, {Name: "name", Type: text}, {Name: "path", Type: text}, {Name: "state", Type: text},
			{Name: "read", Type: count}, {Name: "size", Type: count}, {Name: "lines", Type: count}, {Name: "rejected", Type: count},
			{Name: "problem", Type: text},
		}, e.sourceRows},
		{"mzd_ticks", []plan.Column{
			{Name: "ticks", Type: count}, {Name: "lines", Type: count}, {Name: "changes", Type: count},
			{Name: "lines_per_second", Type: float}, {Name: "changes_per_second", Type: float}, {Name: "last_tick_ms", Type: float},
			{Name: "upper", Type: number},
		}, e.tickRows},
	} {
		o := &object{kind: kindSystem}
		o.Object = plan.Object{ID: fmt.Sprintf("s%d", id+1), Name: def.name, Columns: def.columns, Introspection: true}
		o.view = newView(o.ID, o.Name, o.Columns, nil, nil)
		o.view.observe = def.rows
		e.system = append(e.system, o)
		e.graph = append(e.graph, o.view)
	}
}

// due tells, once a second, that the engine's relations are to be brought up to date. The caller holds graphMu.
func (e *Engine) due() bool {
	now := time.Now()
	if now.Unix() == e.observed.Unix() {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ticks.sample(now.Sub(e.observed).Seconds())
	e.observed = now
	return true
}

// observe returns how a relation of the engine has changed since it was last asked. The caller holds graphMu.
func (e *Engine) observe(v *view) []flow.Keyed {
	e.mu.Lock()
	defer e.mu.Unlock()
	var updates []flow.Update
	for _, shard := range v.contents.shards {
		for _, u := range shard {
			updates = append(updates, flow.Update{Row: u.Row, Diff: -u.Diff})
		}
	}
	for _, r := range v.observe() {
		updates = append(updates, flow.Update{Row: r, Diff: 1})
	}
	return v.net.Rows(updates)
}

// tickStats count what the ticks have done since the process began.
type tickStats struct {
	count, lines, changes         uint64
	last                          time.Duration // of the last tick
	sampledLines, sampledChanges  uint64
	linesPerSecond, changesPerSec float64 // in the last whole second
}

func (t *tickStats) add(lines, changes int, took time.Duration) {
	t.count++
	t.lines += uint64(lines)
	t.changes += uint64(changes)
	t.last = took
}

// sample measures the rates since it was last called.
func (t *tickStats) sample(seconds float64) {
	t.linesPerSecond = float64(t.lines-t.sampledLines) / seconds
	t.changesPerSec = float64(t.changes-t.sampledChanges) / seconds
	t.sampledLines, t.sampledChanges = t.lines, t.changes
}

func nullable(text string) flow.Datum {
	if text == "" {
		return flow.Null
	}
	return flow.NewText(text)
}

func integer[T int | int64 | uint64](n T) flow.Datum { return flow.NewInt(flow.Int8, int64(n)) }

// objectRows are the rows of mz_objects. The caller of this and the following holds mu.
func (e *Engine) objectRows() []flow.Row {
	var rows []flow.Row
	for _, o := range append(e.ordered(), e.system...) {
		rows = append(rows, flow.Row{flow.NewText(o.ID), flow.NewText(o.Name), flow.NewText(o.kind)})
	}
	return rows
}

func (e *Engine) viewRows() []flow.Row {
	var rows []flow.Row
	for _, v := range e.stats().Views {
		state := "building"
		switch {
		case v.Problem != "":
			state = "failed"
		case v.Ready:
			state = "ready"
		}
		rows = append(rows, flow.Row{
			flow.NewText(v.ID), flow.NewText(v.Name), flow.NewText(v.Kind), flow.NewText(state),
			integer(v.Rows), integer(v.Bytes), integer(v.HistoryBytes), integer(v.Updates), integer(v.Errors),
			flow.NewUint(v.Since), flow.NewUint(e.upper), nullable(v.Problem),
		})
	}
	return rows
}

func (e *Engine) sourceRows() []flow.Row {
	var rows []flow.Row
	for _, s := range e.stats().Sources {
		rows = append(rows, flow.Row{
			flow.NewText(s.ID), flow.NewText(s.Name), flow.NewText(s.Path), flow.NewText(s.State),
			integer(s.Offset), integer(max(s.Size, s.Offset)), integer(s.Lines), integer(s.Bad), nullable(s.Problem),
		})
	}
	return rows
}

func (e *Engine) tickRows() []flow.Row {
	t := &e.ticks
	float := func(v float64) flow.Datum { return flow.NewFloat(flow.Float8, v) }
	return []flow.Row{{
		integer(t.count), integer(t.lines), integer(t.changes), float(t.linesPerSecond), float(t.changesPerSec),
		float(float64(t.last.Microseconds()) / 1000), flow.NewUint(e.upper),
	}}
}
