package websocket_test

import (
	"net/http"
	"strings"
	"testing"

	ws "github.com/coder/websocket"

	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

func TestAcceptDeflate(t *testing.T) {
	const accepted = "permessage-deflate; server_no_context_takeover"
	for _, tt := range []struct{ offer, want string }{
		{"permessage-deflate", accepted},
		{"permessage-deflate; client_max_window_bits", accepted}, // Chromium, Firefox
		{"Permessage-Deflate;client_no_context_takeover; server_no_context_takeover", accepted},
		{`permessage-deflate; client_max_window_bits="10"`, accepted},
		{"permessage-deflate; server_max_window_bits=15", accepted + "; server_max_window_bits=15"},
		{"permessage-deflate; server_max_window_bits=14", ""},
		{"permessage-deflate; server_max_window_bits", ""},
		{"permessage-deflate; client_max_window_bits=16", ""},
		{"permessage-deflate; server_no_context_takeover=1", ""},
		{"permessage-deflate; server_no_context_takeover; server_no_context_takeover", ""},
		{"permessage-deflate; color=red", ""},
		{"permessage-deflate;", accepted},
		{"x-webkit-deflate-frame", ""},
		{"", ""},
		{"x-other, permessage-deflate; server_max_window_bits=9, permessage-deflate; client_max_window_bits", accepted},
	} {
		if got := websocket.AcceptDeflate(tt.offer); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.offer, got, tt.want)
		}
	}
	if got := websocket.AcceptDeflate("x-other", "permessage-deflate"); got != accepted {
		t.Errorf("in two lines: got %q", got)
	}
}

// Clients with and without compression see the same messages, whenever they
// come.
func TestCompressedMessages(t *testing.T) {
	f := newFeed(t, "top10")
	s := serve(t, websocket.Settings{}, f)
	f.reset(1000, row(`["%s",1]`, strings.Repeat("Ada", 1000)))
	plain := open(t, s, "websocket", "/api/stream/top10", "")
	texts := func(want int) []*conn {
		var conns []*conn
		for range want {
			c, response, err := ws.Dial(t.Context(), s.url+"/api/stream/top10", &ws.DialOptions{HTTPClient: s.client, CompressionMode: ws.CompressionContextTakeover})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.CloseNow() })
			if got := response.Header.Get("Sec-WebSocket-Extensions"); !strings.HasPrefix(got, "permessage-deflate") {
				t.Fatalf("extensions %q", got)
			}
			conns = append(conns, &conn{next: func() (string, error) {
				_, data, err := c.Read(t.Context())
				return string(data), err
			}})
		}
		return conns
	}
	conns := texts(2)
	for i := range 5 {
		want, err := plain.next()
		if err != nil {
			t.Fatal(err)
		}
		for n, c := range conns {
			if got, err := c.next(); err != nil || got != want {
				t.Fatalf("message %d, client %d: got %.100s, %v, want %.100s", i, n, got, err, want)
			}
		}
		if i == 2 { // in the middle: nothing depends on the messages before
			late := texts(1)[0]
			m := newModel()
			if err := m.follow(late, f.at); err != nil || m.views["top10"].String() != f.now.String() {
				t.Fatalf("a late client has %.100s, %v", m.views["top10"], err)
			}
			conns = append(conns, late)
		}
		f.append(f.at+1, change{1, row(`["%s",%d]`, strings.Repeat("Bob", 10*i*i), i)})
	}
}

// A compressed message is smaller on the wire, and marked.
func TestCompressedFrames(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, row(`["%s",1]`, strings.Repeat("Ada", 1000)))
	s := serve(t, websocket.Settings{}, f)
	w := wireTo(t, s)
	w.say("GET /api/stream/top10 HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
	response, err := http.ReadResponse(w.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := response.Header.Get("Sec-WebSocket-Accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="; got != want { // RFC 6455, 1.3
		t.Errorf("Sec-WebSocket-Accept is %s, want %s", got, want)
	}
	first, err := w.r.ReadByte()
	if err != nil || first != 0xc1 {
		t.Fatalf("the first byte is %#x, %v, want 0xc1: the end of a text, compressed", first, err)
	}
	length, err := w.r.ReadByte()
	if err != nil || length > 126 {
		t.Fatalf("the length begins with %d, %v, want a short frame", length, err)
	}
}
