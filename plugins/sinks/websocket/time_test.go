package websocket_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ws "github.com/coder/websocket"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
	"github.com/mzdio/mzd/schema"
)

// The tests of this file run in bubbles in which time is fake, over pipes that
// hold nothing: a stream is blocked until its client reads.

func TestIntervals(t *testing.T) {
	for transport := range transports {
		t.Run(transport, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFeed(t, "top10")
				f.reset(1000, `["Ada",0]`)
				s := servePipes(t, websocket.Settings{}, f)
				time.Sleep(70 * time.Millisecond) // off the grid
				c, m := open(t, s, transport, "/api/stream/top10?interval=500ms", ""), newModel()
				if err := m.follow(c, 1000); err != nil {
					t.Fatal(err)
				}
				ctx, stop := context.WithCancel(t.Context())
				var feeder sync.WaitGroup
				defer feeder.Wait()
				defer stop()
				feeder.Go(func() { // changes every 30 ms
					for i := 0; ctx.Err() == nil; i++ {
						f.append(f.at+1, change{-1, row(`["Ada",%d]`, i)}, change{1, row(`["Ada",%d]`, i+1)})
						time.Sleep(30 * time.Millisecond)
					}
				})
				last := time.Time{}
				for range 10 {
					msg, err := m.receive(c)
					if err != nil {
						t.Fatal(err)
					}
					now := time.Now()
					if rest := now.UnixNano() % int64(500*time.Millisecond); rest != 0 {
						t.Errorf("a message came %v after a tick", time.Duration(rest))
					}
					if now == last {
						t.Error("two messages at one tick")
					}
					if got, want := len(msg.Inserted), 1; got != want {
						t.Errorf("%d rows inserted, want %d: the delta is not net", got, want)
					}
					last = now
				}
				if got, want := m.deltas, 10; got != want {
					t.Errorf("%d deltas, want %d", got, want)
				}
			})
		})
	}
}

func TestIntervalOfAQuietView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t, "top10")
		f.reset(1000, `["Ada",0]`)
		s := servePipes(t, websocket.Settings{}, f)
		c, m := open(t, s, "ndjson", "/api/stream/top10?interval=1s", ""), newModel()
		if err := m.follow(c, 1000); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3300 * time.Millisecond)
		f.append(1001, change{1, `["Bob",1]`})
		time.Sleep(100 * time.Millisecond)
		f.append(1002, change{1, `["Cleo",1]`})
		msg, err := m.receive(c)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := time.Now().UnixMilli()%1000, int64(0); got != want {
			t.Errorf("the message came %d ms after a tick", got)
		}
		if got, want := len(msg.Inserted), 2; got != want {
			t.Errorf("%d rows inserted, want %d: what came before the tick belongs to it", got, want)
		}
	})
}

func TestQuietStreamsSpeak(t *testing.T) {
	for transport := range transports {
		for path, want := range map[string]time.Duration{
			"/api/stream/top10":             websocket.KeepAlive,
			"/api/stream/top10?interval=1m": time.Minute + websocket.KeepAlive,
		} {
			t.Run(transport+path, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFeed(t, "top10")
					f.reset(1000, `["Ada",0]`)
					s := servePipes(t, websocket.Settings{}, f)
					c, m := open(t, s, transport, path, ""), newModel()
					if err := m.follow(c, 1000); err != nil {
						t.Fatal(err)
					}
					for range 3 {
						before := time.Now()
						msg, err := m.receive(c)
						if err != nil {
							t.Fatal(err)
						}
						if msg.Type != "progress" || msg.Timestamp != "1000" {
							t.Errorf("got %v, want progress at 1000", msg)
						}
						if got := time.Since(before); got > want {
							t.Errorf("silent for %v, want at most %v", got, want)
						}
					}
				})
			})
		}
	}
}

