package websocket_test

import (
	"bytes"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

func TestOrigins(t *testing.T) {
	for _, tt := range []struct {
		name         string
		loopback     bool
		origins      []string
		host, origin string
		allowed      bool
	}{
		{"no browser", true, nil, "localhost:8875", "", true},
		{"no browser, by address", true, nil, "127.0.0.1:8875", "", true},
		{"same origin", true, nil, "localhost:8875", "http://localhost:8875", true},
		{"another port of this machine", true, nil, "127.0.0.1:8875", "http://localhost:3000", true},
		{"IPv6", true, nil, "[::1]:8875", "http://[::1]:3000", true},
		{"a name below localhost", true, nil, "app.localhost:8875", "http://dev.localhost", true},
		{"foreign", true, nil, "localhost:8875", "https://evil.example", false},
		{"foreign, looks local", true, nil, "localhost:8875", "https://localhost.evil.example", false},
		{"a name that was pointed here", true, nil, "evil.example:8875", "http://evil.example:8875", false},
		{"a name that was pointed here, no origin", true, nil, "evil.example:8875", "", false},
		{"no origin at all", true, nil, "localhost:8875", "null", false},
		{"null that is allowed", true, []string{"null"}, "localhost:8875", "null", true},
		{"allowed", true, []string{"https://app.example"}, "localhost:8875", "https://app.example", true},
		{"allowed, in capitals", true, []string{"https://app.example"}, "localhost:8875", "https://App.Example", true},
		{"allowed by another scheme", true, []string{"https://app.example"}, "localhost:8875", "http://app.example", false},
		{"proxied for a name that is allowed", true, []string{"https://app.example"}, "app.example", "https://app.example", true},
		{"everybody", true, []string{"*"}, "evil.example", "https://evil.example", true},
		{"public, same origin", false, nil, "mzd.example", "https://mzd.example", true},
		{"public, any name", false, nil, "mzd.example", "", true},
		{"public, foreign", false, nil, "mzd.example", "https://evil.example", false},
		{"public, local page", false, nil, "mzd.example", "http://localhost:3000", false},
		{"public, allowed", false, []string{"http://localhost:3000"}, "mzd.example", "http://localhost:3000", true},
		{"nonsense", false, nil, "mzd.example", "%%", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var logged bytes.Buffer
			ctx := plugins.WithEnv(t.Context(), plugins.Env{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
			f := newFeed(t, "top10")
			f.reset(1000, `["Ada",1]`)
			listen := "127.0.0.1:0"
			ln, err := net.Listen("tcp", listen)
			if err != nil {
				t.Fatal(err)
			}
			if !tt.loopback {
				ln = publicListener{ln}
			}
			s := startOn(t, ctx, websocket.Settings{Origins: tt.origins}, ln, f)
			header := []string{"Host", tt.host}
			if tt.origin != "" {
				header = append(header, "Origin", tt.origin)
			}
			status := 200
			if !tt.allowed {
				status = 403
			}
			for range 3 {
				response, body := s.get(t, "/api/views/top10", header...)
				if response.StatusCode != status {
					t.Errorf("got %d %s, want %d", response.StatusCode, body, status)
				}
				if got := response.Header.Get("Access-Control-Allow-Origin"); tt.allowed && got != tt.origin || !tt.allowed && got != "" {
					t.Errorf("Access-Control-Allow-Origin is %q", got)
				}
			}
			upgrade := append(header, "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
			if !tt.allowed {
				if response, _ := s.get(t, "/api/stream/top10", upgrade...); response.StatusCode != status {
					t.Errorf("websocket: got %d, want %d", response.StatusCode, status)
				}
			}
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
			want := 0
			if !tt.allowed {
				want = 1
			}
			if got := strings.Count(logged.String(), "origins: ["); got != want {
				t.Errorf("the line that would allow it was logged %d times, want %d: %s", got, want, logged.String())
			}
		})
	}
}

// publicListener pretends to listen on an address of the internet.
type publicListener struct{ net.Listener }

func (publicListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80} }

func TestTooManyConnections(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",1]`)
	s := serve(t, websocket.Settings{MaxConnections: 2}, f)
	first := open(t, s, "websocket", "/api/stream/top10", "")
	second := open(t, s, "ndjson", "/api/stream/top10", "")
	for _, c := range []*conn{first, second} {
		if _, err := c.next(); err != nil {
			t.Fatal(err)
		}
	}
	response, body := s.get(t, "/api/views/top10")
	if response.StatusCode != 503 || response.Header.Get("Retry-After") == "" || !strings.Contains(body, "too_many_connections") {
		t.Errorf("got %d %s, want 503", response.StatusCode, body)
	}
	f.append(1001)
	if _, err := first.next(); err != nil {
		t.Errorf("the streams that are open end: %v", err)
	}
}

func TestPage(t *testing.T) {
	s := serve(t, websocket.Settings{})
	for path, media := range map[string]string{
		"/":            "text/html; charset=utf-8",
		"/page.js":     "text/javascript; charset=utf-8",
		"/page.css":    "text/css; charset=utf-8",
		"/live.js":     "text/javascript; charset=utf-8",
		"/table.js":    "text/javascript; charset=utf-8",
		"/split":       "text/html; charset=utf-8",
		"/split.js":    "text/javascript; charset=utf-8",
		"/mzd.js":      "text/javascript; charset=utf-8",
		"/favicon.ico": "image/svg+xml",
	} {
		response, body := s.get(t, path)
		if response.StatusCode != 200 || response.Header.Get("Content-Type") != media || body == "" {
			t.Errorf("%s: got %d, %s, %d bytes", path, response.StatusCode, response.Header.Get("Content-Type"), len(body))
		}
		if policy := response.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") {
			t.Errorf("%s: policy %q", path, policy)
		}
		for _, outside := range []string{"http://", "https://", "innerHTML", "<style", "style=\""} {
			if i := strings.Index(strings.ReplaceAll(body, "http://www.w3.org/2000/svg", ""), outside); i >= 0 && path != "/mzd.js" {
				t.Errorf("%s contains %s", path, outside)
			}
		}
		if response, _ := s.get(t, path, "If-None-Match", response.Header.Get("ETag")); response.StatusCode != 304 {
			t.Errorf("%s: got %d for what has not changed, want 304", path, response.StatusCode)
		}
	}
}
