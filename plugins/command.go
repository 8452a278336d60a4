package plugins

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/mzdio/mzd/core"
	mzdv1 "github.com/mzdio/mzd/plugins/proto/mzd/v1"
	"github.com/mzdio/mzd/schema"
)

// Command is how the binary of a plugin is run.
//
// The process is supervised: it is started when it is needed, and again for the
// next call after it has ended. Whoever calls waits out failures, as with any
// source or sink. It is ended when it does not answer a health check, breaks the
// protocol or does not acknowledge in time. It never outlives this process.
type Command struct {
	Path string            // of the binary
	Args []string          // its arguments
	Env  map[string]string // its environment, beside PATH and HOME

	// SHA256 is what the binary must hash to, in hex; empty: anything. A binary
	// that does not is not started.
	SHA256 string

	// TLS is "off" for a plugin that cannot use the certificates of mzd; then only
	// the directory of its socket keeps others out. Otherwise both sides accept
	// only each other.
	TLS string

	// AckTimeout is how long a sink may take to acknowledge a cut, once it has all
	// of it; 0: five minutes.
	AckTimeout time.Duration

	limits limits // zero: the usual ones
}

const defaultAckTimeout = 5 * time.Minute

// Kind is what a plugin is.
type Kind string

// The kinds of plugins.
const (
	KindSink   Kind = "sink"
	KindSource Kind = "source"
)

// Info is what a plugin says about itself.
type Info struct {
	Kind     Kind
	Name     string
	Version  string // its own
	Doc      string // one line: what it does
	Protocol int    // the version of the protocol that mzd and the plugin speak
	Settings *schema.Schema

	// Abilities, which do not depend on settings.
	KeepsPositions bool // a sink is a [core.Positioner]
	Broadcasts     bool // a sink is a [core.Broadcaster]
	Identifies     bool // a source is a [core.Identifier]
}

// Describe starts the plugin, asks it what it is, and ends it. What it says on
// the way goes to the logger of [EnvOf].
func (c Command) Describe(ctx context.Context) (Info, error) {
	p, err := c.launch(ctx, EnvOf(ctx).Logger.With("plugin", c.Path))
	if err != nil {
		return Info{}, err
	}
	defer p.stop()
	var answer *mzdv1.DescribeResponse
	err = p.call(ctx, c.limit().call, "describe itself", func(ctx context.Context) (err error) {
		answer, err = mzdv1.NewPluginClient(p.conn).Describe(ctx, &mzdv1.DescribeRequest{})
		return err
	})
	if err != nil {
		return Info{}, err
	}
	return c.info(answer)
}

// maxText bounds the texts of an Info.
const maxText = 1 << 10

func (c Command) info(d *mzdv1.DescribeResponse) (Info, error) {
	info := Info{
		Name:           shorten(d.GetName(), maxText),
		Version:        shorten(d.GetVersion(), maxText),
		Doc:            shorten(d.GetDoc(), maxText),
		Protocol:       protocolVersion,
		KeepsPositions: d.GetKeepsPositions(),
		Broadcasts:     d.GetBroadcasts(),
		Identifies:     d.GetIdentifies(),
	}
	switch d.GetKind() {
	case mzdv1.Kind_KIND_SINK:
		info.Kind = KindSink
	case mzdv1.Kind_KIND_SOURCE:
		info.Kind = KindSource
	default:
		return Info{}, &ProtocolError{c.Path, fmt.Sprintf("Describe says that it is a sink or a source, and not %s", d.GetKind())}
	}
	var err error
	if info.Settings, err = schema.ParseJSONSchema(d.GetSettingsSchema()); err != nil {
		return Info{}, &ProtocolError{c.Path, fmt.Sprintf("the schema of its settings: %v", err)}
	}
	return info, nil
}

// Sink returns the sink that the command is. info is what Describe has returned.
//
// Its Open fails if the settings are refused, or if for any other reason trying
// again cannot help; a plugin that does not start now is tried again at the first
// call.
func (c Command) Sink(info Info) Sink {
	return Sink{Name: info.Name, Doc: info.Doc, Settings: info.Settings, Open: func(ctx context.Context, settings json.RawMessage) (core.Sink, error) {
		e := newExternal(ctx, c)
		s := &externalSink{external: e, streams: make(map[string]*writeStream)}
		e.open = func(ctx context.Context, conn *grpc.ClientConn) error {
			env := EnvOf(e.env)
			answer, err := mzdv1.NewSinkClient(conn).Open(ctx, &mzdv1.SinkOpenRequest{Name: env.Name, Pipeline: env.Pipeline, Settings: settings})
			e.setAddress(answer.GetAddress())
			return err
		}
		if err := e.begin(ctx); err != nil {
			return nil, err
		}
		switch {
		case info.Broadcasts:
			return &externalBroadcaster{s}, nil
		case info.KeepsPositions:
			return &externalPositioner{s}, nil
		}
		return s, nil
	}}
}

