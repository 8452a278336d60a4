package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"time"
	"unsafe"
)

// reader is what the engine needs of an open file.
type reader interface {
	io.ReaderAt
	io.Closer
	Stat() (fs.FileInfo, error)
}

const (
	chunkBytes = 256 << 10 // read at once
	markBytes  = 1 << 10   // of the beginning, and before an offset, that tell a file from another
	pollMin    = 5 * time.Millisecond
	pollMax    = 50 * time.Millisecond
	retryWait  = time.Second
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errShrunk tells that a file is not, or does not extend, what was read of it before.
type errShrunk struct{ what string }

func (e *errShrunk) Error() string { return e.what }

// checkExtent tells whether a file extends what was recorded of it.
func checkExtent(f reader, path string, x extent) error {
	if x.Offset == 0 {
		return nil
	}
	if f == nil {
		return &errShrunk{fmt.Sprintf("file %s is gone, of which %d bytes had been published", path, x.Offset)}
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() < x.Offset {
		return &errShrunk{fmt.Sprintf("file %s has %d bytes, of which %d had been published", path, info.Size(), x.Offset)}
	}
	head, err := checksum(f, 0, x.Head)
	if err != nil {
		return err
	}
	tail, err := checksum(f, x.Offset-int64(x.Tail), x.Tail)
	if err != nil {
		return err
	}
	if head != x.HeadSum || tail != x.TailSum {
		return &errShrunk{fmt.Sprintf("file %s is not the one of which %d bytes had been published", path, x.Offset)}
	}
	return nil
}

func checksum(f io.ReaderAt, at int64, n int) (uint32, error) {
	buf := make([]byte, n)
	if _, err := f.ReadAt(buf, at); err != nil {
		return 0, err
	}
	return crc32.Checksum(buf, castagnoli), nil
}

// tailer reads a source's file as it grows. It belongs to one goroutine.
type tailer struct {
	e   *Engine
	src *source

	file     reader
	at       int64  // what has been read
	carry    []byte // the last line, of which there is no newline yet
	skipping bool   // the line being read is too long
	extent   extent // what has been sent
	caughtUp bool
	target   int64 // length of the file when the source was opened
	idle     bool  // nothing came at the last look
}

// run reads until the context ends, a source that is read once has been, or the file turns out to be another. Other trouble with
// the file is reported and tried again.
func (t *tailer) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := t.follow(ctx)
		shrunk := errors.As(err, new(*errShrunk))
		t.send(ctx, &chunk{failure: err, ended: err == nil || shrunk})
		if err == nil || shrunk {
			return
		}
		if t.at == 0 && t.file != nil { // what is there is no file; something else may come
			t.close()
		}
		sleep(ctx, retryWait)
	}
}

