package plugins

import (
	"context"
	"log/slog"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mzdio/mzd/core"
	mzdv1 "github.com/mzdio/mzd/plugins/proto/mzd/v1"
)

// sourceServer serves one instance of a source.
type sourceServer struct {
	mzdv1.UnimplementedSourceServer
	kind Source
	log  *slog.Logger

	mu     sync.Mutex  // guards source
	source core.Source // nil: not open

	reading sync.Mutex // held while the source runs
}

// Open makes the source.
func (s *sourceServer) Open(_ context.Context, r *mzdv1.SourceOpenRequest) (*mzdv1.SourceOpenResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.source != nil {
		return nil, errOpened
	}
	// Its context is none of the call: what it opens lives on.
	source, err := s.kind.Open(openEnv(r.GetName(), r.GetPipeline(), s.log), settingsOf(r.GetSettings()))
	if err != nil {
		return nil, toStatus(err)
	}
	s.source = source
	return &mzdv1.SourceOpenResponse{}, nil
}

// opened returns the source.
func (s *sourceServer) opened() (core.Source, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.source == nil {
		return nil, errNotOpen
	}
	return s.source, nil
}

// Read runs the source.
func (s *sourceServer) Read(stream grpc.BidiStreamingServer[mzdv1.SourceReadRequest, mzdv1.SourceReadResponse]) error {
	source, err := s.opened()
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil || start.GetWindow() == 0 {
		return status.Error(codes.InvalidArgument, "mzd breaks the protocol: a stream begins with a cursor and a window")
	}
	s.reading.Lock() // one that mzd has ended may still be running
	defer s.reading.Unlock()
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	e := &emitter{stream: stream, window: uint64(start.GetWindow()), turn: make(chan struct{}, 1), moved: make(chan struct{})}
	go func() { cancel(e.receive()) }()
	return toStatus(source.Run(ctx, start.GetCursor(), e.emit))
}

// Identify returns the IDs of events.
func (s *sourceServer) Identify(_ context.Context, r *mzdv1.IdentifyRequest) (*mzdv1.IdentifyResponse, error) {
	source, err := s.opened()
	if err != nil {
		return nil, err
	}
	i, ok := source.(core.Identifier)
	if !ok {
		return nil, status.Error(codes.Unimplemented, "the source does not know the IDs of events")
	}
	answer := &mzdv1.IdentifyResponse{}
	for _, data := range r.GetData() {
		answer.Ids = append(answer.Ids, i.Identify(data))
	}
	return answer, nil
}

// emitter emits over a stream.
type emitter struct {
	stream grpc.BidiStreamingServer[mzdv1.SourceReadRequest, mzdv1.SourceReadResponse]
	window uint64
	turn   chan struct{} // holds an element while a call sends its events

	mu     sync.Mutex // guards what follows
	sent   uint64
	acked  uint64
	failed error         // why nothing is acknowledged any more
	moved  chan struct{} // closed and replaced when one of the last two has changed
}

// emit sends events and waits until mzd has acknowledged them.
func (e *emitter) emit(ctx context.Context, events ...core.Event) error {
	last, err := e.send(ctx, events)
	if err != nil {
		return err
	}
	return e.wait(ctx, func() bool { return e.acked >= last })
}

// send sends events as far as the window allows, and waits until it allows all. It
// returns the number of the last.
func (e *emitter) send(ctx context.Context, events []core.Event) (last uint64, err error) {
	select {
	case e.turn <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	defer func() { <-e.turn }()
	if len(events) == 0 {
		return 0, e.stream.Send(&mzdv1.SourceReadResponse{})
	}
	for len(events) > 0 {
		var room uint64
		if err := e.wait(ctx, func() bool { room = e.window - (e.sent - e.acked); return room > 0 }); err != nil {
			return 0, err
		}
		n := someEvents(events, room)
		m := &mzdv1.SourceReadResponse{Events: make([]*mzdv1.Event, n)}
		for i, event := range events[:n] {
			m.Events[i] = toEvent(event)
		}
		e.mu.Lock()
		e.sent += uint64(n) // the answer may be faster than the return of Send
		last = e.sent
		e.mu.Unlock()
		if err := e.stream.Send(m); err != nil {
			return 0, err
		}
		events = events[n:]
	}
	return last, nil
}

// someEvents returns how many events fit into a message.
func someEvents(events []core.Event, room uint64) int {
	size := 0
	for i, e := range events {
		size += len(e.Data) + len(e.ID) + len(e.Cursor)
		if i > 0 && size > pieceBytes || uint64(i) == room {
			return i
		}
	}
	return len(events)
}

func toEvent(e core.Event) *mzdv1.Event {
	m := &mzdv1.Event{Id: e.ID, Cursor: e.Cursor, Data: e.Data}
	if !e.Time.IsZero() {
		m.Time = timestamppb.New(e.Time)
	}
	return m
}

// wait waits until enough is acknowledged; enough is called with the lock held.
func (e *emitter) wait(ctx context.Context, enough func() bool) error {
	for {
		e.mu.Lock()
		done, failed, moved := enough(), e.failed, e.moved
		e.mu.Unlock()
		if done {
			return nil
		}
		if failed != nil {
			return failed
		}
		select {
		case <-moved:
		case <-ctx.Done():
			e.mu.Lock()
			defer e.mu.Unlock()
			if e.failed != nil { // which is the better reason
				return e.failed
			}
			return ctx.Err()
		}
	}
}

// receive takes acknowledgements until the stream ends, and returns why it did.
func (e *emitter) receive() error {
	for {
		request, err := e.stream.Recv()
		if err != nil {
			e.fail(context.Canceled) // mzd does not want any more
			return err
		}
		switch m := request.GetMessage().(type) {
		case *mzdv1.SourceReadRequest_Acknowledged:
			e.mu.Lock()
			e.acked = min(max(e.acked, m.Acknowledged), e.sent)
			e.move()
			e.mu.Unlock()
		case *mzdv1.SourceReadRequest_Failure:
			e.fail(&landingError{m.Failure})
		}
	}
}

func (e *emitter) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed == nil {
		e.failed = err
		e.move()
	}
}

func (e *emitter) move() {
	close(e.moved)
	e.moved = make(chan struct{})
}

// landingError is why mzd cannot take events.
type landingError struct{ failure *mzdv1.Failure }

func (e *landingError) Error() string { return e.failure.GetMessage() }

// Unwrap returns [core.ErrPermanent] if it is one.
func (e *landingError) Unwrap() error {
	if e.failure.GetPermanent() {
		return core.ErrPermanent
	}
	return nil
}
