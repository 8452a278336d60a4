// Package refusal reads what an HTTP server says when it does not do what it
// was asked to.
package refusal

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// maxAfter bounds for how long a server may ask to be left alone.
const maxAfter = time.Hour

// maxSays bounds how much of an answer is looked at.
const maxSays = 512

// Error is an answer that is no success.
type Error struct {
	Status int           // as in 503
	Text   string        // as in "503 Service Unavailable"
	After  time.Duration // how long the server wants to be left alone, at most an hour
	Says   string        // the first line of the answer's body
}

// Of reads an answer: its status, its Retry-After and the beginning of its body.
func Of(resp *http.Response) *Error {
	e := &Error{Status: resp.StatusCode, Text: resp.Status, After: retryAfter(resp.Header.Get("Retry-After"))}
	// The body of a 101 is the connection itself, which no context ends any more.
	if resp.StatusCode != http.StatusSwitchingProtocols {
		e.Says = firstLine(resp.Body)
	}
	return e
}

// Error returns the status and what the server says.
func (e *Error) Error() string {
	if e.Says == "" {
		return e.Text
	}
	return fmt.Sprintf("%s; the server says %q", e.Text, e.Says)
}

// RetryAfter returns how long the server wants to be left alone. Whoever waits
// out the failures of sinks and sources looks for it.
func (e *Error) RetryAfter() time.Duration { return e.After }

// retryAfter reads the header of that name: seconds, or a date (RFC 9110,
// section 10.2.3).
func retryAfter(value string) time.Duration {
	var d time.Duration
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		d = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		d = time.Until(at)
	}
	return min(max(d, 0), maxAfter)
}

func firstLine(body io.Reader) string {
	text, _ := io.ReadAll(io.LimitReader(body, maxSays)) // what there is; the error is known already
	line, _, _ := bytes.Cut(bytes.TrimSpace(text), []byte{'\n'})
	return string(bytes.TrimSpace(bytes.ToValidUTF8(line, nil)))
}
