package websocket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/mzdio/mzd/core"
)

// A stream is one client that follows views: a position and where to send what
// comes after it.
type stream struct {
	readers  []core.CutReader
	views    string // their names, for the cache
	encoding encoding
	interval time.Duration
	at       position
	begun    bool // a message has been sent, not counting errors
	out      sender
}

// A sender puts messages on a connection. Its methods are called by one
// goroutine and return when the kernel has taken the bytes: that is what slows
// a stream down to its client.
type sender interface {
	send(message) error
	// idle sends something that is no message, so that whoever is in between
	// keeps the connection open, if the transport has such a thing.
	idle() error
}

// keepAlive is how long a stream is silent before it says something. Proxies
// give up on a connection after a minute.
const keepAlive = 15 * time.Second

// glance is how often a silent stream looks whether a view has failed.
const glance = keepAlive / 5

// errNewHistory ends a stream of version 1 whose view began a new history.
var errNewHistory = errors.New("the view began a new history; connect again")

// readError is a failure of a log, as opposed to one of a client.
type readError struct{ error }

func (e readError) Unwrap() error { return e.error }

// run sends what happens, for ever. It returns the error of ctx or of the
// sender, or errNewHistory.
func (st *stream) run(ctx context.Context, s *server) error {
	for {
		cut, behind, err := st.next(ctx)
		if err != nil {
			return err
		}
		base := kindOf(cut) == kindBase
		if base && st.encoding.v1 && st.begun {
			return errNewHistory
		}
		if base && !allBases(cut) {
			st.at = nil // some views began a new history: all of them start over, as one
			continue
		}
		messages, seen := s.cache.messages(st.views, st.encoding, cut)
		for m := range messages {
			if err := st.out.send(m); err != nil {
				return err
			}
		}
		switch {
		case base:
		case behind:
			s.metrics.netted.Inc()
		default:
			s.metrics.fanout.Observe(time.Since(seen).Seconds())
		}
		st.at, st.begun = upperOf(cut), true
		if err := st.pause(ctx); err != nil {
			return err
		}
	}
}

func allBases(cut []core.Batch) bool {
	for _, b := range cut {
		if !b.IsBase() {
			return false
		}
	}
	return true
}

// next returns the next cut, and whether it was there already: then it holds
// everything that happened while the stream was sending or pausing.
func (st *stream) next(ctx context.Context) (cut []core.Batch, behind bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	// A follower looks before it waits, so that with a context that is over it
	// only looks.
	if cut, err := st.step(over); err == nil {
		return cut, true, nil
	}
	if cut, err = st.wait(ctx); err != nil || st.interval == 0 || !st.begun {
		return cut, false, err
	}
	// Something happened after the tick: the next one takes it, with everything
	// else until then.
	if err := st.pause(ctx); err != nil {
		return nil, false, err
	}
	cut, err = st.step(ctx)
	return cut, true, err
}

var over = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// step returns the cut after the stream's position as soon as there is one.
func (st *stream) step(ctx context.Context) ([]core.Batch, error) {
	for cut, err := range core.FollowCut(ctx, st.readers, st.at) {
		return cut, err
	}
	return nil, ctx.Err()
}

// wait is step that speaks when it takes long: soon if the client has nothing
// yet or a view has failed, and from then on to keep the connection alive.
func (st *stream) wait(ctx context.Context) ([]core.Batch, error) {
	var silent time.Duration
	said := st.begun // that there is nothing yet
	named := false   // what has failed
	for {
		patience := glance
		if !said {
			patience = firstWait
		}
		quiet, cancel := context.WithTimeout(ctx, patience)
		cut, err := st.step(quiet)
		cancel()
		switch {
		case err == nil || ctx.Err() != nil:
			return cut, err
		case !errors.Is(err, context.DeadlineExceeded):
			return nil, readError{err}
		}
		failed := st.failure() != nil
		if silent += patience; silent < keepAlive && said && (named || !failed) {
			continue
		}
		silent, said, named = 0, true, failed
		if err := st.speak(); err != nil {
			return nil, err
		}
		if !st.begun {
			continue // what it waits for is not to wait for a tick
		}
		if err := st.pause(ctx); err != nil {
			return nil, err
		}
	}
}

