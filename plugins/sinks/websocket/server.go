package websocket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/mzdio/mzd/core"
)

const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute // of a connection without a request
	maxHeaderBytes    = 16 << 10
	shutdownGrace     = 2 * time.Second // to take the rest of a message and the goodbye
)

// A server is one run of [Sink.Serve].
type server struct {
	*Sink
	views    []core.CutReader
	byName   map[string]core.CutReader
	cache    cache
	refusals refusals
	requests requests
}

func newServer(s *Sink, views []core.Reader) (*server, error) {
	srv := &server{Sink: s, byName: make(map[string]core.CutReader)}
	srv.requests.idle = make(chan struct{})
	for _, v := range views {
		r, ok := v.(core.CutReader)
		if !ok {
			return nil, fmt.Errorf("websocket: view %s cannot be read at a chosen time: %w", v.View().Name, core.ErrPermanent)
		}
		srv.views = append(srv.views, r)
		srv.byName[v.View().Name] = r
	}
	return srv, nil
}

// run serves until ctx ends or the listener fails, and returns when everything
// it started has ended.
func (s *server) run(ctx context.Context, ln net.Listener) error {
	streams, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var conns sync.WaitGroup
	gate := newGate(ln, s.settings.MaxConnections, time.Duration(s.settings.StallTimeout))
	web := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return streams },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c.(*gatedConn))
		},
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				conns.Add(1)
			case http.StateClosed, http.StateHijacked: // a hijacker is a request until it returns
				conns.Done()
			}
		},
	}
	failed := make(chan error, 1)
	go func() { failed <- web.Serve(gate) }()

	var err error
	select {
	case err = <-failed:
		err = fmt.Errorf("serve streams on %s: %w", s.addr, err)
	case <-ctx.Done():
		gate.Close()
		<-failed
	}
	stop(errStopped)
	select {
	case <-s.requests.drain():
	case <-time.After(shutdownGrace):
	}
	gate.closeAll()
	<-s.requests.idle
	web.Close()
	conns.Wait()
	return err
}

// errStopped is why the streams end when the server does.
var errStopped = errors.New("the server is stopping")

type connKey struct{}

// connOf returns the connection of a request.
func connOf(r *http.Request) *gatedConn { return r.Context().Value(connKey{}).(*gatedConn) }

// handler routes requests.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/stream", s.serveStream)
	mux.HandleFunc("GET /api/stream/{view}", s.serveStream)
	mux.HandleFunc("GET /api/v1/stream/{view}", s.serveV1)
	mux.HandleFunc("GET /api/views", s.serveViews)
	mux.HandleFunc("GET /api/views/{view}", s.serveSnapshot)
	mux.HandleFunc("GET /demo", s.serveActions)
	mux.HandleFunc("POST /demo/{action}", s.serveAction)
	mux.HandleFunc("/", s.serveAsset)
	origins := origins{loopback: isLoopback(s.addr), allowed: s.settings.Origins}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.requests.enter() {
			w.Header().Set("Connection", "close")
			writeError(w, errStopping)
			return
		}
		defer s.requests.leave()
		if connOf(r).surplus {
			w.Header().Set("Connection", "close")
			writeError(w, errTooMany)
			return
		}
		if refused := origins.check(r); refused != nil {
			s.refuse(w, refused)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/api/") {
			allowOrigin(w.Header(), r.Header.Get("Origin"))
		}
		mux.ServeHTTP(w, r)
	})
}

// requests counts the requests that are being served.
type requests struct {
	// mu guards count and draining. idle is closed once draining is set and the
	// count is zero.
	mu       sync.Mutex
	count    int
	draining bool
	idle     chan struct{}
}

func (r *requests) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.draining {
		return false
	}
	r.count++
	return true
}

func (r *requests) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count--; r.draining && r.count == 0 {
		close(r.idle)
	}
}

// drain lets no more requests in; the channel is closed when the last one has
// left.
func (r *requests) drain() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.draining = true; r.count == 0 {
		close(r.idle)
	}
	return r.idle
}
