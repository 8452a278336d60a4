// Package webhook posts the changes of views to a URL: every change, in order,
// signed, and after an outage what has changed meanwhile. It is the sink that
// the configuration calls "webhook".
//
// # Messages
//
// A cut is one POST with a message of package message as its body. One that is
// larger than max_body comes in parts, one request each. Only a row that is too
// large alone makes a larger request. That nothing has happened is not posted, so
// a delta may start later than the message before it ended; nothing lies between.
//
// # Delivery
//
// One request is under way at a time for each view, or for all of them if they
// move together. Any answer but 2xx, and none, is a failure: the same body comes
// again, with the same id, until it is taken. In an outage changes add up, and
// what follows the message that was refused is one delta of all that has happened
// since. A receiver tells a repeat by the token of the view, or by the id of the
// message, which is a function of the pipeline, the sink, the views and their
// tokens. docs/webhook.md says what receivers need to know.
package webhook

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/refusal"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/message"
	"github.com/mzdio/mzd/schema"
)

// Settings are what users can set. New takes zero values for the defaults.
type Settings struct {
	URL            string            `json:"url" required:"true" doc:"Where to post. https, or, with allow_private, http to a private address."`
	Secret         string            `json:"secret" secret:"true" doc:"Signs every message, as Standard Webhooks does it: whsec_ and base64, or a text of at least 24 characters. Without one, nothing is signed."`
	Headers        map[string]string `json:"headers" doc:"More headers of every request, by name. Write ${NAME} for the value of one that nobody may see, such as Authorization."`
	Timeout        schema.Duration   `json:"timeout" default:"30s" doc:"How long a request may take, from the connection to the answer."`
	ConnectTimeout schema.Duration   `json:"connect_timeout" default:"10s" doc:"How long it may take to connect."`
	MaxBody        schema.Bytes      `json:"max_body" default:"1MiB" doc:"A larger message comes in parts, which apply together."`
	AllowPrivate   bool              `json:"allow_private" doc:"Whether the URL may lead to this machine or into a private network."`
}

const (
	defaultTimeout        = 30 * time.Second
	defaultConnectTimeout = 10 * time.Second
	defaultMaxBody        = 1 << 20
)

func (s Settings) withDefaults() Settings {
	s.Timeout = cmp.Or(s.Timeout, schema.Duration(defaultTimeout))
	s.ConnectTimeout = cmp.Or(s.ConnectTimeout, schema.Duration(defaultConnectTimeout))
	s.MaxBody = cmp.Or(s.MaxBody, defaultMaxBody)
	return s
}

// Validate says what is wrong with the settings, beyond their types. It quotes
// nothing that may be secret.
func (s Settings) Validate() error {
	s = s.withDefaults()
	var errs []error
	bad := func(path schema.Path, format string, args ...any) {
		errs = append(errs, schema.Errorf(path, format, args...))
	}
	if problem := checkURL(s.URL, s.AllowPrivate); problem != "" {
		bad("url", "%s", problem)
	}
	if _, err := keyOf(s.Secret); err != nil {
		bad("secret", "%s", err)
	}
	seen := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		canonical := http.CanonicalHeaderKey(name)
		if other, twice := seen[canonical]; twice {
			bad(schema.Path("headers").Key(name), "is the same header as %s", other)
		} else if problem := checkHeader(name, s.Headers[name]); problem != "" {
			bad(schema.Path("headers").Key(name), "%s", problem)
		}
		seen[canonical] = name
	}
	if s.Timeout < 0 {
		bad("timeout", "must not be negative")
	}
	if s.ConnectTimeout < 0 {
		bad("connect_timeout", "must not be negative")
	}
	if s.MaxBody < 1<<10 || s.MaxBody > 1<<30 {
		bad("max_body", "not between 1KiB and 1GiB")
	}
	return errors.Join(errs...)
}

// checkURL returns what is wrong with a URL as far as it can be seen without
// looking up its host; the rest is seen when it is connected to.
func checkURL(text string, allowPrivate bool) string {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.Opaque != "" {
		return "not an address such as https://example.com/hook"
	}
	if u.User != nil {
		return "holds a user or a password; send them as headers: {Authorization: ${NAME}}"
	}
	if u.Fragment != "" {
		return "has a fragment (#...), which is never sent"
	}
	if u.Scheme == "http" && !allowPrivate {
		return "is http, so that anybody on the way could read and change what is sent; use https, or set allow_private: true for a receiver in your own network"
	}
	g := guard{allowPrivate: allowPrivate, plain: u.Scheme == "http"}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		host = "127.0.0.1"
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if err := g.check(addr); err != nil {
			return err.Error()
		}
	}
	return ""
}

