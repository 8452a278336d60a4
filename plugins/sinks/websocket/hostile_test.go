package websocket_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mzdio/mzd/plugins/sinks/websocket"
	"github.com/mzdio/mzd/schema"
)

// What clients do that are broken, or that mean harm. The rules and codes are
// those of docs/protocol.md.

// goesOn stands for a connection that is not closed.
const goesOn = 0

// strangeFrames is what a client sends after the handshake, and the code that
// the connection is closed with (R36).
var strangeFrames = []struct {
	name string
	send string
	code int
	pong string // comes before that, or anyway
}{
	{"nothing", "", goesOn, ""},
	{"text", frame(textFrame, "hello"), goesOn, ""},
	{"binary", frame(final|2, "\xff\xfe"), goesOn, ""},
	{"empty text", frame(textFrame, ""), goesOn, ""},
	{"text of 4 KiB", frame(textFrame, strings.Repeat("x", 4<<10)), goesOn, ""},
	{"text not in ASCII", frame(textFrame, "Zoë 🎈"), goesOn, ""},
	{"a character in two fragments", frame(1, "Zo\xc3") + frame(final, "\xab"), goesOn, ""},
	{"many fragments", frame(1, "a") + strings.Repeat(frame(0, "b"), 1000) + frame(final, "c"), goesOn, ""},
	{"fragments of nothing", frame(1, "") + strings.Repeat(frame(0, ""), 10_000) + frame(final, ""), goesOn, ""},
	{"a ping", frame(pingFrame, "hey"), goesOn, "hey"},
	{"an empty ping", frame(pingFrame, ""), goesOn, ""},
	{"the longest ping", frame(pingFrame, strings.Repeat("p", 125)), goesOn, strings.Repeat("p", 125)},
	{"a ping between fragments", frame(1, "a") + frame(pingFrame, "now") + frame(final, "b"), goesOn, "now"},
	{"a pong that nobody asked for", frame(pongFrame, "well"), goesOn, ""},

	{"closed", closing(1000, ""), 1000, ""},
	{"closed with a reason", closing(1001, "leaving"), 1001, ""},
	{"closed with a code of its own", closing(4999, strings.Repeat("r", 123)), 4999, ""},
	{"closed without a code", frame(closeFrame, ""), noCode, ""},
	{"closed, and on it goes", closing(1000, "") + frame(pingFrame, "still there?") + "garbage", 1000, ""},

	{"not masked", string(header(textFrame, 5)) + "hello", 1002, ""},
	{"a ping that is not masked", string(header(pingFrame, 0)), 1002, ""},
	{"the first reserved bit", frame(textFrame|0x40, "x"), 1002, ""},
	{"the second reserved bit", frame(textFrame|0x20, "x"), 1002, ""},
	{"the third reserved bit", frame(textFrame|0x10, "x"), 1002, ""},
	{"a reserved bit on a ping", frame(pingFrame|0x40, "x"), 1002, ""},
	{"opcode 3", frame(final|3, "x"), 1002, ""},
	{"opcode 7", frame(final|7, "x"), 1002, ""},
	{"opcode 11", frame(final|11, "x"), 1002, ""},
	{"opcode 15", frame(final|15, "x"), 1002, ""},
	{"a ping in fragments", frame(9, "x"), 1002, ""},
	{"a close in fragments", frame(8, "\x03\xe8"), 1002, ""},
	{"a ping of 126 bytes", frame(pingFrame, strings.Repeat("x", 126)), 1002, ""},
	{"a ping that would be huge", frame(pingFrame, "")[:1] + "\xff\x00\x00\x00\x01\x00\x00\x00\x00\xde\xad\xbe\xef", 1002, ""},
	{"a fragment of nothing", frame(0, "x"), 1002, ""},
	{"the end of nothing", frame(final, "x"), 1002, ""},
	{"text between fragments", frame(1, "a") + frame(textFrame, "b"), 1002, ""},
	{"half a close code", frame(closeFrame, "\x03"), 1002, ""},
	{"close code 0", closing(0, ""), 1002, ""},
	{"close code 999", closing(999, ""), 1002, ""},
	{"close code 1004", closing(1004, ""), 1002, ""},
	{"close code 1005", closing(1005, ""), 1002, ""},
	{"close code 1006", closing(1006, ""), 1002, ""},
	{"close code 1015", closing(1015, ""), 1002, ""},
	{"close code 2999", closing(2999, ""), 1002, ""},
	{"close code 5000", closing(5000, ""), 1002, ""},
	{"another request", request("/api/views"), 1002, ""},
	{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 1002, ""},

	{"text that is no UTF-8", frame(textFrame, "\xff\xfe"), 1007, ""},
	{"half a character", frame(textFrame, "Zo\xc3"), 1007, ""},
	{"half a character in fragments", frame(1, "Zo") + frame(final, "\xc3"), 1007, ""},
	{"a surrogate", frame(textFrame, "\xed\xa0\x80"), 1007, ""},
	{"a reason that is no UTF-8", closing(1000, "\xff"), 1007, ""},

	{"text over 4 KiB", frame(textFrame, strings.Repeat("x", 4<<10+1)), 1009, ""},
	{"fragments over 4 KiB", frame(1, strings.Repeat("x", 4<<10)) + frame(0, "x"), 1009, ""},
	{"a megabyte", frame(textFrame, strings.Repeat("x", 1<<20)), 1009, ""},
	{"text that would be huge", "\x81\xff\x00\x00\x01\x00\x00\x00\x00\x00\xde\xad\xbe\xef", 1009, ""},
	{"a size that is negative", "\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\xde\xad\xbe\xef", 1002, ""},

	{"a ping, then nonsense", frame(pingFrame, "first") + strings.Repeat("\xff", 20), 1002, "first"},
}

