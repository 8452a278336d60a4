// Package websocket serves views to browsers and to curl: as websockets,
// server-sent events, newline-delimited JSON and snapshots, with a page that
// shows them.
//
// A stream begins with a base, the whole view, and goes on with deltas, each of
// which leads from the position that the last message named to the next one. A
// reader is nothing but such a position: there is no queue for it. When it has
// taken a message it gets everything that has happened since as one net delta,
// so that a slow reader gets fewer messages, is right at each of them, and
// holds nobody up. A client that comes back with its position continues from
// there. Several views in one stream move as one cut.
//
// The package is the [core.Broadcaster] that the configuration calls
// "websocket". Where to begin: [New] binds the address, [Sink.Serve] serves.
//
// # Requests
//
//	GET /api/stream/{view}              a stream of one view
//	GET /api/stream?view=a&view=b       a stream of several views as one cut
//	    ?since=TOKEN                    continue from a position
//	    ?interval=500ms                 at most one message in each such interval
//	    ?numbers=string                 int8 and numeric values as strings
//	    ?mismatch=TOKEN                 counted: what came after it did not add up
//	GET /api/views                      the views
//	GET /api/views/{view}               a view as it is now
//	    ?format=json|ndjson|csv         or by the Accept header
//	    ?numbers=string
//	    ?min_timestamp=T                wait until it is complete through T
//	GET /api/v1/stream/{view}           as the clients of 2020 expect it
//	GET /  /split  /mzd.js              the page, the split screen, the browser client
//
// A stream is a websocket if the request asks for an upgrade, server-sent
// events if it accepts text/event-stream (the id of an event is its token, and
// Last-Event-ID is another way to say since), and otherwise JSON lines.
//
// # Protocol
//
// docs/protocol.md specifies requests, messages, errors, close codes and limits
// by numbered rules, and package conformance checks them. A message is the JSON
// of a cut: its rows are the bytes of the log's, encoded once for everybody who
// stands at one position. It names the token from which a stream can continue,
// and carries the checksum of what it leads to ([core.Checksum]).
//
// While there is nothing to send because a view has no data yet, or is so far
// behind the others of the stream that they share no time, the stream says so
// (view_not_ready), and likewise where a view has stopped, for reasons that the
// operator can see (view_failed). Both end nothing: a client shows them and goes
// on waiting, with what it holds.
//
// A token that is too old, of another history, of other views or from the future
// is answered with a base, as is a view that begins a new history in the middle
// of a stream. A client of version 1 could not tell that base from a delta, so
// that its stream ends instead.
package websocket

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/schema"
)

// Settings are what the configuration says about the sink. Zero values mean
// the defaults.
type Settings struct {
	Listen                   string          `json:"listen" default:"127.0.0.1:8875" doc:"Address to serve the page and the streams on."`
	Origins                  []string        `json:"origins" doc:"Origins (as in https://example.com) whose pages may read the streams, beside the sink's own; \"*\" means all. On a loopback address every loopback origin may, too."`
	Notice                   string          `json:"notice" doc:"A sentence to show on the page."`
	TLS                      *TLS            `json:"tls" doc:"Serves over TLS. The files are read again when they have changed."`
	MaxConnections           int             `json:"max_connections" default:"10000" doc:"Connections to serve at one time; more are answered with status 503."`
	MaxConnectionsPerAddress int             `json:"max_connections_per_address" doc:"Connections of one address (of IPv6: one /64 network) at one time; more are answered with status 429. 0, the default, is no limit: behind a proxy all clients have its address."`
	MaxPinnedBytes           schema.Bytes    `json:"max_pinned_bytes" default:"256MiB" doc:"How much of what slow clients are being sent may be kept in memory for them. Beyond it those are closed who have taken longest."`
	StallTimeout             schema.Duration `json:"stall_timeout" default:"5m" doc:"How long a client may leave no room for the next 16 KiB of what is sent to it before its connection is closed. Being slow is no reason to close one."`
}

const (
	defaultListen         = "127.0.0.1:8875"
	defaultMaxConnections = 10_000
	defaultMaxPinned      = 256 << 20
	defaultStallTimeout   = 5 * time.Minute
)

