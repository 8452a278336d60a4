package plugins_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// The test binary is also the plugins that the tests run: it is one of these when
// the environment says which.
const actAs = "MZD_TEST_PLUGIN"

// noExitSleep is for the race detector: otherwise a process sleeps for a second
// before it exits.
const noExitSleep = "atexit_sleep_ms=0"

var acts = map[string]func(){
	// Plugins as anybody writes them.
	"keeper": func() { plugins.ServeSink(newKeeper, plugins.Doc("Keeps rows in a file."), plugins.Version("1.2")) },
	"count": func() {
		plugins.ServeSource(newCounter, plugins.Doc("Counts."), plugins.Version("0.1"))
	},
	"websocket": func() { plugins.NewSink("websocket", "Serves views.", websocket.New).Serve() },
	"null":      func() { plugins.ServeSink(newNull) },
	"adder":     func() { plugins.ServeSink(newAdder) },

	"deserted": runDeserted,

	// No plugins at all.
	"garbage": func() { fmt.Println("Hello, world!"); select {} },
	"exit":    func() { fmt.Fprintln(os.Stderr, "no licence"); os.Exit(3) },
	"silent":  func() { io.Copy(io.Discard, os.Stdin) },
	"flood":   func() { io.Copy(os.Stdout, &endless{}) },
	"old":     func() { fmt.Println("1|0|unix|/tmp/x|grpc|"); select {} },
	"new":     func() { fmt.Println("1|2|unix|/tmp/x|grpc|"); select {} },
	"netrpc":  func() { fmt.Println("1|1|unix|/tmp/x"); select {} },
	"rest":    func() { fmt.Println("1|1|unix|/tmp/x|rest|"); select {} },
	"faraway": func() { fmt.Println("1|1|tcp|192.0.2.1:443|grpc|" + strings.Repeat("A", 60)); select {} },
	"open":    func() { fmt.Println("1|1|unix|/tmp/x|grpc|" + strings.Repeat("A", 60)); select {} },
	"plain":   func() { fmt.Println("1|1|unix|/tmp/x|grpc|"); select {} },
	"cert":    func() { fmt.Println("1|1|unix|/tmp/x|grpc|" + strings.Repeat("A", 60)); select {} },

	// A daemon that is killed.
	"daemon": runDaemon,
}

func TestMain(m *testing.M) {
	act := os.Getenv(actAs)
	if f, ok := acts[act]; ok {
		f()
		return
	}
	if services, ok := rude[act]; ok {
		goplugin.Serve(&goplugin.ServeConfig{
			HandshakeConfig:  plugins.Handshake,
			VersionedPlugins: map[int]goplugin.PluginSet{1: {plugins.PluginKey: plugins.Register(services)}},
			GRPCServer:       plugins.NewServer,
		})
		return
	}
	goleak.VerifyTestMain(m)
}

// runDeserted serves a sink until it is written, and then nobody listens any more.
func runDeserted() {
	var server *grpc.Server
	services := rudeSink(func(s writeServer) error {
		go server.Stop()
		<-s.Context().Done()
		return nil
	})
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig:  plugins.Handshake,
		VersionedPlugins: map[int]goplugin.PluginSet{1: {plugins.PluginKey: plugins.Register(services)}},
		GRPCServer: func(o []grpc.ServerOption) *grpc.Server {
			server = plugins.NewServer(o)
			return server
		},
	})
	io.Copy(io.Discard, os.Stdin)
}

// command runs the test binary as a plugin. It is without certificates, which cost
// much time to make; tests that are about them say so.
func command(t testing.TB, act string) plugins.Command {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return plugins.Command{Path: exe, Env: map[string]string{actAs: act, "GORACE": noExitSleep}, TLS: "off"}
}

// secured is command with certificates.
func secured(t testing.TB, act string) plugins.Command {
	c := command(t, act)
	c.TLS = "auto"
	return c
}

// infos is what plugins have said about themselves, by act: they say the same
// again.
var infos sync.Map

func describe(t testing.TB, c plugins.Command) plugins.Info {
	t.Helper()
	if info, ok := infos.Load(c.Env[actAs]); ok {
		return info.(plugins.Info)
	}
	info, err := c.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	infos.Store(c.Env[actAs], info)
	return info
}