func TestStrangeFrames(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",0]`)
	s := serve(t, websocket.Settings{}, f)
	others := bystandersOf(t, s, f)
	for _, tt := range strangeFrames {
		check := func(t *testing.T, w *wire) {
			t.Helper()
			if tt.pong != "" {
				w.pong(tt.pong)
			}
			if tt.code == goesOn {
				others.change(t)
				w.see(f)
				return
			}
			if got, _ := w.closed(); got != tt.code {
				t.Errorf("closed with %d, want %d", got, tt.code)
			}
			others.change(t)
		}
		t.Run(tt.name, func(t *testing.T) {
			w := wireTo(t, s)
			w.upgrade("/api/stream/top10", "")
			w.pour(tt.send)
			check(t, w)
		})
		// What comes in one packet with the request is not lost.
		t.Run(tt.name+"/at once", func(t *testing.T) {
			w := wireTo(t, s)
			w.upgrade("/api/stream/top10", tt.send)
			check(t, w)
		})
		t.Run(tt.name+"/byte by byte", func(t *testing.T) {
			if len(tt.send) > 1000 {
				t.Skip("too long")
			}
			w := wireTo(t, s)
			for _, b := range []byte(request("/api/stream/top10", upgradeHeaders)) {
				w.say(string(b))
			}
			if got := w.answer().StatusCode; got != http.StatusSwitchingProtocols {
				t.Fatalf("status %d", got)
			}
			for i := range len(tt.send) {
				// The server may have heard enough, and have gone.
				if _, err := io.WriteString(w, tt.send[i:i+1]); err != nil {
					break
				}
			}
			check(t, w)
		})
	}
}

