package ingest

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/mzdio/mzd/core/refusal"
)

// WebhookOptions are the options of [OpenWebhook]. URL is required.
type WebhookOptions struct {
	// URL is that of the source: http://HOST/api/webhook/DATABASE/SCHEMA/SOURCE.
	URL string
	// Array sends the events of a request as one JSON array, for a source with
	// BODY FORMAT JSON ARRAY; otherwise they are lines, for BODY FORMAT JSON.
	Array bool
	// Secret signs the bodies, for the CHECK of the source: the header
	// X-Signature is the base64 of HMAC-SHA256 over the body. Empty: none does.
	Secret string
	// Headers are sent too.
	Headers map[string]string
	// Logger gets warnings; nil: none.
	Logger *slog.Logger
}

// OpenWebhook opens a landing in a webhook source of Materialize: each event is a
// row there. path is that of the cursor file. It connects to nothing.
func OpenWebhook(path string, o WebhookOptions) (*Remote, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, errors.New("the address of the webhook source is not a URL")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() // proxies from the environment, TLS, HTTP/2
	transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: deadPeer, PingTimeout: deadPeer}
	return openRemote(path, &webhook{
		WebhookOptions: o,
		label:          (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String(),
		client: &http.Client{
			Transport:     transport,
			Timeout:       webhookTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, o.Logger)
}

// webhook is a target that is written with POST.
type webhook struct {
	WebhookOptions
	label  string // the URL, without what may be secret
	client *http.Client
}

const (
	webhookTimeout = 30 * time.Second
	// deadPeer is how long a connection may be silent before it is asked whether
	// the other side lives.
	deadPeer = 15 * time.Second
	// maxAnswer is how much of an answer is read, so that its connection can be
	// used again.
	maxAnswer = 64 << 10
)

func (w *webhook) name() string { return w.label }

func (w *webhook) fit(data []byte) string { return unfitJSON(data) }

func (w *webhook) write(ctx context.Context, events []item) error {
	body := w.body(events)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "mzd")
	for name, value := range w.Headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Content-Type", "application/json")
	if w.Secret != "" {
		mac := hmac.New(sha256.New, []byte(w.Secret))
		mac.Write(body)
		req.Header.Set("X-Signature", base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	resp, err := w.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if inURL, ok := errors.AsType[*url.Error](err); ok {
			err = inURL.Err // without the URL, of which a part may be secret
		}
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 == 2 {
		io.CopyN(io.Discard, resp.Body, maxAnswer) // the status has said it
		return nil
	}
	return explainWebhook(refusal.Of(resp))
}

// body returns the events as lines, or as an array. It is memory of its own: a
// client may still be reading it when the answer is here already.
func (w *webhook) body(events []item) []byte {
	begin, between, end := "", "\n", "\n"
	if w.Array {
		begin, between, end = "[", ",", "]"
	}
	size := len(begin) + len(end)
	for _, e := range events {
		size += len(e.data) + len(between)
	}
	buf := append(make([]byte, 0, size), begin...)
	for i, e := range events {
		if i > 0 {
			buf = append(buf, between...)
		}
		buf = append(buf, e.data...)
	}
	return append(buf, end...)
}

// explainWebhook says what an answer of Materialize means. Only what is wrong
// with the events themselves is a [*refusedError].
func explainWebhook(r *refusal.Error) error {
	invalid := strings.Contains(r.Says, "failed to validate")
	switch {
	case r.Status == http.StatusRequestEntityTooLarge:
		return &refusedError{RejectedTooLarge, r}
	case r.Status == http.StatusBadRequest && !invalid:
		return &refusedError{RejectedRefused, r}
	case r.Status == http.StatusBadRequest:
		return fmt.Errorf("%w: its CHECK is not fulfilled: is the secret the same?", r)
	case r.Status == http.StatusNotFound:
		return fmt.Errorf("%w: is there a source of that name, in that database and schema, and does its secret exist?", r)
	case r.Status/100 == 3:
		return fmt.Errorf("%w: redirects are not followed: write the address itself", r)
	}
	return r
}

func (w *webhook) close() { w.client.CloseIdleConnections() }
