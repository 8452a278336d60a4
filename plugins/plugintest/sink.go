package plugintest

import (
	"cmp"
	"context"
	"encoding/json"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
)

// Sink is a sink to be tested.
type Sink struct {
	Plugin plugins.Sink

	// Settings are what it is opened with, again and again: to open it once more
	// is what mzd does after a restart, and must lead to the same target.
	Settings json.RawMessage

	// Observe looks at the target. Without it no rule about rows is checked.
	Observe Observer

	// Outage makes the target take nothing until end is called, which returns when
	// it takes everything again. Without it no rule about outages is checked.
	Outage func(ctx context.Context) (end func(), err error)

	// Gone makes the target refuse whatever is written for good, until back is
	// called. Without it no rule about that is checked.
	Gone func(ctx context.Context) (back func(), err error)

	// Refused are settings, beyond those that its schema rules out, that the sink
	// must refuse.
	Refused []json.RawMessage

	// Exempt names rules that the sink does not keep on purpose, each with the
	// reason. They are reported as not checked.
	Exempt map[string]string

	// External says that the sink runs in a process of its own, of which the suite
	// cannot see the inside.
	External bool

	// Patience is how long a call may take that ought to return soon, such as one
	// whose context has ended. Zero: 10 seconds.
	Patience time.Duration
}

// TestSink holds a sink against each rule, as subtests by the rules' names.
func TestSink(t *testing.T, s Sink) {
	t.Helper()
	s.suite().test(t)
}

// CheckSink holds a sink against the rules whose names match, nil for all of
// them, one after the other.
func CheckSink(ctx context.Context, s Sink, match func(rule string) bool) iter.Seq[Result] {
	return s.suite().results(ctx, match)
}

// What the author of a sink can give.
const (
	observer need = "observer"
	outage   need = "outage"
	gone     need = "gone"
)

func (s Sink) suite() *suite[*sinkProbe] {
	s.Patience = cmp.Or(s.Patience, defaultPatience)
	missing := make(map[need]string)
	if s.Observe == nil {
		missing[observer] = "nobody looks at the target: give Observe, or -observe"
	}
	if s.Outage == nil {
		missing[outage] = "nobody makes the target fail for a while: give Outage, or -outage"
	}
	if s.Gone == nil {
		missing[gone] = "nobody makes the target fail for good: give Gone, or -gone"
	}
	return &suite[*sinkProbe]{
		rules:    sinkRules,
		exempt:   s.Exempt,
		missing:  missing,
		patience: s.Patience,
		outcomes: make(map[string]Status),
		begin:    func(p *probe) *sinkProbe { return &sinkProbe{probe: p, Sink: s, now: start} },
	}
}

// sinkProbe is what a rule about sinks works with. It plays mzd's part.
type sinkProbe struct {
	*probe
	Sink
	now  clock
	logs logs // for a broadcaster
}

// settle is how long a target may take to show what was written, for all rules
// but the one about that.
const settle = time.Second

// settles returns how long the target may take. What a broadcaster serves follows
// the logs, and nothing tells how soon.
func (p *sinkProbe) settles() time.Duration {
	if len(p.logs.all) > 0 {
		return p.patience
	}
	return settle
}

// view makes a view of the rule, with a key unless it has other columns than
// these.
func (p *sinkProbe) view(name string, columns ...core.Column) *view {
	v := &core.View{Name: "plugintest_" + strings.ReplaceAll(p.rule, "-", "_") + "_" + name, Columns: columns}
	if columns == nil {
		v.Columns = []core.Column{{Name: "id", Type: "int8"}, {Name: "name", Type: "text"}}
		v.Key = []int{0}
	}
	return &view{View: v}
}

// cut makes the next cut.
func (p *sinkProbe) cut(edits ...edit) []core.Batch {
	p.now += tick
	return p.cutNow(edits...)
}

// cutNow makes a cut at the time of the last one.
func (p *sinkProbe) cutNow(edits ...edit) []core.Batch {
	var cut []core.Batch
	for _, e := range edits {
		cut = append(cut, e(core.Time(p.now)))
	}
	return cut
}

// instance is a sink that was opened.
type instance struct {
	*sinkProbe
	sink   core.Sink
	closed bool
}

// open opens the sink, which ends with the rule at the latest.
func (p *sinkProbe) open() *instance {
	sink, err := p.tryOpen(p.Settings)
	if err != nil {
		p.fail("Open with the settings given returns a sink", "the error: %v", err)
	}
	i := &instance{sinkProbe: p, sink: sink}
	if b, ok := sink.(core.Broadcaster); ok {
		i.sink = newBroadcast(p, b)
	}
	p.cleanups = append(p.cleanups, i.close)
	return i
}

