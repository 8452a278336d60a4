package plugintest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mzdio/mzd/core"
)

// contents is what a view holds: rows and their copies.
type contents map[core.Row]core.Diff

// view is a view as the suite plays it: it makes the batches and knows what a
// sink that was written them must hold.
type view struct {
	*core.View
	rows contents
	at   core.Token
	// All positions of this history, to continue from any of them.
	history map[core.Token]contents
}

// clock is the time of all views of a rule. Batches end when it ticks.
type clock core.Time

// start is when the first cut of a rule ends: some time in 2023, as Materialize
// counts.
const (
	start clock = 1_700_000_000_000
	tick        = 1000
)

// change is a row and what happens to its copies.
type change struct {
	diff core.Diff
	row  core.Row
}

func plus(row core.Row) change  { return change{1, row} }
func minus(row core.Row) change { return change{-1, row} }

// row makes a row of values.
func row(values ...any) core.Row {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(values); err != nil {
		panic(err) // the rules have values that JSON can write
	}
	return core.Row(bytes.TrimSuffix(out.Bytes(), []byte("\n")))
}

// edit is what a cut does to one view.
type edit func(at core.Time) core.Batch

// base makes a new history that begins with the rows.
func (v *view) base(rows ...core.Row) edit {
	return func(at core.Time) core.Batch {
		v.rows, v.history = contents{}, map[core.Token]contents{}
		for _, row := range rows {
			v.rows[row]++
		}
		v.remember(core.Token{Time: at, Generation: core.NewGeneration()})
		return v.between(core.Token{}, v.at)
	}
}

// delta continues the history. Without changes it is progress.
func (v *view) delta(changes ...change) edit {
	return func(at core.Time) core.Batch {
		return v.apply(core.Token{Time: at, Generation: v.at.Generation}, changes)
	}
}

// reopened continues the history as mzd does after it was started again: under
// the name of another generation.
func (v *view) reopened(changes ...change) edit {
	return func(at core.Time) core.Batch {
		return v.apply(core.Token{Time: at, Generation: core.NewGeneration()}, changes)
	}
}

func (v *view) apply(at core.Token, changes []change) core.Batch {
	from := v.at
	v.rows = maps.Clone(v.rows)
	for _, c := range changes {
		v.rows[c.row] += c.diff
		switch n := v.rows[c.row]; {
		case n < 0:
			panic("a rule deletes a row that is not there: " + string(c.row))
		case n == 0:
			delete(v.rows, c.row)
		}
	}
	v.remember(at)
	return v.between(from, at)
}

func (v *view) remember(at core.Token) {
	v.at = at
	v.history[at] = v.rows
}

// between returns the batch between two positions of the history, as a log does.
func (v *view) between(from, to core.Token) core.Batch {
	var updates []core.Update
	add := func(rows contents, sign core.Diff) {
		for row, n := range rows {
			updates = append(updates, core.Update{Time: to.Time - 1, Diff: sign * n, Row: row})
		}
	}
	add(v.history[to], 1)
	add(v.history[from], -1) // nothing, for the zero token
	return core.Batch{View: v.View, Lower: from, Upper: to, Updates: core.UpdatesOf(core.Consolidate(updates))}
}

// describe says what a cut is, for the report.
func describe(cut []core.Batch) string {
	var all []string
	for _, b := range cut {
		what := fmt.Sprintf("delta of %s from %s to %s", b.View.Name, b.Lower, b.Upper)
		if b.IsBase() {
			what = fmt.Sprintf("base of %s at %s", b.View.Name, b.Upper)
		}
		all = append(all, what+": "+changesOf(b.Updates))
	}
	return strings.Join(all, "; ")
}

// What a report shows of rows.
const (
	maxShown    = 5  // rows
	maxRowShown = 60 // bytes of each
)

func changesOf(updates core.Updates) string {
	if updates.Len() == 0 {
		return "nothing"
	}
	var all []string
	for i, u := range updates.From(0) {
		if i == maxShown {
			all = append(all, fmt.Sprintf("and %d more", updates.Len()-i))
			break
		}
		all = append(all, fmt.Sprintf("%+d %s", u.Diff, shorten(string(u.Row))))
	}
	return strings.Join(all, ", ")
}

// shorten cuts a text that is too long for a report, and says so.
func shorten(s string) string {
	if len(s) <= maxRowShown {
		return s
	}
	return fmt.Sprintf("%s... (%d bytes)", strings.ToValidUTF8(s[:maxRowShown], ""), len(s))
}

// String lists the rows, as often as they have copies.
func (c contents) String() string {
	var all []string
	n := core.Diff(0)
	for _, row := range slices.Sorted(maps.Keys(c)) {
		if n += c[row]; len(all) < maxShown {
			text := shorten(string(row))
			if c[row] != 1 {
				text = fmt.Sprintf("%d times %s", c[row], text)
			}
			all = append(all, text)
		}
	}
	if len(c) > maxShown {
		all = append(all, fmt.Sprintf("and %d more", len(c)-maxShown))
	}
	if n == 0 {
		return "no rows"
	}
	return fmt.Sprintf("%d rows: %s", n, strings.Join(all, ", "))
}
