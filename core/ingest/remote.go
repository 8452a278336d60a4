package ingest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"unicode/utf8"

	"github.com/mzdio/mzd/core"
)

// Remote is a [Landing] in a database: a table ([OpenTable]) or a webhook source
// of Materialize ([OpenWebhook]). The cursor is kept on this side, in a file, and
// saved whenever the database has acknowledged events.
//
// Events land at least once. Those that a source repeats are told apart by their
// IDs while the process runs; a new one knows no IDs, because nothing of what has
// landed is here to read them from. So what was acknowledged but not yet saved
// when a process died, what the database took without its answer arriving, and
// what the source repeats of its own when it is resumed, comes twice.
type Remote struct {
	to       target
	path     string // of the cursor file
	log      *slog.Logger
	position atomic.Pointer[Position]

	turn     chan struct{} // held by whoever lands; guards everything below
	recent   *window
	saved    savedCursor
	takes    bool // the target has taken events
	refusals int  // how many it has refused since it took some
	closed   bool
}

// target is the database that a Remote lands in.
type target interface {
	// name says what it is, for people, and without secrets.
	name() string
	// fit returns why data can never be landed, or "".
	fit(data []byte) string
	// write lands the events together. An error of type [*refusedError] means
	// that one or some of them are at fault; with any other, nobody knows which
	// events have landed.
	write(ctx context.Context, events []item) error
	close()
}

// refusedError means that a target refuses what it was given and not who gives
// it: fewer events, or others, may be taken.
type refusedError struct {
	reason string // of [Landed.Rejected], if a single event is refused
	err    error
}

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// item is an event that is to be landed.
type item struct {
	data []byte
	id   idHash // zero: none
}

// maxBatchBytes bounds what a target is given at one time. A webhook source
// takes 5 MiB.
const maxBatchBytes = 1 << 20

var _ Landing = (*Remote)(nil)

// openRemote opens a landing whose cursor is in the file at path, and makes the
// directory of that file.
func openRemote(path string, to target, log *slog.Logger) (*Remote, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	saved, err := loadCursor(path)
	if err != nil {
		return nil, err
	}
	r := &Remote{
		to: to, path: path, log: log.With("target", to.name()),
		turn: make(chan struct{}, 1), recent: newWindow(defaultWindow), saved: saved,
	}
	r.publish()
	return r, nil
}

// Land implements [Landing]. Calls take turns.
//
// Events that the target refuses are found by halving, and left out and counted,
// but only while it takes others, of the same call or of those before: a target
// that takes nothing is not what it should be, and that is an error.
func (r *Remote) Land(ctx context.Context, events []core.Event) (Landed, error) {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return Landed{}, ctx.Err()
	}
	switch {
	case ctx.Err() != nil:
		return Landed{}, ctx.Err()
	case r.closed:
		return Landed{}, fmt.Errorf("land in %s: %w", r.to.name(), os.ErrClosed)
	}
	d := delivery{Remote: r}
	for items := d.stage(events); len(items) > 0; {
		n := batchOf(items)
		if err := d.put(ctx, items[:n]); err != nil {
			return Landed{}, fmt.Errorf("land in %s: %w", r.to.name(), err)
		}
		items = items[n:]
	}
	if d.landed.Events > 0 {
		r.takes, r.refusals = true, 0
	} else if len(d.refused) > 0 {
		if r.refusals += len(d.refused); !r.takes || r.refusals >= maxRefused {
			return Landed{}, fmt.Errorf("land in %s: %w", r.to.name(), d.refused[0])
		}
	}
	for _, refused := range d.refused {
		r.log.Warn("event refused by the database", "error", refused)
		d.reject(refused.reason)
	}
	r.saved.Offset += d.landed.Bytes
	r.saved.Cursor = cmp.Or(lastCursor(events), r.saved.Cursor)
	r.publish()
	if len(events) > 0 {
		if err := r.saved.save(r.path); err != nil {
			r.log.Warn("cursor not saved; after a crash the source repeats more", "error", err)
		}
	}
	return d.landed, nil
}

// batchOf returns how many of the items make a batch, which is at least one.
func batchOf(items []item) int {
	size := 0
	for i, it := range items {
		if size += len(it.data); size > maxBatchBytes && i > 0 {
			return i
		}
	}
	return len(items)
}

// delivery is one call of Land.
type delivery struct {
	*Remote
	landed  Landed
	refused []*refusedError
}

// stage returns what is to be landed of the events, and counts the rest.
func (d *delivery) stage(events []core.Event) []item {
	items := make([]item, 0, len(events))
	fresh := make(map[idHash]struct{})
	for i := range events {
		e := &events[i]
		if reason := d.to.fit(e.Data); reason != "" {
			d.reject(reason)
			continue
		}
		it := item{data: e.Data}
		if e.ID != "" {
			it.id = d.recent.hash(e.ID)
			if _, again := fresh[it.id]; again || d.recent.has(it.id) {
				d.landed.Duplicates++
				continue
			}
			fresh[it.id] = struct{}{}
		}
		items = append(items, it)
	}
	return items
}

func (d *delivery) reject(reason string) {
	if d.landed.Rejected == nil {
		d.landed.Rejected = make(map[string]int)
	}
	d.landed.Rejected[reason]++
}

// maxRefused is how many events a target refuses, one after the other, before it
// counts as one that takes nothing.
const maxRefused = 10

// put lands a batch, or its halves where it is refused as a whole.
func (d *delivery) put(ctx context.Context, items []item) error {
	err := d.to.write(ctx, items)
	refused, ok := errors.AsType[*refusedError](err)
	switch {
	case err == nil:
		for _, it := range items {
			d.landed.Events++
			d.landed.Bytes += int64(len(it.data))
			if it.id != (idHash{}) {
				d.recent.add(it.id)
			}
		}
		return nil
	case !ok:
		return err
	case len(items) > 1:
		half := len(items) / 2
		if err := d.put(ctx, items[:half]); err != nil {
			return err
		}
		return d.put(ctx, items[half:])
	}
	d.refused = append(d.refused, refused)
	if d.landed.Events == 0 && len(d.refused) >= maxRefused {
		return refused
	}
	return nil
}

// publish makes the state that others may see.
func (r *Remote) publish() {
	r.position.Store(&Position{Target: r.to.name(), Bytes: r.saved.Offset, Cursor: r.saved.Cursor})
}

// Position implements [Landing].
func (r *Remote) Position() Position { return *r.position.Load() }

// Close closes the connection to the target, after a call of Land that is under
// way. Calls of Land after it fail.
func (r *Remote) Close() error {
	r.turn <- struct{}{}
	defer func() { <-r.turn }()
	if !r.closed {
		r.closed = true
		r.to.close()
	}
	return nil
}

// unfitJSON returns why data cannot be landed as JSON, or "".
func unfitJSON(data []byte) string {
	if !utf8.Valid(data) || !json.Valid(data) {
		return RejectedJSON
	}
	return ""
}
