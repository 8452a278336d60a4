package core

import (
	"cmp"
	"slices"
	"strings"
)

// Row is a row of a view: the compact JSON array of its values, in the order of
// the view's columns. It is encoded once, when it arrives, and from then on it
// is comparable, equal to its bytes on disk and on the wire, and shared by all
// readers without copying.
//
// The values are what PostgreSQL's to_jsonb gives for the column: numbers with
// every digit, booleans, null, strings, ISO 8601 timestamps, jsonb as itself,
// arrays as arrays, bytea as hex; numbers that JSON cannot write as strings.
type Row string

// Diff is a change in the number of copies of a row.
type Diff int64

// Update says that at Time the number of copies of Row changed by Diff.
type Update struct {
	Time Time
	Diff Diff
	Row  Row
}

// Batch is all updates of one view with Lower.Time <= Time < Upper.Time. It is
// complete: nothing else will ever happen in that interval. An empty batch is
// progress: nothing happened.
//
// Updates are consolidated (each pair of time and row once, no zero diffs) and
// ordered by time and then by the bytes of the row. A batch is immutable once
// published; everybody shares its Updates.
type Batch struct {
	View    *View
	Lower   Token // zero: the batch is a base and replaces what its reader holds
	Upper   Token
	Updates []Update
}

// IsBase reports whether the batch begins at the beginning of time, so that it
// is the whole view at its Upper.
func (b Batch) IsBase() bool { return b.Lower.IsZero() }

// Consolidate sorts updates by time and row, adds up the diffs of equal ones
// and drops what cancels out. It works in place and returns the shortened
// slice.
func Consolidate(updates []Update) []Update {
	slices.SortFunc(updates, compareUpdates)
	out := updates[:0]
	for _, u := range updates {
		if n := len(out); n > 0 && out[n-1].Time == u.Time && out[n-1].Row == u.Row {
			out[n-1].Diff += u.Diff
			continue
		}
		if n := len(out); n > 0 && out[n-1].Diff == 0 {
			out = out[:n-1]
		}
		out = append(out, u)
	}
	if n := len(out); n > 0 && out[n-1].Diff == 0 {
		out = out[:n-1]
	}
	clear(updates[len(out):]) // do not pin rows that cancelled out
	return out
}

func compareUpdates(a, b Update) int {
	if c := cmp.Compare(a.Time, b.Time); c != 0 {
		return c
	}
	return strings.Compare(string(a.Row), string(b.Row))
}
