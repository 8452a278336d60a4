package plugins

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/mzdio/mzd/core"
	mzdv1 "github.com/mzdio/mzd/plugins/proto/mzd/v1"
)

// externalBroadcaster is a sink that serves readers of its own. The process has
// a copy of every log.
type externalBroadcaster struct{ *externalSink }

var _ core.Broadcaster = (*externalBroadcaster)(nil)

// Serve feeds the copies until ctx ends.
func (s *externalBroadcaster) Serve(ctx context.Context, views []core.Reader) error {
	f := &feed{ends: make([][]core.Time, len(views))}
	for _, v := range views {
		r, ok := v.(core.CutReader)
		if !ok {
			return fmt.Errorf("view %s cannot be read at a chosen time: %w", v.View().Name, core.ErrPermanent)
		}
		f.readers = append(f.readers, r)
	}
	p, err := s.running(ctx)
	if err == nil {
		if err = f.run(ctx, p); err != nil {
			err = p.explain(ctx, err)
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// feed sends everything that happens in some logs to a process.
type feed struct {
	readers []core.CutReader

	sending sync.Mutex // guards what follows, and is held while something is sent
	stream  grpc.BidiStreamingClient[mzdv1.SinkServeRequest, mzdv1.SinkServeResponse]
	views   []*core.View // as the plugin was told last

	mu   sync.Mutex    // guards ends
	ends [][]core.Time // by view, in order: where its last batches ended
}

// maxEnds bounds how many ends are remembered. Views whose times interleave need a
// few; more than that are of views that have stopped.
const maxEnds = 256

// run feeds the process until ctx ends or the stream does.
func (f *feed) run(ctx context.Context, p *process) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var following sync.WaitGroup
	defer following.Wait()
	defer cancel(nil)
	stream, err := mzdv1.NewSinkClient(p.conn).Serve(ctx)
	if err != nil {
		return err
	}
	f.stream = stream
	for _, r := range f.readers {
		f.views = append(f.views, r.View())
	}
	if err := f.send(&mzdv1.SinkServeRequest{Message: &mzdv1.SinkServeRequest_Views{Views: toViews(f.views)}}); err != nil {
		return f.end()
	}
	for i := range f.readers {
		following.Go(func() {
			if err := f.follow(ctx, i); err != nil && !errors.Is(err, io.EOF) { // of which Recv knows more
				cancel(err)
			}
		})
	}
	err = f.end()
	if ctx.Err() != nil && err != nil {
		return context.Cause(ctx)
	}
	return err
}

// end waits for the end of the stream, and returns why it has ended.
func (f *feed) end() error {
	for {
		if _, err := f.stream.Recv(); errors.Is(err, io.EOF) {
			return errors.New("ended the stream without an error")
		} else if err != nil {
			return err
		}
	}
}

// troubleEvery is how often a view is asked whether it is in trouble.
const troubleEvery = time.Second

// follow sends what happens in one log.
func (f *feed) follow(ctx context.Context, i int) error {
	tick := time.NewTicker(troubleEvery)
	defer tick.Stop()
	var at core.Token
	trouble := ""
	for {
		upper, moved := f.readers[i].Frontier()
		if upper != at {
			var err error
			if at, err = f.catchUp(i, at, upper); err != nil {
				return err
			}
			continue
		}
		if now := troubleOf(f.readers[i]); now != trouble {
			trouble = now
			if err := f.sendTrouble(i, now); err != nil {
				return err
			}
		}
		select {
		case <-moved:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func troubleOf(r core.Reader) string {
	if t, ok := r.(core.TroubledReader); ok && t.Trouble() != nil {
		return shorten(t.Trouble().Error(), maxMessage)
	}
	return ""
}

func (f *feed) sendTrouble(i int, reason string) error {
	f.sending.Lock()
	defer f.sending.Unlock()
	return f.send(&mzdv1.SinkServeRequest{Message: &mzdv1.SinkServeRequest_Trouble{Trouble: &mzdv1.Trouble{View: uint32(i), Reason: reason}}})
}

// catchUp sends what happened in a log up to where it is now, in batches that end
// where those of other logs have ended: a copy can be read nowhere else, and several
// are read at one time. It returns how far it came.
func (f *feed) catchUp(i int, at, upper core.Token) (core.Token, error) {
	r := f.readers[i]
	for _, end := range f.stops(i, at.Time, upper.Time) {
		if t, ok := r.Readable(end); !ok || t != end {
			continue
		}
		b, err := r.Read(at, end)
		if errors.Is(err, core.ErrNotReadable) { // a new history has begun since
			return at, nil
		}
		if err != nil {
			return at, err
		}
		if err := f.sendBatch(i, b); err != nil {
			return at, err
		}
		at = b.Upper
		f.ended(i, end)
	}
	return at, nil
}

// stops returns the times after one at which others have ended, up to a last.
func (f *feed) stops(i int, after, last core.Time) []core.Time {
	times := []core.Time{last}
	if after > 0 && after < last {
		f.mu.Lock()
		defer f.mu.Unlock()
		for k, ends := range f.ends {
			for _, t := range ends {
				if k != i && after < t && t < last {
					times = append(times, t)
				}
			}
		}
	}
	slices.Sort(times)
	return slices.Compact(times)
}

// ended notes where a batch has ended.
func (f *feed) ended(i int, at core.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.ends[i]); n > 0 && f.ends[i][n-1] > at {
		f.ends[i] = nil // times went back
	}
	f.ends[i] = append(f.ends[i], at)
	if n := len(f.ends[i]); n > maxEnds {
		f.ends[i] = slices.Delete(f.ends[i], 0, n/2)
	}
}

// sendBatch sends one batch, and before it the views if they are news.
func (f *feed) sendBatch(i int, b core.Batch) error {
	f.sending.Lock()
	if !sameViews([]*core.View{b.View}, f.views[i:i+1]) {
		f.views[i] = b.View
		if err := f.send(&mzdv1.SinkServeRequest{Message: &mzdv1.SinkServeRequest_Views{Views: toViews(f.views)}}); err != nil {
			f.sending.Unlock()
			return err
		}
	}
	f.sending.Unlock()
	for piece := range pieces([]core.Batch{b}) {
		piece.View = uint32(i)
		f.sending.Lock() // for each piece: another view may have something short to say
		err := f.send(&mzdv1.SinkServeRequest{Message: &mzdv1.SinkServeRequest_Piece{Piece: piece}})
		f.sending.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// send sends a message; f.sending is held.
func (f *feed) send(m *mzdv1.SinkServeRequest) error { return f.stream.Send(m) }
