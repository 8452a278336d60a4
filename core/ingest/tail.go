package ingest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/mzdio/mzd/core"
)

const (
	// tailChunk is how much is read at once when looking backwards.
	tailChunk = 1 << 20
	// maxTornLine bounds what repair cuts off. A longer "line" is not what a
	// crash leaves behind, but a file of something else.
	maxTornLine = 16 << 20
	// maxUnsynced bounds how far back repair looks for what a disk lost.
	maxUnsynced = 64 << 20
)

// repair cuts off what a crash left behind the last complete line, logs it, and
// returns the size of the file then. What lies below the saved offset was
// synced and must be there. What lies behind it may be known to the system
// only, when the process before was killed between a write and its sync: it is
// synced here. Changes go through disk, which writes the same file.
func repair(file *os.File, disk diskFile, saved savedCursor, log *slog.Logger) (int64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	if size < saved.Offset {
		return 0, fmt.Errorf("the file has %d bytes but its cursor was saved at %d: landed events were removed; restore the file, or move it and %s away to start over",
			size, saved.Offset, cursorPath(file.Name()))
	}
	end, err := completeLines(file, size)
	if err != nil {
		return 0, err
	}
	if saved.Offset > 0 {
		var last [1]byte
		if _, err := file.ReadAt(last[:], saved.Offset-1); err != nil {
			return 0, err
		}
		if last[0] != '\n' {
			return 0, fmt.Errorf("no line ends at offset %d, where its cursor was saved: the file was changed; restore it, or move it and %s away to start over",
				saved.Offset, cursorPath(file.Name()))
		}
	}
	if end, err = cutLost(file, saved.Offset, end); err != nil {
		return 0, err
	}
	if end < size {
		log.Warn("incomplete last line cut off; it was never acknowledged and will come again", "offset", end, "bytes", size-end)
		if err := disk.Truncate(end); err != nil {
			return 0, fmt.Errorf("cut off the incomplete last line: %w", err)
		}
	}
	if err := disk.Sync(); err != nil {
		return 0, fmt.Errorf("sync what was landed before: %w", err)
	}
	return end, nil
}

// completeLines returns the offset behind the last newline below size.
func completeLines(file *os.File, size int64) (int64, error) {
	buf := make([]byte, min(tailChunk, size))
	for at := size; at > 0; {
		n := min(int64(len(buf)), at)
		if _, err := file.ReadAt(buf[:n], at-n); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return at - n + int64(i) + 1, nil
		}
		if at -= n; size-at > maxTornLine {
			return 0, errors.New("the last line is too long to be an event that was cut off: is this a file of events?")
		}
	}
	return 0, nil
}

// cutLost returns end, or the beginning of the first line with a NUL byte
// between synced and end. After a loss of power a file may have its length but
// zeros where blocks were not written; only what was not synced can look so.
func cutLost(file *os.File, synced, end int64) (int64, error) {
	from := max(synced, end-maxUnsynced)
	r := bufio.NewReaderSize(io.NewSectionReader(file, from, end-from), tailChunk)
	line, whole := from, from == synced // where the current line begins, and whether that is known
	for at := from; ; {
		piece, err := r.ReadSlice('\n')
		if whole && bytes.IndexByte(piece, 0) >= 0 {
			return line, nil
		}
		at += int64(len(piece))
		switch {
		case err == nil:
			line, whole = at, true
		case errors.Is(err, io.EOF):
			return end, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return 0, err
		}
	}
}

// eachOfTail calls f with each of the last n lines below size, oldest first.
// size must lie behind a newline. f must not keep the line.
func eachOfTail(file *os.File, size int64, n int, f func(line []byte)) error {
	from, err := startOfTail(file, size, n)
	if err != nil {
		return err
	}
	r := bufio.NewReaderSize(io.NewSectionReader(file, from, size-from), tailChunk)
	var long []byte // the beginning of a line that is longer than the reader's buffer
	for {
		piece, err := r.ReadSlice('\n')
		switch {
		case err == nil && len(long) == 0:
			f(piece[:len(piece)-1])
		case err == nil:
			long = append(long, piece...)
			f(long[:len(long)-1])
			long = long[:0]
		case errors.Is(err, bufio.ErrBufferFull):
			long = append(long, piece...)
		case errors.Is(err, io.EOF):
			return nil
		default:
			return err
		}
	}
}

// A BatchIdentifier is a [core.Identifier] that would rather be asked for many IDs
// at once: it is a process away.
type BatchIdentifier interface {
	core.Identifier
	// IdentifyAll returns the ID of each of the events, empty for one that has none.
	IdentifyAll(events [][]byte) []string
}

// How many IDs are asked for at once, and how much data that may be, about.
const (
	identifyEvents = 4096
	identifyBytes  = 1 << 20
)

// eachIDOfTail calls f with the ID of each of the last n lines below size that has
// one, oldest first.
func eachIDOfTail(file *os.File, size int64, n int, identifier core.Identifier, f func(id string)) error {
	found := func(id string) {
		if id != "" {
			f(id)
		}
	}
	batch, ok := identifier.(BatchIdentifier)
	if !ok {
		return eachOfTail(file, size, n, func(line []byte) { found(identifier.Identify(line)) })
	}
	var lines [][]byte
	bytesOf := 0
	ask := func() {
		for _, id := range batch.IdentifyAll(lines) {
			found(id)
		}
		lines, bytesOf = lines[:0], 0
	}
	err := eachOfTail(file, size, n, func(line []byte) {
		lines = append(lines, bytes.Clone(line))
		if bytesOf += len(line); bytesOf >= identifyBytes || len(lines) == identifyEvents {
			ask()
		}
	})
	if len(lines) > 0 {
		ask()
	}
	return err
}

// startOfTail returns where the last n lines below size begin.
func startOfTail(file *os.File, size int64, n int) (int64, error) {
	buf := make([]byte, min(tailChunk, size))
	newlines := 0
	for at := size; at > 0; {
		k := min(int64(len(buf)), at)
		at -= k
		if _, err := file.ReadAt(buf[:k], at); err != nil {
			return 0, err
		}
		found := bytes.Count(buf[:k], []byte{'\n'})
		if newlines+found <= n {
			newlines += found
			continue
		}
		// The newline before the tail is in this chunk: the (n+1)-th from the end.
		chunk := buf[:k]
		for ; newlines < n+1; newlines++ {
			chunk = chunk[:bytes.LastIndexByte(chunk, '\n')]
		}
		return at + int64(len(chunk)) + 1, nil
	}
	return 0, nil
}
