package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/mzdio/mzd/config"
	"github.com/mzdio/mzd/core/durable"
	"github.com/mzdio/mzd/engine"
	"github.com/mzdio/mzd/engine/pgwire"
)

// runEngine runs the embedded engine alone, as a server, until ctx ends.
func runEngine(ctx context.Context, o engineOptions, log *slog.Logger) error {
	if o.DataDir != "" {
		lock, err := durable.LockDir(o.DataDir)
		if err != nil {
			return environment(fmt.Errorf("-data-dir: %w", err))
		}
		defer lock.Close()
	}
	e, err := engine.Open(engine.Options{DataDir: o.DataDir, Logger: log})
	if err != nil {
		return environment(err)
	}
	wire := pgwire.New(e, pgwire.Options{Logger: log, Version: version().Version})
	l, err := listen(o.Listen, "-listen")
	if err != nil {
		return err
	}
	defer l.Close()
	stages := []stage{
		{"engine port", func(ctx context.Context) error { return wire.Serve(ctx, l) }},
		{"engine", e.Run},
	}
	if o.Admin != "" {
		registry := newRegistry()
		registry.MustRegister(e)
		watch := watchedEngine{e}
		a, err := newAdmin(o.Admin, registry, watch.health, watch.ready, func() any { return e.Stats() })
		if err != nil {
			return err
		}
		defer a.Close()
		log.Info("admin is listening", "address", reachable(a.Addr().String()))
		stages = append(stages, stage{"admin", a.Serve})
	}
	if o.Init != "" {
		client, err := newClient(config.Embedded, wire.Dial, log)
		if err != nil {
			return err
		}
		if _, err := os.Stat(o.Init); err != nil {
			return usage(fmt.Errorf("-init: %w", err))
		}
		init := initialiser{path: o.Init, client: client}
		initialise := func(ctx context.Context) error {
			if err := init.once(ctx); err != nil {
				return err
			}
			log.Info("init is done", "file", o.Init)
			<-ctx.Done()
			return nil
		}
		stages = append([]stage{{"init", initialise}, {"engine pipe", wire.Run}}, stages...)
	}
	host, port, _ := net.SplitHostPort(reachable(l.Addr().String()))
	log.Info("engine is listening", "try", fmt.Sprintf("psql -h %s -p %s -U materialize materialize", host, port))
	defer log.Info("engine has stopped")
	return runStages(ctx, stages...)
}

// watchedEngine tells an operator about an engine that runs alone.
type watchedEngine struct{ *engine.Engine }

// health is why no time closes.
func (w watchedEngine) health() error {
	if s := w.Stats(); s.Problem != "" {
		return errors.New(s.Problem)
	}
	return nil
}

// ready tells whether every view can be read, and names those, and the sources, that are in trouble.
func (w watchedEngine) ready() readiness {
	s := w.Stats()
	var r readiness
	if s.Problem != "" {
		r.Degraded = append(r.Degraded, "disk: "+s.Problem)
	}
	for _, v := range s.Views {
		switch {
		case v.Problem != "":
			r.Degraded = append(r.Degraded, fmt.Sprintf("view %s: %s", v.Name, v.Problem))
		case !v.Ready:
			r.Waiting = append(r.Waiting, v.Name)
		}
	}
	for _, src := range s.Sources {
		if src.Problem != "" {
			r.Degraded = append(r.Degraded, fmt.Sprintf("source %s: %s", src.Name, src.Problem))
		}
	}
	r.Ready = !s.Opening && r.Waiting == nil
	return r
}
