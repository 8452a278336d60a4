package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/ingest"
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

// knower is a source that knows IDs, if it is asked for several at once.
type knower struct{ core.Source }

func (knower) Identify([]byte) string { return "asked for one" }

func (knower) IdentifyAll(events [][]byte) []string {
	var ids []string
	for _, e := range events {
		ids = append(ids, "id "+string(e))
	}
	return ids
}

// TestLateIdentifies asks a plugin that opens for IDs, and one that does not.
func TestLateIdentifies(t *testing.T) {
	for _, broken := range []error{nil, errors.New("exit status 3")} {
		var i ingest.BatchIdentifier = lateIdentifier{lateSource{&late[core.Source]{
			turn:    make(chan struct{}, 1),
			connect: func(context.Context) (core.Source, error) { return knower{}, broken },
		}}}
		want := []string{"id a", "id b"}
		if broken != nil {
			want = []string{"", ""}
		}
		if got := i.IdentifyAll([][]byte{[]byte("a"), []byte("b")}); !slices.Equal(got, want) {
			t.Errorf("%v: got %q, want %q", broken, got, want)
		}
	}
}
