package plugins

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/viewlog"
	mzdv1 "github.com/mzdio/mzd/plugins/proto/mzd/v1"
)

// Serve lets a broadcaster serve readers from copies of mzd's logs.
func (s *sinkServer) Serve(stream grpc.BidiStreamingServer[mzdv1.SinkServeRequest, mzdv1.SinkServeResponse]) error {
	sink, err := s.opened()
	if err != nil {
		return err
	}
	b, ok := sink.(core.Broadcaster)
	if !ok {
		return status.Error(codes.Unimplemented, "the sink serves no readers")
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	c, err := newCopies(first.GetViews())
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "mzd breaks the protocol: %v", err)
	}
	select { // one that mzd has ended may still be serving
	case s.serving <- struct{}{}:
		defer func() { <-s.serving }()
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	served := make(chan error, 1)
	go func() {
		served <- b.Serve(ctx, c.readers())
		cancel(errServed) // ends the context of receive, though not its Recv
	}()
	received := make(chan error, 1)
	go func() { received <- c.receive(stream) }() // ends with the stream
	select {
	case err := <-served:
		if err == nil {
			err = errServed
		}
		return toStatus(err)
	case err := <-received:
		cancel(err)
		<-served
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
}

var errServed = errors.New("it has stopped serving without an error")

// copies are copies of all logs.
type copies struct {
	views []*core.View // as mzd has described them last
	logs  []*copiedLog
	parts []batchBuilder // of a batch of each view
}

// copiedLog is the log of one view for a broadcaster.
type copiedLog struct {
	*viewlog.Log
	trouble atomic.Pointer[string]
}

var _ interface {
	core.CutReader
	core.TroubledReader
} = (*copiedLog)(nil)

// Trouble returns why the view has stopped.
func (l *copiedLog) Trouble() error {
	if reason := l.trouble.Load(); reason != nil {
		return errors.New(*reason)
	}
	return nil
}

func newCopies(views *mzdv1.Views) (*copies, error) {
	c := &copies{}
	if err := c.describe(views); err != nil {
		return nil, err
	}
	for _, v := range c.views {
		c.logs = append(c.logs, &copiedLog{Log: viewlog.New(v.Name, viewlog.Options{})})
	}
	c.parts = make([]batchBuilder, len(c.views))
	return c, nil
}

func (c *copies) readers() []core.Reader {
	var readers []core.Reader
	for _, l := range c.logs {
		readers = append(readers, l)
	}
	return readers
}

// describe takes over how the views are now.
func (c *copies) describe(views *mzdv1.Views) error {
	if len(views.GetViews()) == 0 || c.views != nil && len(views.GetViews()) != len(c.views) {
		return fmt.Errorf("%d views, before %d", len(views.GetViews()), len(c.views))
	}
	described := make([]*core.View, len(views.GetViews()))
	for i, v := range views.GetViews() {
		view, err := fromView(v)
		if err != nil {
			return err
		}
		if c.views != nil && view.Name != c.views[i].Name {
			return fmt.Errorf("view %d is %s, before %s", i, view.Name, c.views[i].Name)
		}
		described[i] = view
	}
	c.views = described
	return nil
}

// receive feeds the copies until the stream ends.
func (c *copies) receive(stream grpc.BidiStreamingServer[mzdv1.SinkServeRequest, mzdv1.SinkServeResponse]) error {
	for {
		request, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := c.take(request); err != nil {
			return status.Error(codes.Internal, err.Error())
		}
	}
}

// take takes a message.
func (c *copies) take(request *mzdv1.SinkServeRequest) error {
	switch m := request.GetMessage().(type) {
	case *mzdv1.SinkServeRequest_Views:
		return c.describe(m.Views)
	case *mzdv1.SinkServeRequest_Trouble:
		if int(m.Trouble.GetView()) >= len(c.logs) {
			return fmt.Errorf("trouble of view %d of %d", m.Trouble.GetView(), len(c.logs))
		}
		reason := &m.Trouble.Reason
		if *reason == "" {
			reason = nil
		}
		c.logs[m.Trouble.GetView()].trouble.Store(reason)
		return nil
	case *mzdv1.SinkServeRequest_Piece:
		return c.add(m.Piece)
	}
	return errors.New("an empty message")
}

// add takes a piece, and appends its batch to the copy if that completes it.
func (c *copies) add(p *mzdv1.Piece) error {
	i := int(p.GetView())
	if i >= len(c.logs) {
		return fmt.Errorf("a piece of view %d of %d", i, len(c.logs))
	}
	if err := c.parts[i].add(p); err != nil || p.GetMore() {
		return err
	}
	b := c.parts[i].finish(c.views[i])
	// The copy keeps rows for long, one by one: they must not keep their neighbours.
	updates := b.Updates.Slice()
	for k := range updates {
		updates[k].Row = core.Row(strings.Clone(string(updates[k].Row)))
	}
	b.Updates = core.UpdatesOf(updates)
	if err := c.logs[i].Copy(b); err != nil {
		return err
	}
	c.logs[i].Compact()
	return nil
}
