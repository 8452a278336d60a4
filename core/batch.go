package core

import (
	"fmt"
	"iter"
	"slices"
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

// MaxRowBytes is the length that a row may have at most. A log cannot write a
// longer one, so that who brings rows in refuses it, and says which view it is of.
const MaxRowBytes = 32 << 20

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
	Updates Updates
	// Sum is the checksum of the view at Upper ([Checksum]): whoever applies
	// batches can compare it with what it holds. Logs know it; batches that come
	// from upstream have none.
	Sum uint64
}

// Updates is a list of updates that nobody changes any more. It may share the
// memory of other lists, in pieces: two bases of a large view, one second apart,
// are together hardly larger than one of them. The zero value is the empty list.
type Updates struct {
	runs [][]Update
	len  int
	net  bool // all updates are of one time, whatever they say
	time Time // that time
}

// UpdatesOf makes a list of updates, which it takes over.
func UpdatesOf(updates []Update) Updates {
	if len(updates) == 0 {
		return Updates{}
	}
	return Updates{runs: [][]Update{updates}, len: len(updates)}
}

// NetUpdates makes a list of runs, one after the other, that has all updates at
// one time, whatever the runs say. It takes them over.
func NetUpdates(at Time, runs ...[]Update) Updates {
	u := Updates{runs: runs, net: true, time: at}
	for _, r := range runs {
		u.len += len(r)
	}
	return u
}

// Len returns the number of updates.
func (u Updates) Len() int { return u.len }

// All yields the updates in order.
func (u Updates) All() iter.Seq[Update] {
	return func(yield func(Update) bool) {
		for _, run := range u.runs {
			for _, update := range run {
				if u.net {
					update.Time = u.time
				}
				if !yield(update) {
					return
				}
			}
		}
	}
}

// From yields the updates from a place on, counted from 0, each with its place.
// Finding the place costs the number of pieces.
func (u Updates) From(place int) iter.Seq2[int, Update] {
	return func(yield func(int, Update) bool) {
		skip := place
		for _, run := range u.runs {
			if skip >= len(run) {
				skip -= len(run)
				continue
			}
			for _, update := range run[skip:] {
				if u.net {
					update.Time = u.time
				}
				if !yield(place, update) {
					return
				}
				place++
			}
			skip = 0
		}
	}
}

// Slice returns the updates in one piece. It is shared and must not be changed.
func (u Updates) Slice() []Update {
	if u.len == 0 {
		return nil
	}
	if len(u.runs) == 1 && !u.net {
		return u.runs[0]
	}
	return slices.AppendSeq(make([]Update, 0, u.len), u.All())
}

// String writes the updates like a slice of them.
func (u Updates) String() string { return fmt.Sprint(u.Slice()) }

// IsBase reports whether the batch begins at the beginning of time, so that it
// is the whole view at its Upper.
func (b Batch) IsBase() bool { return b.Lower.IsZero() }
