package viewlog

import (
	"fmt"
	"slices"
	"time"

	"github.com/mzdio/mzd/core"
)

// Snapshot takes the rows of a whole view as they come in, in any order, and
// holds them against what the log holds: a row that is there already costs a
// mark, only others are kept. It is for [Log.Reset] and [Log.Rebase], and belongs
// to the log's writer, who writes nothing else until then.
type Snapshot struct {
	at   core.Token    // the log's frontier; zero: there is none
	held contents      // the view then
	seen [][]core.Diff // by chunk and row of held: how many copies have come; nil: none of the chunk
	last place         // of the last row that was held: many upstreams send rows in some order

	others [][]core.Update // rows that are not held, as they came, in pieces
}

// snapshotPiece is the size of a piece of rows that are not held, at most.
const snapshotPiece = 1 << 12

// Snapshot begins an empty snapshot.
func (l *Log) Snapshot() *Snapshot {
	held := func() contents { return contents{} }
	l.mu.Lock()
	at := l.frontier()
	if !at.IsZero() {
		held = l.whole(at.Time)
	}
	l.mu.Unlock()
	s := &Snapshot{at: at, held: held()}
	s.seen = make([][]core.Diff, len(s.held.chunks))
	return s
}

// Add says that there are so many more copies of a row; they may be negative as
// long as they come to nothing less than none in the end. The bytes of the row
// are the caller's again afterwards.
func (s *Snapshot) Add(row []byte, copies core.Diff) {
	at, held := s.held.next(s.last)
	if !held || string(s.held.row(at)) != string(row) {
		at, held = s.held.find(row)
	}
	if !held {
		s.add(core.Update{Diff: copies, Row: core.Row(row)})
		return
	}
	s.last = at
	if s.seen[at.chunk] == nil {
		s.seen[at.chunk] = make([]core.Diff, len(s.held.chunks[at.chunk]))
	}
	s.seen[at.chunk][at.index] += copies
}

// add keeps a row that is not held.
func (s *Snapshot) add(u core.Update) {
	n := len(s.others)
	if n == 0 || len(s.others[n-1]) == snapshotPiece {
		s.others = append(s.others, nil)
		n++
	}
	s.others[n-1] = append(s.others[n-1], u)
}

// ImpossibleError says that what the upstream counts is no collection: of some row
// there are fewer copies than none. Some upstreams have such views, of sources that take
// away what was never there, or SQL that is not quite defined; what follows from them
// means nothing.
type ImpossibleError struct {
	Row    core.Row
	Copies core.Diff
	Time   core.Time // when; 0: in a snapshot
}

// Error says which row, when, and what to do.
func (e *ImpossibleError) Error() string {
	at := ""
	if e.Time > 0 {
		at = fmt.Sprintf(" at %d", e.Time)
	}
	return fmt.Sprintf("the upstream counts %d copies of the row %.200s%s; correct the view, or what it reads: the whole view is asked for until it is right", e.Copies, e.Row, at)
}

// Reason is the word for it in metrics and status.
func (e *ImpossibleError) Reason() string { return "evaluation" }

// Retryable tells that trying again does not help.
func (e *ImpossibleError) Retryable() bool { return false }

// RetryAfter leaves the database time for others: to find out again is to read the
// whole view.
func (e *ImpossibleError) RetryAfter() time.Duration { return time.Minute }

// impossible returns the first row of which there are fewer copies than none, nil if
// there is no such row.
func (c contents) impossible(at core.Time) error {
	for u := range c.all() {
		if u.Diff < 0 {
			return &ImpossibleError{Row: u.Row, Copies: u.Diff, Time: at}
		}
	}
	return nil
}

// Same reports whether the snapshot is what the log held when it was begun.
func (s *Snapshot) Same() bool {
	difference, err := s.difference(1)
	return err == nil && len(difference) == 0
}

// contents returns the snapshot as the contents of a log.
func (s *Snapshot) contents() (contents, error) {
	isSeen := func(chunk []core.Diff) bool { return chunk != nil }
	if slices.ContainsFunc(s.seen, isSeen) { // otherwise there is nothing to share
		difference, err := s.difference(0)
		return s.held.plus(difference), err
	}
	whole := contentsOf(core.Sum(s.others...))
	if whole.below > 0 {
		return contents{}, whole.impossible(0)
	}
	return whole, nil
}

// difference returns what the snapshot changes in what was held, as a run that
// ends at upper.
func (s *Snapshot) difference(upper core.Time) ([]core.Update, error) {
	var held []core.Update
	for i, chunk := range s.held.chunks {
		for k, u := range chunk {
			var copies core.Diff
			if s.seen[i] != nil {
				copies = s.seen[i][k]
			}
			if copies < 0 {
				return nil, &ImpossibleError{Row: u.Row, Copies: copies}
			}
			if u.Diff = copies - u.Diff; u.Diff != 0 {
				held = append(held, u)
			}
		}
	}
	others := slices.Collect(core.Sum(s.others...))
	for _, u := range others {
		if u.Diff < 0 {
			return nil, &ImpossibleError{Row: u.Row, Copies: u.Diff}
		}
	}
	return net(upper-1, held, others), nil
}
