package pgwire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"

	"github.com/jackc/pgx/v5/pgproto3"
)

// inbox holds what a client has sent and the connection has not yet handled.
//
// A goroutine fills it as long as the connection lives, also while rows are
// streamed, because only a reader learns that the client has gone away or sends
// Terminate; a quiet stream would otherwise go on for nobody. Clients send
// ahead (a driver's Sync comes right after its Execute), so it is a queue, and
// it is bounded in bytes: a client that floods is no longer read.
type inbox struct {
	limit   int
	arrived chan struct{} // holds a token when there may be something to take
	left    chan struct{} // holds a token when there may be room

	mu    sync.Mutex // guards the fields below
	queue []any      // messages as made by detach
	bytes int
}

func newInbox(limit int) *inbox {
	return &inbox{limit: limit, arrived: make(chan struct{}, 1), left: make(chan struct{}, 1)}
}

// put appends a message, waiting for room. It is false when ctx ended instead.
func (b *inbox) put(ctx context.Context, msg any) bool {
	size := sizeOf(msg)
	for {
		b.mu.Lock()
		if b.bytes == 0 || b.bytes+size <= b.limit {
			b.queue = append(b.queue, msg)
			b.bytes += size
			b.mu.Unlock()
			signal(b.arrived)
			return true
		}
		b.mu.Unlock()
		select {
		case <-b.left:
		case <-ctx.Done():
			return false
		}
	}
}

// take removes the oldest message, waiting for one. Its error is the cause of
// ctx's end.
func (b *inbox) take(ctx context.Context) (any, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		b.mu.Lock()
		if len(b.queue) > 0 {
			msg := b.queue[0]
			b.queue[0] = nil
			b.queue = b.queue[1:]
			b.bytes -= sizeOf(msg)
			b.mu.Unlock()
			signal(b.left)
			return msg, nil
		}
		b.mu.Unlock()
		select {
		case <-b.arrived:
		case <-ctx.Done():
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// fill reads messages until the client or the connection ends, and says why: it
// returns errGone for a client that left, a *fatalError for one that does not
// speak the protocol, and the cause of ctx's end otherwise.
func (b *inbox) fill(ctx context.Context, backend *pgproto3.Backend, src *source) error {
	for {
		msg, err := backend.Receive()
		if tooLong, ok := errors.AsType[*pgproto3.ExceededMaxBodyLenErr](err); ok {
			return fatalf("54000", "message of %d bytes exceeds the limit of %d bytes", tooLong.ActualBodyLen, tooLong.MaxExpectedBodyLen)
		}
		if err != nil {
			if src.err != nil {
				return errGone
			}
			return fatalf("08P01", "invalid message: %v", err)
		}
		if _, ok := msg.(*pgproto3.Terminate); ok {
			return errGone
		}
		if !b.put(ctx, detach(msg)) {
			return context.Cause(ctx)
		}
	}
}

// source remembers that reading failed, to tell a client that left from one
// that sends nonsense.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil {
		s.err = err
	}
	return n, err
}

// bind is what is kept of a Bind message.
type bind struct {
	portal, statement string
	parameters        [][]byte // nil: NULL
	parameterFormats  []int16
	formats           []int16
}

// detach copies a message out of the receive buffer, which the next Receive
// overwrites.
func detach(msg pgproto3.FrontendMessage) any {
	switch m := msg.(type) {
	case *pgproto3.Query:
		return *m
	case *pgproto3.Parse:
		return *m
	case *pgproto3.Bind:
		b := bind{portal: m.DestinationPortal, statement: m.PreparedStatement, parameterFormats: m.ParameterFormatCodes, formats: m.ResultFormatCodes}
		for _, p := range m.Parameters {
			b.parameters = append(b.parameters, bytes.Clone(p))
		}
		return b
	case *pgproto3.Describe:
		return *m
	case *pgproto3.Execute:
		return *m
	case *pgproto3.Close:
		return *m
	case *pgproto3.Flush:
		return *m
	case *pgproto3.Sync:
		return *m
	case *pgproto3.FunctionCall:
		return pgproto3.FunctionCall{}
	case *pgproto3.CopyData:
		return copyData(bytes.Clone(m.Data))
	case *pgproto3.CopyDone:
		return *m
	case *pgproto3.CopyFail:
		return *m
	default:
		return unexpected{msg}
	}
}

// unexpected is a message that no client may send at this point.
type unexpected struct{ msg pgproto3.FrontendMessage }

// sizeOf estimates what a queued message holds in memory.
func sizeOf(msg any) int {
	const overhead = 256
	switch m := msg.(type) {
	case pgproto3.Query:
		return overhead + len(m.String)
	case pgproto3.Parse:
		return overhead + len(m.Name) + len(m.Query) + 4*len(m.ParameterOIDs)
	case bind:
		size := overhead + len(m.portal) + len(m.statement) + 2*(len(m.formats)+len(m.parameterFormats))
		for _, p := range m.parameters {
			size += 24 + len(p)
		}
		return size
	case copyData:
		return overhead + len(m)
	case pgproto3.CopyFail:
		return overhead + len(m.Message)
	case pgproto3.Describe:
		return overhead + len(m.Name)
	case pgproto3.Execute:
		return overhead + len(m.Portal)
	case pgproto3.Close:
		return overhead + len(m.Name)
	default:
		return overhead
	}
}
