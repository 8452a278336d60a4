package plugintest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mzdio/mzd/core"
)

// SourceRules returns the rules for sources, in the order in which they are checked.
func SourceRules() []Rule { return listed(sourceRules) }

var sourceRules = []rule[*sourceProbe]{
	{
		name: "open", says: "A source opens with settings that are right.",
		why:   "nothing works without it",
		check: func(p *sourceProbe) { p.open() },
	},
	{
		name: "cancel", says: "Run returns soon when its context ends, and not before by a panic: at the beginning, between events, and while emit waits.",
		why:   "mzd cannot stop",
		after: []string{"open"}, check: checkSourceCancel,
	},
	{
		name: "settings-refused", says: "Open refuses settings that are wrong with an error that names the setting and wraps core.ErrPermanent.",
		why:   "a typing error in a configuration is ignored, or tried again for ever, instead of shown to its author",
		after: []string{"open"}, check: checkSourceRefuses,
	},
	{
		name: "events", says: "A source brings events that have data.",
		why:   "views stay empty",
		after: []string{"cancel"}, check: checkEvents,
	},
	{
		name: "ids", says: "An event has the same ID whenever it is read, and no other event has it.",
		why:   "mzd drops an event as a repeat of another one, or lands one twice",
		after: []string{"events"}, check: checkIDs,
	},
	{
		name: "identify", says: "Identify tells the ID of an event from its data.",
		why:   "after a restart of mzd events that come again are landed twice",
		after: []string{"events"}, check: checkIdentify,
	},
	{
		name: "resume", says: "A run from the cursor of any event brings every event after it.",
		why:   "every restart loses events",
		after: []string{"events", "ids"}, check: checkResume,
	},
	{
		name: "cursor-is-all", says: "The cursor alone says where to go on: an instance that has read nothing yet can resume from it.",
		why:   "a restart of mzd loses events",
		after: []string{"events", "ids", "resume"}, check: checkCursorIsAll,
	},
	{
		name: "cursor-refused", says: "A cursor that the source cannot have written gets an error, or all events from the beginning.",
		why:   "a damaged cursor silently skips what happened meanwhile",
		after: []string{"events", "ids"}, check: checkCursorRefused,
	},
	{
		name: "emit-fails", says: "When emit returns an error the events are not landed: no later one may be emitted instead.",
		why:   "a full disk loses events",
		after: []string{"events", "ids", "resume"}, check: checkEmitFails,
	},
	{
		name: "cursor-waits", says: "No cursor is past an event whose emit has not returned.",
		why:   "a crash loses events",
		after: []string{"events", "ids", "resume"}, check: checkCursorWaits,
	},
	{
		name: "backpressure", says: "While emit does not return the source does not go on for ever.",
		why:   "memory fills while the disk is slow",
		after: []string{"events"}, needs: []need{produce}, check: checkSourceBackpressure,
	},
	{
		name: "run-ends", says: "When Run has returned emit is not called any more.",
		why:   "two runs of a source mix their cursors",
		after: []string{"events"}, check: checkRunEnds,
	},
	{
		name: "goroutine-leak", says: "Nothing that a run has started goes on when it has returned.",
		why:   "memory grows with every reconnection",
		after: []string{"events"}, check: checkSourceLeaks,
	},
}

func checkSourceRefuses(p *sourceProbe) {
	for _, bad := range p.wrongSettings(p.Plugin.Settings, p.Settings, p.Refused) {
		_, err := p.tryOpen(bad.settings)
		p.refused(bad, err)
	}
}

func checkEvents(p *sourceProbe) {
	for n, e := range p.events() {
		if len(e.Data) == 0 {
			p.fail("every event has data", "event %d of the first run, ID %q, has none", n, e.ID)
		}
	}
}

