package pgwire

import (
	"encoding/binary"
	"io"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/mzdio/mzd/engine"
	"github.com/mzdio/mzd/engine/flow"
)

// flushSize is the number of buffered bytes at which rows are written out even
// in the middle of a chunk, which bounds what a large snapshot holds here.
const flushSize = 64 << 10

// writer encodes messages into a buffer and writes it out on flush. The first
// error sticks: everything after it does nothing, so that it need only be asked
// for at a flush. Rows are encoded in place, without a copy of their values.
type writer struct {
	w   io.Writer
	buf []byte
	err error
}

func (w *writer) send(msg pgproto3.BackendMessage) {
	if w.err == nil {
		w.buf, w.err = msg.Encode(w.buf)
	}
}

// flush writes what is buffered. Its error is errGone: the one thing that goes
// wrong with a client's connection is that there is no client.
func (w *writer) flush() error {
	if w.err == nil && len(w.buf) > 0 {
		_, w.err = w.w.Write(w.buf)
	}
	if cap(w.buf) > 4*flushSize {
		w.buf = nil // a giant row does not stay with the connection
	}
	w.buf = w.buf[:0]
	if w.err != nil {
		return errGone
	}
	return nil
}

// full reports that it is time to flush.
func (w *writer) full() bool { return len(w.buf) >= flushSize }

// dataRow appends a DataRow. formats is as [resultFormat] takes it.
func (w *writer) dataRow(row flow.Row, formats []int16) {
	start := w.begin('D')
	w.values(row, formats)
	w.end(start)
}

// values appends the number of values and each with its length.
func (w *writer) values(row flow.Row, formats []int16) {
	w.buf = binary.BigEndian.AppendUint16(w.buf, uint16(len(row)))
	for i, d := range row {
		if d.IsNull() {
			w.buf = append(w.buf, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		w.buf = append(w.buf, 0, 0, 0, 0)
		value := len(w.buf)
		if resultFormat(formats, i) == pgproto3.BinaryFormat {
			w.buf = d.AppendBinary(w.buf)
		} else {
			w.buf = d.AppendText(w.buf)
		}
		binary.BigEndian.PutUint32(w.buf[value-4:], uint32(len(w.buf)-value))
	}
}

// begin appends the head of a message and returns where it starts.
func (w *writer) begin(kind byte) int {
	w.buf = append(w.buf, kind, 0, 0, 0, 0)
	return len(w.buf) - 5
}

// end fills in the length of the message that starts at start; its kind does
// not count.
func (w *writer) end(start int) {
	binary.BigEndian.PutUint32(w.buf[start+1:], uint32(len(w.buf)-start-1))
}

// resultFormat returns the format code of column i: a client gives none (all
// text), one for all, or one for each.
func resultFormat(formats []int16, i int) int16 {
	switch len(formats) {
	case 0:
		return pgproto3.TextFormat
	case 1:
		return formats[0]
	default:
		return formats[i]
	}
}

func rowDescription(fields []engine.Field, formats []int16) *pgproto3.RowDescription {
	d := &pgproto3.RowDescription{Fields: make([]pgproto3.FieldDescription, len(fields))}
	for i, f := range fields {
		d.Fields[i] = pgproto3.FieldDescription{
			Name:         []byte(f.Name),
			DataTypeOID:  f.Type.OID(),
			DataTypeSize: f.Type.Size(),
			TypeModifier: f.Type.Typmod(),
			Format:       resultFormat(formats, i),
		}
	}
	return d
}
