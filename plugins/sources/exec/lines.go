package exec

import (
	"bytes"
	"io"
	"slices"
)

// lines reads lines that are at most max bytes long, and skips longer ones.
type lines struct {
	src io.Reader
	max int

	buf     []byte // read, and not returned yet: buf[from:]
	from    int
	scanned int  // of buf, known to hold no line end
	cut     bool // the beginning of the line at buf[from:] was thrown away
	batch   [][]byte
	skipped uint64
}

const readSize = 64 << 10

func newLines(src io.Reader, max int) *lines { return &lines{src: src, max: max} }

// next returns the lines that are complete, without those that are empty: all that
// have been read already, or at least one after it has waited for more. They are
// valid until the next call. At the end there may be a [lines.rest].
func (l *lines) next() ([][]byte, error) {
	l.batch = l.batch[:0]
	for {
		l.split()
		if len(l.batch) > 0 {
			return l.batch, nil
		}
		if err := l.fill(); err != nil {
			return nil, err
		}
	}
}

// split takes the complete lines out of buf.
func (l *lines) split() {
	for {
		n := bytes.IndexByte(l.buf[l.scanned:], '\n')
		if n < 0 {
			l.scanned = len(l.buf)
			return
		}
		end := l.scanned + n
		if line := bytes.TrimSuffix(l.buf[l.from:end], []byte{'\r'}); l.cut || len(line) > l.max {
			l.skipped++
		} else if len(line) > 0 {
			l.batch = append(l.batch, line)
		}
		l.from, l.scanned, l.cut = end+1, end+1, false
	}
}

// fill reads once. buf has no complete line.
func (l *lines) fill() error {
	if len(l.buf)-l.from > l.max+1 { // a line may end with CR LF
		l.cut, l.from = true, len(l.buf)
	}
	l.buf = slices.Grow(append(l.buf[:0], l.buf[l.from:]...), readSize)
	l.from, l.scanned = 0, len(l.buf)
	n, err := l.src.Read(l.buf[len(l.buf):cap(l.buf)])
	l.buf = l.buf[:len(l.buf)+n]
	if n > 0 {
		return nil // the error comes again
	}
	return err
}

// rest returns what is there of a line that was not ended.
func (l *lines) rest() []byte {
	rest := l.buf[l.from:]
	if l.cut || len(rest) > l.max {
		l.skipped++
		return nil
	}
	return rest
}

// takeSkipped returns how many lines were too long since it was called last.
func (l *lines) takeSkipped() uint64 {
	n := l.skipped
	l.skipped = 0
	return n
}
