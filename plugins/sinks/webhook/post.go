package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/refusal"
)

const (
	// maxAnswer is how much of an answer is read, so that its connection can be
	// used again; one that goes on for longer is closed.
	maxAnswer = 64 << 10
	// maxDrain is how long it is read: who has said 200 may go on working for
	// minutes before the answer ends.
	maxDrain = time.Second
	// deadPeer is how long a connection that several requests share may be silent
	// before it is asked whether the other side lives.
	deadPeer = 15 * time.Second
)

// newDialer returns a dialer that connects to what the guard lets through.
func newDialer(s Settings) *net.Dialer {
	g := guard{allowPrivate: s.AllowPrivate, plain: strings.HasPrefix(strings.ToLower(s.URL), "http:")}
	return &net.Dialer{Timeout: time.Duration(s.ConnectTimeout), ControlContext: g.control}
}

// newClient returns a client that goes where the dialer goes and nowhere else:
// it uses no proxy and follows no redirect.
func newClient(s Settings, dialer *net.Dialer) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSHandshakeTimeout:    time.Duration(s.ConnectTimeout),
			ForceAttemptHTTP2:      true,
			HTTP2:                  &http.HTTP2Config{SendPingTimeout: deadPeer, PingTimeout: deadPeer},
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxAnswer,
			MaxIdleConnsPerHost:    16, // views are written concurrently
			IdleConnTimeout:        90 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// post makes one request and returns nil if the receiver has taken it.
func (s *Sink) post(ctx context.Context, id string, body []byte) error {
	timeout := time.Duration(s.settings.Timeout)
	limited, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %s", timeout))
	defer cancel()
	req, err := http.NewRequestWithContext(limited, http.MethodPost, s.settings.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	s.setHeaders(req.Header, id, body)
	resp, err := s.client.Do(req)
	if err != nil {
		s.client.CloseIdleConnections() // who knows what else is broken
		return s.unreachable(ctx, limited, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return s.refused(resp)
	}
	defer time.AfterFunc(maxDrain, cancel).Stop()
	io.CopyN(io.Discard, resp.Body, maxAnswer) // the status has said it
	return nil
}

func (s *Sink) setHeaders(h http.Header, id string, body []byte) {
	h.Set("User-Agent", "mzd")
	// A message may go over another connection at once where the receiver has closed
	// one that was idle. This says so to net/http, and is not sent.
	h["Idempotency-Key"] = nil
	for name, value := range s.settings.Headers {
		h.Set(name, value)
	}
	timestamp := strconv.FormatInt(time.Now().Unix(), 10)
	h.Set("Content-Type", "application/json")
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", timestamp)
	if len(s.key) > 0 {
		h.Set("Webhook-Signature", signature(s.key, id, timestamp, body))
	}
}

// unreachable explains why there was no answer. limited is ctx with the request's
// own deadline.
func (s *Sink) unreachable(ctx, limited context.Context, err error) error {
	var inURL *url.Error
	if errors.As(err, &inURL) {
		err = inURL.Err // without the URL, of which a part may be secret
	}
	var address addressError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case limited.Err() != nil:
		return context.Cause(limited)
	case errors.As(err, &address):
		return address
	}
	return err
}

// refused explains an answer that is no success.
func (s *Sink) refused(resp *http.Response) error {
	r := refusal.Of(resp)
	if s.isSecret(r.Says) {
		r.Says = "" // it says what it was sent
	}
	switch {
	case r.Status == http.StatusGone:
		return fmt.Errorf("%w: the receiver wants no more of it: %w", r, core.ErrPermanent)
	case r.Status/100 == 3:
		return fmt.Errorf("%w: redirects are not followed: write the address that the receiver has now as url", r)
	}
	return r
}

// isSecret reports whether a text has something in it that only the receiver may
// see: the secret, a word of a header, as in "Bearer 8ya7...", or of the URL, where
// many services have what lets somebody post.
func (s *Sink) isSecret(text string) bool {
	_, place, _ := strings.Cut(s.settings.URL, "://")
	_, place, _ = strings.Cut(place, "/")
	words := append(strings.FieldsFunc(place, func(r rune) bool { return strings.ContainsRune("/?&=", r) }), s.settings.Secret)
	for _, value := range s.settings.Headers {
		words = append(words, strings.Fields(value)...)
	}
	return slices.ContainsFunc(words, func(word string) bool { return len(word) >= 8 && strings.Contains(text, word) })
}
