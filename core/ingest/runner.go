package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/backoff"
)

// Options are the options of [New].
type Options struct {
	Logger  *slog.Logger    // nil: none
	Backoff backoff.Backoff // waits between tries; its zero value is sensible
}

// A Runner runs one source: it hands it the cursor, lands what it emits, and
// runs it again when it ends, after a while if it ended badly. Its Run is
// called once; Status may be called at any time. Its metrics are registered by
// whoever made it: it is a prometheus.Collector.
type Runner struct {
	name    string
	src     core.Source
	to      Landing
	log     *slog.Logger
	wait    backoff.Backoff
	metrics metrics

	mu      sync.Mutex // guards everything below
	status  Status     // what Status returns, less what source and landing are asked for
	landErr error      // of the landing, since the source was run
}

// Abilities of sources, and of the errors that their Run returns.
type (
	// rejecter is a source that leaves events out and counts them by reason. All
	// its reasons are in the map from the start.
	rejecter interface{ Rejected() map[string]uint64 }
	// reasoner is an error that knows which of the Reason constants it is.
	reasoner interface{ Reason() string }
	// retryAfterer is an error that knows when not to come back before.
	retryAfterer interface{ RetryAfter() time.Duration }
)

// Why a source is run again; the reason label of its reconnects.
const (
	ReasonEnded   = "ended"   // it came to its end, as streams do
	ReasonStalled = "stalled" // it heard nothing for too long
	ReasonNetwork = "network" // the other side cannot be reached, or went away
	ReasonRefused = "refused" // the other side answered, with an error
	ReasonLanding = "landing" // its events could not be landed
	ReasonOther   = "other"
)

var reasons = []string{ReasonEnded, ReasonStalled, ReasonNetwork, ReasonRefused, ReasonLanding, ReasonOther}

const (
	// steadyRun is how long a run takes at least to count as a success: if it
	// ended as streams do, the next one begins at once, and if it brought events,
	// waits begin small again. A shorter one counts as a failed try whatever it
	// brought. Otherwise a server that ends each stream after the first event
	// would be called all the time.
	steadyRun = 10 * time.Second
	// fullRetry is the shortest wait after ErrFull: somebody has to act first.
	fullRetry = time.Minute
	// maxClockSkew is how far ahead of our clock an event may be to count as the
	// newest. One from a clock that is years ahead would hide any lag for years.
	maxClockSkew = time.Hour
)

// New returns a runner of the source called name. It starts nothing.
func New(name string, src core.Source, to Landing, o Options) *Runner {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Runner{
		name:    name,
		src:     src,
		to:      to,
		log:     o.Logger.With("source", name),
		wait:    o.Backoff,
		metrics: newMetrics(name),
		status: Status{
			Name:       name,
			State:      Connecting,
			Since:      time.Now(),
			Reconnects: make(map[string]uint64),
			Rejected:   make(map[string]uint64),
		},
	}
	for _, reason := range reasons {
		r.status.Reconnects[reason] = 0
	}
	for _, reason := range rejections {
		r.status.Rejected[reason] = 0
	}
	return r
}

// Run runs the source until ctx ends, whose error it returns then, or until
// source or landing fail with an error that wraps [core.ErrPermanent]. The
// landing stays open.
func (r *Runner) Run(ctx context.Context) error {
	for {
		before := r.begin()
		started := time.Now()
		steady := time.AfterFunc(steadyRun, r.works) // a quiet source need not say so
		err := r.src.Run(ctx, r.to.Position().Cursor, r.emit)
		steady.Stop()
		if ctx.Err() != nil {
			r.enter(Stopped, nil)
			return ctx.Err()
		}
		reason, err := r.explain(err)
		if errors.Is(err, core.ErrPermanent) {
			r.enter(Failed, err)
			return fmt.Errorf("source %s: %w", r.name, err)
		}
		ran := time.Since(started)
		if ran >= steadyRun && r.events() > before {
			r.wait.Reset()
		}
		pause := r.pause(err, ran)
		r.again(reason, err, pause)
		if err := backoff.Wait(ctx, pause); err != nil {
			r.enter(Stopped, nil)
			return err
		}
	}
}