// openSink opens a plugin that is a sink, and closes it when the test ends.
func openSink(t testing.TB, c plugins.Command, settings any) core.Sink {
	t.Helper()
	sink, err := c.Sink(describe(t, c)).Open(t.Context(), marshal(t, settings))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	return sink
}

// openSource is openSink for a source.
func openSource(t testing.TB, c plugins.Command, settings any) core.Source {
	t.Helper()
	source, err := c.Source(describe(t, c)).Open(t.Context(), marshal(t, settings))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { source.(io.Closer).Close() })
	return source
}

func marshal(t testing.TB, v any) json.RawMessage {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func pidOf(v any) int { return v.(plugins.Supervised).Process().Pid }

// logged is a log that a test reads.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logged) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// until waits for something that happens elsewhere.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// endless reads as garbage without a newline.
type endless struct{}

func (*endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

type keeperSettings struct {
	File string `json:"file" required:"true" doc:"Where the rows go."`
	// Mode is what goes wrong; in a file, so that a test can change it.
	Mode string `json:"mode" doc:"A file that says what goes wrong."`
	Say  string `json:"say" doc:"Something to say at the start."`
}

func (s keeperSettings) mode() string {
	text, _ := os.ReadFile(s.Mode) // no file: nothing goes wrong
	return strings.TrimSpace(string(text))
}

// keeper appends every cut to a file as a line of JSON.
type keeper struct {
	keeperSettings
	mu sync.Mutex
}

type keptBatch struct {
	View, Lower, Upper string
	Columns            []core.Column
	Updates            []core.Update // of a large row, a digest
	Sum                uint64
}

func keep(b core.Batch) keptBatch {
	updates := slices.Clone(b.Updates.Slice())
	for i, u := range updates {
		if len(u.Row) > 1<<10 { // which would take long to write and to read
			updates[i].Row = core.Row(fmt.Sprintf("%d bytes %x", len(u.Row), sha256.Sum256([]byte(u.Row))))
		}
	}
	return keptBatch{b.View.Name, b.Lower.String(), b.Upper.String(), b.View.Columns, updates, b.Sum}
}

func newKeeper(ctx context.Context, s keeperSettings) (*keeper, error) {
	switch s.mode() {
	case "taken":
		return nil, errors.New("port taken")
	case "gone":
		return nil, fmt.Errorf("no such table: %w", core.ErrPermanent)
	case "hang":
		select {}
	case "flood":
		for i := range 50_000 {
			fmt.Fprintln(os.Stderr, "flooding", i)
		}
	}
	env := plugins.EnvOf(ctx)
	if s.Say != "" {
		env.Logger.Warn(s.Say, "sink", env.Name, "pipeline", env.Pipeline)
		fmt.Println("printed:", s.Say)
	}
	return &keeper{keeperSettings: s}, nil
}

func (k *keeper) Close() error {
	if k.mode() == "stuck" {
		select {}
	}
	return k.append("closed")
}

// delayed is an error that says when to come back.
type delayed struct{ error }

func (delayed) RetryAfter() time.Duration { return 42 * time.Second }

func (k *keeper) Write(ctx context.Context, cut []core.Batch) error {
	switch k.mode() {
	case "block":
		if err := os.WriteFile(k.File+".writing", nil, 0o600); err != nil {
			return err
		}
		<-ctx.Done()
		return os.WriteFile(k.File+".cancelled", nil, 0o600)
	case "panic":
		panic("boom: no more paper")
	case "permanent":
		return fmt.Errorf("table is gone: %w", core.ErrPermanent)
	case "later":
		return delayed{errors.New("too many requests")}
	case "exit":
		os.Exit(0)
	case "escapes":
		return errors.New("\x1b[2Jgone\nfor now")
	case "long":
		return errors.New(strings.Repeat("long \xff", 10_000))
	}
	var kept []keptBatch
	for _, b := range cut {
		kept = append(kept, keep(b))
	}
	return k.append(kept)
}

func (k *keeper) append(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	f, err := os.OpenFile(k.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	// A newline before it too: a line that was torn by a kill must not tear this one.
	_, err = fmt.Fprintf(f, "\n%s\n", line)
	return err
}

// kept returns the cuts in a keeper's file, without what was torn, and whether it
// was closed.
func kept(t testing.TB, file string) (cuts [][]keptBatch, closed bool) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var cut []keptBatch
		switch err := json.Unmarshal([]byte(line), &cut); {
		case err == nil:
			cuts = append(cuts, cut)
		case strings.TrimSpace(line) == `"closed"`:
			closed = true
		}
	}
	return cuts, closed
}

// Position reads the file.
func (k *keeper) Position(_ context.Context, v *core.View) (core.Token, error) {
	if k.mode() == "permanent" {
		return core.Token{}, fmt.Errorf("table is gone: %w", core.ErrPermanent)
	}
	text, err := os.ReadFile(k.File)
	if errors.Is(err, os.ErrNotExist) {
		return core.Token{}, nil
	}
	if err != nil {
		return core.Token{}, err
	}
	var at core.Token
	for line := range strings.Lines(string(text)) {
		var cut []keptBatch
		if json.Unmarshal([]byte(line), &cut) != nil {
			continue
		}
		for _, b := range cut {
			if b.View == v.Name {
				if at, err = core.ParseToken(b.Upper); err != nil {
					return core.Token{}, err
				}
			}
		}
	}
	return at, nil
}

type counterSettings struct {
	To   int    `json:"to" default:"10" doc:"The last number."`
	Mode string `json:"mode" doc:"What goes wrong."`
	File string `json:"file" doc:"Where it says what emit has returned."`
}

// counter emits the numbers after its cursor.
type counter struct{ counterSettings }

func newCounter(_ context.Context, s counterSettings) (*counter, error) { return &counter{s}, nil }

func (c *counter) Run(ctx context.Context, cursor string, emit core.EmitFunc) error {
	n := 0
	fmt.Sscan(cursor, &n)
	if err := emit(ctx); err != nil {
		return err
	}
	for n < c.To {
		n++
		text := fmt.Sprint(n)
		err := emit(ctx, core.Event{ID: "id" + text, Cursor: text, Time: time.Unix(int64(n), 0), Data: []byte(text)})
		if err != nil && c.File != "" {
			os.WriteFile(c.File, fmt.Appendf(nil, "%v permanent=%v", err, errors.Is(err, core.ErrPermanent)), 0o600)
		}
		if err != nil && c.Mode == "deaf" {
			select {}
		}
		if err != nil {
			return err
		}
	}
	switch c.Mode {
	case "fail":
		return delayed{errors.New("stream broke")}
	case "permanent":
		return fmt.Errorf("no such stream: %w", core.ErrPermanent)
	case "panic":
		panic("boom")
	case "stay":
		<-ctx.Done()
		return ctx.Err()
	case "bulk": // events of awkward sizes, and more than the window, at once
		var events []core.Event
		for i := range 10_000 {
			events = append(events, core.Event{Cursor: fmt.Sprint(i), Data: []byte("x")})
		}
		for _, size := range []int{900 << 10, 1 << 20, 1100 << 10, 31 << 20} {
			events = append(events, core.Event{Cursor: "big", Data: make([]byte, size)})
		}
		return emit(ctx, events...)
	}
	return nil
}

func (*counter) Identify(data []byte) string { return "id" + string(data) }

// null is a sink without settings or abilities.
type null struct{}

func newNull(context.Context, struct{}) (null, error)  { return null{}, nil }
func (null) Write(context.Context, []core.Batch) error { return nil }
func (null) Close() error                              { return nil }

// runDaemon opens a plugin that has a child, says who they are, and waits to be
// killed.
func runDaemon() {
	exe, _ := os.Executable()
	c := plugins.Command{Path: "/bin/sh", Args: []string{"-c", "sleep 1000 & echo $! > " + os.Getenv("CHILD") + "; exec " + exe}, Env: map[string]string{actAs: "keeper"}}
	source, err := c.Sink(plugins.Info{}).Open(context.Background(), json.RawMessage(`{"file":"x"}`))
	if err != nil {
		fmt.Println("error", err)
		return
	}
	fmt.Println("plugin", pidOf(source))
	select {}
}
