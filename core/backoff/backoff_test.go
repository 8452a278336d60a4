package backoff_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mzdio/mzd/core/backoff"
)

func TestNextIsBounded(t *testing.T) {
	for _, c := range []struct {
		b      backoff.Backoff
		bounds []time.Duration // of the first waits; the last holds for all that follow
	}{
		{backoff.Backoff{}, []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 1600 * time.Millisecond, 3200 * time.Millisecond, 6400 * time.Millisecond, 12800 * time.Millisecond, 25600 * time.Millisecond, 30 * time.Second}},
		{backoff.Backoff{Min: time.Second, Max: 3 * time.Second}, []time.Duration{time.Second, 2 * time.Second, 3 * time.Second}},
		{backoff.Backoff{Min: time.Minute, Max: time.Second}, []time.Duration{time.Second}},
	} {
		for round := range 50 {
			largest := make([]time.Duration, len(c.bounds))
			for try := range 100 {
				i := min(try, len(c.bounds)-1)
				wait := c.b.Next()
				if wait < 0 || wait > c.bounds[i] {
					t.Fatalf("%+v: wait %d is %v, want at most %v", c.b, try, wait, c.bounds[i])
				}
				largest[i] = max(largest[i], wait)
			}
			if last := len(c.bounds) - 1; largest[last] < c.bounds[last]/2 {
				t.Errorf("%+v, round %d: none of many waits is above half of %v", c.b, round, c.bounds[last])
			}
			c.b.Reset()
		}
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		begun := time.Now()
		if err := backoff.Wait(ctx, time.Minute); err != nil || time.Since(begun) != time.Minute {
			t.Errorf("waited %v, %v; want a minute", time.Since(begun), err)
		}
		time.AfterFunc(time.Second, cancel)
		begun = time.Now()
		if err := backoff.Wait(ctx, time.Hour); !errors.Is(err, context.Canceled) || time.Since(begun) != time.Second {
			t.Errorf("waited %v, %v; want a second and context.Canceled", time.Since(begun), err)
		}
	})
}