func TestAtMostOneMessageInAnInterval(t *testing.T) {
	for transport := range transports {
		for _, busy := range []bool{true, false} {
			t.Run(fmt.Sprint(transport, "/busy=", busy), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFeed(t, "top10")
					f.reset(1000, `["Ada",0]`)
					s := servePipes(t, websocket.Settings{}, f)
					time.Sleep(7 * time.Minute) // off the grid
					c, m := open(t, s, transport, "/api/stream/top10?interval=1h", ""), newModel()
					if err := m.follow(c, 1000); err != nil {
						t.Fatal(err)
					}
					ctx, stop := context.WithCancel(t.Context())
					var feeder sync.WaitGroup
					defer feeder.Wait()
					defer stop()
					feeder.Go(func() {
						for i := 0; busy && ctx.Err() == nil; i++ {
							f.append(f.at+1, change{1, row(`["Ada",%d]`, i)})
							time.Sleep(time.Minute)
						}
					})
					last := time.Now().Truncate(time.Hour)
					for range 3 {
						if _, err := m.receive(c); err != nil {
							t.Fatal(err)
						}
						if got, want := time.Now().Truncate(time.Hour), last.Add(time.Hour); got != want {
							t.Errorf("a message in the hour of %v, want one in that of %v", got, want)
						}
						last = last.Add(time.Hour)
					}
				})
			})
		}
	}
}

func TestStreamsWaitForTheFirstPicture(t *testing.T) {
	for transport := range transports {
		for _, version := range []string{"/api/stream/", "/api/v1/stream/"} {
			t.Run(transport+version, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFeed(t, "top10")
					s := servePipes(t, websocket.Settings{}, f)
					c := open(t, s, transport, version+"top10", "") // answers at once
					go func() {
						time.Sleep(50 * time.Second)
						f.reset(1000, `["Ada",1]`)
					}()
					var seen []string
					for len(seen) == 0 || !strings.Contains(seen[len(seen)-1], `"Ada"`) {
						text, err := c.next()
						if err != nil {
							t.Fatalf("%v after %q", err, seen)
						}
						seen = append(seen, text)
					}
					// Clients of version 1 know no errors.
					want := map[string]int{"/api/stream/": 4, "/api/v1/stream/": 0}[version] // at 2, 17, 32 and 47 s
					const notReady = `{"type":"error","code":"view_not_ready","message":"view top10 has no data yet; the stream goes on as soon as there is some"}`
					if got := seen[:len(seen)-1]; !slices.Equal(got, slices.Repeat([]string{notReady}, want)) {
						t.Errorf("before the base: got %q, want %d times %s", got, want, notReady)
					}
				})
			})
		}
	}
}

func TestWhatHoldsACutBackIsNamed(t *testing.T) {
	for transport := range transports {
		t.Run(transport, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b, c := newFeed(t, "a"), newFeed(t, "b"), newFeed(t, "c")
				a.reset(1000, `["x",1]`)
				s := servePipes(t, websocket.Settings{}, a, b, c)
				stream := open(t, s, transport, "/api/stream?view=a&view=b&view=c&interval=1h", "")
				defer time.AfterFunc(24*time.Hour, stream.close).Stop() // or silence would be endless
				next := func(want string) {
					t.Helper()
					if got, err := stream.next(); err != nil || !strings.Contains(got, want) {
						t.Fatalf("got %s, %v, want %s", got, err, want)
					}
				}
				begun := time.Now()
				next(`"message":"views b, c have no data yet;`)
				if got, limit := time.Since(begun), 5*time.Second; got > limit {
					t.Errorf("silent for %v at first, want at most %v", got, limit)
				}
				b.reset(1000, `["y",1]`)
				next(`"message":"view c has no data yet;`)
				c.reset(900, `["z",1]`)
				next(`"message":"view c is complete to 900 only,`)
				before := time.Now()
				c.append(1000)
				next(`"type":"base","timestamp":"1000"`)
				if got := time.Since(before); got != 0 {
					t.Errorf("the base came after %v: it waited for a tick", got)
				}
				// Afterwards, too: b has a new history that begins where a and c have not been.
				b.reset(1100, `["y",2]`)
				next(`"message":"views a, c are complete to 1000 only,`)
				a.append(1100)
				c.append(1100)
				next(`"type":"base","timestamp":"1100"`)
				if got, want := metric(t, s.Sink, "mzd_broadcast_messages_total", "error"), 4.0; got != want {
					t.Errorf("%v errors counted, want %v", got, want)
				}
			})
		})
	}
}

