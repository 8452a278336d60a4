package wikimedia

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"time"

	"github.com/mzdio/mzd/core/refusal"
)

// runError is an error that Run ends with. Its methods are found by whoever
// runs the source; the reasons are those of package ingest.
type runError struct {
	reason string
	after  time.Duration
	err    error
}

func (e *runError) Error() string { return e.err.Error() }
func (e *runError) Unwrap() error { return e.err }

// Reason returns why the run ended, in one word.
func (e *runError) Reason() string { return e.reason }

// RetryAfter returns how long the server wants to be left alone.
func (e *runError) RetryAfter() time.Duration { return e.after }

var errStalled = errors.New("nothing arrives")

// refusedRetry is how long a refused request is not repeated at least, where the
// server will hardly change its mind.
const refusedRetry = time.Minute

// checkResponse returns an error that explains a response which is no event
// stream.
func checkResponse(url, stream string, resp *http.Response) error {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode == http.StatusOK && kind == "text/event-stream" {
		return nil
	}
	refused := refusal.Of(resp)
	e := &runError{reason: "refused", after: refused.After}
	if resp.StatusCode == http.StatusOK {
		e.err = fmt.Errorf("GET %s: the answer is %q, not an event stream: is the url right, or a proxy or login page in between?", url, kind)
		e.after = max(e.after, refusedRetry)
		return e
	}
	e.err = fmt.Errorf("GET %s: %s", url, resp.Status)
	if why := explain(resp.StatusCode, stream); why != "" {
		e.err = fmt.Errorf("%w: %s", e.err, why)
		e.after = max(e.after, refusedRetry)
	}
	if refused.Says != "" {
		e.err = fmt.Errorf("%w; the server says %q", e.err, refused.Says)
	}
	return e
}

// explain returns what a status means here, for those that do not pass by
// themselves.
func explain(status int, stream string) string {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return ""
	case http.StatusBadRequest:
		return "the server does not understand the request; it may no longer know the position that the source resumes from"
	case http.StatusUnauthorized, http.StatusForbidden:
		return "the server refuses this client; Wikimedia asks for a reachable contact (the setting contact)"
	case http.StatusNotFound, http.StatusGone:
		return fmt.Sprintf("there is no stream %q at this url", stream)
	case http.StatusProxyAuthRequired:
		return "the proxy wants credentials (the environment variable HTTPS_PROXY)"
	}
	if status < 500 {
		return "no stream begins with that"
	}
	return ""
}
