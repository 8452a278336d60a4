package plugintest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mzdio/mzd/core"
)

// SinkRules returns the rules for sinks, in the order in which they are checked.
func SinkRules() []Rule { return listed(sinkRules) }

// contract are the rules that most others take for granted.
var contract = []string{"close", "settings-used", "base", "delta"}

var sinkRules = []rule[*sinkProbe]{
	// To begin with.
	{
		name: "open", says: "A sink opens with settings that are right.",
		why:   "nothing works without it",
		check: func(p *sinkProbe) { p.open() },
	},
	{
		name: "close", says: "Close returns soon, whether anything was written or not.",
		why:   "mzd cannot stop",
		after: []string{"open"}, check: checkClose,
	},
	{
		name: "close-twice", says: "Close may be called twice.",
		why:   "mzd crashes while it stops",
		after: []string{"close"}, check: checkCloseTwice,
	},
	{
		name: "settings-refused", says: "Open refuses settings that are wrong with an error that names the setting and wraps core.ErrPermanent.",
		why:   "a typing error in a configuration is ignored, or tried again for ever, instead of shown to its author",
		after: []string{"close"}, check: checkSinkRefuses,
	},
	{
		name: "settings-used", says: "What the settings say is what the sink works on, also when it is opened again.",
		why:   "rows go to a place that nobody asked for",
		after: []string{"close"}, needs: []need{observer}, check: checkSettingsUsed,
	},

	// What rows there are.
	{
		name: "base", says: "A base is the whole view.",
		why:   "the target begins with other rows than the view",
		after: []string{"settings-used"}, needs: []need{observer},
		check: func(p *sinkProbe) {
			i, v := p.open(), p.view("v")
			i.write(p.cut(v.base(row(1, "Ada"), row(2, "Bob"), row(3, "Cy"))))
			p.sees(v)
		},
	},
	{
		name: "delta", says: "A delta deletes the rows with a negative diff and inserts those with a positive one.",
		why:   "the target is no longer equal to the view",
		after: []string{"base"}, needs: []need{observer},
		check: func(p *sinkProbe) {
			i, v := p.open(), p.view("v")
			i.write(p.cut(v.base(row(1, "Ada"), row(2, "Bob"))))
			for _, changes := range [][]change{{plus(row(3, "Cy"))}, {minus(row(1, "Ada"))}, {minus(row(2, "Bob")), plus(row(4, "Di"))}} {
				i.write(p.cut(v.delta(changes...)))
				p.sees(v)
			}
		},
	},
	{
		name: "key-update", says: "Deletes and inserts of a delta apply together, in whatever order they are listed.",
		why:   "a row whose value changed is gone, because its new value was inserted before the old one was deleted by its key",
		after: contract, needs: []need{observer}, check: checkKeyUpdate,
	},
	{
		name: "copies", says: "A row is in a view as often as its diffs add up to.",
		why:   "a view without a key has equal rows, and counts of them are wrong",
		after: contract, needs: []need{observer}, check: checkCopies,
	},
	{
		name: "base-replaces", says: "A base replaces everything that the view had before.",
		why:   "after a new history rows stay that are long gone",
		after: contract, needs: []need{observer},
		check: func(p *sinkProbe) {
			i, v := p.open(), p.view("v")
			i.write(p.cut(v.base(row(1, "Ada"), row(2, "Bob"))))
			i.write(p.cut(v.base(row(2, "Ben"), row(3, "Cy"))))
			p.sees(v)
		},
	},
	{
		name: "base-empty", says: "A base without rows empties the view.",
		why:   "rows stay that are long gone",
		after: append([]string{"base-replaces"}, contract...), needs: []need{observer},
		check: func(p *sinkProbe) {
			i, v := p.open(), p.view("v")
			i.write(p.cut(v.base(row(1, "Ada"))))
			i.write(p.cut(v.base()))
			p.sees(v)
			i.write(p.cut(v.delta(plus(row(2, "Bob")))))
			p.sees(v)
		},
	},
	{
		name: "base-in-the-middle", says: "Deltas after a base that came later apply to that base.",
		why:   "deltas are added to rows of another history",
		after: append([]string{"base-replaces"}, contract...), needs: []need{observer}, check: checkBaseInTheMiddle,
	},
	{
		name: "time-goes-back", says: "A base counts also if its time is earlier than that of what was written before.",
		why:   "after the database was restored the target stands still, until the clock has caught up",
		after: append([]string{"base-replaces"}, contract...), needs: []need{observer},
		check: func(p *sinkProbe) {
			i, v := p.open(), p.view("v")
			i.write(p.cut(v.base(row(1, "Ada"))))
			p.now -= 10 * tick
			i.write(p.cut(v.base(row(2, "Bob"))))
			p.sees(v)
			i.write(p.cut(v.delta(plus(row(3, "Cy")))))
			p.sees(v)
		},
	},
	{
		name: "new-generation", says: "A delta may lead from one generation to another, also without any time between them.",
		why:   "every restart of mzd begins a generation: the target would stop or start over",
		after: contract, needs: []need{observer}, check: checkNewGeneration,
	},
	{
		name: "columns-change", says: "A base may bring other columns.",
		why:   "after a view was defined anew the sink fails until somebody clears the target",
		after: append([]string{"base-replaces"}, contract...), needs: []need{observer}, check: checkColumnsChange,
	},
	{
		name: "progress", says: "A cut in which nothing happened is acknowledged and changes nothing.",
		why:   "the sink stops at the first quiet moment",
		after: contract, check: checkProgress,
	},
	{
		name: "end-of-time", says: "Times are unsigned: a view that is complete for ever ends at 18446744073709551615.",
		why:   "constant views never arrive",
		after: contract, needs: []need{observer}, check: checkEndOfTime,
	},
	{
		name: "values", says: "Values arrive as they are: every digit, every character, null.",
		why:   "numbers above 2^53 lose digits, names lose letters",
		after: contract, needs: []need{observer}, check: checkValues,
	},
	{
		name: "names", says: "Views and columns may have any name, and are told apart by every character of it.",
		why:   "two views share one place, or a name makes a statement fail",
		after: contract, needs: []need{observer}, check: checkNames,
	},

	// How much.
	{
		name: "large-rows", says: "A row may have megabytes.",
		why:   "one large document stops the sink for good",
		after: contract, needs: []need{observer}, check: checkLargeRows,
	},
	{
		name: "pieces", says: "A cut of many rows arrives whole.",
		why:   "cuts travel in pieces of a megabyte, and a piece is lost",
		after: contract, needs: []need{observer}, check: checkPieces,
	},
	{
		name: "all-at-once", says: "Readers of the target see a view before a cut or after it, never between.",
		why:   "a dashboard shows a total that never was",
		after: append([]string{"pieces"}, contract...), needs: []need{observer}, check: checkAllAtOnce,
	},

	// Several views.
	{
		name: "several-views", says: "A cut has a batch for each view of the group; each applies to its own.",
		why:   "rows of one view end up in another",
		after: append([]string{"progress", "base-replaces"}, contract...), needs: []need{observer}, check: checkSeveralViews,
	},
	{
		name: "groups-apart", says: "Groups of views are written independently, at equal times and at the same time.",
		why:   "what one view has seen makes another one miss a change",
		after: contract, needs: []need{observer}, check: checkGroupsApart,
	},

	// What an acknowledgement means.
	{
		name: "early-ack", says: "When Write returns nil the cut is applied: whoever looks at the target then sees it.",
		why:   "mzd moves on when Write returns nil; what is lost after that is lost for good",
		after: contract, needs: []need{observer}, check: checkEarlyAck,
	},
	{
		name: "cut-unchanged", says: "Write does not change the batches that it is given.",
		why:   "other sinks and readers share them",
		after: contract, check: checkCutUnchanged,
	},
	{
		name: "cut-twice", says: "A cut that comes twice is applied once.",
		why:   "mzd repeats a cut whose acknowledgement it has not seen",
		after: append([]string{"base-replaces"}, contract...), needs: []need{observer}, check: checkCutTwice,
	},
	{
		name: "reopen", says: "What was acknowledged is still there when the sink is opened again, and it goes on from there.",
		why:   "a restart loses rows",
		after: contract, needs: []need{observer}, check: checkReopen,
	},
	{
		name: "cut-twice-reopened", says: "A cut that comes again after a restart is applied once.",
		why:   "a crash between the acknowledgement and mzd's note of it doubles rows",
		after: append([]string{"reopen", "cut-twice"}, contract...), needs: []need{observer}, check: checkCutTwiceReopened,
	},
	{
		name: "position", says: "The position that a sink keeps is the Upper of the last batch applied, before and after a restart, and none for a view that it was never written.",
		why:   "mzd goes on where the sink says it stands",
		after: append([]string{"reopen"}, contract...), check: checkPosition,
	},

	// Trouble.
	{
		name: "cancel-before-write", says: "Write with a context that has ended returns soon, and nil only if the cut was applied.",
		why:   "mzd takes nil for an acknowledgement, also while it stops",
		after: append([]string{"cut-twice"}, contract...), check: checkCancelBeforeWrite,
	},
	{
		name: "cancel-mid-write", says: "Write returns soon when its context ends, and nil only if the cut was applied; the same cut after it applies once.",
		why:   "mzd cannot stop, or rows are lost or doubled by a stop",
		after: append([]string{"cut-twice", "cancel-before-write"}, contract...), check: checkCancelMidWrite,
	},
	{
		name: "backpressure", says: "While the target takes nothing Write waits or fails, and returns soon when its context ends.",
		why:   "a sink that queues what it cannot deliver loses it in a crash, and memory without end before that",
		after: contract, needs: []need{outage}, check: checkBackpressure,
	},
	{
		name: "outage", says: "After an outage the cut that was refused applies once, and then those after it.",
		why:   "rows are lost or doubled by an outage of the target",
		after: append([]string{"backpressure", "cut-twice"}, contract...), needs: []need{outage}, check: checkOutage,
	},
	{
		name: "permanent-error", says: "When trying again cannot help Write returns an error that wraps core.ErrPermanent.",
		why:   "mzd tries for ever what can never work, and nobody is told to repair it",
		after: contract, needs: []need{gone}, check: checkPermanentError,
	},

	// The end.
	{
		name: "goroutine-leak", says: "Nothing that the sink has started runs on when it is closed.",
		why:   "memory grows with every write or every restart",
		after: contract, check: checkSinkLeaks,
	},
}

