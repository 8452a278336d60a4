package plugins

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/mzdio/mzd/core"
	mzdv1 "github.com/mzdio/mzd/plugins/proto/mzd/v1"
)

// externalSink is a sink in a process of its own: a stream for each group of
// views.
type externalSink struct {
	*external

	streamsMu sync.Mutex // guards streams; each belongs to the goroutine that writes its group
	streams   map[string]*writeStream
}

var (
	_ core.Sink       = (*externalSink)(nil)
	_ core.Positioner = (*externalPositioner)(nil)
	_ Supervised      = (*externalSink)(nil)
)

// Write sends the cut, and waits until the plugin has acknowledged it.
func (s *externalSink) Write(ctx context.Context, cut []core.Batch) error {
	p, err := s.running(ctx)
	if err != nil {
		return err
	}
	group := groupOf(cut)
	st, err := s.stream(p, group)
	if err != nil {
		return p.explain(ctx, err)
	}
	if err := st.write(ctx, cut, s.command.ackTimeout()); err != nil {
		s.streamsMu.Lock()
		delete(s.streams, group)
		s.streamsMu.Unlock()
		st.close()
		return p.explain(ctx, err)
	}
	return nil
}

func (c Command) ackTimeout() time.Duration {
	if c.AckTimeout > 0 {
		return c.AckTimeout
	}
	return defaultAckTimeout
}

// stream returns the stream of a group of views, and opens it if there is none of
// this process.
func (s *externalSink) stream(p *process, group string) (*writeStream, error) {
	s.streamsMu.Lock()
	st := s.streams[group]
	s.streamsMu.Unlock()
	if st != nil && st.process == p {
		return st, nil
	}
	if st != nil {
		st.close()
	}
	st, err := openWriteStream(p)
	if err != nil {
		return nil, err
	}
	s.streamsMu.Lock()
	s.streams[group] = st
	s.streamsMu.Unlock()
	return st, nil
}

// Close ends the streams, closes the sink and ends its process.
func (s *externalSink) Close() error {
	s.streamsMu.Lock()
	streams := s.streams
	s.streams = make(map[string]*writeStream)
	s.streamsMu.Unlock()
	var ending sync.WaitGroup // together: one that hangs hangs in all of them
	for _, st := range streams {
		ending.Go(st.finish)
	}
	ending.Wait()
	return s.shut(func(ctx context.Context, p *process) error {
		_, err := mzdv1.NewSinkClient(p.conn).Close(ctx, &mzdv1.SinkCloseRequest{})
		return err
	})
}

// Addr returns the address that the sink listens on, nil if it does not.
func (s *externalSink) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.address == "" {
		return nil
	}
	return address(s.address)
}

// address is an address of TCP as a plugin writes it.
type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

// externalPositioner is a sink that keeps its own positions.
type externalPositioner struct{ *externalSink }

// Position asks the plugin.
func (s *externalPositioner) Position(ctx context.Context, v *core.View) (core.Token, error) {
	p, err := s.running(ctx)
	if err != nil {
		return core.Token{}, err
	}
	var answer *mzdv1.PositionResponse
	err = p.call(ctx, s.command.ackTimeout(), "tell its position", func(ctx context.Context) (err error) {
		answer, err = mzdv1.NewSinkClient(p.conn).Position(ctx, &mzdv1.PositionRequest{View: toView(v)})
		return err
	})
	if err != nil {
		return core.Token{}, err
	}
	at, err := core.ParseToken(answer.GetToken())
	if err != nil {
		return core.Token{}, &ProtocolError{p.path, fmt.Sprintf("the position of view %s is a token that it was sent: %v", v.Name, err)}
	}
	return at, nil
}

// writeStream is the stream of one group of views. One goroutine writes it.
type writeStream struct {
	process *process
	client  grpc.BidiStreamingClient[mzdv1.SinkWriteRequest, mzdv1.SinkWriteResponse]
	cancel  context.CancelFunc
	views   []*core.View // as the plugin was told last

	ended chan struct{} // closed when nothing comes any more
	err   error         // why; written before

	mu    sync.Mutex // guards what follows
	sent  uint64     // cuts
	acked uint64
	news  chan struct{} // has an element when acked has moved
}

