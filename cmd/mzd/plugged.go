package main

import (
	"context"
	"sync"

	"github.com/mzdio/mzd/core/hub"
	"github.com/mzdio/mzd/core/ingest"
)

// plugged is how the plugin of a source or a sink is doing, for operators.
type plugged struct {
	Name     string `json:"name"`               // as in the configuration: sinks.web
	Plugin   string `json:"plugin"`             // likewise: websocket, ./mirror
	Version  string `json:"version"`            // its own; empty: it has not said yet
	Protocol int    `json:"protocol,omitempty"` // of a binary: the version that it and mzd speak
	Up       bool   `json:"up"`
	Pid      int    `json:"pid,omitempty"` // of a binary
	Restarts uint64 `json:"restarts"`      // after it has ended by itself, or was not started
	Error    string `json:"error,omitempty"`
}

// plugins returns the state of the plugins of all sources, and then of all
// sinks, ordered by name.
func (d *daemon) plugins(sources []ingest.Status, sinks []hub.SinkStatus) []plugged {
	all := []plugged{}
	for _, s := range sources {
		p := plugged{Name: "sources." + s.Name, Plugin: d.cfg.Sources[s.Name].Plugin, Error: s.Error, Up: s.State != ingest.Failed}
		all = append(all, d.plugged(p))
	}
	for _, s := range sinks {
		p := plugged{Name: "sinks." + s.Name, Plugin: d.cfg.Sinks[s.Name].Plugin, Up: !s.Down && !s.Failed, Restarts: s.Restarts}
		if s.Trouble != nil {
			p.Error = s.Trouble.Error
		}
		all = append(all, d.plugged(p))
	}
	return all
}

// plugged completes the state of a plugin by what is known of its binary, if it
// is one.
func (d *daemon) plugged(p plugged) plugged {
	b, ok := d.binaries[p.Name]
	if !ok {
		p.Version = version().Version
		return p
	}
	info, _ := b.about()
	process := b.state()
	p.Version, p.Protocol = info.Version, info.Protocol
	p.Up, p.Pid, p.Restarts = p.Up && process.Up, process.Pid, process.Restarts
	switch {
	case p.Error != "" || p.Up:
	case process.Err != nil:
		p.Error = process.Err.Error()
	default:
		p.Error = "its process does not run; it is started when it is needed"
	}
	return p
}

// openBinaries opens all binaries, so that they run before they are needed, and
// returns when ctx ends. Whoever calls one that does not open tells why.
func (d *daemon) openBinaries(ctx context.Context) error {
	var opening sync.WaitGroup
	for _, b := range d.binaries {
		opening.Go(func() { b.warm(ctx) })
	}
	opening.Wait()
	<-ctx.Done()
	return nil
}
