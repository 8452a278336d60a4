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

// A subscription is what a stream is of. Streams of equal ones share everything
// but their connections. It is immutable.
type subscription struct {
	subscriptionKey
	readers []core.CutReader
}

type subscriptionKey struct {
	views    string // their names
	form     form
	interval time.Duration // 0: as soon as something happens
}

const (
	// keepAlive is how long a stream is silent before it says something. Proxies
	// give up on a connection after a minute.
	keepAlive = 15 * time.Second

	// glance is how often it is looked whether a view has failed.
	glance = keepAlive / 5
)

// errNothingNew says that there is no cut after a position.
var errNothingNew = errors.New("nothing new")

// next returns the cut that follows a position: everything that has happened
// since, as one; errNothingNew if nothing has. Another error is a failure of a
// log.
func (s *subscription) next(at position) ([]core.Batch, error) {
	for {
		cut, err := s.look(at)
		if err != nil || kindOf(cut) != kindBase || allBases(cut) {
			return cut, err
		}
		at = nil // some views began a new history: all of them start over, as one
	}
}

// look is a step of [core.FollowCut] that does not wait: a follower looks before
// it waits, so that with a context that is over it only looks.
func (s *subscription) look(at position) ([]core.Batch, error) {
	for cut, err := range core.FollowCut(endedContext, s.readers, at) {
		if errors.Is(err, context.Canceled) {
			break
		}
		return cut, err
	}
	return nil, errNothingNew
}

var endedContext = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func allBases(cut []core.Batch) bool {
	for _, b := range cut {
		if !b.IsBase() {
			return false
		}
	}
	return true
}

// breaksOff reports whether a cut ends a stream of version 1 that has begun: its
// view has begun a new history.
func (s *subscription) breaksOff(cut []core.Batch, begun bool) bool {
	return s.form.v1 && begun && kindOf(cut) == kindBase
}

// knows reports whether the logs can continue from a position.
func (s *subscription) knows(at position) bool { return at != nil && s.here(at) != nil }

// here returns the empty cut at a position, nil if a log does not know it.
func (s *subscription) here(at position) []core.Batch {
	var here []core.Batch
	for i, t := range at {
		b, err := s.readers[i].Read(t, t.Time)
		if err != nil || b.IsBase() {
			return nil
		}
		here = append(here, b)
	}
	return here
}

// tick returns the first multiple of the interval after a time. Streams with
// the same interval are at the same positions, therefore, and share what they
// are sent.
func (s *subscription) tick(after time.Time) time.Time {
	return after.Add(s.interval - time.Duration(after.UnixNano()%int64(s.interval)))
}

// words says why there is no cut after a position, or repeats the position.
func (s *subscription) words(at position) *frames {
	if s.form.v1 {
		return s.form.idleFrames()
	}
	if problem := s.failure(); problem != nil {
		f := s.form.say(problem.asMessage())
		f.failed = true
		return f
	}
	if problem := s.notReady(); problem != nil {
		return s.form.say(problem.asMessage())
	}
	// Nothing has been sent yet to a client that came with a token: it counts
	// only if the log knows it. Otherwise there is a cut by now; it comes next.
	if here := s.here(at); here != nil {
		m, _ := s.form.encoder(here).part()
		return s.form.say(m)
	}
	return s.form.idleFrames()
}

// failure names the views that have stopped. Why is for the operator: it may
// tell about the database what strangers need not know. It is nil if none has.
func (s *subscription) failure() *apiError {
	var names []string
	rest := "; what you have is not wrong, but old; the stream goes on when that is mended"
	for _, r := range s.readers {
		if t, ok := r.(core.TroubledReader); ok && t.Trouble() != nil {
			names = append(names, r.View().Name)
			if upper, _ := r.Frontier(); upper.IsZero() {
				rest = " before there was any data; the log of mzd says why; the stream begins when that is mended"
			}
		}
	}
	if names == nil {
		return nil
	}
	views, have := "view", "has"
	if len(names) > 1 {
		views, have = "views", "have"
	}
	return &apiError{status: http.StatusServiceUnavailable, code: "view_failed", message: fmt.Sprintf(
		"%s %s %s stopped%s", views, strings.Join(names, ", "), have, rest)}
}

// notReady names the views because of which there is no cut: those that have
// nothing, or else those that are so far behind that others are no longer known
// at their time. It is nil if there is a cut.
func (s *subscription) notReady() *apiError {
	at := core.EndOfTime
	var names []string
	for _, r := range s.readers {
		upper, _ := r.Frontier()
		if upper.Time < at {
			at, names = upper.Time, nil
		}
		if upper.Time == at {
			names = append(names, r.View().Name)
		}
	}
	last := at
	for i := 0; i < len(s.readers); i++ {
		switch t, ok := s.readers[i].Readable(last); {
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
	return &apiError{status: http.StatusServiceUnavailable, code: "view_not_ready", message: message}
}
