package plugins

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mzdio/mzd/core"
	mzdv1 "github.com/mzdio/mzd/plugins/proto/mzd/v1"
)

// sinkServer serves one instance of a sink.
type sinkServer struct {
	mzdv1.UnimplementedSinkServer
	kind Sink
	log  *slog.Logger

	serving chan struct{} // holds an element while Serve of the sink runs

	mu      sync.Mutex // guards what follows
	sink    core.Sink  // nil: not open
	opening bool       // or opened
	writing map[string]chan struct{}
}

var (
	errOpened  = status.Error(codes.FailedPrecondition, "opened twice")
	errNotOpen = status.Error(codes.FailedPrecondition, "not open")
)

func newSinkServer(kind Sink, log *slog.Logger) *sinkServer {
	return &sinkServer{kind: kind, log: log, serving: make(chan struct{}, 1)}
}

// Open makes the sink.
func (s *sinkServer) Open(_ context.Context, r *mzdv1.SinkOpenRequest) (*mzdv1.SinkOpenResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opening {
		return nil, errOpened
	}
	// Its context is none of the call: what it opens lives on.
	sink, err := s.kind.Open(openEnv(r.GetName(), r.GetPipeline(), s.log), settingsOf(r.GetSettings()))
	if err != nil {
		return nil, toStatus(err)
	}
	s.sink, s.opening, s.writing = sink, true, make(map[string]chan struct{})
	answer := &mzdv1.SinkOpenResponse{}
	if l, ok := sink.(interface{ Addr() net.Addr }); ok && l.Addr() != nil {
		answer.Address = l.Addr().String()
	}
	return answer, nil
}

// opened returns the sink.
func (s *sinkServer) opened() (core.Sink, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sink == nil {
		return nil, errNotOpen
	}
	return s.sink, nil
}

// Position returns where the sink stands.
func (s *sinkServer) Position(ctx context.Context, r *mzdv1.PositionRequest) (*mzdv1.PositionResponse, error) {
	sink, err := s.opened()
	if err != nil {
		return nil, err
	}
	p, ok := sink.(core.Positioner)
	if !ok {
		return nil, status.Error(codes.Unimplemented, "the sink keeps no positions")
	}
	view, err := fromView(r.GetView())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	at, err := p.Position(ctx, view)
	if err != nil {
		return nil, toStatus(err)
	}
	return &mzdv1.PositionResponse{Token: at.String()}, nil
}

// Write writes the cuts of one group.
func (s *sinkServer) Write(stream grpc.BidiStreamingServer[mzdv1.SinkWriteRequest, mzdv1.SinkWriteResponse]) error {
	sink, err := s.opened()
	if err != nil {
		return err
	}
	var a assembler
	written := uint64(0)
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		cut, err := a.take(request)
		if err != nil {
			return status.Errorf(codes.InvalidArgument, "mzd breaks the protocol: %v", err)
		}
		if cut == nil {
			continue
		}
		if err := s.write(stream.Context(), sink, cut); err != nil {
			return toStatus(err)
		}
		written++
		if err := stream.Send(&mzdv1.SinkWriteResponse{Acknowledged: written}); err != nil {
			return err
		}
	}
}

// take takes a message, and returns the cut if that completes it.
func (a *assembler) take(r *mzdv1.SinkWriteRequest) ([]core.Batch, error) {
	switch m := r.GetMessage().(type) {
	case *mzdv1.SinkWriteRequest_Views:
		return nil, a.describe(m.Views)
	case *mzdv1.SinkWriteRequest_Piece:
		return a.add(m.Piece)
	}
	return nil, errors.New("an empty message")
}

// write writes a cut. Of a group it writes one at a time, also when mzd has ended
// a stream and begun the next while the sink was still writing for the first.
func (s *sinkServer) write(ctx context.Context, sink core.Sink, cut []core.Batch) error {
	turn := s.turn(groupOf(cut))
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-turn }()
	return sink.Write(ctx, cut)
}

func (s *sinkServer) turn(group string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	turn := s.writing[group]
	if turn == nil {
		turn = make(chan struct{}, 1)
		s.writing[group] = turn
	}
	return turn
}

// Close closes the sink, once it serves no more: mzd has told it to end that, and ends
// the process after Close, by which readers would lose what they are still owed.
func (s *sinkServer) Close(ctx context.Context, _ *mzdv1.SinkCloseRequest) (*mzdv1.SinkCloseResponse, error) {
	select {
	case s.serving <- struct{}{}:
		defer func() { <-s.serving }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	sink := s.sink
	s.sink = nil
	s.mu.Unlock()
	if sink == nil {
		return &mzdv1.SinkCloseResponse{}, nil
	}
	if err := sink.Close(); err != nil {
		return nil, toStatus(err)
	}
	return &mzdv1.SinkCloseResponse{}, nil
}

// groupOf names a group of views.
func groupOf(cut []core.Batch) string {
	names := make([]string, len(cut))
	for i, b := range cut {
		names[i] = b.View.Name
	}
	return strings.Join(names, "\x00")
}
