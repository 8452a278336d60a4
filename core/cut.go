package core

import (
	"context"
	"errors"
	"iter"
	"reflect"
)

// FollowCut follows several views as one picture: each step is a cut, one net
// batch for each reader in their order, all ending at one time. It is the
// largest time that is readable in all of them and not above any of their
// frontiers; a sealed view never delays a cut. Steps, waiting and restarts are
// those of [Reader.Follow], which is a cut of one.
//
// It looks before it waits: with a context that has ended it still gives the
// cut that is there already.
//
// from holds a token for each reader; nil starts all of them from a base.
func FollowCut(ctx context.Context, readers []CutReader, from []Token) iter.Seq2[[]Batch, error] {
	return func(yield func([]Batch, error) bool) {
		at := make([]Token, len(readers))
		copy(at, from)
		for {
			cut, moved, err := nextCut(readers, at)
			switch {
			case err != nil:
				yield(nil, err)
				return
			case cut != nil:
				for i, b := range cut {
					at[i] = b.Upper
				}
				if !yield(cut, nil) {
					return
				}
				if ctx.Err() != nil {
					yield(nil, ctx.Err())
					return
				}
			default:
				if err := waitAny(ctx, moved); err != nil {
					yield(nil, err)
					return
				}
			}
		}
	}
}

// nextCut returns the cut that follows the tokens, or nil and channels of which
// one is closed when it is worth looking again. Not only the reader that is
// furthest behind has one: any other may begin a new history below it.
func nextCut(readers []CutReader, from []Token) (cut []Batch, moved []<-chan struct{}, err error) {
	at := EndOfTime
	target := make([]Token, len(readers))
	moved = make([]<-chan struct{}, len(readers))
	for i, r := range readers {
		if target[i], moved[i] = r.Frontier(); target[i].IsZero() {
			return nil, moved[i : i+1], nil
		}
		at = min(at, target[i].Time)
	}
	if !readableInAll(readers, &at) {
		return nil, moved, nil
	}
	news := false
	for i := range target {
		target[i].Time = at
		news = news || target[i] != from[i]
	}
	if !news {
		return nil, moved, nil
	}
	for i, r := range readers {
		b, err := r.Read(from[i], at)
		if errors.Is(err, ErrNotReadable) {
			// Since its frontier was looked at the log has begun a new history, and
			// has moved, or has forgotten the time, and then others have to come.
			return nil, moved, nil
		}
		if err != nil {
			return nil, nil, err
		}
		cut = append(cut, b)
	}
	return cut, nil, nil
}

// waitAny waits until one of the channels is closed, or ctx ends; then it
// returns the error of ctx.
func waitAny(ctx context.Context, moved []<-chan struct{}) error {
	if len(moved) == 1 { // by far the most common, and by far cheaper
		select {
		case <-moved[0]:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	cases := make([]reflect.SelectCase, 0, 1+len(moved))
	receive := func(c <-chan struct{}) {
		cases = append(cases, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(c)})
	}
	receive(ctx.Done())
	for _, c := range moved {
		receive(c)
	}
	if chosen, _, _ := reflect.Select(cases); chosen == 0 {
		return ctx.Err()
	}
	return nil
}

// readableInAll lowers t to the largest time that all readers can be read at.
func readableInAll(readers []CutReader, t *Time) bool {
	for agreed := false; !agreed; {
		agreed = true
		for _, r := range readers {
			lower, ok := r.Readable(*t)
			if !ok {
				return false
			}
			if lower != *t {
				*t, agreed = lower, false
			}
		}
	}
	return true
}