// explain returns the reason for which the source ended, and the error behind
// it, nil if that is routine.
func (r *Runner) explain(err error) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.landErr != nil {
		return ReasonLanding, r.landErr // whatever the source made of it
	}
	if err == nil {
		return ReasonEnded, nil
	}
	var why reasoner
	if errors.As(err, &why) && slices.Contains(reasons, why.Reason()) {
		return why.Reason(), err
	}
	return ReasonOther, err
}

// pause returns how long to wait before the source is run again.
func (r *Runner) pause(err error, ran time.Duration) time.Duration {
	if err == nil && ran >= steadyRun {
		return 0
	}
	pause := r.wait.Next()
	if errors.Is(err, ErrFull) {
		pause += fullRetry
	}
	var later retryAfterer
	if errors.As(err, &later) {
		pause += later.RetryAfter()
	}
	return pause
}

// emit is what the source is given to emit with.
func (r *Runner) emit(ctx context.Context, events ...core.Event) error {
	landed, err := r.to.Land(ctx, events)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			r.landErr = err
		}
		return err
	}
	s := &r.status
	s.Events += uint64(landed.Events)
	s.Bytes += uint64(landed.Bytes)
	s.Duplicates += uint64(landed.Duplicates)
	for reason, n := range landed.Rejected {
		if s.Rejected[reason] == 0 {
			r.log.Warn("event refused: it cannot be landed", "reason", reason)
		}
		s.Rejected[reason] += uint64(n)
	}
	future := time.Now().Add(maxClockSkew)
	for i := range events {
		if at := events[i].Time; at.After(s.LastEvent) && at.Before(future) {
			s.LastEvent = at
		}
	}
	if s.State != Streaming {
		s.State, s.Since = Streaming, time.Now()
	}
	if len(events) > 0 || s.Error == "" {
		r.recovered()
	}
	return nil
}

// works notes that the source has been running for a while.
func (r *Runner) works() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status.State == Streaming {
		r.recovered()
	}
}

// recovered notes that the trouble is over, if there was any: that a source is
// connected, or a command runs, does not mean that it works. r.mu is held.
func (r *Runner) recovered() {
	if r.status.Error != "" {
		r.log.Info("source streams again")
	}
	r.status.Reason, r.status.Error = "", ""
}

// begin notes that the source is run, and returns how many events it had.
func (r *Runner) begin() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.landErr = nil
	// The error of the last try stays visible until the next one works.
	r.status.State, r.status.Since, r.status.NextTry = Connecting, time.Now(), time.Time{}
	return r.status.Events
}

// again notes that the source will be run again after the pause.
func (r *Runner) again(reason string, err error, pause time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	args := []any{"reason", reason, "wait", pause.Round(time.Millisecond).String(), "error", err}
	switch {
	case err == nil:
		r.log.Debug("source ended its stream, goes on with the next", "wait", pause.String())
	case err.Error() == r.status.Error: // of the last try, and told
		r.log.Debug("source ended again", args...)
	default:
		r.log.Warn("source ended, will be tried again", args...)
	}
	r.status.Reconnects[reason]++
	r.set(Waiting, err)
	r.status.Reason = reason
	r.status.NextTry = time.Now().Add(pause)
}

func (r *Runner) enter(state State, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set(state, err)
}

// set changes the state; r.mu is held.
func (r *Runner) set(state State, err error) {
	s := &r.status
	s.State, s.Since, s.Reason, s.Error, s.NextTry = state, time.Now(), "", "", time.Time{}
	if err != nil {
		s.Error = err.Error()
	}
}

func (r *Runner) events() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status.Events
}

// Status returns how the source is doing.
func (r *Runner) Status() Status {
	r.mu.Lock()
	s := r.status
	s.Rejected = maps.Clone(s.Rejected)
	s.Reconnects = maps.Clone(s.Reconnects)
	r.mu.Unlock()
	if src, ok := r.src.(rejecter); ok {
		for reason, n := range src.Rejected() {
			s.Rejected[reason] += n
		}
	}
	p := r.to.Position()
	s.Target, s.LandedBytes, s.Cursor = p.Target, p.Bytes, p.Cursor
	return s
}