// A client that comes back to a view in which nothing happens hears that it is
// where it was.
func TestResumingAQuietView(t *testing.T) {
	for transport := range transports {
		t.Run(transport, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFeed(t, "top10")
				f.reset(1000, `["Ada",0]`)
				s := servePipes(t, websocket.Settings{}, f)
				c := open(t, s, transport, "/api/stream/top10", f.token().String())
				defer time.AfterFunc(24*time.Hour, c.close).Stop() // or silence would be endless
				want := `{"type":"progress","view":"top10","timestamp":"1000","token":"` + f.token().String() + `","checksum":"` + f.sum() + `"}`
				for n := range 2 {
					if got, err := c.next(); err != nil || got != want {
						t.Fatalf("got %s, %v, want %s", got, err, want)
					}
					synctest.Wait()
					if got, want := metric(t, s.Sink, "mzd_broadcast_messages_total", "progress"), float64(n+1); got != want {
						t.Errorf("%v messages counted, want %v", got, want)
					}
				}
			})
		})
	}
}

func TestSlowReadersGetNetDeltasAndHoldNobodyUp(t *testing.T) {
	for transport := range transports {
		t.Run(transport, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFeed(t, "top10")
				f.reset(1000, `["Ada",0]`)
				s := servePipes(t, websocket.Settings{}, f)
				slow, slowModel := open(t, s, transport, "/api/stream/top10", ""), newModel()
				fast, fastModel := open(t, s, transport, "/api/stream/top10", ""), newModel()
				if err := errors.Join(slowModel.follow(slow, 1000), fastModel.follow(fast, 1000)); err != nil {
					t.Fatal(err)
				}
				const changes = 1000
				for i := range changes {
					at := f.at + 1
					f.append(at, change{-1, row(`["Ada",%d]`, i)}, change{1, row(`["Ada",%d]`, i+1)})
					if err := fastModel.follow(fast, at); err != nil {
						t.Fatal(err)
					}
				}
				if got, want := fastModel.deltas, changes; got != want {
					t.Errorf("the fast reader got %d deltas, want %d", got, want)
				}
				time.Sleep(time.Minute)
				if err := slowModel.follow(slow, f.at); err != nil {
					t.Fatal(err)
				}
				if got, want := slowModel.views["top10"].String(), f.now.String(); got != want {
					t.Errorf("the slow reader has %s, want %s", got, want)
				}
				// One delta was stuck in the pipe, and a few may be in the client's
				// buffer of 4 KiB.
				if got := slowModel.deltas; got > 30 {
					t.Errorf("the slow reader got %d deltas, want few", got)
				}
				if got := metric(t, s.Sink, "mzd_broadcast_netted_batches_total"); got == 0 {
					t.Error("no netted batch was counted")
				}
			})
		})
	}
}

func TestAStalledClientIsGivenUp(t *testing.T) {
	for transport := range transports {
		t.Run(transport, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFeed(t, "top10")
				f.reset(1000, `["Ada",0]`)
				s := servePipes(t, websocket.Settings{StallTimeout: schema.Duration(time.Minute)}, f)
				c, m := open(t, s, transport, "/api/stream/top10", ""), newModel()
				if err := m.follow(c, 1000); err != nil {
					t.Fatal(err)
				}
				big := strings.Repeat("x", 64<<10) // more than a client's buffers
				f.append(1001, change{1, row(`["%s",0]`, big)}, change{1, row(`["%s",1]`, big)})
				time.Sleep(59 * time.Second)
				if got, want := metric(t, s.Sink, "mzd_broadcast_clients"), 1.0; got != want {
					t.Errorf("%v clients before the timeout, want %v", got, want)
				}
				time.Sleep(2 * time.Second)
				if got, want := metric(t, s.Sink, "mzd_broadcast_clients"), 0.0; got != want {
					t.Errorf("%v clients after the timeout, want %v", got, want)
				}
				if got, want := metric(t, s.Sink, "mzd_broadcast_closes_total", "4000"), 1.0; got != want {
					t.Errorf("%v stalled clients counted, want %v", got, want)
				}
			})
		})
	}
}