func checkSettingsUsed(p *sinkProbe) {
	for n := range 2 {
		i, v := p.open(), p.view(fmt.Sprintf("v%d", n))
		i.write(p.cut(v.base(row(1, "Ada"), row(2, "Bob"))))
		var got contents
		var err error
		if !p.eventually(p.settles(), func() bool {
			got, err = p.observe(v, nil)
			return err == nil && len(got) > 0
		}) {
			p.fail("the observer sees something of "+v.Name+" once it was written",
				"%s; either the sink writes to another place than its settings say, or the observer looks at another", orError(got, err))
		}
		i.close()
	}
}

func orError(c contents, err error) string {
	if err != nil {
		return "the error: " + err.Error()
	}
	return c.String()
}

func checkKeyUpdate(p *sinkProbe) {
	i, v := p.open(), p.view("v")
	i.write(p.cut(v.base(row(1, "m"), row(2, "m"))))
	// In the order of the bytes one new value comes before its old one, the other
	// after it.
	i.write(p.cut(v.delta(minus(row(1, "m")), plus(row(1, "a")), minus(row(2, "m")), plus(row(2, "z")))))
	p.sees(v)
	i.write(p.cut(v.delta(minus(row(1, "a")), plus(row(1, "z")), minus(row(2, "z")), plus(row(2, "a")))))
	p.sees(v)
}

