package websocket

import (
	"context"
	"net"

	"github.com/mzdio/mzd/core"
)

// NewOn returns a sink that serves a listener of the test's.
func NewOn(ctx context.Context, s Settings, ln net.Listener) *Sink {
	return newSink(ctx, s.withDefaults(), ln)
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
