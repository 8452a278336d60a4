package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/mzdio/mzd/config"
	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/ingest"
	"github.com/mzdio/mzd/plugins"
)

// late is a source or a sink that is a binary. It is opened when it is called
// first, and tried again at each call until it opens, so that nothing else waits
// for one that does not start. From then on it is [plugins] that keeps it running.
type late[T any] struct {
	plugin  func() (plugins.Info, bool)      // what it has said that it is
	connect func(context.Context) (T, error) // opens it
	turn    chan struct{}                    // holds an element while it is opened or closed

	mu       sync.Mutex // guards what follows; written by the holder of the turn
	instance T
	opened   bool
	closed   bool
	failures uint64 // tries to open it that failed
	err      error  // of the last one
}

// get returns the plugin, which it opens if it is not open. Of several that wait
// for it, one tries.
func (l *late[T]) get(ctx context.Context) (T, error) {
	var none T
	l.mu.Lock()
	before := l.failures
	l.mu.Unlock()
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return none, ctx.Err()
	}
	defer func() { <-l.turn }()
	l.mu.Lock()
	instance, opened, closed, failed, err := l.instance, l.opened, l.closed, l.failures != before, l.err
	l.mu.Unlock()
	switch {
	case closed:
		return none, errors.New("plugin is closed")
	case opened:
		return instance, nil
	case failed:
		return none, err
	}
	instance, err = l.connect(ctx)
	if err != nil && ctx.Err() != nil {
		return none, ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err = err; err != nil {
		l.failures++
		return none, err
	}
	l.instance, l.opened = instance, true
	return instance, nil
}

// state returns how the process is doing. Tries to open it count like those that
// [plugins] makes from then on.
func (l *late[T]) state() plugins.ProcessStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s, ok := any(l.instance).(plugins.Supervised); ok && l.opened {
		state := s.Process()
		state.Restarts += l.failures
		return state
	}
	return plugins.ProcessStatus{Err: l.err, Restarts: max(l.failures, 1) - 1}
}

// warm opens the plugin before it is needed. Whoever needs it tells its error.
func (l *late[T]) warm(ctx context.Context) { _, _ = l.get(ctx) }

// Close closes the plugin, if it is open.
func (l *late[T]) Close() error {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	l.mu.Lock()
	instance, opened := l.instance, l.opened
	l.opened, l.closed = false, true
	l.mu.Unlock()
	if c, ok := any(instance).(interface{ Close() error }); ok && opened {
		return c.Close()
	}
	return nil
}

// A binary is what the daemon knows of a late plugin of either kind.
type binary interface {
	state() plugins.ProcessStatus
	about() (plugins.Info, bool)
	warm(context.Context)
}

// about returns what the plugin has said that it is.
func (l *late[T]) about() (plugins.Info, bool) { return l.plugin() }

// lateSink is a sink that is a binary.
type lateSink struct{ *late[core.Sink] }

// latePositioner is one that keeps its own positions.
type latePositioner struct{ lateSink }

// lateBroadcaster is one that serves readers of its own.
type lateBroadcaster struct{ lateSink }

var (
	_ core.Positioner  = latePositioner{}
	_ core.Broadcaster = lateBroadcaster{}
	_ binary           = (*late[core.Sink])(nil)

	_ ingest.BatchIdentifier = lateIdentifier{}
)

// binarySink returns the sink that is a binary. One that has not said yet
// what it is may keep its own positions; if it does not, it begins anew.
func (d *daemon) binarySink(name string, c config.Sink) core.Sink {
	info, known := d.catalog.lookup(*c.Binary)
	sink := lateSink{newLate(d, "sink", name, c.Plug, func(ctx context.Context, info plugins.Info, settings []byte) (core.Sink, error) {
		if info.Broadcasts && !known {
			return nil, errTooLate(c.Binary.Path, "serves readers of its own")
		}
		return command(*c.Binary).Sink(info).Open(ctx, settings)
	})}
	d.binaries["sinks."+name] = sink
	switch {
	case info.Broadcasts:
		return lateBroadcaster{sink}
	case info.KeepsPositions || !known:
		return latePositioner{sink}
	}
	return sink
}

