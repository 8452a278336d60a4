package mz

import (
	"context"
	"slices"
	"time"
)

// lookEvery is how often a stream looks whether the names of what it follows still
// stand for it.
const lookEvery = time.Minute

// errDisplaced ends a stream whose names stand for something else.
var errDisplaced = &Error{reason: Dropped, retryable: true, message: "it was dropped, or a name that it is made of was, or stands for another object now; " +
	"it is followed again when it exists again"}

// lookAfter begins to look after the stream's names, until stopLooking, which waits
// for it. What a server does with a stream whose view was dropped depends on its
// release: before v0.43 it falls silent, v0.70 still goes on with the old view if
// that was not materialized or had an index, and later ones end it. Where the view
// has only lost its name, because it was renamed or two schemas swapped theirs, the stream
// goes on in all of them, with what nobody else sees under that name any more.
func (s *Stream) lookAfter(ctx context.Context, connect func(context.Context) (*wire, error)) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	s.stopLooking = func() {
		cancel()
		<-done
	}
	go func() {
		defer close(done)
		again := time.NewTicker(lookEvery)
		defer again.Stop()
		for {
			select {
			case <-again.C:
			case <-ctx.Done():
				return
			}
			w, err := connect(ctx)
			if err != nil {
				continue // if the server is gone the stream notices itself
			}
			same, err := s.stands(ctx, w)
			w.close()
			if err == nil && !same {
				s.displaced.Store(true)
				s.wire.conn.Close() // whoever reads from it sees why
				return
			}
		}
	}()
}

// stands reports whether all the objects that the target's names stood for are there
// and have these names. More of them, in other schemas, are none of the stream's.
func (s *Stream) stands(ctx context.Context, w *wire) (bool, error) {
	now, err := w.first(ctx, s.catalog...)
	if err != nil {
		return false, err
	}
	missing := func(object string) bool { return !slices.Contains(now, object) }
	return !slices.ContainsFunc(s.objects, missing), nil
}
