package core

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// A Sink receives the changes of views.
//
// mzd calls Write from one goroutine per group of views; groups may be written
// concurrently. Close is called once, after the last Write returned.
type Sink interface {
	// Write applies a cut: one batch for each view of the group, all ending at
	// one time. A group is one view unless the configuration says
	// "cut: together".
	//
	// nil means applied and durable: it is the acknowledgement, and the sink's
	// position moves on. After an error the same cut comes again, the same
	// bytes, until nil, also after a crash if positions are kept; a receiver
	// may deduplicate on the view, Lower and Upper. An error that wraps [ErrPermanent] says that
	// trying again cannot help: the group is shown as failed and waits. One
	// with a method RetryAfter() time.Duration says when not to come back
	// before.
	//
	// ctx ends five seconds after mzd was told to stop. Write then returns soon.
	//
	// The batches are shared: Write must not change them, and may keep them.
	Write(ctx context.Context, cut []Batch) error
	io.Closer
}

// A Positioner is a [Sink] that keeps its own position, for instance in the
// transaction that applied the data.
type Positioner interface {
	// Position returns the Upper of the last batch of the view that was
	// applied, the zero Token if there is none.
	Position(ctx context.Context, v *View) (Token, error)
}

// A Broadcaster is a [Sink] that serves readers of its own. It is handed the
// logs instead of batches, so that in the daemon it keeps no second copy; its
// Write is never called there.
type Broadcaster interface {
	Sink
	// Serve serves readers until ctx ends, and then returns nil once all that it
	// started has ended. Any other return is a failure of the sink.
	Serve(ctx context.Context, views []Reader) error
}

// A Reader is the log of one view, to be read from any position. It may be used
// concurrently.
type Reader interface {
	// View returns the view as it is now. The name never changes; columns
	// change with a generation, so take them from the batches.
	View() *View

	// Follow returns the batches after from, for ever: each step gives
	// everything that has happened since the last one as one net batch (all
	// its updates at Upper-1), and waits when nothing has. A reader that asks rarely gets
	// fewer, larger batches; it holds nothing up, and the log holds nothing for
	// it.
	//
	// The first batch continues from exactly where the token points, or is a
	// base when the log cannot continue from there. A base may also come later,
	// when the log begins a new history. The only error is that of ctx, as the
	// last element.
	Follow(ctx context.Context, from Token) iter.Seq2[Batch, error]
}

// A CutReader is a [Reader] that can be read at a chosen time, which is what it
// takes to read several views as one picture ([FollowCut]).
type CutReader interface {
	Reader

	// Frontier returns the token up to which the log is complete, zero while it
	// has nothing, and a channel that is closed when it has moved.
	Frontier() (Token, <-chan struct{})

	// Readable returns the largest time <= t at which the log can be read, and
	// false if there is none.
	Readable(t Time) (Time, bool)

	// Read returns the net batch from the token to at. It is a base when the
	// log cannot continue from there. at must be readable, otherwise the error
	// wraps [ErrNotReadable].
	Read(from Token, at Time) (Batch, error)
}

// A TroubledReader is a [Reader] that knows when its view has stopped, so that a
// broadcaster can tell its readers instead of leaving them in silence.
type TroubledReader interface {
	Reader

	// Trouble returns why the view does not move and is not going to before
	// somebody or something helps; nil while all is well.
	Trouble() error
}

// ErrNotReadable means that a log cannot be read at the time asked for: it is
// above the log's Upper, or older than what the log keeps exactly.
var ErrNotReadable = errors.New("time not readable")

// ErrPermanent is wrapped by errors for which trying again cannot help without
// somebody changing something: settings that are refused, a target that does
// not exist any more.
var ErrPermanent = errors.New("trying again cannot help")

// A Source brings events from the outside world.
type Source interface {
	// Run reads events from the cursor on and emits them until ctx ends or the
	// source fails. The empty cursor means from now on, or from wherever the
	// source finds sensible. After an error mzd runs it again, from the cursor
	// of the last event that became durable, after a while; an error that wraps
	// [ErrPermanent] is not tried again.
	Run(ctx context.Context, cursor string, emit EmitFunc) error
}

// EmitFunc takes events over from a [Source]. It returns nil when they are
// durable, and may be called concurrently: calls under way at one time share
// one sync. No cursor may be past an event whose emit has not returned, or it
// would be skipped after a crash. Without events it only says that the source
// is connected.
type EmitFunc func(ctx context.Context, events ...Event) error

// Event is something that happened in the outside world.
type Event struct {
	// ID tells repeats apart; empty: there is no telling, every event counts.
	ID string
	// Cursor is where to go on after this event. Going on there may repeat
	// events, but must never skip one.
	Cursor string
	// Time is when it happened, for the source's lag; zero if unknown.
	Time time.Time
	// Data is the event itself. mzd does not keep the slice.
	Data []byte
}

// An Identifier is a [Source] that can tell the ID of an event from its bytes
// as they were landed. With it mzd rebuilds its memory of recent events after a
// restart from what has landed, so that events that come twice are landed once.
type Identifier interface {
	// Identify returns the ID of a landed event, empty if it has none.
	Identify(data []byte) string
}