func checkIDs(p *sourceProbe) {
	events := p.events()
	dataOf, idOf := make(map[string]string), make(map[string]string)
	for n, e := range events {
		if other, ok := dataOf[e.ID]; e.ID != "" && ok && other != string(e.Data) {
			p.fail("events that differ have IDs that differ", "event %d has the ID %q of another one: %s and %s", n, e.ID, shorten(string(e.Data)), shorten(other))
		}
		dataOf[e.ID] = string(e.Data)
		if _, twice := idOf[string(e.Data)]; twice {
			e.ID = "" // equal events: which is which, nobody can say
		}
		idOf[string(e.Data)] = e.ID
	}
	if !p.resumable() {
		return
	}
	l := newLanding()
	p.readUntil(p.open(), events[0].Cursor, l, first(len(events)-1))
	for _, e := range l.landed() {
		if id := idOf[string(e.Data)]; id != "" && e.ID != id {
			p.fail("an event that is read again has the ID that it had: "+id, "%q, of %s", e.ID, shorten(string(e.Data)))
		}
	}
}

// resumable reports whether the events have cursors.
func (p *sourceProbe) resumable() bool {
	return slices.ContainsFunc(p.events(), func(e core.Event) bool { return e.Cursor != "" })
}

// needCursors ends the rule unless the events have cursors.
func (p *sourceProbe) needCursors() {
	if !p.resumable() {
		p.skip("events have no cursor: what happens while mzd is away is lost")
	}
}

func checkIdentify(p *sourceProbe) {
	source := p.open()
	identifier, ok := source.(core.Identifier)
	if !ok {
		p.skip("the source cannot tell the ID of an event from its data")
	}
	for n, e := range p.events() {
		var id string
		p.call("Identify", func() { id = identifier.Identify(e.Data) })
		if id != e.ID {
			p.fail(fmt.Sprintf("the ID of event %d: %q", n, e.ID), "%q, of %s", id, shorten(string(e.Data)))
		}
	}
	for _, junk := range []string{"", "{", "null", "[]", "\x00\xff"} {
		p.call(fmt.Sprintf("Identify(%q)", junk), func() { identifier.Identify([]byte(junk)) })
	}
}

func checkResume(p *sourceProbe) {
	p.needCursors()
	source, events := p.open(), p.events()
	p.readUntil(source, p.Cursor, newLanding(), first(1))
	for n := range events {
		p.resumes(source, n)
	}
}

func checkCursorIsAll(p *sourceProbe) {
	p.needCursors()
	events := p.events()
	for n := 0; n < len(events); n += max(1, len(events)/5) {
		p.resumes(p.open(), n)
	}
}

// resumes fails unless the source brings all events after one of them from its
// cursor on.
func (p *sourceProbe) resumes(source core.Source, n int) {
	events := p.events()
	want := after(events, n)
	l := newLanding()
	p.all(source, events[n].Cursor, l, want, fmt.Sprintf("the cursor %q of event %d", events[n].Cursor, n))
}

// all fails unless a source brings all wanted events.
func (p *sourceProbe) all(source core.Source, cursor string, l *landing, want []core.Event, from string) {
	var not []core.Event
	if !p.readUntil(source, cursor, l, func(landed []core.Event) int { not = missing(want, landed); return len(not) }) {
		p.fail(fmt.Sprintf("all %d events come from %s on", len(want), from), "skipped: %s", describeEvents(not))
	}
}

func checkCursorRefused(p *sourceProbe) {
	p.needCursors()
	for _, cursor := range []string{"plugintest: no such cursor", "\x00", "-1"} {
		l := newLanding()
		r := p.run(p.open(), cursor, l)
		var not []core.Event
		if !p.eventually(p.patience, func() bool {
			not = missing(p.events(), l.landed())
			return len(r.ended) > 0 || len(not) == 0
		}) {
			r.stop()
			p.fail(fmt.Sprintf("an error for the cursor %q, or all events", cursor), "no error, and it skipped: %s", describeEvents(not))
		}
		if len(not) == 0 {
			r.stop()
			continue
		}
		r.wait("Run", r.ended, p.patience)
		if r.err == nil {
			p.fail(fmt.Sprintf("an error for the cursor %q", cursor), "Run returned nil, and it skipped: %s", describeEvents(not))
		}
	}
}