// A client that takes a little every second is slow. It gets everything.
func TestASlowClientIsNotGivenUp(t *testing.T) {
	const total, taken = 3 << 20, 10 << 10
	var rows []core.Row
	for i := range total / 100 {
		rows = append(rows, row(`["%0100d",0]`, i))
	}
	for _, path := range []string{"/api/stream/top10", "/api/v1/stream/top10", "/api/views/top10"} {
		for _, accept := range []string{"websocket", "text/event-stream", ""} {
			t.Run(path+"/"+accept, func(t *testing.T) {
				if strings.Contains(path, "views") && accept != "" {
					t.Skip("a snapshot is no stream")
				}
				synctest.Test(t, func(t *testing.T) {
					f := newFeed(t, "top10")
					f.reset(1000, rows...)
					s := servePipes(t, websocket.Settings{StallTimeout: schema.Duration(30 * time.Second)}, f)
					body := openRaw(t, s, path, accept)
					for n := 0; n < total; n += taken {
						if _, err := io.CopyN(io.Discard, body, taken); err != nil {
							t.Fatalf("after %d bytes: %v", n, err)
						}
						time.Sleep(time.Second)
					}
				})
			})
		}
	}
}

// A row can have any number of copies, which take no memory until they are sent.
func TestEndlessCopies(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000)
	lots := core.Update{Time: 1000, Diff: 1 << 50, Row: `["Ada",1]`}
	if err := f.Append(1000, 1001, []core.Update{lots}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/api/stream/top10", "/api/v1/stream/top10", "/api/views/top10", "/api/views/top10?format=ndjson", "/api/views/top10?format=csv"} {
		for _, accept := range []string{"websocket", "text/event-stream", ""} {
			t.Run(path+"/"+accept, func(t *testing.T) {
				if strings.Contains(path, "views") && accept != "" {
					t.Skip("a snapshot is no stream")
				}
				s := servePipes(t, websocket.Settings{}, f)
				if _, err := io.CopyN(io.Discard, openRaw(t, s, path, accept), 4<<20); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestAnIdleClientMayPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t, "top10")
		s := servePipes(t, websocket.Settings{StallTimeout: schema.Duration(time.Second)}, f)
		c, _, err := ws.Dial(t.Context(), s.url+"/api/stream/top10", &ws.DialOptions{HTTPClient: s.client})
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		go func() { // the pongs, and that there is no data yet
			for {
				if _, _, err := c.Read(t.Context()); err != nil {
					return
				}
			}
		}()
		for range 5 {
			time.Sleep(17 * time.Second) // never when the server does
			if err := c.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestAPingDuringAMessageIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t, "top10")
		s := servePipes(t, websocket.Settings{}, f)
		c, _, err := ws.Dial(t.Context(), s.url+"/api/stream/top10", &ws.DialOptions{HTTPClient: s.client})
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		c.SetReadLimit(-1)
		f.reset(1000, row(`["%s",0]`, strings.Repeat("x", 100<<10)))
		synctest.Wait() // the base fills the pipe
		pong := make(chan error, 1)
		go func() { pong <- c.Ping(t.Context()) }()
		synctest.Wait() // the ping has been read
		time.Sleep(20 * time.Second)
		go func() {
			for {
				if _, _, err := c.Read(t.Context()); err != nil {
					return
				}
			}
		}()
		if err := <-pong; err != nil {
			t.Error(err)
		}
	})
}

// A pong that the client does not take for a while is no reason to close.
func TestAPongMayTakeItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t, "top10")
		f.reset(1000, `["Ada",1]`)
		s := servePipes(t, websocket.Settings{}, f)
		c, _, err := ws.Dial(t.Context(), s.url+"/api/stream/top10", &ws.DialOptions{HTTPClient: s.client})
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		if _, _, err := c.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // nothing is being sent
		pong := make(chan error, 1)
		go func() { pong <- c.Ping(t.Context()) }()
		time.Sleep(10 * time.Second) // the server has read the ping; nobody reads its pong
		go func() {
			time.Sleep(time.Second)
			f.append(1001, change{1, `["Bob",1]`})
		}()
		if _, data, err := c.Read(t.Context()); err != nil || !strings.Contains(string(data), "delta") {
			t.Fatalf("got %.100s, %v, want the delta", data, err)
		}
		if err := <-pong; err != nil {
			t.Error(err)
		}
	})
}

func TestClientsThatLeaveAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t, "top10")
		f.reset(1000, `["Ada",1]`)
		s := servePipes(t, websocket.Settings{}, f)
		for transport := range transports {
			c := open(t, s, transport, "/api/stream/top10", "")
			if _, err := c.next(); err != nil {
				t.Fatal(err)
			}
			if got, want := metric(t, s.Sink, "mzd_broadcast_clients", transport), 1.0; got != want {
				t.Errorf("%v clients of %s, want %v", got, transport, want)
			}
			c.close()
			synctest.Wait()
			if got, want := metric(t, s.Sink, "mzd_broadcast_clients", transport), 0.0; got != want {
				t.Errorf("%v clients of %s after it left, want %v", got, transport, want)
			}
		}
	})
}

func TestShutdownDoesNotWaitForStalledClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t, "top10")
		f.reset(1000, row(`["%s",0]`, strings.Repeat("x", 1<<20)))
		s := servePipes(t, websocket.Settings{}, f)
		for transport := range transports {
			open(t, s, transport, "/api/stream/top10", "")
			open(t, s, transport, "/api/v1/stream/top10", "")
		}
		synctest.Wait()
		before := time.Now()
		if err := s.stop(); err != nil {
			t.Errorf("Serve returned %v", err)
		}
		if got := time.Since(before); got > 5*time.Second {
			t.Errorf("stopping took %v", got)
		}
	})
}

func TestV1(t *testing.T) {
	for transport := range transports {
		t.Run(transport, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFeed(t, "top10", core.Column{Name: "a", Type: "text"}, core.Column{Name: "b", Type: "int8"}, core.Column{Name: "c", Type: "jsonb"})
				s := servePipes(t, websocket.Settings{}, f)
				f.reset(1000, `["Ada",12,null]`, `["\"",9007199254740993,{"x":["y\\",true]}]`)
				c := open(t, s, transport, "/api/v1/stream/top10", "")
				next := func(want string) {
					t.Helper()
					got, err := c.next()
					if err != nil {
						t.Fatal(err)
					}
					if got != want {
						t.Errorf("got  %s\nwant %s", got, want)
					}
				}
				next(`{"inserted":[["Ada","12",null],["\"","9007199254740993","{\"x\":[\"y\\\\\",true]}"]],"deleted":[],"timestamp":"1000"}`)
				f.append(1001)
				synctest.Wait()
				time.Sleep(time.Minute)
				f.append(1002, change{-1, `["Ada",12,null]`}, change{2, `["Bob",true,1.50]`})
				next(`{"inserted":[["Bob","true","1.50"],["Bob","true","1.50"]],"deleted":[["Ada","12",null]],"timestamp":"1002"}`)
				f.reset(1003, `["Ada",1,1]`)
				_, err := c.next()
				if transport == "websocket" && ws.CloseStatus(err) != ws.StatusServiceRestart || transport != "websocket" && err != io.EOF {
					t.Errorf("after a new history: got %v, want the end with 1012", err)
				}
			})
		})
	}
}

func TestSnapshotsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t, "top10")
		s := servePipes(t, websocket.Settings{}, f)
		defer s.client.CloseIdleConnections()
		get := func(path string, status int, code string) {
			t.Helper()
			response, body := s.get(t, path)
			if response.StatusCode != status || !strings.Contains(body, code) {
				t.Errorf("%s: got %d %s, want %d %s", path, response.StatusCode, body, status, code)
			}
			if got := response.Header.Get("Retry-After"); (got != "") != (status == http.StatusServiceUnavailable) {
				t.Errorf("%s: Retry-After is %q", path, got)
			}
		}
		get("/api/views/top10", 503, "not_yet")
		f.reset(1000, `["Ada",1]`)
		get("/api/views/top10", 200, `"timestamp":"1000"`)
		get("/api/views/top10?min_timestamp=1000", 200, `"timestamp":"1000"`)
		get("/api/views/top10?min_timestamp=1001", 503, `complete through 1000, not yet 1001`)
		go func() {
			time.Sleep(20 * time.Second)
			f.append(1001, change{1, `["Bob",1]`})
		}()
		get("/api/views/top10?min_timestamp=1001", 200, `Bob`)
		stopped := make(chan error)
		go func() {
			time.Sleep(time.Second)
			stopped <- s.stop()
		}()
		get("/api/views/top10?min_timestamp=1002", 503, `"code":"stopping"`)
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// Who takes its time to read an answer gets all of it, also when it is the last
// one that the server gives.
func TestStoppingSendsAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t, "top10")
		f.reset(1000, `["Ada",1]`)
		s := servePipes(t, websocket.Settings{}, f)
		c, err := s.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "GET /api/views/top10?min_timestamp=1001 HTTP/1.1\r\nHost: localhost:8875\r\n\r\n")
		synctest.Wait() // it waits for that time
		stopped := make(chan error, 1)
		go func() { stopped <- s.stop() }()
		time.Sleep(time.Second)
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), `"code":"stopping"`) {
			t.Errorf("got %d %s, %v, want 503 and that it is stopping", r.StatusCode, body, err)
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

var seeds = flag.Uint64("seeds", 1, "how many seeds the model of clients is run with")

// Many clients of all kinds come, go, resume and pause at random. Every state
// that any of them passes through must be what the views were at its timestamp.
func TestEveryStateIsAStateOfTheViews(t *testing.T) {
	for seed := range *seeds {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { everyState(t, seed) })
		})
	}
}