// Source returns the source that the command is, like [Command.Sink].
func (c Command) Source(info Info) Source {
	return Source{Name: info.Name, Doc: info.Doc, Settings: info.Settings, Open: func(ctx context.Context, settings json.RawMessage) (core.Source, error) {
		e := newExternal(ctx, c)
		s := &externalSource{e}
		e.open = func(ctx context.Context, conn *grpc.ClientConn) error {
			env := EnvOf(e.env)
			_, err := mzdv1.NewSourceClient(conn).Open(ctx, &mzdv1.SourceOpenRequest{Name: env.Name, Pipeline: env.Pipeline, Settings: settings})
			return err
		}
		if err := e.begin(ctx); err != nil {
			return nil, err
		}
		if info.Identifies {
			return &externalIdentifier{s}, nil
		}
		return s, nil
	}}
}

// ProcessStatus is how the process of a plugin is doing.
type ProcessStatus struct {
	Up       bool   // it runs
	Restarts uint64 // how often it was started again, whether it came to be open or not
	Pid      int    // of the process; 0: none
	Err      error  // why it was not started or did not open when that was tried last; nil: it did
}

// Supervised is what the sources and sinks of a [Command] are.
type Supervised interface{ Process() ProcessStatus }

// external is a source or a sink in a process of its own.
type external struct {
	command Command
	env     context.Context // carries the Env; nothing else of it counts
	log     *slog.Logger
	open    func(context.Context, *grpc.ClientConn) error

	turn chan struct{} // holds an element while a process is started or ended

	mu      sync.Mutex // guards what follows; written by the holder of the turn
	process *process   // nil: none yet
	starts  uint64     // that were tried
	err     error      // of the last one
	address string
	closed  bool
}

func newExternal(ctx context.Context, c Command) *external {
	return &external{
		command: c,
		env:     WithEnv(context.Background(), EnvOf(ctx)),
		log:     EnvOf(ctx).Logger.With("plugin", c.Path),
		turn:    make(chan struct{}, 1),
	}
}

// errClosed is returned by calls of a plugin after its Close.
var errClosed = errors.New("plugin is closed")

// begin starts the process for the first time. Its error is one that is going to
// stay; any other is told by the calls that come, which try again.
func (e *external) begin(ctx context.Context) error {
	_, err := e.running(ctx)
	if err != nil && (ctx.Err() != nil || errors.Is(err, core.ErrPermanent)) {
		return errors.Join(err, e.Close())
	}
	return nil
}

// running returns the process, which it starts and opens if there is none. Of
// several that wait for it, one tries.
func (e *external) running(ctx context.Context) (*process, error) {
	e.mu.Lock()
	before := e.starts
	e.mu.Unlock()
	select {
	case e.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-e.turn }()
	e.mu.Lock()
	last, closed, tried, err := e.process, e.closed, e.starts != before, e.err
	e.mu.Unlock()
	switch {
	case closed:
		return nil, errClosed
	case last != nil && last.alive():
		return last, nil
	case tried && err != nil:
		return nil, err
	case last != nil:
		last.kill() // and releases it
	}
	p, err := e.start(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, err // which says nothing about the plugin
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.starts++
	if e.err = err; err != nil {
		return nil, err
	}
	e.process = p
	if last != nil {
		e.log.Warn("plugin was started again", "because", last.ended(), "pid", p.child.process.Pid())
	}
	return p, nil
}

// start starts a process and opens it.
func (e *external) start(ctx context.Context) (*process, error) {
	p, err := e.command.launch(ctx, e.log)
	if err != nil {
		return nil, err
	}
	opening := func(ctx context.Context) error { return e.open(ctx, p.conn) }
	if err := p.call(ctx, e.command.limit().call, "open", opening); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// current returns the process if it runs.
func (e *external) current() (*process, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.process, e.process != nil && e.process.alive()
}

// Process returns how the process is doing.
func (e *external) Process() ProcessStatus {
	p, up := e.current()
	e.mu.Lock()
	defer e.mu.Unlock()
	s := ProcessStatus{Up: up, Err: e.err, Restarts: max(e.starts, 1) - 1}
	if up {
		s.Pid = p.child.process.Pid()
	}
	return s
}

func (e *external) setAddress(address string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.address = shorten(address, maxText)
}

// Close ends the process, if it runs.
func (e *external) Close() error { return e.shut(nil) }

// rest ends the process until the next call.
func (e *external) rest() {
	e.turn <- struct{}{}
	defer func() { <-e.turn }()
	e.mu.Lock()
	p := e.process
	e.process = nil
	if p != nil {
		e.starts-- // it was not the plugin that failed
	}
	e.mu.Unlock()
	if p != nil {
		p.stop()
	}
}

// shut ends the process, after a last call.
func (e *external) shut(last func(context.Context, *process) error) error {
	e.turn <- struct{}{}
	defer func() { <-e.turn }()
	e.mu.Lock()
	p := e.process
	e.process, e.closed = nil, true
	e.mu.Unlock()
	if p == nil {
		return nil
	}
	var err error
	select {
	case <-p.done:
	default:
		if last != nil {
			err = p.call(context.Background(), e.command.limit().shut, "close", func(ctx context.Context) error { return last(ctx, p) })
		}
	}
	p.stop()
	return err
}
