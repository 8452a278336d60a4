package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mzdio/mzd/config"
	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/durable"
	"github.com/mzdio/mzd/core/hub"
	"github.com/mzdio/mzd/core/ingest"
	"github.com/mzdio/mzd/core/mz"
	"github.com/mzdio/mzd/engine"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/sinks"
	"github.com/mzdio/mzd/plugins/sources"
)

// The daemon, wired from the outside world to people. Arrows are the way of the
// data; everything else follows from them: what is opened first is what others
// write to, and what stops first is what writes.
//
//	source ──> ingest ──> file ──> engine ──> pgwire ──┐      (or a Materialize
//	                                                   │       at another address)
//	                     sink <── hub <── mz (pgx) <───┘
//	                               │
//	                              logs and positions, on disk

// The test of crashes has others: one more sink, a file system that kills the
// process, and logs that are written anew all the time.
var (
	builtinSinks            = sinks.Builtin // that configurations may name
	dataFS       durable.FS = durable.OS    // where logs and positions are
	rewriteBytes int64                      // of [hub.Options]; 0: the default
)

// runDaemon runs the pipeline of a configuration until ctx ends. What its
// binaries have said already is in the catalog.
func runDaemon(ctx context.Context, cfg *config.Config, known *catalog, log *slog.Logger) error {
	d, err := newDaemon(ctx, cfg, known, ".", log)
	if err != nil {
		return err
	}
	defer d.close()
	return d.run(ctx)
}

// daemon is one running pipeline.
type daemon struct {
	cfg      *config.Config
	catalog  *catalog // of binaries
	log      *slog.Logger
	begun    time.Time
	registry *prometheus.Registry
	closers  []func() error // in the order of opening
	admin    *admin
	runners  []*ingest.Runner
	client   *mz.Client
	database *database // nil: it is elsewhere
	sinks    []hub.Sink
	hub      *hub.Hub
	binaries map[string]binary // plugins that are, by their place in the configuration: sinks.mirror
}

// newDaemon opens everything that can fail before anything runs: directories,
// ports, files, settings. Relative paths in SQL are relative to base.
func newDaemon(ctx context.Context, cfg *config.Config, known *catalog, base string, log *slog.Logger) (*daemon, error) {
	d := &daemon{cfg: cfg, catalog: known, log: log, begun: time.Now(), registry: newRegistry(), binaries: make(map[string]binary)}
	if err := d.open(ctx, base); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *daemon) open(ctx context.Context, base string) error {
	lock, err := durable.LockDir(d.cfg.DataDir)
	if err != nil {
		return environment(fmt.Errorf("data_dir: %w", err))
	}
	d.closers = append(d.closers, lock.Close)
	if err := d.openAdmin(); err != nil {
		return err
	}
	if err := d.openSinks(ctx); err != nil {
		return err
	}
	// The client connects to nothing before there is an engine to connect to.
	d.client, err = newClient(d.cfg.Materialize.URL, func(ctx context.Context) (net.Conn, error) { return d.database.dial(ctx) }, d.log)
	if err != nil {
		return err
	}
	if err := d.openSources(ctx); err != nil {
		return err
	}
	if err := d.openEngine(base); err != nil {
		return err
	}
	return d.openHub()
}

func (d *daemon) close() {
	for _, c := range slices.Backward(d.closers) {
		if err := c(); err != nil {
			d.log.Error("close", "error", err)
		}
	}
}

func (d *daemon) openAdmin() error {
	if d.cfg.Admin.Listen == "" {
		return nil
	}
	a, err := newAdmin(d.cfg.Admin.Listen, d.registry, d.health, d.ready, d.status)
	if err != nil {
		return err
	}
	d.admin = a
	d.closers = append(d.closers, a.Close)
	return nil
}

func (d *daemon) openSinks(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(d.cfg.Sinks)) {
		c := d.cfg.Sinks[name]
		sink, err := d.openSink(ctx, name, c)
		if err != nil {
			return environment(fmt.Errorf("sink %s: %w", name, err))
		}
		d.sinks = append(d.sinks, hub.Sink{
			Name: name, Sink: sink, Views: c.Views, SkipSnapshot: !c.Snapshot, Together: c.Cut == "together",
		})
		d.closers = append(d.closers, sink.Close)
		if m, ok := sink.(prometheus.Collector); ok {
			labelled := prometheus.WrapRegistererWith(prometheus.Labels{"sink": name}, d.registry)
			if err := labelled.Register(m); err != nil {
				return fmt.Errorf("metrics of sink %s: %w", name, err)
			}
		}
	}
	return nil
}