// errNoSpace is what emit returns where it fails.
var errNoSpace = errors.New("plugintest: no space left")

func checkEmitFails(p *sourceProbe) {
	p.needCursors()
	source, events := p.open(), p.events()
	for _, failing := range []int{0, 1, 3} {
		l := newLanding()
		l.refuse = func(_ context.Context, call int) error {
			if call == failing {
				return errNoSpace
			}
			return nil
		}
		p.all(source, events[0].Cursor, l, after(events, 0), fmt.Sprintf("the cursor of the last event landed, when call %d of emit fails,", failing+1))
	}
}

func checkCursorWaits(p *sourceProbe) {
	p.needCursors()
	source, events := p.open(), p.events()
	for _, slow := range []int{0, 1, 3} {
		l := newLanding()
		l.refuse = func(ctx context.Context, call int) error {
			if call != slow {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		first := p.run(source, events[0].Cursor, l)
		if !p.eventually(p.patience, func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.calls > slow || l.ended || len(l.events) >= len(events)-1 // all came in fewer calls
		}) {
			first.stop()
			p.fail(fmt.Sprintf("emit is called %d times", slow+1), "fewer calls within %s", p.patience)
		}
		p.pause(outageWait) // for those that go on beside it
		first.stop()
		p.all(source, events[0].Cursor, l, after(events, 0), fmt.Sprintf("the cursor of the last event landed, after call %d of emit was under way when mzd stopped,", slow+1))
	}
}

// maxPending is how many events may wait for emit at one time: the window of a
// source in a process of its own.
const maxPending = 4096

func checkSourceBackpressure(p *sourceProbe) {
	l := newLanding()
	l.refuse = func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() }
	r := p.run(p.open(), p.Cursor, l)
	if !p.eventually(p.patience, func() bool { p.more(1); return l.waiting() > 0 }) {
		r.stop()
		p.fail("the source emits events", "none within %s", p.patience)
	}
	const portions = 5
	for range portions {
		p.more(maxPending/portions + 256)
	}
	over := p.eventually(settle, func() bool { return l.waiting() > maxPending })
	n := l.waiting()
	r.stop()
	if over {
		p.fail(fmt.Sprintf("at most %d events wait for emit to return", maxPending), "%d, and there would be more", n)
	}
}

func checkSourceCancel(p *sourceProbe) {
	source := p.open()
	p.run(source, p.Cursor, newLanding()).stop() // at once
	for _, n := range []int{1, 3} {
		l := newLanding()
		p.stopAfter(source, l, func() bool { return len(l.landed()) >= n })
	}
	l := newLanding()
	l.refuse = func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() }
	p.stopAfter(source, l, func() bool { return l.waiting() > 0 })
}

// stopAfter runs a source and stops it when something has happened, or when it
// does not happen.
func (p *sourceProbe) stopAfter(source core.Source, l *landing, happened func() bool) {
	r := p.run(source, p.Cursor, l)
	p.eventually(p.patience, func() bool {
		p.more(1)
		return happened() || len(r.ended) > 0
	})
	r.stop()
}

func checkRunEnds(p *sourceProbe) {
	source := p.open()
	for range 3 {
		l := newLanding()
		if !p.readUntil(source, p.Cursor, l, first(2)) {
			p.fail("the source brings events", "none within %s", p.patience)
		}
		p.more(5)
		if p.eventually(outageWait, func() bool { return l.isLate() || l.waiting() > 0 }) {
			p.fail("no call of emit goes on when Run has returned", "a call")
		}
	}
}

func checkSourceLeaks(p *sourceProbe) {
	source := p.open()
	p.leaks(p.External, func() {
		l := newLanding()
		p.readUntil(source, p.Cursor, l, first(2))
	})
}