// ownHeaders are set by the sink or by HTTP itself.
var ownHeaders = []string{"Content-Type", "Content-Length", "Transfer-Encoding", "Connection", "Host", "Trailer", "Upgrade"}

func checkHeader(name, value string) string {
	canonical := http.CanonicalHeaderKey(name)
	switch {
	case !isHeaderName(name):
		return "is not the name of a header"
	case slices.Contains(ownHeaders, canonical) || strings.HasPrefix(canonical, "Webhook-"):
		return "is a header that the sink itself sets"
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return "has a line break or another control character"
	}
	return ""
}

// isHeaderName reports whether name is a token of RFC 9110, section 5.6.2.
func isHeaderName(name string) bool {
	for _, c := range []byte(name) {
		alphanumeric := c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if !alphanumeric && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return name != ""
}

// Secrets of Standard Webhooks are 24 to 64 bytes.
const (
	secretPrefix = "whsec_"
	minSecret    = 24
	maxSecret    = 64
)

// keyOf returns the bytes that a secret signs with, none if it is empty.
func keyOf(secret string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(secret, secretPrefix)
	if !ok {
		if secret != "" && len(secret) < minSecret {
			return nil, fmt.Errorf("is shorter than %d characters", minSecret)
		}
		return []byte(secret), nil
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(key) < minSecret || len(key) > maxSecret {
		return nil, fmt.Errorf("is not %s and the base64 of %d to %d bytes", secretPrefix, minSecret, maxSecret)
	}
	return key, nil
}

// Sink posts cuts. It may be written concurrently, by one goroutine for each
// group of views.
type Sink struct {
	settings Settings
	scope    []string // what ids begin with: the pipeline, the sink
	key      []byte   // signs; none: nothing does
	target   string   // the URL, for messages: scheme and host, since all else may be secret
	client   *http.Client

	mu    sync.Mutex // guards taken
	taken map[string]attempt
}

// attempt is how far the receiver has taken a message in parts. It saves the
// repetition of a thousand parts for the sake of one; who forgets it, as a new
// process does, begins with the first part.
type attempt struct {
	id    string // of the first part
	parts int
}

var _ core.Sink = (*Sink)(nil)

// New makes a sink from its settings. It connects to nothing. Settings that can
// never work give an error that wraps [core.ErrPermanent].
func New(ctx context.Context, s Settings) (*Sink, error) {
	s = s.withDefaults()
	if err := s.Validate(); err != nil {
		return nil, &plugins.SettingsError{Plugin: "webhook", Err: err}
	}
	key, err := keyOf(s.Secret)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(s.URL)
	if err != nil {
		return nil, err
	}
	env := plugins.EnvOf(ctx)
	return &Sink{
		settings: s,
		scope:    []string{env.Pipeline, env.Name},
		key:      key,
		target:   (&url.URL{Scheme: u.Scheme, Host: u.Host}).String(),
		client:   newClient(s, newDialer(s)),
		taken:    make(map[string]attempt),
	}, nil
}

// Write posts the cut, in parts if it is large, and returns nil when the
// receiver has taken all of them. A cut in which nothing happened is not posted.
//
// After an error the next Write of the same cut goes on with the part that was
// not taken, or with the first one if the answer is 409 (Conflict), by which a
// receiver says that it has lost those before. The receiver's answer 410 (Gone) wraps [core.ErrPermanent]; an
// answer with a Retry-After says when to come back.
func (s *Sink) Write(ctx context.Context, cut []core.Batch) error {
	if message.IsProgress(cut) {
		return nil
	}
	group := cut[0].View.Name
	first := s.id(cut, 1)
	taken := s.takenOf(group, first)
	for m := range message.Parts(cut, int(s.settings.MaxBody)) {
		if m.Number <= taken {
			continue
		}
		id := first
		if m.Number > 1 || m.More {
			id = s.id(cut, m.Number, s.settings.MaxBody.String()) // other parts would have other bytes
		}
		if err := s.post(ctx, id, m.Body); err != nil {
			if r, ok := errors.AsType[*refusal.Error](err); ok && r.Status == http.StatusConflict {
				s.take(group, attempt{})
			}
			return fmt.Errorf("post to %s: %w", s.target, err)
		}
		s.take(group, attempt{first, m.Number})
	}
	s.take(group, attempt{})
	return nil
}

// takenOf returns how many parts of a message were taken already.
func (s *Sink) takenOf(group, id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.taken[group]; a.id == id {
		return a.parts
	}
	return 0
}

func (s *Sink) take(group string, a attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken[group] = a
}

// Close closes connections that are open.
func (s *Sink) Close() error {
	s.client.CloseIdleConnections()
	return nil
}