func (d *daemon) openSources(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(d.cfg.Sources)) {
		c := d.cfg.Sources[name]
		ctx := d.env(ctx, "source", name)
		log := plugins.EnvOf(ctx).Logger
		source, err := d.openSource(ctx, name, c)
		if err != nil {
			return environment(fmt.Errorf("source %s: %w", name, err))
		}
		if closer, ok := source.(io.Closer); ok {
			d.closers = append(d.closers, closer.Close)
		}
		landing, err := d.openLanding(name, c.To, source, log)
		if err != nil {
			return environment(fmt.Errorf("source %s: %w", name, err))
		}
		d.closers = append(d.closers, landing.Close)
		runner := ingest.New(name, source, landing, ingest.Options{Logger: d.log})
		if err := d.registry.Register(runner); err != nil {
			return fmt.Errorf("metrics of source %s: %w", name, err)
		}
		d.runners = append(d.runners, runner)
	}
	return nil
}

// openSink opens the plugin of a sink.
func (d *daemon) openSink(ctx context.Context, name string, c config.Sink) (core.Sink, error) {
	if c.Binary != nil {
		return d.binarySink(name, c), nil
	}
	kind, ok := find(builtinSinks(), func(s plugins.Sink) bool { return s.Name == c.Plugin })
	if !ok {
		return nil, fmt.Errorf("no plugin %s", c.Plugin)
	}
	return kind.Open(d.env(ctx, "sink", name), c.Settings)
}

// openSource opens the plugin of a source.
func (d *daemon) openSource(ctx context.Context, name string, c config.Source) (core.Source, error) {
	if c.Binary != nil {
		return d.binarySource(name, c), nil
	}
	kind, ok := find(sources.Builtin(), func(s plugins.Source) bool { return s.Name == c.Plugin })
	if !ok {
		return nil, fmt.Errorf("no plugin %s", c.Plugin)
	}
	return kind.Open(ctx, c.Settings)
}

// openLanding opens where the events of a source land.
func (d *daemon) openLanding(name string, to config.Target, source core.Source, log *slog.Logger) (ingest.Landing, error) {
	cursor := filepath.Join(d.cfg.DataDir, "sources", name+".cursor")
	switch {
	case to.Table != "":
		return ingest.OpenTable(cursor, ingest.TableOptions{
			Connect: d.client.Connect, Table: to.Table, Text: to.Format == "text", Logger: log,
		})
	case to.Webhook != "":
		return ingest.OpenWebhook(cursor, ingest.WebhookOptions{
			URL: to.Webhook, Array: to.Format == "json_array", Secret: to.Secret, Headers: to.Headers, Logger: log,
		})
	}
	o := ingest.FileOptions{MaxBytes: int64(to.MaxBytes), Logger: log}
	o.Identifier, _ = source.(core.Identifier)
	return ingest.OpenFile(to.File, o)
}

// openEngine opens the embedded engine, if that is where the views are.
func (d *daemon) openEngine(base string) error {
	if d.cfg.Materialize.URL != config.Embedded {
		return nil
	}
	log := d.log.With("part", "engine")
	dir := filepath.Join(d.cfg.DataDir, engineDir)
	lock, err := durable.LockDir(dir) // mzd engine may use it alone
	if err != nil {
		return environment(fmt.Errorf("data_dir: %w", err))
	}
	d.closers = append(d.closers, lock.Close)
	d.database, err = openDatabase(engine.Options{
		DataDir: dir, BaseDir: base, History: time.Duration(d.cfg.Retain), MaxBytes: int64(d.cfg.Engine.MaxMemory), Logger: log,
	}, d.cfg.Engine.Listen)
	if err != nil {
		return err
	}
	d.closers = append(d.closers, d.database.close)
	if err := d.registry.Register(d.database); err != nil {
		return fmt.Errorf("metrics of the engine: %w", err)
	}
	return nil
}

// subscriber returns how to subscribe to a view.
func (d *daemon) subscriber() hub.Subscribe {
	init := initialiser{path: d.cfg.Materialize.Init, client: d.client}
	return func(ctx context.Context, r hub.Request) (hub.Stream, error) {
		if err := init.once(ctx); err != nil {
			return nil, err
		}
		s, err := d.client.Subscribe(ctx, mz.Request(r))
		if err != nil {
			init.missing(ctx, err)
			return nil, err // and not a nil stream inside an interface that is not
		}
		return s, nil
	}
}

