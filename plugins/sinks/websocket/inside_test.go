package websocket

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mzdio/mzd/schema"
)

// Thousands who say nothing do not keep the waiter busy with looking whose time is
// over.
func TestSilenceIsCheap(t *testing.T) {
	const strangers, patience = 2000, 2 * time.Second // one more each millisecond
	srv := &server{backend: goroutines{}, Sink: &Sink{
		log: slog.New(slog.DiscardHandler), metrics: newMetrics(),
		requestTimeout: patience, settings: Settings{StallTimeout: schema.Duration(time.Minute)},
	}}
	w, err := newWaiter(srv)
	if err != nil {
		t.Fatal(err)
	}
	w.poller = idlePoller{}
	begin, sweeps := time.Now(), 0
	for i := range 2 * strangers {
		now := begin.Add(time.Duration(i) * time.Millisecond)
		if !w.due.IsZero() && !now.Before(w.due) {
			w.giveUp(now)
			sweeps++
		}
		w.arrive(&conn{wire: silentWire{}, out: &delivery{marked: now}}, now)
	}
	open := len(w.conns) - len(w.free)
	if most := strangers + int(sweepEvery/time.Millisecond) + 1; open > most {
		t.Errorf("%d strangers are there, want at most %d", open, most)
	}
	if most := int(patience/sweepEvery) + 1; sweeps > most {
		t.Errorf("%d sweeps over %d strangers in %v, want at most %d", sweeps, strangers, patience, most)
	}
}

// A silentWire has nothing to read and no room.
type silentWire struct{}

func (silentWire) read([]byte) (int, error)              { return 0, errNothing }
func (silentWire) write([]byte, bool) (int, bool, error) { return 0, true, nil }
func (silentWire) finish()                               {}
func (silentWire) close()                                {}

// An idlePoller sees nothing happen.
type idlePoller struct{ poller }

func (idlePoller) watch(wire, int, bool) error { return nil }
func (idlePoller) forget(wire)                 {}

// A brokenDoor fails in passing a few times, and is closed then.
type brokenDoor struct{ failures int }

func (d *brokenDoor) accept() ([]arrival, error) {
	if d.failures == 0 {
		return nil, net.ErrClosed
	}
	d.failures--
	return nil, passingError{errors.New("too many open files")}
}

func (d *brokenDoor) close() {}

// Who cannot accept connections says so once, and tries again.
func TestAcceptingGoesOn(t *testing.T) {
	var log bytes.Buffer
	d := &brokenDoor{failures: 3}
	srv := &server{door: d, Sink: &Sink{log: slog.New(slog.NewTextHandler(&log, nil))}}
	if err := srv.serveDoor(nil); !errors.Is(err, net.ErrClosed) || d.failures != 0 {
		t.Errorf("ended with %v before %d more failures", err, d.failures)
	}
	if got := strings.Count(log.String(), "too many open files"); got != 1 {
		t.Errorf("said %d times: %s", got, &log)
	}
}
