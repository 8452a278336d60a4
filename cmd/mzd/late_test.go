package main

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mzdio/mzd/core"
)

// TestLateOneTries lets many wait for a plugin that does not open: one tries, and
// what comes of it is for all of them.
func TestLateOneTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		broken := errors.New("exit status 3")
		l := &late[core.Sink]{turn: make(chan struct{}, 1), connect: func(context.Context) (core.Sink, error) {
			tries++
			<-time.After(time.Second)
			return nil, broken
		}}
		for round := 1; round <= 3; round++ {
			var getting sync.WaitGroup
			for range 8 {
				getting.Go(func() {
					if _, err := l.get(t.Context()); !errors.Is(err, broken) {
						t.Errorf("got %v, want %v", err, broken)
					}
				})
			}
			getting.Wait()
			if s := l.state(); tries != round || s.Restarts != uint64(round-1) || s.Err != broken {
				t.Errorf("round %d: %d tries, %+v", round, tries, s)
			}
		}
	})
}