// strangeRequests and what they are answered with. A code is that of the error
// message.
var strangeRequests = []struct {
	name   string
	send   string
	status int
	code   string
}{
	{"a long request", request("/api/views/top10?x=" + strings.Repeat("x", 7<<10)), 200, ""},
	{"a longer request", request("/api/views/top10?x=" + strings.Repeat("x", 9<<10)), 414, "uri_too_long"},
	{"an endless request", "GET /" + strings.Repeat("x", 1<<20), 431, ""},
	{"endless headers", "GET /api/views HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: y\r\n", 1<<18), 431, ""},
	{"an endless header", "GET /api/views HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 1<<20), 431, ""},
	{"no request", "hello\r\n\r\n", 400, ""},
	{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, ""},
	{"nothing in it", "\r\n\r\n\r\n\r\n", 400, ""},
	{"a version to come", "GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n", 505, ""},
	{"no host", "GET /api/views HTTP/1.1\r\n\r\n", 400, ""},
	{"a body", "GET /api/views HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\nhello", 413, "body_not_allowed"},
	{"a body to come", "GET /api/stream/top10 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999\r\n\r\n", 413, "body_not_allowed"},
	{"an endless body", "GET /api/stream/top10 HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\nx\r\n", 100_000), 413, "body_not_allowed"},
	{"two lengths", "GET /api/views HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400, ""},
	{"another method", "DELETE /api/views/top10 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 405, "method_not_allowed"},
	{"a proxy's method", "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 405, "method_not_allowed"},
	{"a path out of the house", request("/../../etc/passwd"), 307, ""}, // to one that is in it
	{"a path out of the house, hidden", request("/%2e%2e/%2e%2e/etc/passwd"), 404, "not_found"},
	{"33 views", request("/api/stream?view=top10" + strings.Repeat("&view=top10", 32)), 400, "too_many_views"},
	{"a thousand views", request("/api/stream?view=top10" + strings.Repeat("&view=a", 999)), 400, "too_many_views"},
	{"a token of nonsense", request("/api/stream/top10?since=" + strings.Repeat("9", 5000)), 400, "bad_token"},
	{"an upgrade to something else", request("/api/stream/top10", "Connection: Upgrade\r\nUpgrade: h2c\r\n", "Accept: application/json\r\n"), 200, ""},
	{"an upgrade without a key", request("/api/stream/top10", strings.Replace(upgradeHeaders, "Sec-WebSocket-Key", "X", 1)), 400, ""},
	{"an upgrade with half a key", request("/api/stream/top10", strings.Replace(upgradeHeaders, "bXpk", "", 1)), 400, ""},
	{"an upgrade of 2010", request("/api/stream/top10", strings.Replace(upgradeHeaders, "Version: 13", "Version: 8", 1)), 426, ""},
	{"an upgrade by HTTP/1.0", strings.Replace(request("/api/stream/top10", upgradeHeaders), "HTTP/1.1", "HTTP/1.0", 1), 426, ""},
	{"an upgrade that posts", strings.Replace(request("/api/stream/top10", upgradeHeaders), "GET", "POST", 1), 405, ""},
}

func TestStrangeRequests(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",0]`)
	s := serve(t, websocket.Settings{}, f)
	others := bystandersOf(t, s, f)
	for _, tt := range strangeRequests {
		t.Run(tt.name, func(t *testing.T) {
			w := wireTo(t, s)
			w.pour(tt.send)
			response, err := http.ReadResponse(w.r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := response.StatusCode; got != tt.status {
				t.Errorf("status %d, want %d", got, tt.status)
			}
			if tt.code != "" {
				body, err := io.ReadAll(response.Body)
				if want := `{"type":"error","code":"` + tt.code + `",`; err != nil || !strings.HasPrefix(string(body), want) {
					t.Errorf("got %.300s, %v, want %s...", body, err, want)
				}
			}
			others.change(t)
		})
	}
}

// A client that has nothing more to say, and says so, has left.
func TestHalfClosed(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",0]`)
	s := serve(t, websocket.Settings{}, f)
	others := bystandersOf(t, s, f)
	for _, headers := range []string{upgradeHeaders, "Accept: text/event-stream\r\n", ""} {
		w := wireTo(t, s)
		w.say(request("/api/stream/top10", headers))
		if response := w.answer(); response.StatusCode >= 300 {
			t.Fatalf("status %s", response.Status)
		}
		if err := w.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, w.r); err != nil {
			t.Errorf("%q: the connection ends with %v", headers, err)
		}
		others.change(t)
	}
}

// Pings without end of a client that reads no answers cost a bounded amount;
// when it reads, the last one has been answered (R28).
func TestPingFlood(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",0]`)
	s := serve(t, websocket.Settings{}, f)
	others := bystandersOf(t, s, f)
	const pings = 20_000
	w := wireTo(t, s)
	w.upgrade("/api/stream/top10", "")
	w.see(f)
	sent := make(chan error, 1)
	go func() {
		burst := strings.Repeat(frame(pingFrame, strings.Repeat("p", 125)), 100)
		for range pings / 100 {
			if _, err := io.WriteString(w, burst); err != nil {
				sent <- err
				return
			}
		}
		_, err := io.WriteString(w, frame(pingFrame, "last"))
		sent <- err
	}()
	for range 100 {
		others.change(t)
	}
	w.pong("last")
	if err := <-sent; err != nil {
		t.Error(err)
	}
	others.change(t)
	w.see(f)
}

// Hundreds who never finish their request are closed after a while, and while
// they are there others are served.
func TestSlowLoris(t *testing.T) {
	const strangers = 300
	for name, say := range map[string]func(i int) string{
		"silent":           func(int) string { return "" },
		"a request line":   func(i int) string { return "GET /api/stream/top10 HTTP/1.1\r\n"[i%33 : i%33+1] },
		"headers":          func(i int) string { return []string{"GET / HTTP/1.1\r\n", "X: y\r\n"}[min(i, 1)] },
		"an endless value": func(i int) string { return []string{"GET / HTTP/1.1\r\nX: ", "y"}[min(i, 1)] },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFeed(t, "top10")
				f.reset(1000, `["Ada",0]`)
				s := servePipes(t, websocket.Settings{MaxConnections: strangers + 10}, f)
				others := bystandersOf(t, s, f)
				begun := time.Now()
				ended := make(chan time.Duration, strangers)
				var talking sync.WaitGroup
				defer talking.Wait()
				for range strangers {
					w := wireTo(t, s)
					talking.Go(func() {
						for i := 0; ; i++ {
							if _, err := io.WriteString(w, say(i)); err != nil {
								return
							}
							time.Sleep(time.Second)
						}
					})
					go func() {
						io.Copy(io.Discard, w) // an answer, perhaps
						ended <- time.Since(begun)
					}()
				}
				for range 5 {
					others.change(t)
					time.Sleep(time.Second)
				}
				for range strangers {
					if got, limit := <-ended, 11*time.Second; got > limit {
						t.Fatalf("a connection lasted for %v, want at most %v", got, limit)
					}
				}
				others.change(t)
			})
		})
	}
}

