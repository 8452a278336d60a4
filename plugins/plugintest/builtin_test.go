package plugintest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/plugintest"
	"github.com/mzdio/mzd/plugins/sinks"
	"github.com/mzdio/mzd/plugins/sinks/stdout"
	"github.com/mzdio/mzd/plugins/sources"
	"github.com/mzdio/mzd/plugins/sources/wikimedia/simulator"
)

// actAs makes the test binary one of the plugins, or a command of one.
const actAs = "MZD_PLUGINTEST_ACT"

// acting is the environment of one. The race detector would let it sleep for a second
// before it exits.
func acting(as string) map[string]string {
	return map[string]string{actAs: as, "GORACE": "atexit_sleep_ms=0"}
}

func TestMain(m *testing.M) {
	switch kind, name, _ := strings.Cut(os.Getenv(actAs), " "); kind {
	case "sink":
		builtinSink(name).Serve()
	case "source":
		builtinSource(name).Serve()
	case "receiver":
		runReceiver(os.Args[1], os.Args[2])
	case "lines":
		runLines()
	default:
		goleak.VerifyTestMain(m)
	}
}

func builtinSink(name string) plugins.Sink {
	all := sinks.Builtin()
	return all[slices.IndexFunc(all, func(s plugins.Sink) bool { return s.Name == name })]
}

func builtinSource(name string) plugins.Source {
	all := sources.Builtin()
	return all[slices.IndexFunc(all, func(s plugins.Source) bool { return s.Name == name })]
}

// external runs the test binary as a plugin.
func external(t *testing.T, kind, name string) (plugins.Command, plugins.Info) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Certificates take longer than all the rest.
	c := plugins.Command{Path: exe, Env: acting(kind + " " + name), TLS: "off"}
	info, err := c.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c, info
}

// patience is for machines that have much else to do.
const patience = time.Minute

// bothWays tests a sink in this process, and the same sink in one of its own.
func bothWays(t *testing.T, name string, with func(t *testing.T, plugin plugins.Sink) plugintest.Sink) {
	t.Run("in-process", func(t *testing.T) {
		t.Parallel()
		s := with(t, builtinSink(name))
		s.Patience = patience
		plugintest.TestSink(t, s)
	})
	t.Run("grpc", func(t *testing.T) {
		t.Parallel()
		c, info := external(t, "sink", name)
		s := with(t, c.Sink(info))
		s.External, s.Patience = true, patience
		plugintest.TestSink(t, s)
	})
}

