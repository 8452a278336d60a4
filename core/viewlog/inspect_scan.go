package viewlog

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/mzdio/mzd/core"
)

// scanner is one pass over a log.
type scanner struct {
	each    func(StoredBatch) error
	summary Summary
	before  int64                   // bytes of the segments before this one
	read    func(bytes int64) error // told after each frame how far in this segment; its error ends the scan

	ends []batchEnd // of whole batches that may not be durable
}

// batchEnd is where in its segment a batch ends.
type batchEnd struct {
	offset int64
	upper  core.Time
}

// segment scans a segment.
func (s *scanner) segment(file io.ReaderAt, seg SegmentInfo, view string, last bool) error {
	r := newFrameReader(file, seg.Bytes)
	if err := checkHeader(r, seg, view); err != nil {
		return err
	}
	var whole record       // the piece before this one
	var held []StoredBatch // pieces of a batch of which the end may be missing
	synced := seg.synced   // as far as is known so far
	end := r.at            // of the last whole batch
	for open := false; r.at < seg.Bytes || open; {
		offset := r.at
		rec, err := r.record()
		switch {
		case err != nil:
		case open && (rec.lower != whole.lower || rec.upper != whole.upper):
			err = fmt.Errorf("%w: a piece of another batch", errFrame)
		case !open && rec.lower != s.summary.Upper:
			err = fmt.Errorf("%w: a batch from %d where the log ends at %d", errFrame, rec.lower, s.summary.Upper)
		}
		if errors.Is(err, errFrame) {
			return s.tail(file, seg, last, end, offset, err)
		}
		if err == nil {
			err = s.read(r.at)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", seg.Path, err)
		}
		synced = max(synced, rec.synced)
		held = append(held, storedBatch(rec, !open))
		if whole, open = rec, rec.flags&flagMore != 0; open && end >= seg.synced {
			continue
		}
		for _, b := range held {
			if err := s.show(b); err != nil {
				return err
			}
		}
		if held = held[:0]; !open {
			end = r.at
			s.whole(rec, end, synced)
		}
	}
	return nil
}

func checkHeader(r *frameReader, seg SegmentInfo, view string) error {
	payload, err := r.next()
	if err != nil && !errors.Is(err, errFrame) {
		return fmt.Errorf("read %s: %w", seg.Path, err)
	}
	var h header
	if err == nil {
		h, err = parseHeader(payload)
	}
	switch {
	case err != nil:
	case h.version > formatVersion:
		return fmt.Errorf("%s: format %d: %w", seg.Path, h.version, ErrNewer)
	case h.view != view || h.number != seg.number:
		err = fmt.Errorf("it is segment %d of view %q, not %d of %q", h.number, h.view, seg.number, view)
	}
	if err != nil {
		return damaged(seg.Path, 0, err)
	}
	return nil
}

// tail decides about what is behind the last whole batch of a segment, of which
// the frame at offset is wrong.
func (s *scanner) tail(file io.ReaderAt, seg SegmentInfo, last bool, end, offset int64, wrong error) error {
	damage := damaged(seg.Path, offset, wrong)
	if !last || end < seg.synced {
		return damage
	}
	data, err := io.ReadAll(io.NewSectionReader(file, end, seg.Bytes-end))
	if err != nil {
		return fmt.Errorf("read %s: %w", seg.Path, err)
	}
	if end < syncedAfter(data) {
		return damage
	}
	s.summary.Torn = &TornTail{seg.Path, end, seg.Bytes - end, wrong}
	return nil
}

// storedBatch returns what a record says.
func storedBatch(r record, first bool) StoredBatch {
	b := StoredBatch{
		Lower: r.lower, Upper: r.upper, Solid: r.flags&flagSolid != 0,
		First: first, More: r.flags&flagMore != 0, Updates: r.updates,
	}
	if r.arrived != 0 {
		b.Arrived = timeOf(r.arrived)
	}
	return b
}

// show counts a piece of a batch that is whole, and passes it on.
func (s *scanner) show(b StoredBatch) error {
	s.summary.Updates += int64(len(b.Updates))
	for _, u := range b.Updates {
		s.summary.Rows += int64(u.Diff)
	}
	return s.each(b)
}

// whole notes that a batch is whole.
func (s *scanner) whole(r record, end, synced int64) {
	s.summary.Batches++
	s.summary.Upper = r.upper
	if r.lower == 0 {
		s.summary.Since = endOfSolid(0, r.upper)
	}
	s.ends = append(s.ends, batchEnd{end, r.upper})
	s.settle(synced)
}

// settle takes note of what is known to be durable of the segment.
func (s *scanner) settle(synced int64) {
	for len(s.ends) > 0 && s.ends[0].offset <= synced {
		s.summary.Durable = s.ends[0].upper
		s.ends = s.ends[1:]
	}
}

// frameReader reads the frames of a file one after the other.
type frameReader struct {
	file io.ReaderAt
	size int64
	at   int64 // where the next frame begins
	r    *bufio.Reader
	buf  []byte
}

func newFrameReader(file io.ReaderAt, size int64) *frameReader {
	f := &frameReader{file: file, size: size, r: bufio.NewReaderSize(nil, pieceBytes)}
	f.seek()
	return f
}

func (f *frameReader) seek() { f.r.Reset(io.NewSectionReader(f.file, f.at, f.size-f.at)) }

// next returns the payload of the next frame, which is good until the next call.
// The error wraps errFrame if no intact frame is there.
func (f *frameReader) next() ([]byte, error) {
	payload, err := f.try()
	if errors.Is(err, errFrame) {
		// Whoever writes the file may have taken a write back and made another
		// one just now, so that its beginning and its end were not of one.
		f.seek()
		payload, err = f.try()
	}
	if err != nil {
		return nil, err
	}
	f.at += frameHeader + int64(len(payload))
	return payload, nil
}

func (f *frameReader) try() ([]byte, error) {
	left := f.size - f.at - frameHeader
	head, err := f.r.Peek(frameHeader)
	if errors.Is(err, io.EOF) && len(head) == 0 {
		return nil, fmt.Errorf("%w: a batch is cut off", errFrame)
	}
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %d bytes are no header", errFrame, len(head))
	}
	if err != nil {
		return nil, err
	}
	n := int64(binary.LittleEndian.Uint32(head))
	if n > maxFrame || n > left {
		return nil, fmt.Errorf("%w: length %d with %d bytes left", errFrame, n, left)
	}
	f.buf = slices.Grow(f.buf[:0], int(frameHeader+n))[:frameHeader+n]
	got, err := io.ReadFull(f.r, f.buf)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) { // which a file that shrinks gives
		return nil, err
	}
	payload, _, err := nextFrame(f.buf[:got])
	return payload, err
}

// record returns the record of the next frame.
func (f *frameReader) record() (record, error) {
	payload, err := f.next()
	if err != nil {
		return record{}, err
	}
	return parseRecord(payload)
}
