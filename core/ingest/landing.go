package ingest

import (
	"context"
	"errors"
	"io"

	"github.com/mzdio/mzd/core"
)

// A Landing is where events become durable, together with the cursor that
// belongs to them.
type Landing interface {
	// Land makes the events durable, in their order, and then returns nil.
	// Events whose ID was landed recently are left out and counted, and so are
	// events that the target cannot hold. After an error some of the events may
	// be durable all the same; whoever gets them again leaves those out by ID.
	//
	// Land may be called concurrently; calls under way at one time share one
	// sync. It keeps nothing of events.
	Land(ctx context.Context, events []core.Event) (Landed, error)

	// Position says how far the landing has come. It never waits for a sync.
	Position() Position

	// Close releases the target. What Land has returned nil for is durable
	// without it.
	io.Closer
}

// Landed counts what one call of [Landing.Land] did.
type Landed struct {
	Events     int            // landed now
	Bytes      int64          // of them, as they were written
	Duplicates int            // left out: landed before
	Rejected   map[string]int // left out: the target cannot hold them, by reason; nil if none
}

// Position is how far a [Landing] has come.
type Position struct {
	Target string // what is landed into, for people
	Bytes  int64  // landed there, earlier runs included
	Cursor string // of the newest durable event: where the source goes on
}

// Reasons of [Landed.Rejected].
const (
	RejectedNewline  = "newline"   // the data is not one line
	RejectedNUL      = "nul"       // the data has a NUL byte
	RejectedJSON     = "json"      // the data is not JSON
	RejectedTooLarge = "too_large" // the database says that it is
	RejectedRefused  = "refused"   // the database takes others, but not this one
)

var rejections = []string{RejectedNewline, RejectedNUL, RejectedJSON, RejectedTooLarge, RejectedRefused}

// ErrFull is wrapped by errors of [Landing.Land] when the limit on landed bytes
// is reached. It cannot help to try again soon: somebody has to make room.
var ErrFull = errors.New("max_bytes reached")
