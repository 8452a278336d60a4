package plugins

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/mzdio/mzd/core"
	mzdv1 "github.com/mzdio/mzd/plugins/proto/mzd/v1"
)

const (
	// sourceWindow is how many events of a source may be on their way.
	sourceWindow = 4096
	// queueBytes bounds the memory of those that wait to be landed; beyond it the
	// plugin waits.
	queueBytes = 8 << 20
)

// externalSource is a source in a process of its own.
type externalSource struct{ *external }

// externalIdentifier is one that knows the IDs of landed events.
type externalIdentifier struct{ *externalSource }

var (
	_ core.Source     = (*externalSource)(nil)
	_ core.Identifier = (*externalIdentifier)(nil)
	_ Supervised      = (*externalSource)(nil)
	_ io.Closer       = (*externalSource)(nil)
)

// Run reads from the plugin. When ctx ends it ends the process too.
func (s *externalSource) Run(ctx context.Context, cursor string, emit core.EmitFunc) error {
	p, err := s.running(ctx)
	if err != nil {
		return err
	}
	err = read(ctx, p, cursor, emit)
	if ctx.Err() != nil {
		s.rest()
		return ctx.Err()
	}
	return err
}

// Identify is IdentifyAll for one event.
func (s *externalIdentifier) Identify(data []byte) string { return s.IdentifyAll([][]byte{data})[0] }

// IdentifyAll asks the process that runs for the ID of each of the events, and
// starts none: it is called for many events while everything else waits. Those
// whose ID it cannot tell now have none.
func (s *externalIdentifier) IdentifyAll(events [][]byte) []string {
	none := make([]string, len(events))
	p, up := s.current()
	if !up {
		return none
	}
	var answer *mzdv1.IdentifyResponse
	err := p.call(context.Background(), s.command.limit().call, "identify events", func(ctx context.Context) (err error) {
		answer, err = mzdv1.NewSourceClient(p.conn).Identify(ctx, &mzdv1.IdentifyRequest{Data: events})
		return err
	})
	if err != nil || len(answer.GetIds()) != len(events) {
		return none
	}
	return answer.GetIds()
}

// read lands what the plugin sends from the cursor on, until it ends.
func read(ctx context.Context, p *process, cursor string, emit core.EmitFunc) error {
	streaming, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := mzdv1.NewSourceClient(p.conn).Read(streaming)
	if err == nil {
		err = stream.Send(&mzdv1.SourceReadRequest{Message: &mzdv1.SourceReadRequest_Start{Start: &mzdv1.Start{Cursor: cursor, Window: sourceWindow}}})
	}
	if err != nil && !errors.Is(err, io.EOF) { // then Recv knows more
		return p.explain(ctx, err)
	}
	q := &eventQueue{more: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	received := make(chan struct{})
	go func() {
		defer close(received)
		q.end(q.receive(streaming, p.path, stream))
	}()
	landErr := q.land(ctx, stream, emit)
	if landErr != nil { // the source may tell by it what to do
		q.discard()
		patience := p.child.command.limit().shut
		late := time.AfterFunc(patience, func() { // or the next run would wait for this one
			p.fail(fmt.Errorf("%s hangs: its events cannot be landed, it did not end the stream within %v, and was ended", p.path, patience))
		})
		stream.Send(&mzdv1.SourceReadRequest{Message: &mzdv1.SourceReadRequest_Failure{Failure: toFailure(landErr)}})
		stream.CloseSend()
		<-received
		late.Stop()
	}
	cancel()
	<-received
	if landErr != nil {
		return landErr
	}
	switch err := q.err; {
	case errors.Is(err, io.EOF):
		return nil
	case isProtocol(err):
		p.fail(err)
		return err
	default:
		return p.explain(ctx, err)
	}
}

func isProtocol(err error) bool {
	var broken *ProtocolError
	return errors.As(err, &broken)
}

func toFailure(err error) *mzdv1.Failure {
	return &mzdv1.Failure{Message: shorten(err.Error(), maxMessage), Permanent: errors.Is(err, core.ErrPermanent)}
}

// eventQueue holds events between the stream, which one goroutine reads, and the
// landing, for which another one calls emit.
type eventQueue struct {
	more, room chan struct{} // have an element when there is news of it

	mu       sync.Mutex // guards what follows
	events   []core.Event
	bytes    int
	greeted  bool   // a message without events has come
	received uint64 // events
	landed   uint64 // of them
	unwanted bool   // nobody takes events any more
	ended    bool
	err      error
}

// receive reads the stream until it ends, and returns why it did.
func (q *eventQueue) receive(ctx context.Context, plugin string, stream grpc.BidiStreamingClient[mzdv1.SourceReadRequest, mzdv1.SourceReadResponse]) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := q.put(ctx, plugin, m.GetEvents()); err != nil {
			return err
		}
	}
}

// put queues the events of a message. It waits while too much is waiting.
func (q *eventQueue) put(ctx context.Context, plugin string, events []*mzdv1.Event) error {
	for {
		q.mu.Lock()
		if q.bytes < queueBytes {
			break
		}
		q.mu.Unlock()
		select {
		case <-q.room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer q.mu.Unlock()
	if q.unwanted {
		return nil
	}
	q.greeted = q.greeted || len(events) == 0
	if q.received += uint64(len(events)); q.received-q.landed > sourceWindow {
		return &ProtocolError{plugin, fmt.Sprintf("%d events are unacknowledged, and the window is %d", q.received-q.landed, sourceWindow)}
	}
	for _, m := range events {
		e := fromEvent(m)
		q.events = append(q.events, e)
		q.bytes += len(e.Data) + len(e.ID) + len(e.Cursor)
	}
	signal(q.more)
	return nil
}

// discard forgets what waits, and what still comes.
func (q *eventQueue) discard() {
	q.mu.Lock()
	q.unwanted, q.events, q.bytes = true, nil, 0
	q.mu.Unlock()
	signal(q.room)
}

func (q *eventQueue) end(err error) {
	q.mu.Lock()
	q.ended, q.err = true, err
	q.mu.Unlock()
	signal(q.more)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// land emits what comes and acknowledges it, until nothing comes any more. Its
// error is that of emit.
func (q *eventQueue) land(ctx context.Context, stream grpc.BidiStreamingClient[mzdv1.SourceReadRequest, mzdv1.SourceReadResponse], emit core.EmitFunc) error {
	for {
		q.mu.Lock()
		events, greeted, ended := q.events, q.greeted, q.ended
		q.events, q.bytes, q.greeted = nil, 0, false
		q.mu.Unlock()
		signal(q.room)
		switch {
		case len(events) > 0 || greeted:
			if err := emit(ctx, events...); err != nil {
				return err
			}
		case ended:
			return nil
		default:
			<-q.more // the end of ctx ends the stream, and that the queue
			continue
		}
		q.mu.Lock()
		q.landed += uint64(len(events))
		landed := q.landed
		q.mu.Unlock()
		if len(events) > 0 { // its error is the end of the stream, which Recv explains
			stream.Send(&mzdv1.SourceReadRequest{Message: &mzdv1.SourceReadRequest_Acknowledged{Acknowledged: landed}})
		}
	}
}

func fromEvent(m *mzdv1.Event) core.Event {
	e := core.Event{ID: m.GetId(), Cursor: m.GetCursor(), Data: m.GetData()}
	if m.GetTime().IsValid() {
		e.Time = m.GetTime().AsTime()
	}
	return e
}