func (d *daemon) openHub() (err error) {
	var views []hub.View
	for _, name := range slices.Sorted(maps.Keys(d.cfg.Views)) {
		v := d.cfg.Views[name]
		views = append(views, hub.View{Name: name, Query: v.Query, Key: v.Key})
	}
	d.hub, err = hub.New(hub.Options{
		Views: views, Sinks: d.sinks, Subscribe: d.subscriber(), Reasons: append(mz.Reasons(), initReason),
		Dir: d.cfg.DataDir, FS: dataFS,
		MaxRows: d.cfg.MaxRows, Retain: time.Duration(d.cfg.Retain), RetainBytes: int64(d.cfg.RetainBytes), RewriteBytes: rewriteBytes,
		Logger: d.log, Registerer: d.registry,
	})
	if err != nil {
		// What a configuration can get wrong was checked before: it is files.
		return environment(fmt.Errorf("data_dir: %w", err))
	}
	if err := d.registry.Register(pluginMetrics{func() []plugged { return d.plugins(d.sourceStates(), d.hub.Status().Sinks) }}); err != nil {
		return fmt.Errorf("metrics of plugins: %w", err)
	}
	return nil
}

// run runs everything until ctx ends, and stops it in the order of the data.
func (d *daemon) run(ctx context.Context) error {
	stages := []stage{{"plugins", d.openBinaries}}
	for _, r := range d.runners {
		stages = append(stages, stage{"source", func(ctx context.Context) error {
			if err := r.Run(ctx); err != nil && ctx.Err() == nil {
				d.log.Error("source failed for good; fix it and restart", "error", err)
			}
			<-ctx.Done() // the views are still there to be served
			return nil
		}})
	}
	stages = append(stages, stage{"hub", d.hub.Run})
	if d.database != nil {
		stages = append(stages, stage{"database", d.database.run})
	}
	if d.admin != nil {
		stages = append(stages, stage{"admin", d.admin.Serve})
	}
	d.log.Info("mzd is running", d.addresses()...)
	err := runStages(ctx, stages...)
	d.log.Info("mzd has stopped")
	return err
}

// addresses says where people find it.
func (d *daemon) addresses() []any {
	args := []any{"pipeline", d.cfg.Name, "version", version().Version}
	for _, s := range d.sinks {
		if place := placeOf(s.Sink); place != "" {
			args = append(args, s.Name, place)
		}
	}
	if d.admin != nil {
		args = append(args, "admin", fmt.Sprintf("http://%s/", reachable(d.admin.Addr().String())))
	}
	if address := d.psql(); address != "" {
		args = append(args, "engine", address)
	}
	return args
}

// placeOf returns where people find a sink, if it listens.
func (d *daemon) placeOf(sink string) string {
	for _, s := range d.sinks {
		if s.Name == sink {
			return placeOf(s.Sink)
		}
	}
	return ""
}

// A listener is a sink that listens, if it has an address: that of a binary comes
// late.
type listener interface{ Addr() net.Addr }

// placeOf returns where people find what listens: its URL, or, of a binary, which
// does not tell how it is spoken to, its address.
func placeOf(v any) string {
	if p, ok := v.(interface{ URL() string }); ok {
		if u, err := url.Parse(p.URL()); err == nil {
			u.Host = reachable(u.Host)
			return u.String()
		}
	}
	if l, ok := v.(listener); ok {
		if a := l.Addr(); a != nil {
			return reachable(a.String())
		}
	}
	return ""
}

// reachable returns the address by which people on this machine reach one that
// something listens on: "all interfaces" is nothing to type.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("localhost", port)
	}
	return address
}

// psql returns where psql finds the embedded engine, empty if nowhere.
func (d *daemon) psql() string {
	if d.database == nil {
		return ""
	}
	return reachable(d.database.address())
}

// env is the context that a plugin is opened with.
func (d *daemon) env(ctx context.Context, kind, name string) context.Context {
	return plugins.WithEnv(ctx, plugins.Env{Name: name, Pipeline: d.cfg.Name, Logger: d.log.With(kind, name)})
}

// health reports whether the process can do its work: whether its disk takes
// writes.
func (d *daemon) health() error {
	if err := d.disk(); err != nil {
		return err
	}
	path := filepath.Join(d.cfg.DataDir, "health")
	if err := os.WriteFile(path, []byte("ok\n"), 0o644); err != nil {
		return fmt.Errorf("data_dir cannot be written: %w", err)
	}
	return nil
}

// disk returns why something that was to be written to disk is not.
func (d *daemon) disk() error {
	if err := d.hub.Disk(); err != nil {
		return err
	}
	if d.database != nil {
		if p := d.database.stats().Problem; p != "" {
			return errors.New(p)
		}
	}
	return nil
}