func (p *sinkProbe) tryOpen(settings json.RawMessage) (sink core.Sink, err error) {
	p.call("Open", func() { sink, err = p.Plugin.Open(p.environment(), settings) })
	p.note("Open %s: %s", shorten(string(settings)), answer(err))
	return sink, err
}

// answer is what a call returned, for the report.
func answer(err error) string {
	if err == nil {
		return "ok"
	}
	return "error: " + err.Error()
}

// close closes the instance, once.
func (i *instance) close() {
	if i.closed {
		return
	}
	i.closed = true
	if b, ok := i.sink.(*broadcast); ok {
		if err := b.stop(); err != nil {
			i.fail("Serve ends with its context", "the error: %v", err)
		}
	}
	i.closeAgain()
}

func (i *instance) closeAgain() {
	var err error
	i.call("Close", func() { err = i.sink.Close() })
	i.note("Close: %s", answer(err))
}

// try writes a cut and returns what comes back.
func (i *instance) try(ctx context.Context, cut []core.Batch) error {
	return i.tryFor(ctx, cut, i.patience)
}

func (i *instance) tryFor(ctx context.Context, cut []core.Batch, patience time.Duration) (err error) {
	ended := i.start(func() { err = i.sink.Write(ctx, cut) })
	i.wait("Write", ended, patience)
	i.note("Write %s: %s", describe(cut), answer(err))
	return err
}

// writePatience is how long a write may take when all is well. It is no rule,
// but some end is needed.
const writePatience = 5 * time.Minute

// write writes a cut, which has to work.
func (i *instance) write(cut []core.Batch) {
	if err := i.tryFor(i.ctx, cut, max(i.patience, writePatience)); err != nil {
		i.fail("Write returns nil when nothing is wrong", "Write %s returned the error: %v", describe(cut), err)
	}
}

// position asks the sink where it stands; false: it keeps no position.
func (i *instance) position(v *view) (at core.Token, keeps bool) {
	positioner, ok := i.sink.(core.Positioner)
	if !ok {
		return core.Token{}, false
	}
	var err error
	i.call("Position", func() { at, err = positioner.Position(i.ctx, v.View) })
	i.note("Position of %s: %q, %s", v.Name, at, answer(err))
	if err != nil {
		i.fail("Position returns where the sink stands", "the error: %v", err)
	}
	return at, true
}

// acknowledges ends the rule if the sink's acknowledgements mean nothing.
func (i *instance) acknowledges() *instance {
	if _, ok := i.sink.(*broadcast); ok {
		i.skip("the sink serves readers and is never written")
	}
	return i
}

// restart closes the sink and opens it again, and goes on as mzd does. repeat
// is the cut that mzd cannot know to be taken, nil if there is none.
func (i *instance) restart(repeat []core.Batch, views ...*view) *instance {
	i.close()
	next := i.open()
	var cut []core.Batch // what leads from where the sink says it stands
	stands := true
	for _, v := range views {
		at, keeps := next.position(v)
		if !keeps {
			if repeat != nil {
				next.write(repeat)
			}
			return next
		}
		if _, known := v.history[at]; !known && !at.IsZero() {
			i.fail("Position is the Upper of a batch that was written: "+v.at.String(), "%q", at)
		}
		stands = stands && at == v.at
		cut = append(cut, v.between(at, v.at))
	}
	if !stands {
		next.write(cut)
	}
	return next
}

// sees fails unless the target shows the views as they are, soon.
func (p *sinkProbe) sees(views ...*view) {
	if p.Observe == nil {
		return // the rule is about something else too
	}
	for _, v := range views {
		want := v.rows.comparable(v.View)
		var got contents
		var err error
		ok := p.eventually(p.settles(), func() bool {
			got, err = p.observe(v, want)
			return err == nil && difference(want, got) == ""
		})
		if ok {
			continue
		}
		if err != nil {
			p.fail(v.Name+" with "+want.String(), "an observer that fails: %v", err)
		}
		p.fail(v.Name+" with "+want.String(), "%s (%s)", got, difference(want, got))
	}
}

// observe looks at a view; want has the rows that may be there.
func (p *sinkProbe) observe(v *view, want contents) (c contents, err error) {
	p.call("the observer", func() {
		rows, failed := p.Observe(p.ctx, v.View)
		if failed != nil {
			err = failed
			return
		}
		c, err = contentsOf(v.View, rows, want)
	})
	return c, err
}

// snapshotOf keeps what a cut is, to see whether it is changed.
func snapshotOf(cut []core.Batch) [][]core.Update {
	var all [][]core.Update
	for _, b := range cut {
		all = append(all, slices.Clone(b.Updates.Slice()))
	}
	return all
}