// Validate checks what the tags cannot say.
func (s Settings) Validate() error {
	var errs []error
	if s.MaxConnections < 0 {
		errs = append(errs, schema.Errorf("max_connections", "must not be negative"))
	}
	if s.MaxConnectionsPerAddress < 0 {
		errs = append(errs, schema.Errorf("max_connections_per_address", "must not be negative"))
	}
	if s.TLS != nil {
		errs = append(errs, s.TLS.validate())
	}
	if s.StallTimeout < 0 {
		errs = append(errs, schema.Errorf("stall_timeout", "must not be negative"))
	}
	for i, origin := range s.Origins {
		if err := checkOrigin(origin); err != nil {
			errs = append(errs, schema.Errorf(schema.Path("origins").Index(i), "%s", err))
		}
	}
	return errors.Join(errs...)
}

// Sink serves views. It is a [core.Broadcaster] and, in metrics.go, a
// prometheus.Collector.
type Sink struct {
	settings Settings
	addr     net.Addr
	log      *slog.Logger
	metrics  *metrics
	assets   assets
	tls      *tls.Config // nil: none
	actions  Actions

	requestTimeout time.Duration

	// mu guards listener: bound by New, nil once Serve or Close has taken it.
	mu       sync.Mutex
	listener net.Listener
}

var _ core.Broadcaster = (*Sink)(nil)

// New binds the address, so that a port that is taken is known before anything
// runs, and starts nothing. Settings that can never work give an error that
// wraps [core.ErrPermanent].
func New(ctx context.Context, s Settings) (*Sink, error) {
	s = s.withDefaults()
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("websocket: %w: %w", err, core.ErrPermanent)
	}
	var encrypted *tls.Config
	if s.TLS != nil {
		var err error
		if encrypted, err = s.TLS.config(plugins.EnvOf(ctx).Logger); err != nil {
			return nil, fmt.Errorf("websocket: %w", err)
		}
	}
	ln, err := listen(ctx, s.Listen)
	if err != nil {
		return nil, err
	}
	sink := newSink(ctx, s, ln)
	sink.tls = encrypted
	return sink, nil
}

func (s Settings) withDefaults() Settings {
	s.Listen = cmp.Or(s.Listen, defaultListen)
	s.MaxConnections = cmp.Or(s.MaxConnections, defaultMaxConnections)
	s.MaxPinnedBytes = cmp.Or(s.MaxPinnedBytes, defaultMaxPinned)
	s.StallTimeout = cmp.Or(s.StallTimeout, schema.Duration(defaultStallTimeout))
	return s
}

func newSink(ctx context.Context, s Settings, ln net.Listener) *Sink {
	sink := &Sink{
		settings: s,
		addr:     ln.Addr(),
		log:      plugins.EnvOf(ctx).Logger,
		metrics:  newMetrics(),
		assets:   loadAssets(),
		listener: ln,

		requestTimeout: requestTimeout,
	}
	if isLoopback(sink.addr) {
		sink.actions = actionsOf(ctx)
	}
	return sink
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	lc := net.ListenConfig{Control: setSocketOptions}
	lc.SetMultipathTCP(false) // its sockets inherit nothing, and have no TCP_NOTSENT_LOWAT
	ln, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve streams on %s: %w (stop what uses the address, or set another one as listen)", address, err)
	}
	return ln, nil
}

// Addr returns the address that is served, with the port that was chosen if
// the settings left it open.
func (s *Sink) Addr() net.Addr { return s.addr }

// URL returns where browsers find what is served.
func (s *Sink) URL() string {
	scheme := "http"
	if s.tls != nil {
		scheme = "https"
	}
	return scheme + "://" + s.addr.String() + "/"
}

// Write is not supported: a broadcaster is served the logs.
func (s *Sink) Write(context.Context, []core.Batch) error {
	return fmt.Errorf("websocket: a broadcaster is served, not written: %w", core.ErrPermanent)
}

// Close frees the address if Serve has not taken it over.
func (s *Sink) Close() error {
	if ln := s.takeListener(); ln != nil {
		return ln.Close()
	}
	return nil
}

func (s *Sink) takeListener() net.Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	ln := s.listener
	s.listener = nil
	return ln
}

// Serve serves the views, which must be [core.CutReader]s, until ctx ends.
// Then websockets are closed with code 1012 and the other streams end, for
// which clients get a moment, and Serve returns nil. Another return is a
// failure to accept connections; Serve may be called again, and binds the same
// address again.
func (s *Sink) Serve(ctx context.Context, views []core.Reader) error {
	srv, err := newServer(s, views)
	if err != nil {
		return err
	}
	ln := s.takeListener()
	if ln == nil {
		if ln, err = listen(ctx, s.addr.String()); err != nil {
			return err
		}
	}
	return srv.run(ctx, ln)
}
