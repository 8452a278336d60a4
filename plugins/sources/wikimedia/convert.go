package wikimedia

import (
	"bytes"
	"encoding/json"
	"sync/atomic"
	"unicode/utf8"

	"github.com/mzdio/mzd/core"
)

// batch is what one call of emit gets, kept to be used again.
type batch struct {
	events []core.Event
	lines  bytes.Buffer // the events' Data
}

var (
	ssePrefix   = []byte("data: ")
	replacement = []byte("\uFFFD")
)

// convert makes events of messages and moves the position past them. The
// events are valid until the next call.
func (s *Source) convert(b *batch, messages []message, at *position) []core.Event {
	b.events = b.events[:0]
	b.lines.Reset()
	for i := range messages {
		m := &messages[i]
		line := s.landable(&b.lines, m)
		// Also past what is left out: it would be left out again.
		if err := at.advance(m.id); err != nil && m.id != at.lastID {
			at.lastID = m.id // say it once
			s.log.Warn("an event's ID cannot be used as a position", "error", err)
		}
		if line == nil {
			continue
		}
		h := readHeader(bytes.TrimPrefix(line, ssePrefix))
		if h.domain == "canary" {
			s.canaries.Add(1)
			continue
		}
		b.events = append(b.events, core.Event{ID: h.id, Cursor: at.String(), Time: h.time, Data: line})
	}
	return b.events
}

// landable appends the line to be landed to lines, and returns it; nil if the
// message is not an event.
func (s *Source) landable(lines *bytes.Buffer, m *message) []byte {
	if m.event != "" && m.event != "message" {
		if s.skip(&s.notMessages, 1) {
			s.log.Warn("message left out: it is no event", "type", m.event, "data", shorten(m.data))
		}
		return nil
	}
	data := m.data
	if !utf8.Valid(data) { // the standard decodes streams so
		data = bytes.ToValidUTF8(data, replacement)
	}
	start := lines.Len()
	if s.settings.Format == "sse" {
		lines.Write(ssePrefix)
	}
	begin := lines.Len()
	// Compacted, it is one line: no JSON text has a newline inside a string.
	err := json.Compact(lines, data)
	text := lines.Bytes()[begin:]
	if err != nil || len(text) == 0 || text[0] != '{' {
		lines.Truncate(start)
		if s.skip(&s.invalid, 1) {
			s.log.Warn("event left out: it is not a JSON object", "error", err, "data", shorten(data))
		}
		return nil
	}
	if s.settings.Format == "sse" && bytes.IndexByte(data, '\n') < 0 {
		lines.Truncate(begin)
		lines.Write(data) // as it came
	}
	end := lines.Len()
	return lines.Bytes()[start:end:end]
}

// skip counts n events that are left out, and reports whether to log it: the
// first, and ever fewer, so that a stream of nonsense does not fill the log.
func (s *Source) skip(counter *atomic.Uint64, n int) bool {
	if n == 0 {
		return false
	}
	after := counter.Add(uint64(n))
	before := after - uint64(n)
	for power := uint64(1); power <= after; power *= 2 {
		if power > before {
			return true
		}
	}
	return false
}

// shorten returns the beginning of data, for a log.
func shorten(data []byte) string { return string(data[:min(len(data), 200)]) }

// Rejected returns how many events were left out, by reason. It may be called
// at any time.
func (s *Source) Rejected() map[string]uint64 {
	return map[string]uint64{
		"canary":      s.canaries.Load(),
		"invalid":     s.invalid.Load(),
		"too_large":   s.tooLarge.Load(),
		"not_message": s.notMessages.Load(),
	}
}

// Identify implements [core.Identifier], for lines of both formats.
func (s *Source) Identify(line []byte) string {
	return readHeader(bytes.TrimPrefix(line, ssePrefix)).id
}