func checkCopies(p *sinkProbe) {
	v := p.view("v", core.Column{Name: "name", Type: "text"})
	i := p.open()
	ada, bob := row("Ada"), row("Bob")
	i.write(p.cut(v.base(ada, ada, ada, bob)))
	p.sees(v)
	for _, changes := range [][]change{{{-2, ada}, {1, bob}}, {{3, ada}}, {{-2, bob}}} {
		i.write(p.cut(v.delta(changes...)))
		p.sees(v)
	}
}

func checkBaseInTheMiddle(p *sinkProbe) {
	i, v := p.open(), p.view("v")
	for round := range 3 {
		i.write(p.cut(v.base(row(1, "Ada"), row(2+round, "Bob"))))
		i.write(p.cut(v.delta(minus(row(1, "Ada")), plus(row(10+round, "Cy")))))
		p.sees(v)
		i.write(p.cut(v.delta(plus(row(1, "Abe")))))
		p.sees(v)
	}
}

func checkNewGeneration(p *sinkProbe) {
	i, v := p.open(), p.view("v")
	i.write(p.cut(v.base(row(1, "Ada"), row(2, "Bob"))))
	i.write(p.cut(v.reopened(minus(row(1, "Ada")), plus(row(3, "Cy")))))
	p.sees(v)
	i.write(p.cutNow(v.reopened())) // nothing happened while mzd was away
	p.sees(v)
	i.write(p.cut(v.delta(plus(row(4, "Di")))))
	p.sees(v)
}

