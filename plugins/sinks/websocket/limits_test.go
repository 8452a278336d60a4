package websocket_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

func TestTooManyConnectionsOfAnAddress(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",1]`)
	s := serve(t, websocket.Settings{MaxConnectionsPerAddress: 2}, f)
	first := open(t, s, "websocket", "/api/stream/top10", "")
	second := open(t, s, "ndjson", "/api/stream/top10", "")
	for _, c := range []*conn{first, second} {
		if _, err := c.next(); err != nil {
			t.Fatal(err)
		}
	}
	response, body := s.get(t, "/api/views/top10")
	if response.StatusCode != 429 || response.Header.Get("Retry-After") == "" || !strings.Contains(body, "too_many_from_address") {
		t.Errorf("got %d %s, want 429", response.StatusCode, body)
	}
	f.append(1001)
	if _, err := first.next(); err != nil {
		t.Errorf("the streams that are open end: %v", err)
	}
	second.close()
	for deadline := time.Now().Add(20 * time.Second); ; {
		response, _ := s.get(t, "/api/views/top10")
		if response.StatusCode == 200 {
			break // there is room again
		}
		if time.Now().After(deadline) {
			t.Fatalf("status %d long after a client left", response.StatusCode)
		}
	}
}

// Bases that slow clients are being sent are kept in memory up to a limit. Then
// those end that have taken longest.
func TestPinnedBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t, "top10")
		var rows []core.Row
		for i := range 20_000 {
			rows = append(rows, row(`["%0100d",0]`, i))
		}
		f.reset(1000, rows...)
		s := servePipes(t, websocket.Settings{MaxPinnedBytes: 5 << 20}, f)
		defer s.client.CloseIdleConnections()
		stall := func() *conn {
			c := open(t, s, "ndjson", "/api/stream/top10", "") // and does not read
			synctest.Wait()
			return c
		}
		stall()
		stall() // shares the base of the first
		time.Sleep(2 * time.Second)
		f.append(f.at+1, change{1, `["Bob",1]`})
		stall()
		if got, want := metric(t, s.Sink, "mzd_broadcast_closes_total", "1013"), 0.0; got != want {
			t.Errorf("%v streams ended within the limit, want %v", got, want)
		}
		time.Sleep(2 * time.Second)
		f.append(f.at+1, change{1, `["Bob",1]`})
		last := stall()
		if got, want := metric(t, s.Sink, "mzd_broadcast_closes_total", "1013"), 2.0; got != want {
			t.Errorf("%v streams ended beyond the limit, want %v: those of the oldest base", got, want)
		}
		m := newModel()
		if err := m.follow(last, f.at); err != nil || m.views["top10"].String() != f.now.String() {
			t.Errorf("the last one: %v", err)
		}
	})
}

// A stream that begins a moment after another is given the same base, and what
// has happened since.
func TestBasesAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t, "top10")
		var rows []core.Row
		for i := range 2000 {
			rows = append(rows, row(`["%0100d",0]`, i))
		}
		f.reset(1000, rows...)
		s := servePipes(t, websocket.Settings{}, f)
		defer s.client.CloseIdleConnections()
		for _, tt := range []struct {
			after     time.Duration
			timestamp string
			deltas    int
		}{
			{0, "1000", 0},
			{900 * time.Millisecond, "1000", 1},
			{200 * time.Millisecond, "1002", 0}, // too old by now
		} {
			time.Sleep(tt.after)
			if tt.after > 0 {
				f.append(f.at+1, change{1, `["Bob",1]`})
			}
			c, m := open(t, s, "websocket", "/api/stream/top10", ""), newModel()
			first, err := m.receive(c)
			if err != nil {
				t.Fatal(err)
			}
			if first.Type != "base" || first.Timestamp != tt.timestamp {
				t.Errorf("a %s at %s, want the base at %s", first.Type, first.Timestamp, tt.timestamp)
			}
			if err := m.follow(c, f.at); err != nil {
				t.Fatal(err)
			}
			if m.deltas != tt.deltas || m.views["top10"].String() != f.now.String() {
				t.Errorf("%d deltas, want %d", m.deltas, tt.deltas)
			}
			c.close()
		}
		// Once its history is gone, nobody is given a base that cannot be continued.
		f.reset(f.at+1, rows[:1500]...)
		c, m := open(t, s, "websocket", "/api/stream/top10", ""), newModel()
		if err := m.follow(c, f.at); err != nil || m.bases != 1 {
			t.Errorf("%d bases, %v, want 1", m.bases, err)
		}
	})
}