func openWriteStream(p *process) (*writeStream, error) {
	ctx, cancel := context.WithCancel(context.Background())
	client, err := mzdv1.NewSinkClient(p.conn).Write(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	st := &writeStream{process: p, client: client, cancel: cancel, ended: make(chan struct{}), news: make(chan struct{}, 1)}
	go st.receive()
	return st, nil
}

// receive takes acknowledgements when they come, so that one that comes too early
// is seen to be.
func (st *writeStream) receive() {
	defer close(st.ended)
	for {
		answer, err := st.client.Recv()
		if err != nil {
			if err == io.EOF {
				err = &PluginError{Plugin: st.process.path, Message: "ended the stream of a view without an error"}
			}
			st.err = err
			return
		}
		if err := st.acknowledge(answer.GetAcknowledged()); err != nil {
			st.err = err
			st.process.fail(err)
			return
		}
		select {
		case st.news <- struct{}{}:
		default:
		}
	}
}

func (st *writeStream) acknowledge(n uint64) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if n > st.sent {
		return &ProtocolError{st.process.path, fmt.Sprintf("it acknowledges cut %d of a stream of which %d were sent: an acknowledgement follows the last piece of its cut", n, st.sent)}
	}
	if n < st.acked {
		return &ProtocolError{st.process.path, fmt.Sprintf("it acknowledges cut %d of a stream after cut %d: acknowledgements are cumulative", n, st.acked)}
	}
	st.acked = n
	return nil
}

// write sends a cut and waits until it is acknowledged. After an error the stream
// is of no use.
func (st *writeStream) write(ctx context.Context, cut []core.Batch, patience time.Duration) error {
	stop := context.AfterFunc(ctx, st.cancel)
	defer stop()
	late := time.AfterFunc(patience, func() {
		st.process.fail(&ProtocolError{st.process.path, fmt.Sprintf("a cut is acknowledged, and this one was not within %v; the limit is ack_timeout", patience)})
	})
	defer late.Stop()
	if err := st.send(cut, func() { late.Reset(patience) }); err != nil {
		return st.reason(err)
	}
	for !st.done() {
		select {
		case <-st.news:
		case <-st.ended:
			return st.reason(io.EOF)
		}
	}
	if !stop() {
		return ctx.Err() // and the stream is cancelled
	}
	return nil
}

// send sends the views, if they are news, and the pieces of the cut.
func (st *writeStream) send(cut []core.Batch, sent func()) error {
	views := make([]*core.View, len(cut))
	for i, b := range cut {
		views[i] = b.View
	}
	if !sameViews(views, st.views) {
		err := st.client.Send(&mzdv1.SinkWriteRequest{Message: &mzdv1.SinkWriteRequest_Views{Views: toViews(views)}})
		if err != nil {
			return err
		}
		st.views = views
	}
	for piece := range pieces(cut) {
		if !piece.GetMore() {
			st.mu.Lock()
			st.sent++ // the plugin may be faster than the return of Send
			st.mu.Unlock()
		}
		if err := st.client.Send(&mzdv1.SinkWriteRequest{Message: &mzdv1.SinkWriteRequest_Piece{Piece: piece}}); err != nil {
			return err
		}
		sent()
	}
	return nil
}

// done reports whether everything is acknowledged.
func (st *writeStream) done() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.acked == st.sent
}

// reason returns why the stream has ended, if that is why a call failed.
func (st *writeStream) reason(err error) error {
	if errors.Is(err, io.EOF) { // as Send says that Recv knows more
		<-st.ended
		return st.err
	}
	return err
}

// close ends the stream at once.
func (st *writeStream) close() {
	st.cancel()
	<-st.ended
}

// finish ends the stream between two cuts.
func (st *writeStream) finish() {
	st.client.CloseSend()
	late := time.AfterFunc(st.process.child.command.limit().shut, st.cancel)
	defer late.Stop()
	<-st.ended
	st.cancel()
}
