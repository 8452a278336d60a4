package websocket

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// origins decides whose pages may talk to the sink. Programs other than
// browsers send no Origin and are not concerned.
type origins struct {
	loopback bool     // the listener is on a loopback address
	allowed  []string // from the settings
}

// checkOrigin reports what is wrong with an entry of the settings.
func checkOrigin(origin string) error {
	if origin == "*" || origin == "null" {
		return nil
	}
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Scheme+"://"+u.Host != strings.ToLower(origin) {
		return errors.New(`not an origin: want "scheme://host" or "scheme://host:port", as in "https://example.com", or "*"`)
	}
	return nil
}

// A refusal says why a request was refused and what would allow it.
type refusal struct {
	apiError
	allow string // the entry of origins
}

// check returns nil if the request may be served.
//
// A listener on a loopback address is reachable by every page that the user
// of the machine has open, whose author may point a name of his own at
// 127.0.0.1. So there the Host must be a name of the machine, too.
func (o origins) check(r *http.Request) *refusal {
	if o.loopback && r.Host != "" && !isLoopbackHost(hostname(r.Host)) && !o.allowsHost(r.Host) {
		return refuse("foreign_host", "http://"+r.Host, "host %.100q is not a name of this machine", r.Host)
	}
	origin := r.Header.Get("Origin")
	if origin == "" || o.allows(origin) {
		return nil
	}
	u, err := url.Parse(origin)
	if err == nil && u.Host != "" {
		if strings.EqualFold(u.Host, r.Host) || o.loopback && isLoopbackHost(u.Hostname()) {
			return nil
		}
	}
	return refuse("foreign_origin", origin, "pages of %.100q may not read this", origin)
}

func refuse(code, allow, format string, args ...any) *refusal {
	message := fmt.Sprintf(format, args...) + "; the operator of mzd can allow it with the setting origins"
	return &refusal{apiError{http.StatusForbidden, code, message, 0}, allow}
}

func (o origins) allows(origin string) bool {
	return slices.Contains(o.allowed, "*") ||
		slices.ContainsFunc(o.allowed, func(a string) bool { return strings.EqualFold(a, origin) })
}

// allowsHost reports whether a host is that of an origin that is allowed.
func (o origins) allowsHost(host string) bool {
	return slices.ContainsFunc(o.allowed, func(a string) bool {
		_, h, _ := strings.Cut(a, "://")
		return a == "*" || strings.EqualFold(h, host) || strings.EqualFold(hostname(h), hostname(host))
	})
}

func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

func isLoopbackHost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}

// hostname cuts the port off a host.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return host
}

// allowOrigin tells the browser that the page, if it is one, may read the
// answer. A cache must not give another page the answer, nor that to a request
// without an origin.
func allowOrigin(h http.Header, origin string) {
	h.Add("Vary", "Origin")
	if origin != "" {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", "ETag, Retry-After")
	}
}

// refusals remembers what was refused, so that each origin is logged once and
// a stranger cannot fill the log.
type refusals struct {
	mu   sync.Mutex // guards seen
	seen []string
}

const maxRefusals = 100

func (r *refusals) first(what string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.seen) >= maxRefusals || slices.Contains(r.seen, what) {
		return false
	}
	r.seen = append(r.seen, what)
	return true
}

// refuse answers a refused request, and logs the line that would allow it.
func (s *server) refuse(w http.ResponseWriter, r *refusal) {
	if s.refusals.first(r.allow) {
		s.log.Warn("refused a request", "reason", r.message, "allow", fmt.Sprintf("origins: [%.200q]", r.allow))
	}
	writeError(w, r.apiError)
}
