package websocket_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/viewlog"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// errorCodes are those of docs/protocol.md that a request can be refused with.
var errorCodes = []string{
	"bad_request", "bad_token", "bad_interval", "too_many_views", "foreign_origin", "foreign_host", "unknown_view", "not_found",
	"method_not_allowed", "body_not_allowed", "uri_too_long", "too_many_from_address", "too_many_connections", "busy", "not_yet",
}

// FuzzRequest sends anything as a request. It is answered, with a status that is
// no failure of the server's, or the connection ends; an error says which one of
// those that clients know; and the server goes on.
func FuzzRequest(f *testing.F) {
	for _, tt := range strangeRequests {
		if len(tt.send) < 2000 {
			f.Add([]byte(tt.send))
		}
	}
	for _, tt := range strangeFrames {
		if len(tt.send) < 200 {
			f.Add([]byte(request("/api/stream/top10?since=1000-abcd&interval=1s", upgradeHeaders) + tt.send))
		}
	}
	f.Add([]byte(request("/api/stream?view=top10&view=b&numbers=string", "Accept: text/event-stream, */*\r\n", "Last-Event-ID: 1000-abcd.efgh\r\n")))
	f.Add([]byte(request("/api/views/top10?format=csv&min_timestamp=1000", "If-None-Match: *\r\n", "Origin: http://localhost\r\n")))
	f.Add([]byte("OPTIONS /api/views/top10 HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: https://example.com\r\nAccess-Control-Request-Method: GET\r\n\r\n"))
	f.Add([]byte(request("/api/v1/stream/top10")))

	log := viewlog.New("top10", viewlog.Options{})
	view := &core.View{Name: "top10", Columns: []core.Column{{Name: "user", Type: "text"}, {Name: "count", Type: "int8"}}, Key: []int{0}}
	if err := log.Reset(view, "upstream", 1001, snapshot(log, []core.Update{{Time: 1000, Diff: 1, Row: `["Ada",1]`}})); err != nil {
		f.Fatal(err)
	}
	sink, err := websocket.New(context.Background(), websocket.Settings{Listen: "127.0.0.1:0"})
	if err != nil {
		f.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- sink.Serve(ctx, []core.Reader{log}) }()
	f.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			f.Errorf("Serve returned %v", err)
		}
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Contains(data, []byte("timestamp=")) && !bytes.Contains(data, []byte("timestamp=1000 ")) {
			t.Skip("it would wait")
		}
		c, err := net.Dial("tcp", sink.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.(*net.TCPConn).SetLinger(0)
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Write(data); err == nil {
			c.(*net.TCPConn).CloseWrite() // nothing more comes, so that nobody waits for it
		}
		r := bufio.NewReader(c)
		response, err := http.ReadResponse(r, nil)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			t.Fatal("neither an answer nor the end")
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
			return
		case err != nil:
			t.Fatalf("%v", err)
		case response.StatusCode >= 500 && !slices.Contains([]int{501, 503, 505}, response.StatusCode):
			t.Fatalf("status %s", response.Status)
		case response.StatusCode == http.StatusSwitchingProtocols && !bytes.Contains(bytes.ToLower(data), []byte("websocket")):
			t.Fatal("an upgrade that nobody asked for")
		case response.StatusCode < 400 || !strings.HasPrefix(response.Header.Get("Content-Type"), "application/json"):
			return
		}
		body, err := io.ReadAll(response.Body)
		if err != nil || len(body) == 0 { // the end came first, or it was HEAD
			return
		}
		var problem struct{ Type, Code, Message string }
		if err := json.Unmarshal(body, &problem); err != nil || problem.Type != "error" || problem.Message == "" || !slices.Contains(errorCodes, problem.Code) {
			t.Errorf("status %s with %.300q, %v", response.Status, body, err)
		}
	})
}
