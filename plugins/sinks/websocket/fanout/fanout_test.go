//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
)

// The servers are processes of this binary.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == serveArgument {
		if err := serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // or each of them takes a second to end
	os.Exit(m.Run())
}

// What is measured is what it says: every message arrives at every client, and
// the bare writers send what the sink does.
func TestMeasurements(t *testing.T) {
	const clients, bursts = 30, 4
	for _, tt := range []struct {
		scenario
		frames map[string]int64 // a burst and client
	}{
		{scenario{clients: clients, size: 300, burst: 1}, map[string]int64{kindEach: 1, kindSink: 1}},
		{scenario{clients: clients, size: 300, burst: 16}, map[string]int64{kindEach: 16, kindJoined: 1}},
		{scenario{clients: clients, size: 300, burst: 1, rate: 100}, map[string]int64{kindEach: 1}},
		{scenario{clients: clients, size: 300, burst: 1, tls: true}, map[string]int64{kindSink: 1}},
		{scenario{clients: clients, rows: 1000}, nil},
	} {
		t.Run(tt.String(), func(t *testing.T) {
			j, err := rehearse(tt.scenario)
			if err != nil {
				t.Fatal(err)
			}
			if h, _ := parseFrame(j.One); tt.size > 0 && h.payload != tt.size {
				t.Errorf("a message has %d bytes, want %d", h.payload, tt.size)
			}
			if got := bytes.Count(j.Many, []byte(`["010000`)); tt.burst > 1 && got != tt.burst {
				t.Errorf("%d changes in the delta of a burst, want %d", got, tt.burst)
			}
			if got := bytes.Count(j.Hello, []byte(`["0000`)); got != tt.rows {
				t.Errorf("%d rows in the base, want %d", got, tt.rows)
			}
			results := make(map[string][]result)
			for _, j.Kind = range tt.kinds() {
				j.TLS = tt.tls && j.Kind == kindSink
				r, err := measure(tt.scenario, j, bursts)
				if err != nil {
					t.Fatal(err)
				}
				results[j.Kind] = []result{r}
				if r.cpu <= 0 || r.took <= 0 || r.deliveries != tt.burst*bursts*clients {
					t.Errorf("%s: %+v", j.Kind, r)
				}
				if want := tt.frames[j.Kind] * bursts * clients; want > 0 && r.frames != want {
					t.Errorf("%s: %d frames, want %d", j.Kind, r.frames, want)
				}
				if want := int64(len(j.Hello)) * clients; tt.size == 0 && r.bytes != want {
					t.Errorf("%s: %d bytes, want %d", j.Kind, r.bytes, want)
				}
			}
			var out strings.Builder
			report(&out, tt.scenario, j, results, []string{machineLoad()})
			t.Log(out.String())
		})
	}
}

// The clients understand frames wherever they are cut.
func TestFramesInPieces(t *testing.T) {
	frame := func(first byte, payload string) string {
		switch n := len(payload); {
		case n < 126:
			return string([]byte{first, byte(n)}) + payload
		case n < 1<<16:
			return string([]byte{first, 126, byte(n >> 8), byte(n)}) + payload
		default:
			return string([]byte{first, 127, 0, 0, 0, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)}) + payload
		}
	}
	message := func(at, size int) string {
		return fmt.Sprintf(`{"type":"delta","timestamp":"%d",%s}`, at, strings.Repeat(" ", size))
	}
	long := message(3, 70_000)
	stream := "HTTP/1.1 101 Switching Protocols\r\n\r\n" +
		frame(0x81, message(1, 10)) + frame(0x89, "") + frame(0x81, message(2, 300)) +
		frame(0x01, long[:1000]) + frame(0x8a, "pong") + frame(0x00, long[1000:2000]) + frame(0x80, long[2000:]) +
		frame(0x81, message(4, 0))
	for size := 1; size < 700; size++ {
		cs, c := &tally{goal: 4}, &client{upgrade: true}
		var times []uint64
		for rest := []byte(stream); len(rest) > 0; {
			n := min(size, len(rest))
			before := c.time
			if err := cs.receive(c, rest[:n]); err != nil {
				t.Fatal(err)
			}
			if rest = rest[n:]; c.time != before {
				times = append(times, c.time)
			}
		}
		if c.time != 4 || c.rest != 0 || len(c.head) != 0 || cs.reached != 1 || cs.open != 1 || cs.frames != 6 {
			t.Fatalf("in pieces of %d: %+v, %d frames, %d open, %d at the goal", size, c, cs.frames, cs.open, cs.reached)
		}
		if size == 1 && fmt.Sprint(times) != "[1 2 3 4]" {
			t.Errorf("the times are %v", times)
		}
	}
}