// Who takes a byte a second takes nothing, as far as anybody can tell: it is
// closed, and costs nobody else a thing (R27).
func TestAReaderOfAByteASecond(t *testing.T) {
	for transport, headers := range map[string]string{"websocket": upgradeHeaders, "sse": "Accept: text/event-stream\r\n", "ndjson": ""} {
		t.Run(transport, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFeed(t, "top10")
				var rows []any
				for i := range 1000 {
					rows = append(rows, fmt.Sprintf(`["%0100d",%d]`, i, i))
				}
				f.reset(1000, row(`["Ada",%q]`, fmt.Sprint(rows...)))
				s := servePipes(t, websocket.Settings{StallTimeout: schema.Duration(time.Minute)}, f)
				others := bystandersOf(t, s, f)
				w := wireTo(t, s)
				w.say(request("/api/stream/top10", headers))
				w.answer()
				begun := time.Now()
				ended := make(chan time.Duration, 1)
				go func() {
					var b [1]byte
					for {
						if _, err := w.Conn.Read(b[:]); err != nil {
							ended <- time.Since(begun)
							return
						}
						time.Sleep(time.Second)
					}
				}()
				for range 50 {
					time.Sleep(time.Second)
					others.change(t)
				}
				if got, low, high := <-ended, 55*time.Second, 5*time.Minute; got < low || got > high {
					t.Errorf("closed after %v, want from %v to %v", got, low, high)
				}
				synctest.Wait()
				if got, want := metric(t, s.Sink, "mzd_broadcast_clients"), float64(len(others.conns)); got != want {
					t.Errorf("%v clients, want %v", got, want)
				}
				if got, want := metric(t, s.Sink, "mzd_broadcast_closes_total", "4000"), 1.0; got != want {
					t.Errorf("%v stalled clients counted, want %v", got, want)
				}
				others.change(t)
			})
		})
	}
}