func checkColumnsChange(p *sinkProbe) {
	i, v := p.open(), p.view("v")
	i.write(p.cut(v.base(row(1, "Ada"))))
	v.View = &core.View{Name: v.Name, Columns: []core.Column{{Name: "name", Type: "text"}, {Name: "age", Type: "int4"}, {Name: "id", Type: "text"}}}
	i.write(p.cut(v.base(row("Ada", 36, "x"), row("Bob", nil, "y"))))
	p.sees(v)
	i.write(p.cut(v.delta(minus(row("Bob", nil, "y")), plus(row("Bob", 7, "y")))))
	p.sees(v)
}

func checkProgress(p *sinkProbe) {
	i, v := p.open(), p.view("v")
	i.write(p.cut(v.base(row(1, "Ada"))))
	for range 3 {
		i.write(p.cut(v.delta()))
	}
	p.sees(v)
	i.write(p.cut(v.delta(plus(row(2, "Bob")))))
	i.write(p.cut(v.delta()))
	p.sees(v)
}

func checkEndOfTime(p *sinkProbe) {
	i, v := p.open(), p.view("v")
	p.now = 1
	i.write(p.cutNow(v.base(row(1, "Ada"))))
	p.now = 1<<63 + 5
	i.write(p.cutNow(v.delta(plus(row(2, "Bob")))))
	p.sees(v)
	p.now = clock(core.EndOfTime)
	i.write(p.cutNow(v.delta(plus(row(3, "Cy")))))
	p.sees(v)
}

