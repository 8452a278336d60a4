package viewlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/mzdio/mzd/core"
)

// A segment is a file of frames. A frame is
//
//	length  uint32, little endian: bytes of the payload
//	crc     uint32, little endian: CRC-32C of the payload
//	payload
//
// and a payload is the kind of the record, one byte, and its fields; integers
// are varints (encoding/binary). docs/log.md has the whole format.
const (
	frameHeader = 8

	// maxFrame is what no writer exceeds and no reader believes: a record is
	// split into pieces long before, and its rows have [core.MaxRowBytes] at most.
	maxFrame = 64 << 20
	// pieceBytes is the size from which a record is split.
	pieceBytes = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The kinds of records.
const (
	kindHeader = 'h' // the first of each segment
	kindBatch  = 'b' // a piece of a batch
)

// Flags of a batch.
const (
	flagSolid = 1 << iota // only the ends of the interval can be read
	flagMore              // the next frame goes on with the same batch
)

// header is the first record of a segment.
type header struct {
	version int
	number  int
	view    string
}

const formatVersion = 1

// record is a batch, or a piece of one, as it stands in a frame.
type record struct {
	flags        byte
	synced       int64 // bytes of the segment that were durable when this was written
	arrived      int64 // when the batch arrived, in milliseconds since 1970
	lower, upper core.Time
	updates      []core.Update
}

// appendFrame appends a frame; payload appends its payload.
func appendFrame(buf []byte, payload func([]byte) []byte) []byte {
	start := len(buf)
	buf = payload(append(buf, make([]byte, frameHeader)...))
	body := buf[start+frameHeader:]
	binary.LittleEndian.PutUint32(buf[start:], uint32(len(body)))
	binary.LittleEndian.PutUint32(buf[start+4:], crc32.Checksum(body, castagnoli))
	return buf
}

func appendHeader(buf []byte, h header) []byte {
	return appendFrame(buf, func(b []byte) []byte {
		b = append(b, kindHeader)
		b = binary.AppendUvarint(b, uint64(h.version))
		b = binary.AppendUvarint(b, uint64(h.number))
		return appendString(b, h.view)
	})
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// pieceSize is about what an update takes in a frame, at most.
func pieceSize(u core.Update) int { return len(u.Row) + 24 }

// appendPiece appends the next piece of a batch as a frame, and returns what is
// left of the batch: a record without updates once all of it is there.
func appendPiece(buf []byte, r record) ([]byte, record) {
	n := 0
	for size := 0; n < len(r.updates) && size < pieceBytes; n++ {
		size += pieceSize(r.updates[n])
	}
	rest := r
	rest.updates = r.updates[n:]
	if len(rest.updates) > 0 {
		r.flags |= flagMore
	}
	buf = appendFrame(buf, func(b []byte) []byte {
		b = append(b, kindBatch, r.flags)
		b = binary.AppendUvarint(b, uint64(r.synced))
		b = binary.AppendUvarint(b, uint64(r.arrived))
		b = binary.AppendUvarint(b, uint64(r.lower))
		b = binary.AppendUvarint(b, uint64(r.upper))
		b = binary.AppendUvarint(b, uint64(n))
		for _, u := range r.updates[:n] {
			t := u.Time
			if r.flags&flagSolid != 0 {
				t = r.upper - 1 // whatever it was when it was added up
			}
			b = binary.AppendUvarint(b, uint64(t-r.lower))
			b = binary.AppendVarint(b, int64(u.Diff))
			b = appendString(b, string(u.Row))
		}
		return b
	})
	return buf, rest
}

// checkRows checks that the rows of a record fit into frames: a frame that
// readers do not believe must not be written.
func checkRows(r record) error {
	for _, u := range r.updates {
		if len(u.Row) > core.MaxRowBytes {
			return fmt.Errorf("a row of %d bytes (%.40q...); a row may have %d", len(u.Row), u.Row, core.MaxRowBytes)
		}
	}
	return nil
}

// errFrame means that there is no intact frame.
var errFrame = errors.New("damaged frame")

// nextFrame returns the payload of the first frame of data and what follows it.
func nextFrame(data []byte) (payload, rest []byte, err error) {
	if len(data) < frameHeader {
		return nil, nil, fmt.Errorf("%w: %d bytes are no header", errFrame, len(data))
	}
	n := int(binary.LittleEndian.Uint32(data))
	if n == 0 || n > maxFrame || n > len(data)-frameHeader {
		return nil, nil, fmt.Errorf("%w: length %d with %d bytes left", errFrame, n, len(data)-frameHeader)
	}
	payload = data[frameHeader : frameHeader+n]
	if got, want := crc32.Checksum(payload, castagnoli), binary.LittleEndian.Uint32(data[4:]); got != want {
		return nil, nil, fmt.Errorf("%w: checksum %08x, want %08x", errFrame, got, want)
	}
	return payload, data[frameHeader+n:], nil
}

// reader takes fields off a payload; the first error sticks.
type reader struct {
	text string // the payload: rows are parts of it
	err  error
}

func (r *reader) fail() {
	if r.err == nil {
		r.err = fmt.Errorf("%w: a field is cut off or out of range", errFrame)
	}
	r.text = ""
}

func (r *reader) byte() byte {
	if r.text == "" {
		r.fail()
		return 0
	}
	b := r.text[0]
	r.text = r.text[1:]
	return b
}

func (r *reader) uvarint() uint64 {
	var v uint64
	for shift := 0; shift < 64; shift += 7 {
		b := r.byte()
		if r.err != nil || shift == 63 && b > 1 {
			break
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	r.fail()
	return 0
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (r *reader) string() string {
	n := r.uvarint()
	if n > uint64(len(r.text)) {
		r.fail()
		return ""
	}
	s := r.text[:n]
	r.text = r.text[n:]
	return s
}

// end fails if something is left.
func (r *reader) end() error {
	if r.err == nil && r.text != "" {
		r.fail()
	}
	return r.err
}

func parseHeader(payload []byte) (header, error) {
	r := reader{text: string(payload)}
	if r.byte() != kindHeader {
		return header{}, fmt.Errorf("%w: a segment begins with its header", errFrame)
	}
	h := header{version: int(r.uvarint()), number: int(r.uvarint()), view: r.string()}
	return h, r.end()
}

// parseRecord reads a batch or a piece of one. Its rows are parts of one string
// that holds the payload.
func parseRecord(payload []byte) (record, error) {
	r := reader{text: string(payload)}
	if r.byte() != kindBatch {
		return record{}, fmt.Errorf("%w: not a batch", errFrame)
	}
	rec := record{flags: r.byte(), synced: int64(r.uvarint()), arrived: int64(r.uvarint())}
	rec.lower, rec.upper = core.Time(r.uvarint()), core.Time(r.uvarint())
	n := r.uvarint()
	if n > uint64(len(r.text)) { // an update has three bytes at least
		r.fail()
		n = 0
	}
	rec.updates = make([]core.Update, n)
	for i := range rec.updates {
		u := &rec.updates[i]
		u.Time, u.Diff, u.Row = rec.lower+core.Time(r.uvarint()), core.Diff(r.varint()), core.Row(r.string())
		if u.Time < rec.lower || u.Time >= rec.upper || u.Diff == 0 {
			r.fail()
		}
	}
	if rec.lower >= rec.upper || rec.flags&^(flagSolid|flagMore) != 0 {
		r.fail()
	}
	return rec, r.end()
}