// newLate returns the plugin that open opens once it is known what it is and its
// settings are checked. open gets the environment of the plugin with its context.
func newLate[T any](d *daemon, kind, name string, c config.Plug, open func(context.Context, plugins.Info, []byte) (T, error)) *late[T] {
	return &late[T]{
		turn:   make(chan struct{}, 1),
		plugin: func() (plugins.Info, bool) { return d.catalog.lookup(*c.Binary) },
		connect: func(ctx context.Context) (none T, err error) {
			ctx = d.env(ctx, kind, name)
			info, err := d.catalog.describe(ctx, *c.Binary)
			if err != nil {
				return none, err
			}
			settings := c.Settings
			if c.CheckLater != nil {
				if settings, err = c.CheckLater(info.Settings); err != nil {
					return none, fmt.Errorf("%s: %w", strings.ReplaceAll(err.Error(), "\n", "; "), core.ErrPermanent)
				}
			}
			instance, err := open(ctx, info, settings)
			if s, ok := any(instance).(plugins.Supervised); ok && err == nil && s.Process().Up { // otherwise it is tried again, and told
				args := []any{"plugin", c.Binary.Path, "version", info.Version, "protocol", info.Protocol, "pid", s.Process().Pid}
				if place := placeOf(instance); place != "" {
					args = append(args, "address", place)
				}
				plugins.EnvOf(ctx).Logger.Info("plugin runs", args...)
			}
			return instance, err
		},
	}
}

// errTooLate says that what a plugin can do must be known before the rest is
// opened.
func errTooLate(path, what string) error {
	return fmt.Errorf("%s %s, which it has to say when mzd starts; restart mzd: %w", path, what, core.ErrPermanent)
}

// Write implements [core.Sink].
func (s lateSink) Write(ctx context.Context, cut []core.Batch) error {
	sink, err := s.get(ctx)
	if err != nil {
		return err
	}
	return sink.Write(ctx, cut)
}

// Addr returns the address that the sink listens on, nil if it does not.
func (s lateSink) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.instance.(listener); ok {
		return l.Addr()
	}
	return nil
}

// Position implements [core.Positioner].
func (s latePositioner) Position(ctx context.Context, v *core.View) (core.Token, error) {
	sink, err := s.get(ctx)
	if err != nil {
		return core.Token{}, err
	}
	if p, ok := sink.(core.Positioner); ok {
		return p.Position(ctx, v)
	}
	return core.Token{}, nil
}

// Serve implements [core.Broadcaster].
func (s lateBroadcaster) Serve(ctx context.Context, views []core.Reader) error {
	sink, err := s.get(ctx)
	if err != nil {
		return err
	}
	b, ok := sink.(core.Broadcaster)
	if !ok {
		return fmt.Errorf("sink does not serve readers as it has said: %w", core.ErrPermanent)
	}
	return b.Serve(ctx, views)
}

// lateSource is a source that is a binary.
type lateSource struct{ *late[core.Source] }

// lateIdentifier is one that knows the IDs of landed events.
type lateIdentifier struct{ lateSource }

// binarySource returns the source that is a binary.
func (d *daemon) binarySource(name string, c config.Source) core.Source {
	info, known := d.catalog.lookup(*c.Binary)
	source := lateSource{newLate(d, "source", name, c.Plug, func(ctx context.Context, info plugins.Info, settings []byte) (core.Source, error) {
		if info.Identifies && !known {
			return nil, errTooLate(c.Binary.Path, "knows the IDs of landed events")
		}
		return command(*c.Binary).Source(info).Open(ctx, settings)
	})}
	d.binaries["sources."+name] = source
	if info.Identifies {
		return lateIdentifier{source}
	}
	return source
}

// Run implements [core.Source].
func (s lateSource) Run(ctx context.Context, cursor string, emit core.EmitFunc) error {
	source, err := s.get(ctx)
	if err != nil {
		return err
	}
	return source.Run(ctx, cursor, emit)
}

// Identify implements [core.Identifier]. It tries to open the source once: what
// landed is read while everything else waits.
func (s lateIdentifier) Identify(data []byte) string {
	if i := s.identifier(); i != nil {
		return i.Identify(data)
	}
	return ""
}

// IdentifyAll implements [ingest.BatchIdentifier].
func (s lateIdentifier) IdentifyAll(events [][]byte) []string {
	if i := s.identifier(); i != nil {
		return i.IdentifyAll(events)
	}
	return make([]string, len(events))
}

// identifier returns the source, nil if it is not open.
func (s lateIdentifier) identifier() ingest.BatchIdentifier {
	if s.state().Err != nil {
		return nil
	}
	source, err := s.get(context.Background())
	if err != nil {
		return nil
	}
	i, _ := source.(ingest.BatchIdentifier)
	return i
}
