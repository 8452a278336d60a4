package main

import (
	"context"
	"log/slog"
	"net"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mzdio/mzd/engine"
	"github.com/mzdio/mzd/engine/pgwire"
)

// A database is the embedded engine of a daemon, and what serves it. It can be
// restarted while the daemon goes on, as one that is elsewhere can.
type database struct {
	options  engine.Options
	log      *slog.Logger
	restarts chan chan error // where the answer goes

	// mu guards what a restart replaces.
	mu     sync.Mutex
	engine *engine.Engine
	wire   *pgwire.Server
	port   net.Listener // nil: no port
}

var _ prometheus.Collector = (*database)(nil)

// openDatabase opens the engine, and a port for psql if address is not empty.
func openDatabase(o engine.Options, address string) (*database, error) {
	d := &database{options: o, log: o.Logger, restarts: make(chan chan error)}
	if err := d.open(address); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *database) open(address string) error {
	e, err := engine.Open(d.options)
	if err != nil {
		return environment(err)
	}
	var port net.Listener
	if address != "" {
		if port, err = listen(address, "engine.listen"); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.engine, d.wire, d.port = e, pgwire.New(e, pgwire.Options{Logger: d.log, Version: version().Version}), port
	return nil
}

// close frees the port, if run has not.
func (d *database) close() error {
	if port := d.listener(); port != nil {
		return ignoreClosed(port.Close)()
	}
	return nil
}

// run runs the engine, and a new one after each restart, until ctx ends.
func (d *database) run(ctx context.Context) error {
	for {
		again, err := d.runOnce(ctx)
		if again == nil {
			return err
		}
		if err == nil {
			err = d.open(d.address())
		}
		if again <- err; err != nil {
			return err
		}
	}
}

// runOnce runs the engine until ctx ends or a restart is asked for; then again
// is where to say how it went.
func (d *database) runOnce(ctx context.Context) (again chan<- error, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- runStages(ctx, d.stages()...) }()
	select {
	case err := <-ended:
		return nil, err
	case again := <-d.restarts:
		stop()
		return again, <-ended
	}
}

func (d *database) stages() []stage {
	d.mu.Lock()
	defer d.mu.Unlock()
	wire, port := d.wire, d.port
	stages := []stage{{"engine pipe", wire.Run}, {"engine", d.engine.Run}}
	if port != nil {
		serve := func(ctx context.Context) error { return wire.Serve(ctx, port) }
		stages = append([]stage{{"engine port", serve}}, stages...)
	}
	return stages
}

// restart stops the engine, as the end of the daemon would, and opens it again.
func (d *database) restart(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case d.restarts <- answer:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// dial connects to the engine; in the middle of a restart it fails.
func (d *database) dial(ctx context.Context) (net.Conn, error) {
	d.mu.Lock()
	wire := d.wire
	d.mu.Unlock()
	return wire.Dial(ctx)
}

// now returns the engine that runs.
func (d *database) now() *engine.Engine {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.engine
}

func (d *database) stats() engine.Stats { return d.now().Stats() }

func (d *database) listener() net.Listener {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.port
}

// address returns where psql finds it, empty if nowhere.
func (d *database) address() string {
	if port := d.listener(); port != nil {
		return port.Addr().String()
	}
	return ""
}

// Describe implements prometheus.Collector.
func (d *database) Describe(ch chan<- *prometheus.Desc) { d.now().Describe(ch) }

// Collect implements prometheus.Collector.
func (d *database) Collect(ch chan<- prometheus.Metric) { d.now().Collect(ch) }