// pause waits for the next tick of the stream's interval. Ticks are multiples
// of the interval, so that streams with the same interval are at the same
// positions and share what they send.
func (st *stream) pause(ctx context.Context) error {
	if st.interval == 0 {
		return nil
	}
	now := time.Now().UnixNano()
	left := st.interval - time.Duration(now%int64(st.interval))
	for left > 0 {
		nap := min(left, keepAlive)
		timer := time.NewTimer(nap)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		if left -= nap; left > 0 {
			if err := st.out.idle(); err != nil {
				return err
			}
		}
	}
	return nil
}

// speak says why there is no cut, or repeats the position.
func (st *stream) speak() error {
	if st.encoding.v1 {
		return st.out.idle()
	}
	if problem := st.failure(); problem != nil {
		return st.out.send(problem.asMessage())
	}
	if problem := st.notReady(); problem != nil {
		return st.out.send(problem.asMessage())
	}
	var here []core.Batch
	for i, t := range st.at {
		// Nothing has been sent yet to a client that came with a token: it
		// counts only if the log knows it.
		b, err := st.readers[i].Read(t, t.Time)
		if err != nil || b.IsBase() {
			return st.out.idle() // there is a cut now; it comes next
		}
		here = append(here, b)
	}
	if here == nil {
		return st.out.idle()
	}
	for m := range st.encoding.messages(here) {
		if err := st.out.send(m); err != nil {
			return err
		}
	}
	st.begun = true
	return nil
}

// failure names the views that have stopped. Why is for the operator: it may
// tell about the database what strangers need not know. It is nil if none has.
func (st *stream) failure() *apiError {
	var names []string
	for _, r := range st.readers {
		if t, ok := r.(core.TroubledReader); ok && t.Trouble() != nil {
			names = append(names, r.View().Name)
		}
	}
	if names == nil {
		return nil
	}
	views, have := "view", "has"
	if len(names) > 1 {
		views, have = "views", "have"
	}
	return &apiError{http.StatusServiceUnavailable, "view_failed", fmt.Sprintf(
		"%s %s %s stopped; what you have is not wrong, but old; the stream goes on when that is mended", views, strings.Join(names, ", "), have)}
}

// notReady names the views because of which there is no cut: those that have
// nothing, or else those that are so far behind that others are no longer known
// at their time. It is nil if there is a cut.
func (st *stream) notReady() *apiError {
	at := core.EndOfTime
	var names []string
	for _, r := range st.readers {
		upper, _ := r.Frontier()
		if upper.Time < at {
			at, names = upper.Time, nil
		}
		if upper.Time == at {
			names = append(names, r.View().Name)
		}
	}
	last := at
	for i := 0; i < len(st.readers); i++ {
		switch t, ok := st.readers[i].Readable(last); {
		case !ok:
			return viewNotReady(names, at)
		case t < last:
			last, i = t, -1 // the others must be readable there, too
		}
	}
	return nil
}

// viewNotReady is what a stream says that waits for views: they have no data at
// all, or they are complete to a time and behind.
func viewNotReady(names []string, at core.Time) *apiError {
	views, have, are := "view", "has", "is"
	if len(names) > 1 {
		views, have, are = "views", "have", "are"
	}
	views += " " + strings.Join(names, ", ")
	message := fmt.Sprintf("%s %s no data yet; the stream goes on as soon as there is some", views, have)
	if at > 0 {
		message = fmt.Sprintf("%s %s complete to %v only, behind the other views; the stream goes on when that has changed", views, are, at)
	}
	return &apiError{http.StatusServiceUnavailable, "view_not_ready", message}
}