func checkValues(p *sinkProbe) {
	column := func(name, typ string) core.Column { return core.Column{Name: name, Type: typ} }
	v := p.view("v", column("n", "int8"), column("exact", "numeric"), column("s", "text"), column("b", "bool"), column("doc", "jsonb"))
	texts := []string{
		"", " ", "null", "NULL", "true", "0", "1e3", `"`, `\`, `'`, `'; --`, "%s%d", "$1", "a,b;c\td", "line\nbreak\r\n", "{}", "[1]",
		"\u00e9 e\u0301 \u00df \u0130 \u65e5\u672c\u8a9e \u0633\u0627\u0631\u0629", "\U0001f469\u200d\U0001f467", "\u2028\u2029\ufeff\u202e", "</script><!--", "\x01\x1f\x7f",
		strings.Repeat("x", 300),
	}
	var rows []core.Row
	for n, text := range texts {
		rows = append(rows, row(n, nil, text, n%2 == 0, nil))
	}
	for _, n := range []string{"9007199254740993", "-9007199254740993", "9223372036854775807", "-9223372036854775808"} {
		rows = append(rows, core.Row("["+n+`,123456789012345678901234567890.12345,null,null,null]`))
	}
	for _, doc := range []string{`"null"`, "false", "0", "[]", "{}", `[1,[2,{"a":null}],"b"]`, `{"":{"\"":"\\"},"a b":[true],"\u00e9":"\u65e5"}`} {
		rows = append(rows, core.Row(`[null,0.10,"doc",false,`+doc+`]`))
	}
	i := p.open()
	i.write(p.cut(v.base(rows...)))
	p.sees(v)
	var changes []change
	for n, row := range rows {
		if n%2 == 0 {
			changes = append(changes, minus(row))
		}
	}
	i.write(p.cut(v.delta(changes...)))
	p.sees(v)
}

func checkNames(p *sinkProbe) {
	i := p.open()
	var views []*view
	for _, name := range []string{"v.a", "v-a", "v_a", "V_a", "v$a", "select", "v_a.b"} {
		v := p.view(name,
			core.Column{Name: "select", Type: "int8"}, core.Column{Name: `a "quoted" name`, Type: "text"},
			core.Column{Name: "Name", Type: "text"}, core.Column{Name: "name", Type: "text"}, core.Column{Name: "\u00fc.-$", Type: "text"})
		views = append(views, v)
		i.write(p.cut(v.base(row(len(views), name, "A", "a", nil))))
	}
	for n, v := range views {
		i.write(p.cut(v.delta(plus(row(100+n, "more", "A", "a", "b")))))
	}
	p.sees(views...)
}

func checkLargeRows(p *sinkProbe) {
	i, v := p.open(), p.view("v")
	var rows []core.Row
	for n, size := range []int{64 << 10, 1<<20 - 100, 1 << 20, 1<<20 + 1, 5 << 20} {
		rows = append(rows, row(n, strings.Repeat("0123456789abcdef", size/16)))
	}
	i.write(p.cut(v.base(row(9, "small"), rows[0], rows[4])))
	p.sees(v)
	i.write(p.cut(v.delta(minus(rows[4]), plus(rows[1]), plus(rows[2]), plus(rows[3]))))
	p.sees(v)
}

// many makes rows of a kilobyte, enough of them for several pieces.
func many(from, to int) []core.Row {
	var rows []core.Row
	for n := from; n < to; n++ {
		rows = append(rows, row(n, strings.Repeat(string(rune('a'+n%26)), 1000)))
	}
	return rows
}

func changesTo(diff core.Diff, rows []core.Row) []change {
	var all []change
	for _, row := range rows {
		all = append(all, change{diff, row})
	}
	return all
}

func checkPieces(p *sinkProbe) {
	i, v := p.open(), p.view("v")
	i.write(p.cut(v.base(many(0, 2500)...)))
	p.sees(v)
	i.write(p.cut(v.delta(slices.Concat(changesTo(-1, many(0, 1250)), changesTo(1, many(2500, 3750)))...)))
	p.sees(v)
}

func checkAllAtOnce(p *sinkProbe) {
	i, v := p.open(), p.view("v")
	i.write(p.cut(v.base(many(0, 300)...)))
	p.sees(v)
	for round := range 4 {
		before := v.rows.comparable(v.View)
		cut := p.cut(v.delta(slices.Concat(
			changesTo(-1, many(round*200, round*200+200)), changesTo(1, many(round*200+300, round*200+500)))...))
		after := v.rows.comparable(v.View)
		either := maps.Clone(before)
		maps.Copy(either, after)
		var err error
		ended := i.start(func() { err = i.sink.Write(i.ctx, cut) })
		for len(ended) == 0 && i.pause(time.Millisecond) {
			got, failed := p.observe(v, either)
			if failed == nil && difference(before, got) != "" && difference(after, got) != "" {
				i.wait("Write", ended, max(i.patience, writePatience))
				p.fail(v.Name+" as before the cut or as after it", "%d rows of %d while it was written", len(got), len(after))
			}
		}
		i.wait("Write", ended, i.patience)
		if err != nil {
			p.fail("Write returns nil when nothing is wrong", "the error: %v", err)
		}
		p.sees(v)
	}
}

func checkSeveralViews(p *sinkProbe) {
	i := p.open()
	a, b, c := p.view("a"), p.view("b"), p.view("c", core.Column{Name: "n", Type: "int8"})
	i.write(p.cut(a.base(row(1, "Ada"), row(2, "Bob")), b.base(row(1, "Ada"), row(3, "Cy")), c.base()))
	p.sees(a, b, c)
	i.write(p.cut(a.delta(minus(row(1, "Ada"))), b.delta(), c.delta(plus(row(7)))))
	p.sees(a, b, c)
	i.write(p.cut(a.delta(plus(row(3, "Cy"))), b.base(row(2, "Bob")), c.delta(minus(row(7)), plus(row(8)))))
	p.sees(a, b, c)
	i.write(p.cut(a.delta(), b.delta(plus(row(1, "Ada"))), c.base(row(1), row(2))))
	p.sees(a, b, c)
}

func checkGroupsApart(p *sinkProbe) {
	i, a, b := p.open(), p.view("a"), p.view("b")
	p.now += tick
	i.write(p.cutNow(a.base(row(1, "Ada"))))
	i.write(p.cutNow(b.base(row(2, "Bob"))))
	p.sees(a, b)
	for n := range 3 {
		p.now += tick
		i.write(p.cutNow(b.delta(plus(row(10+n, "b")))))
		i.write(p.cutNow(a.delta(plus(row(10+n, "a")))))
	}
	p.sees(a, b)
	const groups, cuts = 4, 8
	var views []*view
	var all [][][]core.Batch
	for g := range groups {
		v := p.view(fmt.Sprintf("of_%d", g))
		var own [][]core.Batch
		for n := range cuts {
			edit := v.delta(plus(row(n, fmt.Sprint("group ", g))))
			if n == 0 {
				edit = v.base(row(0, "first"))
			}
			own = append(own, []core.Batch{edit(core.Time(p.now + clock(n)*tick))})
		}
		views, all = append(views, v), append(all, own)
	}
	var writers sync.WaitGroup
	errs := make([]error, groups)
	for g, own := range all {
		writers.Go(func() {
			for _, cut := range own {
				if errs[g] = i.sink.Write(i.ctx, cut); errs[g] != nil {
					return
				}
			}
		})
	}
	p.note("Write of %d groups at the same time, %d cuts each", groups, cuts)
	ended := p.start(writers.Wait)
	p.wait("Write of several groups at the same time", ended, max(p.patience, writePatience))
	if err := errors.Join(errs...); err != nil {
		p.fail("Write returns nil when nothing is wrong", "the error: %v", err)
	}
	p.sees(views...)
}

func checkEarlyAck(p *sinkProbe) {
	i, v := p.open().acknowledges(), p.view("v")
	check := func() {
		want := v.rows.comparable(v.View)
		got, err := p.observe(v, want)
		missing := difference(want, got)
		if err == nil && missing == "" {
			return
		}
		later := "and not a moment later either"
		begun := time.Now()
		if p.eventually(settle, func() bool {
			now, err := p.observe(v, want)
			return err == nil && difference(want, now) == ""
		}) {
			later = "but it was " + time.Since(begun).Round(time.Millisecond).String() + " later"
		}
		p.fail("the cut is applied when Write returns nil", "it was not, %s (%s)", later, missing)
	}
	i.write(p.cut(v.base(row(1, "Ada"))))
	check()
	for n := range 20 {
		i.write(p.cut(v.delta(plus(row(10+n, "more")))))
		check()
	}
	i.write(p.cut(v.delta(changesTo(1, many(100, 400))...)))
	check()
}

func checkCutUnchanged(p *sinkProbe) {
	i, v := p.open().acknowledges(), p.view("v")
	for _, cut := range [][]core.Batch{
		p.cut(v.base(row(1, "Ada"), row(2, "Bob"))),
		p.cut(v.delta(minus(row(1, "Ada")), plus(row(1, "Zoe")), minus(row(2, "Bob")), plus(row(0, "Bob")))),
	} {
		before := snapshotOf(cut)
		kept := slices.Clone(cut)
		i.write(cut)
		for n, b := range cut {
			same := b.View == kept[n].View && b.Lower == kept[n].Lower && b.Upper == kept[n].Upper && slices.Equal(b.Updates.Slice(), before[n])
			if !same {
				p.fail("the batch is as it was: "+describe(kept[n:n+1])+" "+changesOf(core.UpdatesOf(before[n])), "%s", describe(cut[n:n+1]))
			}
		}
	}
}

func checkCutTwice(p *sinkProbe) {
	i, v, w := p.open().acknowledges(), p.view("v"), p.view("w")
	for _, cut := range [][]edit{
		{v.base(row(1, "Ada"), row(2, "Bob")), w.base()},
		{v.delta(plus(row(3, "Cy"))), w.delta(plus(row(1, "w")))},
		{v.delta(minus(row(1, "Ada"))), w.delta()},
		{v.base(row(5, "Eve")), w.delta(plus(row(2, "w")))},
	} {
		made := p.cut(cut...)
		for range 3 {
			i.write(made)
			p.sees(v, w)
		}
	}
	i.write(p.cut(v.delta(plus(row(6, "Flo"))), w.delta(minus(row(2, "w")))))
	p.sees(v, w)
}

func checkReopen(p *sinkProbe) {
	i, v := p.open(), p.view("v")
	i.write(p.cut(v.base(row(1, "Ada"), row(2, "Bob"))))
	i.write(p.cut(v.delta(plus(row(3, "Cy")))))
	for n := range 3 {
		i = i.restart(nil, v)
		p.sees(v)
		i.write(p.cut(v.delta(plus(row(10+n, "after a restart")))))
		p.sees(v)
	}
}

func checkCutTwiceReopened(p *sinkProbe) {
	i, v := p.open().acknowledges(), p.view("v")
	cut := p.cut(v.base(row(1, "Ada"), row(2, "Bob")))
	i.write(cut)
	i = i.restart(cut, v)
	p.sees(v)
	for n := range 3 {
		cut = p.cut(v.delta(plus(row(10+n, "more")), minus(row(n+1, "Ada")), plus(row(n+2, "Ada"))))
		i.write(cut)
		i = i.restart(cut, v)
		p.sees(v)
	}
}

func checkPosition(p *sinkProbe) {
	i, v, w := p.open().acknowledges(), p.view("v"), p.view("w")
	if _, ok := i.sink.(core.Positioner); !ok {
		p.skip("the sink keeps no position of its own, mzd keeps it")
	}
	at := func(v *view, want core.Token) {
		if got, _ := i.position(v); got != want {
			p.fail(fmt.Sprintf("the position of %s is %q", v.Name, want), "%q", got)
		}
	}
	never := p.view("never_" + strings.ToLower(string(core.NewGeneration())))
	at(never, core.Token{})
	for n, edits := range [][]edit{
		{v.base(row(1, "Ada")), w.base()}, {v.delta(plus(row(2, "Bob"))), w.delta()}, {v.delta(), w.delta()},
		{v.reopened(), w.reopened(plus(row(1, "Ada")))}, {v.base(), w.delta()},
	} {
		i.write(p.cut(edits...))
		at(v, v.at)
		at(w, w.at)
		if n%2 == 1 {
			i = i.restart(nil, v, w)
			at(v, v.at)
			at(w, w.at)
		}
	}
	i.write(p.cut(v.delta(plus(row(3, "Cy")))))
	at(v, v.at)
	at(w, w.at)
}

// settleAfter goes on as mzd does after a write that ended with err.
func (i *instance) settleAfter(err error, cut []core.Batch, v *view) {
	if err == nil {
		i.sees(v)
	}
	i.write(cut) // mzd repeats it if it was an error, and may if it was not
	i.sees(v)
}

func checkCancelBeforeWrite(p *sinkProbe) {
	i, v := p.open().acknowledges(), p.view("v")
	i.write(p.cut(v.base(row(1, "Ada"))))
	ended, cancel := context.WithCancel(p.ctx)
	cancel()
	for n := range 3 {
		cut := p.cut(v.delta(plus(row(10+n, "more"))))
		i.settleAfter(i.try(ended, cut), cut, v)
	}
}

func checkCancelMidWrite(p *sinkProbe) {
	i, v := p.open().acknowledges(), p.view("v")
	i.write(p.cut(v.base(row(1, "Ada"))))
	const rounds, rows = 8, 150
	large := func(n int) []core.Batch { return p.cut(v.delta(changesTo(1, many(n*rows, (n+1)*rows))...)) }
	begun := time.Now()
	i.write(large(0))
	whole := time.Since(begun)
	for n := 1; n <= rounds; n++ {
		cut := large(n)
		ctx, cancel := context.WithTimeout(p.ctx, whole*time.Duration(n)/(rounds+1))
		err := i.tryFor(ctx, cut, whole+p.patience)
		cancel()
		i.settleAfter(err, cut, v)
	}
}

// trouble makes the target fail, until the function that it returns is called or
// the rule ends.
func (p *sinkProbe) trouble(what string, begin func(context.Context) (func(), error)) (end func()) {
	var err error
	p.call("the "+what, func() { end, err = begin(p.ctx) })
	if err != nil {
		p.skip("the " + what + " could not be made: " + err.Error())
	}
	p.note("the %s begins", what)
	once := sync.OnceFunc(end)
	p.cleanups = append(p.cleanups, once)
	return func() {
		once()
		p.note("the %s ends", what)
	}
}

// outageWait is how long a sink is let try in an outage.
const outageWait = 500 * time.Millisecond

func checkBackpressure(p *sinkProbe) {
	i, v := p.open().acknowledges(), p.view("v")
	i.write(p.cut(v.base(row(1, "Ada"))))
	end := p.trouble("outage", p.Outage)
	cut := p.cut(v.delta(plus(row(2, "Bob"))))
	for range 3 {
		ctx, cancel := context.WithTimeout(p.ctx, outageWait)
		err := i.tryFor(ctx, cut, outageWait+p.patience)
		cancel()
		if err == nil {
			p.fail("Write returns no nil while the target takes nothing", "nil")
		}
		if errors.Is(err, core.ErrPermanent) {
			p.fail("an error that does not wrap core.ErrPermanent: the outage will end", "the error: %v", err)
		}
	}
	end()
}

func checkOutage(p *sinkProbe) {
	i, v := p.open().acknowledges(), p.view("v")
	i.write(p.cut(v.base(row(1, "Ada"))))
	for n := range 2 {
		end := p.trouble("outage", p.Outage)
		cut := p.cut(v.delta(plus(row(10+n, "in the outage"))))
		ctx, cancel := context.WithTimeout(p.ctx, outageWait)
		i.tryFor(ctx, cut, outageWait+p.patience)
		cancel()
		end()
		// A try or two may fail while the sink finds out.
		var err error
		if !p.eventually(p.patience, func() bool { err = i.try(p.ctx, cut); return err == nil }) {
			p.fail("the same cut is taken soon after the outage", "the error: %v", err)
		}
		p.sees(v)
		i.write(p.cut(v.delta(plus(row(20+n, "after it")))))
		p.sees(v)
	}
}

func checkPermanentError(p *sinkProbe) {
	i, v := p.open().acknowledges(), p.view("v")
	i.write(p.cut(v.base(row(1, "Ada"))))
	back := p.trouble("end of the target", p.Gone)
	if err := i.try(p.ctx, p.cut(v.delta(plus(row(2, "Bob"))))); !errors.Is(err, core.ErrPermanent) {
		p.fail("an error that wraps core.ErrPermanent", "%s", answer(err))
	}
	back()
}

func checkClose(p *sinkProbe) {
	p.open().close()
	i, v := p.open(), p.view("v")
	i.write(p.cut(v.base(row(1, "Ada"))))
	i.close()
}

func checkCloseTwice(p *sinkProbe) {
	for _, write := range []bool{false, true} {
		i, v := p.open(), p.view("v")
		if write {
			i.write(p.cut(v.base(row(1, "Ada"))))
		}
		i.close()
		i.closeAgain()
	}
}

func checkSinkLeaks(p *sinkProbe) {
	p.leaks(p.External, func() {
		i, v := p.open(), p.view("v")
		i.write(p.cut(v.base(row(1, "Ada"))))
		for n := range 5 {
			i.write(p.cut(v.delta(plus(row(10+n, "more")))))
		}
		i.close()
	})
}

func checkSinkRefuses(p *sinkProbe) {
	for _, bad := range p.wrongSettings(p.Plugin.Settings, p.Settings, p.Refused) {
		sink, err := p.tryOpen(bad.settings)
		if err == nil {
			p.cleanups = append(p.cleanups, (&instance{sinkProbe: p, sink: sink}).close)
		}
		p.refused(bad, err)
	}
}
