package websocket_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// TestActions asks for what only the page of a demonstration may ask for.
func TestActions(t *testing.T) {
	done := 0
	ctx := websocket.WithActions(t.Context(), websocket.Actions{
		"count": func(context.Context) error { done++; return nil },
		"fail":  func(context.Context) error { return errors.New("it does not work") },
	})
	listen := func() net.Listener {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	demo := startOn(t, ctx, websocket.Settings{}, listen())
	plain := startOn(t, t.Context(), websocket.Settings{}, listen())
	public := startOn(t, ctx, websocket.Settings{}, publicListener{listen()})

	own := "http://" + demo.Addr().String()
	for _, c := range []struct {
		name, method, path string
		site               *site
		header             []string
		status, done       int
		body               string
	}{
		{"its own page", "POST", "/demo/count", demo, []string{"Mzd-Demo", "1", "Origin", own}, 204, 1, ""},
		{"a program", "POST", "/demo/count", demo, []string{"Mzd-Demo", "1"}, 204, 2, ""},
		{"without the header", "POST", "/demo/count", demo, []string{"Origin", own}, 403, 2, "Mzd-Demo"},
		{"another page of this machine", "POST", "/demo/count", demo, []string{"Mzd-Demo", "1", "Origin", "http://localhost:3000"}, 403, 2, "foreign_origin"},
		{"a page of elsewhere", "POST", "/demo/count", demo, []string{"Mzd-Demo", "1", "Origin", "https://example.com"}, 403, 2, "foreign_origin"},
		{"a look", "GET", "/demo/count", demo, nil, 404, 2, ""},
		{"no such action", "POST", "/demo/more", demo, []string{"Mzd-Demo", "1"}, 405, 2, ""},
		{"a failure", "POST", "/demo/fail", demo, []string{"Mzd-Demo", "1"}, 500, 2, "it does not work"},
		{"no demonstration", "POST", "/demo/count", plain, []string{"Mzd-Demo", "1"}, 405, 2, ""},
		{"a public address", "POST", "/demo/count", public, []string{"Mzd-Demo", "1"}, 405, 2, ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, c.site.url+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(c.header); i += 2 {
			r.Header.Set(c.header[i], c.header[i+1])
		}
		response, err := c.site.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		body := string(text)
		if response.StatusCode != c.status || done != c.done || !strings.Contains(body, c.body) {
			t.Errorf("%s: got %d, %d times done, %s; want %d, %d, %s", c.name, response.StatusCode, done, body, c.status, c.done, c.body)
		}
	}
	for s, want := range map[*site]string{demo: `["count","fail"]` + "\n", plain: "[]\n", public: "[]\n"} {
		if _, body := s.get(t, "/demo"); body != want {
			t.Errorf("the actions are %s, want %s", body, want)
		}
	}
}
