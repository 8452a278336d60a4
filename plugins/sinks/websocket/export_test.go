package websocket

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/mzdio/mzd/core"
)

// NewOn returns a sink that serves a listener of the test's.
func NewOn(ctx context.Context, s Settings, ln net.Listener) *Sink {
	return newSink(ctx, s.withDefaults(), ln)
}

// Listen returns a listener as the sink makes them.
func Listen(ctx context.Context, address string) (net.Listener, error) { return listen(ctx, address) }

// SetRequestTimeout sets how long a client may take for its request.
func (s *Sink) SetRequestTimeout(d time.Duration) { s.requestTimeout = d }

// PlainRequest returns the request for a stream that the bytes are, if it is
// one that is not left to net/http, and what came after it.
func PlainRequest(p []byte) (r *http.Request, early []byte) {
	q := newRequestReader()
	return q.plain(bytes.Clone(p))
}

// ParsePosition returns the position that a text names, as text.
func ParsePosition(s string, views int) (string, error) {
	p, err := parsePosition(s, views)
	return p.String(), err
}

// QuoteNumbers returns the row as numbers=string has it.
func QuoteNumbers(row core.Row, columns []core.Column) string {
	return string(appendQuotedNumbers(nil, row, wideColumns(columns)))
}

// Messages returns the parts of the message of a cut.
func Messages(cut []core.Batch, numbersString bool) (parts [][]byte) {
	enc := encoding{numbersString: numbersString}.encoder(cut)
	for more := true; more; {
		var m message
		m, more = enc.part()
		parts = append(parts, m.data)
	}
	return parts
}

// Strings returns the row as version 1 has it.
func Strings(row core.Row) string { return string(appendStrings(nil, row)) }

const (
	MaxMessageBytes = maxMessageBytes
	KeepAlive       = keepAlive
)

// Heard is what was made of the frames of a client.
type Heard struct {
	Pings []string // one for each piece, of many the last
	Code  int      // that the connection is closed with; 0: it goes on
}

// HearFrames takes frames in pieces.
func HearFrames(pieces [][]byte, compressed bool) (all Heard) {
	var f frameParser
	for _, p := range pieces {
		h := f.parse(bytes.Clone(p), compressed)
		if h.ping != nil {
			all.Pings = append(all.Pings, string(h.ping))
		}
		if h.end != nil {
			all.Code = int(h.end.code)
			return all
		}
	}
	return all
}

// AcceptDeflate answers offers of extensions; "" declines.
func AcceptDeflate(offers ...string) string {
	answer, _ := acceptDeflate(http.Header{"Sec-Websocket-Extensions": offers})
	return answer
}

// Certificate returns what returns the certificate in the files.
func Certificate(files TLS, log *slog.Logger) (func() *tls.Certificate, error) {
	c, err := files.config(log)
	if err != nil {
		return nil, err
	}
	return func() *tls.Certificate {
		current, _ := c.GetCertificate(nil)
		return current
	}, nil
}

// EndsAgain reports whether a client is closed once more for what it sends after it
// had to be closed.
func EndsAgain(first, then []byte) bool {
	var f frameParser
	return f.parse(bytes.Clone(first), false).end != nil && f.parse(bytes.Clone(then), false).end != nil
}
