// Package backoff says how long to wait before the next try.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is an exponential backoff with full jitter: the n-th wait is uniform
// between zero and min(Max, Min*2^n), so that many who failed together do not
// come back together (M. Brooker, "Exponential Backoff And Jitter", AWS
// Architecture Blog, 2015). The zero value waits up to 100 ms first and up to
// 30 s later. It belongs to one goroutine.
type Backoff struct {
	Min time.Duration // bound of the first wait; 0: 100 ms
	Max time.Duration // bound of every wait; 0: 30 s

	tries int
}

// Next returns the next wait.
func (b *Backoff) Next() time.Duration {
	bound, limit := b.Min, b.Max
	if bound <= 0 {
		bound = 100 * time.Millisecond
	}
	if limit <= 0 {
		limit = 30 * time.Second
	}
	for range b.tries {
		if bound >= limit {
			break
		}
		bound *= 2
	}
	b.tries++
	return rand.N(min(bound, limit) + 1)
}

// Reset makes the next wait a first one again. Call it after a success.
func (b *Backoff) Reset() { b.tries = 0 }

// Wait waits for d, or until ctx ends and then returns its error.
func Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