// ready tells whether every view has been complete once. Whatever is in trouble
// is named, but does not make mzd unready.
func (d *daemon) ready() readiness {
	complete, missing := d.hub.Complete()
	r := readiness{Ready: complete, Waiting: missing}
	if err := d.disk(); err != nil {
		r.Degraded = append(r.Degraded, fmt.Sprintf("disk: %v", err))
	}
	state := d.hub.Status()
	for _, p := range d.plugins(d.sourceStates(), state.Sinks) {
		if p.Error != "" {
			r.Degraded = append(r.Degraded, fmt.Sprintf("%s (%s): %s", p.Name, p.Plugin, p.Error))
		}
	}
	for _, v := range state.Views {
		if v.Trouble != nil && v.State != hub.Sealed {
			r.Degraded = append(r.Degraded, fmt.Sprintf("views.%s: %s", v.Name, v.Trouble.Error))
		}
	}
	if d.database != nil {
		for _, s := range d.database.stats().Sources {
			if s.Problem != "" {
				r.Degraded = append(r.Degraded, fmt.Sprintf("engine source %s: %s", s.Name, s.Problem))
			}
		}
	}
	return r
}

// status is the answer to /api/status.
func (d *daemon) status() any {
	sources, hubState := d.sourceStates(), d.hub.Status()
	s := struct {
		Name    string          `json:"name"`
		Version buildVersion    `json:"version"`
		Since   time.Time       `json:"since"`
		Plugins []plugged       `json:"plugins"`
		Sources []ingest.Status `json:"sources"`
		hub.Status
		Engine *engine.Stats `json:"engine,omitempty"`
	}{d.cfg.Name, version(), d.begun, d.plugins(sources, hubState.Sinks), sources, hubState, nil}
	if d.database != nil {
		stats := d.database.stats()
		s.Engine = &stats
	}
	return s
}

func (d *daemon) sourceStates() []ingest.Status {
	states := []ingest.Status{}
	for _, r := range d.runners {
		states = append(states, r.Status())
	}
	return states
}

// newClient returns a client of the database at url. If it says so, that is the
// embedded engine, which dial connects to.
func newClient(url string, dial func(context.Context) (net.Conn, error), log *slog.Logger) (*mz.Client, error) {
	c := mz.Config{URL: url, Logger: log.With("part", "upstream")}
	if url == config.Embedded {
		c.URL = mz.Embedded
		c.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }
	}
	return mz.New(c)
}

// initialiser runs the statements of the init file once they can be run; every
// view waits for it.
type initialiser struct {
	path   string // empty: there are none
	client *mz.Client

	mu          sync.Mutex // guards what follows, and lets one view at a time try
	done        bool
	environment string // in which; empty: it does not tell
}

func (i *initialiser) once(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.done || i.path == "" {
		return nil
	}
	// It is read at each try: whoever mends it need not restart mzd.
	text, err := os.ReadFile(i.path)
	if err == nil {
		err = i.client.Exec(ctx, string(text))
	}
	if err == nil {
		i.environment, err = i.client.Environment(ctx)
	}
	if err != nil {
		return &initError{i.path, err}
	}
	i.done = true
	return nil
}

// missing makes the next try run the statements again if a view is not there because
// the database has become another one. In the same one somebody has dropped it, and is
// perhaps about to make another.
func (i *initialiser) missing(ctx context.Context, err error) {
	e, ok := errors.AsType[*mz.Error](err)
	if i.path == "" || !ok || e.Reason() != mz.NoSuchView {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if now, err := i.client.Environment(ctx); err == nil && now != i.environment {
		i.done = false
	}
}

// initError is why the init statements could not be run; all views wait for
// them.
type initError struct {
	path string
	err  error
}

const initReason = "init"

func (e *initError) Error() string { return fmt.Sprintf("run %s: %v", e.path, e.err) }
func (e *initError) Unwrap() error { return e.err }

// Reason and Retryable implement [hub.Trouble]. Statements that the database
// refuses stay refused; a database that is away comes back.
func (e *initError) Reason() string { return initReason }
func (e *initError) Retryable() bool {
	var refused *mz.StatementError
	return !errors.As(e.err, &refused)
}

// listen opens a port; what says where its address comes from.
func listen(address, what string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, environment(fmt.Errorf("%s: %w; is another mzd running? choose another address", what, err))
	}
	return l, nil
}

// ignoreClosed is for what its user closes, but only if it comes to be used.
func ignoreClosed(c func() error) func() error {
	return func() error {
		if err := c(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}

func find[T any](list []T, is func(T) bool) (T, bool) {
	if i := slices.IndexFunc(list, is); i >= 0 {
		return list[i], true
	}
	var zero T
	return zero, false
}