func everyState(t *testing.T, seed uint64) {
	const clients, changes = 30, 500
	rng := rand.New(rand.NewPCG(seed, 0))
	a, b := newFeed(t, "a"), newFeed(t, "b")
	s := servePipes(t, websocket.Settings{}, a, b)
	defer s.client.CloseIdleConnections()
	a.reset(1000, `["x",0]`)
	b.reset(1000, `["x",0]`)

	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	kinds := slices.Sorted(maps.Keys(transports))
	paths := []string{"/api/stream/a", "/api/stream/b", "/api/stream?view=a&view=b", "/api/stream?view=b&view=a&interval=40ms"}
	total := newModel()
	var mu sync.Mutex // guards total
	var finals []*model
	for id := range clients {
		rng := rand.New(rand.NewPCG(seed, uint64(id)+1))
		wg.Go(func() {
			m := newModel()
			path := paths[rng.IntN(len(paths))]
			for ctx.Err() == nil {
				c, err := transports[kinds[rng.IntN(3)]](ctx, s, path, m.token)
				if err != nil {
					if ctx.Err() == nil {
						t.Errorf("seed %d: client %d: %v", seed, id, err)
					}
					break
				}
				m.parts = nil
				for range 1 + rng.IntN(100) {
					if _, err := m.receive(c); err != nil {
						if ctx.Err() == nil {
							t.Errorf("seed %d: client %d: %v", seed, id, err)
						}
						break
					}
					for _, f := range []*feed{a, b} {
						view, ok := m.views[f.view.Name]
						if !ok {
							continue
						}
						if was, known := f.was(m.timestamp); !known || was != view.String() {
							t.Errorf("seed %d: client %d at %s: %s is %s, but was %s", seed, id, m.timestamp, f.view.Name, view, was)
						}
					}
					if rng.IntN(10) == 0 {
						time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
					}
				}
				c.close()
			}
			mu.Lock()
			defer mu.Unlock()
			total.deltas += m.deltas
			total.bases += m.bases
			finals = append(finals, m)
		})
	}
	for i := range changes {
		at := a.at + core.Time(1+rng.IntN(3))
		for _, f := range []*feed{a, b} {
			var changes []change
			for range rng.IntN(3) {
				r := row(`["%c",%d]`, 'a'+rune(rng.IntN(5)), rng.IntN(4))
				if f.now[r] > 0 && rng.IntN(2) == 0 {
					changes = append(changes, change{-1, r})
					break
				}
				changes = append(changes, change{1, r})
			}
			if f == b && i%150 == 149 {
				f.reset(at, `["x",0]`)
				continue
			}
			f.append(at, changes...)
		}
		time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
	}
	time.Sleep(time.Second) // everybody has caught up or is coming back
	synctest.Wait()
	stop()
	wg.Wait()
	if total.deltas < 20*clients || total.bases < clients {
		t.Errorf("seed %d: %d deltas and %d bases in all: too few to mean anything", seed, total.deltas, total.bases)
	}
	t.Logf("seed %d: %d deltas, %d bases", seed, total.deltas, total.bases)
}
