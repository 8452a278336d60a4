package wikimedia

import (
	"io"
	"time"
)

// Message is a message as the reader of streams gives it.
type Message struct{ Event, ID, Data string }

// ReadStream reads a stream to its end.
func ReadStream(src io.Reader, max int) (messages []Message, skipped int) {
	r := newReader(src, max)
	for {
		batch, err := r.next()
		for _, m := range batch {
			messages = append(messages, Message{m.event, m.id, string(m.data)})
		}
		skipped += r.takeSkipped()
		if err != nil {
			return messages, skipped
		}
	}
}

// Advance returns the cursor after the events with these IDs.
func Advance(cursor string, ids ...string) (string, error) {
	p, err := parsePosition(cursor)
	for _, id := range ids {
		if err == nil {
			err = p.advance(id)
		}
	}
	return p.String(), err
}

// Header returns what the source sees of an event.
func Header(event []byte) (id, domain string, at time.Time) {
	h := readHeader(event)
	return h.id, h.domain, h.time
}

// WithDefaults returns the settings that New takes s for.
func (s Settings) WithDefaults() Settings { return s.withDefaults() }
