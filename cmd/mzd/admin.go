package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// admin is the server for operators: /metrics, /healthz, /readyz, /api/status.
type admin struct {
	listener net.Listener
	server   *http.Server
}

// readiness is the answer of /readyz.
type readiness struct {
	Ready    bool     `json:"ready"`
	Waiting  []string `json:"waiting,omitempty"`  // views that have not been complete yet
	Degraded []string `json:"degraded,omitempty"` // what is in trouble, while the rest works
}

// newAdmin listens, so that a port that is taken shows at the start, and serves
// nothing yet. health returns what keeps the process from doing its work, and
// status what /api/status shows, as a value to encode; all three functions are
// called concurrently.
func newAdmin(address string, registry *prometheus.Registry, health func() error, ready func() readiness, status func() any) (*admin, error) {
	l, err := listen(address, "admin")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		// One collector that fails does not take the others with it; it is
		// counted in promhttp_metric_handler_errors_total.
		ErrorHandling:       promhttp.ContinueOnError,
		Registry:            registry,
		MaxRequestsInFlight: 4,
		Timeout:             10 * time.Second,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := health(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		r := ready()
		code := http.StatusOK
		if !r.Ready {
			code = http.StatusServiceUnavailable
		}
		writeJSON(w, code, r)
	})
	mux.HandleFunc("GET /api/status", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, status())
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `mzd, for operators

/metrics      for Prometheus
/healthz      whether the process can do its work
/readyz       whether every view is complete, and what is in trouble
/api/status   everything, as JSON
`)
	})
	return &admin{
		listener: l,
		server: &http.Server{
			Handler:           guardLoopback(l.Addr(), mux),
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       10 * time.Second,
			WriteTimeout:      30 * time.Second,
			IdleTimeout:       time.Minute,
			MaxHeaderBytes:    16 << 10,
		},
	}, nil
}

// Addr returns the address that it listens on.
func (a *admin) Addr() net.Addr { return a.listener.Addr() }

// Serve serves until ctx ends. Then requests under way have a moment to end.
func (a *admin) Serve(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- a.server.Serve(a.listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := a.server.Shutdown(grace); err != nil {
		a.server.Close() // whoever is left has had the moment
	}
	<-ended
	return nil
}

// Close stops listening. It is needed only where Serve was not called.
func (a *admin) Close() error {
	if err := a.listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// guardLoopback refuses requests that reach a loopback listener under another
// name. They come from a page in a browser on this machine whose own name has
// been pointed here to read what it must not (DNS rebinding).
func guardLoopback(addr net.Addr, next http.Handler) http.Handler {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsLoopback() {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = strings.Trim(r.Host, "[]") // it came without a port
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "this server listens on the loopback interface; call it localhost", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	w.Write(append(data, '\n'))
}

// newRegistry returns a registry with what is true of every process: which mzd
// it is, and what the Go runtime and the operating system say about it.
func newRegistry() *prometheus.Registry {
	v := version()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "mzd_build_info",
		Help:        "Which mzd this is; always 1.",
		ConstLabels: prometheus.Labels{"version": v.Version, "revision": v.Revision, "goversion": v.Go},
	})
	build.Set(1)
	registry := prometheus.NewRegistry()
	registry.MustRegister(build,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}
