package proc

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	// maxLogLine is how much of a line is logged.
	maxLogLine = 8 << 10
	// maxLogLines is how many lines are logged in any logPeriod. That is enough for
	// the stack of every goroutine of a plugin that panics.
	maxLogLines = 1000
	logPeriod   = 10 * time.Second
)

// Log reads lines until r ends and hands them to log, without what no log should
// have: empty lines, bytes that are not UTF-8, more than 8 KiB of a line, more
// than 1000 lines in 10 seconds. It tells what it has left out. Everything is read,
// so that nobody has to wait to be logged.
func Log(r io.Reader, log func(line string)) {
	in := bufio.NewReaderSize(r, maxLogLine)
	var period time.Time
	lines, left := 0, 0
	tell := func() {
		if left > 0 {
			log(fmt.Sprintf("... and %d more lines, which are left out", left))
		}
		lines, left = 0, 0
	}
	defer func() { tell() }()
	for {
		line, more, err := readLine(in)
		if line != "" {
			if now := time.Now(); now.Sub(period) >= logPeriod {
				tell()
				period = now
			}
			if lines++; lines > maxLogLines {
				left++
			} else if more > 0 {
				log(fmt.Sprintf("%s... and %d more bytes", line, more))
			} else {
				log(line)
			}
		}
		if err != nil {
			return
		}
	}
}

// readLine reads a line, and returns as much of it as the reader's buffer holds
// and how much more there was.
func readLine(in *bufio.Reader) (line string, more int, err error) {
	text, err := in.ReadSlice('\n')
	line = strings.ToValidUTF8(string(bytes.TrimRight(text, "\r\n")), "\uFFFD")
	for errors.Is(err, bufio.ErrBufferFull) {
		text, err = in.ReadSlice('\n')
		more += len(bytes.TrimRight(text, "\r\n"))
	}
	return line, more, err
}

// lastLine remembers the last line that it was told, or the one that says why a
// program in Go panics: its stack comes after that.
type lastLine struct {
	mu       sync.Mutex
	text     string
	panicked bool
}

// maxSaid is how much of it goes into an error.
const maxSaid = 500

func (l *lastLine) set(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.panicked {
		return
	}
	l.panicked = strings.HasPrefix(text, "panic: ") || strings.HasPrefix(text, "fatal error: ")
	l.text = text[:min(len(text), maxSaid)]
}

func (l *lastLine) get() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text
}