func asJSON(t *testing.T, v any) json.RawMessage {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestWebhook(t *testing.T) {
	t.Parallel()
	bothWays(t, "webhook", func(t *testing.T, plugin plugins.Sink) plugintest.Sink {
		r := newReceiver(t)
		url, answer := r.webhook(t)
		answering := func(status int) func(context.Context) (func(), error) {
			return func(context.Context) (func(), error) {
				answer(status)
				return func() { answer(0) }, nil
			}
		}
		return plugintest.Sink{
			Plugin:   plugin,
			Settings: asJSON(t, map[string]any{"url": url, "allow_private": true}),
			Observe:  r.observe,
			Outage:   answering(http.StatusServiceUnavailable),
			Gone:     answering(http.StatusGone),
			Refused:  []json.RawMessage{asJSON(t, map[string]any{"url": "ftp://example.com"})},
		}
	})
}

func TestExecSink(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bothWays(t, "exec", func(t *testing.T, plugin plugins.Sink) plugintest.Sink {
		r := newReceiver(t)
		instead := filepath.Join(t.TempDir(), "answer")
		answering := func(answer string) func(context.Context) (func(), error) {
			return func(context.Context) (func(), error) {
				return func() { os.Remove(instead) }, os.WriteFile(instead, []byte(answer), 0o600)
			}
		}
		return plugintest.Sink{
			Plugin:   plugin,
			Settings: asJSON(t, map[string]any{"command": []string{exe, r.file, instead}, "env": acting("receiver")}),
			Observe:  r.observe,
			Outage:   answering("error come back later"),
			Gone:     answering("fatal never come back"),
			Refused:  []json.RawMessage{json.RawMessage(`{"command": [""]}`), json.RawMessage(`{"command": ["sh"], "max_message": "1B"}`)},
		}
	})
}

// TestStdout prints into a buffer: the standard output of a plugin is taken.
func TestStdout(t *testing.T) {
	t.Parallel()
	p := &printed{views: make(map[string]printedView)}
	plugintest.TestSink(t, plugintest.Sink{
		Plugin: plugins.NewSink("stdout", "", func(_ context.Context, s stdout.Settings) (*stdout.Sink, error) {
			return stdout.To(p, s), nil
		}),
		Settings: json.RawMessage(`{"format": "json", "progress": true}`),
		Observe:  p.observe,
		Outage:   p.fail(errors.New("disk full")),
		Gone:     p.fail(io.ErrClosedPipe),
	})
}

// TestStdoutExternal checks what can be checked of a plugin whose standard output
// goes to the log.
func TestStdoutExternal(t *testing.T) {
	t.Parallel()
	c, info := external(t, "sink", "stdout")
	plugintest.TestSink(t, plugintest.Sink{Plugin: c.Sink(info), Settings: json.RawMessage(`{"format": "json"}`), External: true, Patience: patience})
}

func TestWebsocket(t *testing.T) {
	t.Parallel()
	bothWays(t, "websocket", func(t *testing.T, plugin plugins.Sink) plugintest.Sink {
		var mu sync.Mutex
		var addr net.Addr
		open := plugin.Open
		plugin.Open = func(ctx context.Context, settings json.RawMessage) (core.Sink, error) {
			sink, err := open(ctx, settings)
			if l, ok := sink.(interface{ Addr() net.Addr }); ok && err == nil {
				mu.Lock()
				defer mu.Unlock()
				addr = l.Addr()
			}
			return sink, err
		}
		return plugintest.Sink{
			Plugin:   plugin,
			Settings: json.RawMessage(`{"listen": "127.0.0.1:0"}`),
			Observe: func(ctx context.Context, v *core.View) ([]json.RawMessage, error) {
				mu.Lock()
				defer mu.Unlock()
				return snapshot(ctx, fmt.Sprintf("http://%s/api/views/%s", addr, url.PathEscape(v.Name)))
			},
			Refused: []json.RawMessage{json.RawMessage(`{"listen": "127.0.0.1:0", "origins": ["nowhere"]}`)},
		}
	})
}

// snapshot returns the rows of a view as the websocket sink serves them.
func snapshot(ctx context.Context, address string) ([]json.RawMessage, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s %.200s %w", address, response.Status, body, err)
	}
	var view struct{ Rows []json.RawMessage }
	return view.Rows, json.Unmarshal(body, &view)
}

// sourceBothWays tests a source in this process, and in one of its own.
func sourceBothWays(t *testing.T, name string, with func(t *testing.T, plugin plugins.Source) plugintest.Source) {
	t.Run("in-process", func(t *testing.T) {
		t.Parallel()
		s := with(t, builtinSource(name))
		s.Patience = patience
		plugintest.TestSource(t, s)
	})
	t.Run("grpc", func(t *testing.T) {
		t.Parallel()
		c, info := external(t, "source", name)
		s := with(t, c.Source(info))
		s.External, s.Patience = true, patience
		plugintest.TestSource(t, s)
	})
}

func TestWikimedia(t *testing.T) {
	t.Parallel()
	sourceBothWays(t, "wikimedia", func(t *testing.T, plugin plugins.Source) plugintest.Source {
		begun := time.Now().Add(-time.Hour)
		server := httptest.NewServer(simulator.New(simulator.Options{Rate: 30, Seed: 1, Start: begun, Total: 400}))
		t.Cleanup(func() {
			server.CloseClientConnections()
			server.Close()
		})
		return plugintest.Source{
			Plugin:   plugin,
			Settings: asJSON(t, map[string]any{"url": server.URL + "/v2/stream", "since": begun.UTC().Format(time.RFC3339)}),
			Refused:  []json.RawMessage{json.RawMessage(`{"since": "yesterday"}`)},
		}
	})
}

func TestExecSource(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sourceBothWays(t, "exec", func(t *testing.T, plugin plugins.Source) plugintest.Source {
		return plugintest.Source{
			Plugin: plugin,
			Settings: asJSON(t, map[string]any{
				"command": []string{exe}, "env": acting("lines"), "cursor": "/next", "id": "/id",
			}),
			Events: 12,
		}
	})
}

// runLines is a command for the exec source, which prints events from its cursor
// on.
func runLines() {
	n := 0
	if cursor := os.Getenv("MZD_CURSOR"); cursor != "" {
		if _, err := fmt.Sscanf(cursor, "%d", &n); err != nil || n < 0 {
			fmt.Fprintln(os.Stderr, "no cursor:", cursor)
			os.Exit(1)
		}
	}
	for ; n < 100; n++ {
		fmt.Printf(`{"id":"line %d","next":%d}`+"\n", n, n+1)
	}
	io.Copy(io.Discard, os.Stdin)
	select {} // until it is ended
}