// follow reads until there is nothing to follow any more; its error is nil for a source that is read once.
func (t *tailer) follow(ctx context.Context) error {
	wait := pollMin
	for ctx.Err() == nil {
		n, err := t.look(ctx)
		if err != nil {
			return err
		}
		once := !t.src.tail && t.file != nil
		if once && n == 0 && len(t.carry) > 0 { // the last line of a file that is read once needs no newline
			last := append(bytes.Clone(t.carry), '\n')
			t.carry = nil
			t.chunk(ctx, last, 1)
		}
		if !t.caughtUp && (n == 0 || t.at >= t.target && !once) {
			t.caughtUp = true
			t.send(ctx, &chunk{caughtUp: true})
		}
		if n > 0 {
			wait, t.idle = pollMin, false
			continue
		}
		if once {
			return nil
		}
		t.idle = true
		sleep(ctx, wait)
		wait = min(wait*2, pollMax)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// look reads what the file has more, up to a chunk, and returns how much that was.
func (t *tailer) look(ctx context.Context) (int, error) {
	if t.file == nil {
		if err := t.open(); t.file == nil {
			return 0, err
		}
	}
	info, err := t.file.Stat()
	if err != nil {
		return 0, err
	}
	more := info.Size() - t.at
	if more < 0 {
		return 0, &errShrunk{fmt.Sprintf("file %s has %d bytes, of which %d had been read", t.src.path, info.Size(), t.at)}
	}
	if t.idle {
		if err := t.same(info, more > 0); err != nil {
			return 0, err
		}
	}
	if more == 0 {
		return 0, nil
	}
	buf := make([]byte, len(t.carry)+int(min(more, chunkBytes)))
	copy(buf, t.carry)
	n, err := t.file.ReadAt(buf[len(t.carry):], t.at)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	t.at += int64(n)
	t.split(ctx, buf[:len(t.carry)+n])
	return n, nil
}

func (t *tailer) open() error {
	f, err := os.Open(t.src.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	t.e.mu.Lock()
	defer t.e.mu.Unlock()
	if t.src.dropped {
		f.Close()
		return nil
	}
	t.file, t.src.file = f, f
	if t.src.state == SourceMissing {
		t.src.state = SourceTailing
	}
	return nil
}

func (t *tailer) close() {
	t.e.mu.Lock()
	defer t.e.mu.Unlock()
	if t.src.file != nil {
		t.src.file.Close()
	}
	t.file, t.src.file = nil, nil
}

// same tells whether the name still leads to the file that is open and, if it has grown, whether its beginning is what it was.
func (t *tailer) same(open fs.FileInfo, grown bool) error {
	named, err := os.Stat(t.src.path)
	if errors.Is(err, fs.ErrNotExist) {
		return &errShrunk{fmt.Sprintf("file %s has been removed or renamed", t.src.path)}
	}
	if err != nil {
		return err
	}
	if !os.SameFile(open, named) {
		return &errShrunk{fmt.Sprintf("file %s has been replaced by another", t.src.path)}
	}
	if !grown || t.extent.Offset == 0 {
		return nil
	}
	head, err := checksum(t.file, 0, t.extent.Head)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err != nil || head != t.extent.HeadSum {
		return &errShrunk{fmt.Sprintf("file %s has been written anew", t.src.path)}
	}
	return nil
}

// split sends the whole lines of what has been read and keeps the rest. The buffer is not written to any more.
func (t *tailer) split(ctx context.Context, buf []byte) {
	end := bytes.LastIndexByte(buf, '\n') + 1
	whole, rest := buf[:end], buf[end:]
	if t.skipping && end > 0 { // the end of a line that was given up: it keeps its number, and its bytes are behind
		n := bytes.IndexByte(whole, '\n') + 1
		t.skipping = false
		t.extent.Offset = t.at - int64(len(buf)-n)
		t.extent.Lines++
		t.extent.Tail, t.extent.TailSum = 0, 0
		whole = whole[n:]
	}
	t.carry = bytes.Clone(rest)
	if t.skipping || len(rest) > maxLine {
		if !t.skipping {
			t.e.skip(t.src, t.extent.Lines+int64(bytes.Count(whole, []byte{'\n'}))+1, tooLong)
		}
		t.skipping, t.carry = true, nil
	}
	for len(whole) > 0 {
		n := t.cut(whole)
		t.chunk(ctx, whole[:n], 0)
		whole = whole[n:]
	}
}

// cut returns the length of the first lines, as many as a tick takes.
func (t *tailer) cut(b []byte) int {
	if len(b) < 2*t.e.opt.TickEvents || bytes.Count(b, []byte{'\n'}) <= t.e.opt.TickEvents {
		return len(b)
	}
	at := 0
	for range t.e.opt.TickEvents {
		at += bytes.IndexByte(b[at:], '\n') + 1
	}
	return at
}

// chunk sends lines, of which the last added bytes are not in the file.
func (t *tailer) chunk(ctx context.Context, lines []byte, added int) {
	x := &t.extent
	c := &chunk{lines: unsafe.String(&lines[0], len(lines)), first: x.Lines + 1, count: bytes.Count(lines, []byte{'\n'})}
	x.Offset += int64(len(lines) - added)
	x.Lines += int64(c.count)
	x.Tail = min(len(lines), markBytes)
	x.TailSum = crc32.Checksum(lines[len(lines)-x.Tail:], castagnoli)
	if added > 0 {
		x.Tail, x.TailSum = 0, 0
	}
	if x.Head == 0 {
		// If the file cannot be read any more, the next look at it says so.
		n := int(min(x.Offset, markBytes))
		if sum, err := checksum(t.file, 0, n); err == nil {
			x.Head, x.HeadSum = n, sum
		}
	}
	t.send(ctx, c)
}

// send hands a chunk to a decoder and, in order, to the dataflow.
func (t *tailer) send(ctx context.Context, c *chunk) {
	c.src, c.after, c.done = t.src, t.extent, make(chan struct{})
	if c.lines == "" {
		close(c.done)
	} else {
		select {
		case t.e.work <- c:
		case <-ctx.Done():
			return
		}
	}
	select {
	case t.e.chunks <- c:
	case <-ctx.Done():
	}
}

// readLines passes on the whole lines of an open file between two offsets that are ends of lines.
func readLines(ctx context.Context, f io.ReaderAt, from, to int64, each func(lines string) error) error {
	var carry []byte
	for at := from; at < to; {
		if err := ctx.Err(); err != nil {
			return err
		}
		buf := make([]byte, len(carry)+int(min(to-at, chunkBytes)))
		copy(buf, carry)
		n, err := f.ReadAt(buf[len(carry):], at)
		if n < len(buf)-len(carry) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		at += int64(n)
		end := bytes.LastIndexByte(buf, '\n') + 1
		if end == 0 && len(buf) > maxLine { // of a line that is too long only that matters
			buf = buf[:maxLine+1]
		}
		carry = bytes.Clone(buf[end:])
		if end > 0 {
			if err := each(string(buf[:end])); err != nil {
				return err
			}
		}
	}
	if len(carry) > 0 { // the last line of a file that is read once
		return each(string(carry) + "\n")
	}
	return nil
}
