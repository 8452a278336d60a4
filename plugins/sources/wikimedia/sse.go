package wikimedia

import (
	"bytes"
	"io"
)

// message is one server-sent event.
type message struct {
	event string // its type; empty: "message"
	id    string // the last ID seen on the stream
	data  []byte // its data lines, joined with newlines
}

// reader reads a stream of server-sent events as section 9.2.6 of the HTML
// standard says, but for "retry", which it ignores: when to come back is not
// the reader's business. An event that is larger than max is skipped and
// counted; what else the standard lets a reader ignore is ignored.
type reader struct {
	src io.Reader
	max int // bytes of an event, names of fields and line ends included

	buf      []byte // read and not parsed yet: buf[from:]
	from     int
	scanned  int  // of buf[from:], known to hold no line end
	afterCR  bool // a line has just ended with CR: an LF now belongs to it
	midLine  bool // the beginning of the current line has been thrown away
	anyLines bool

	// The event that is being read.
	event    string
	id       string
	size     int
	hasData  bool
	data     []byte // what it has, behind that of the events in messages: data[begin:]
	begin    int
	tooLarge bool

	messages []message
	skipped  int // events larger than max, see takeSkipped
}

const readSize = 256 << 10

func newReader(src io.Reader, max int) *reader {
	return &reader{src: src, max: max}
}

// next returns the events that are complete: all that have been read already,
// or at least one after it has waited for more. They are valid until the next
// call. With the error of the underlying reader it returns what was complete
// before; an event that was cut off is not.
func (r *reader) next() ([]message, error) {
	r.messages = r.messages[:0]
	r.data = append(r.data[:0], r.data[r.begin:]...)
	r.begin = 0
	for {
		r.parse()
		if len(r.messages) > 0 {
			return r.messages, nil
		}
		if err := r.fill(); err != nil {
			r.parse()
			return r.messages, err
		}
	}
}

// fill reads once.
func (r *reader) fill() error {
	if rest := len(r.buf) - r.from; rest > r.max {
		// The current line alone is too large: do without it.
		r.size += rest
		r.tooLarge, r.midLine = true, true
		r.from, r.scanned = len(r.buf), 0
	}
	r.buf = append(r.buf[:0], r.buf[r.from:]...)
	r.from = 0
	n := len(r.buf)
	if cap(r.buf)-n < readSize/2 {
		r.buf = append(make([]byte, 0, 2*cap(r.buf)+readSize), r.buf...)
	}
	m, err := r.src.Read(r.buf[n:cap(r.buf)])
	r.buf = r.buf[:n+m]
	if m > 0 {
		return nil // an error will come again
	}
	return err
}

// parse takes all complete lines out of the buffer.
func (r *reader) parse() {
	for {
		rest := r.buf[r.from:]
		if r.afterCR && len(rest) > 0 {
			r.afterCR = false
			if rest[0] == '\n' {
				r.from++
				continue
			}
		}
		end := lineEnd(rest, r.scanned)
		if end < 0 {
			r.scanned = len(rest)
			return
		}
		r.afterCR = rest[end] == '\r'
		r.from += end + 1
		r.scanned = 0
		r.line(rest[:end])
	}
}

// lineEnd returns the position of the first CR or LF in b at or after from, or
// -1.
func lineEnd(b []byte, from int) int {
	b = b[from:]
	lf := bytes.IndexByte(b, '\n')
	if lf >= 0 {
		b = b[:lf]
	}
	if cr := bytes.IndexByte(b, '\r'); cr >= 0 {
		return from + cr
	}
	if lf >= 0 {
		return from + lf
	}
	return -1
}

var byteOrderMark = []byte("\xEF\xBB\xBF")

func (r *reader) line(line []byte) {
	if !r.anyLines {
		line = bytes.TrimPrefix(line, byteOrderMark)
		r.anyLines = true
	}
	if r.midLine { // the rest of a line that was too large
		r.midLine = false
		return
	}
	if len(line) == 0 {
		r.dispatch()
		return
	}
	if r.size += len(line) + 1; r.size > r.max {
		r.tooLarge = true
		r.data = r.data[:r.begin]
	}
	name, value, _ := bytes.Cut(line, []byte{':'})
	value = bytes.TrimPrefix(value, []byte{' '})
	switch string(name) {
	case "data":
		if !r.tooLarge {
			r.data = append(append(r.data, value...), '\n')
		}
		r.hasData = true
	case "event":
		r.event = intern(r.event, value)
	case "id":
		if bytes.IndexByte(value, 0) < 0 {
			r.id = intern(r.id, value)
		}
	}
}

// dispatch ends the current event.
func (r *reader) dispatch() {
	switch {
	case r.tooLarge:
		r.skipped++
	case r.hasData:
		end := len(r.data) - 1 // without the last newline
		r.messages = append(r.messages, message{event: r.event, id: r.id, data: r.data[r.begin:end:end]})
		r.begin = len(r.data)
	}
	r.event, r.size, r.hasData, r.tooLarge = "", 0, false, false
}

// intern returns b as a string, which is old if that is equal: events share
// their IDs.
func intern(old string, b []byte) string {
	if string(b) == old {
		return old
	}
	return string(b)
}

// takeSkipped returns how many events were skipped since the last call.
func (r *reader) takeSkipped() int {
	n := r.skipped
	r.skipped = 0
	return n
}
