package pgwire

import (
	"bytes"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/mzdio/mzd/engine/flow"
)

// copyOut writes the rows of COPY ... TO STDOUT, a CopyData for each, as
// PostgreSQL's manual specifies the formats under COPY.
type copyOut struct {
	w      *writer
	format string // text, csv or binary
	begun  bool   // the head of the binary format has been sent
}

// copySignature is the head of the binary format: its signature, no flags, and
// no extension.
const copySignature = "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"

var allBinary = []int16{pgproto3.BinaryFormat}

// begin announces rows of n columns.
func (c *copyOut) begin(n int) {
	m := &pgproto3.CopyOutResponse{ColumnFormatCodes: make([]uint16, n)}
	if c.format == "binary" {
		m.OverallFormat = 1
		for i := range m.ColumnFormatCodes {
			m.ColumnFormatCodes[i] = 1
		}
	}
	c.w.send(m)
}

func (c *copyOut) row(row flow.Row) {
	start := c.w.begin('d')
	switch c.format {
	case "binary":
		c.head()
		c.w.values(row, allBinary)
	case "csv":
		c.w.buf = appendCSV(c.w.buf, row)
	default:
		c.w.buf = appendCopyText(c.w.buf, row)
	}
	c.w.end(start)
}

// head writes the head of the binary format, once and into the message of the
// first row, as PostgreSQL does.
func (c *copyOut) head() {
	if !c.begun {
		c.begun = true
		c.w.buf = append(c.w.buf, copySignature...)
	}
}

// end says that there are no more rows.
func (c *copyOut) end() {
	if c.format == "binary" {
		start := c.w.begin('d')
		c.head()
		c.w.buf = append(c.w.buf, 0xff, 0xff)
		c.w.end(start)
	}
	c.w.send(&pgproto3.CopyDone{})
}

func appendCopyText(buf []byte, row flow.Row) []byte {
	for i, d := range row {
		if i > 0 {
			buf = append(buf, '\t')
		}
		if d.IsNull() {
			buf = append(buf, `\N`...)
			continue
		}
		value := len(buf)
		buf = d.AppendText(buf)
		buf = escapeCopy(buf, value)
	}
	return append(buf, '\n')
}

func appendCSV(buf []byte, row flow.Row) []byte {
	for i, d := range row {
		if i > 0 {
			buf = append(buf, ',')
		}
		if d.IsNull() {
			continue
		}
		start := len(buf)
		buf = d.AppendText(buf)
		// An empty text is quoted to tell it from NULL, and \. to tell it from the
		// end of the data.
		text := buf[start:]
		if len(text) == 0 || bytes.ContainsAny(text, ",\"\r\n") || string(text) == `\.` {
			quoted := bytes.ReplaceAll(text, []byte(`"`), []byte(`""`))
			buf = append(append(append(buf[:start], '"'), quoted...), '"')
		}
	}
	return append(buf, '\n')
}

// copyEscapes maps the bytes that COPY's text format escapes to the letter that
// follows the backslash.
var copyEscapes = [256]byte{
	'\b': 'b', '\f': 'f', '\n': 'n', '\r': 'r', '\t': 't', '\v': 'v', '\\': '\\',
}

// escapeCopy escapes buf[from:] in place for COPY's text format. The usual
// value needs nothing and costs one pass.
func escapeCopy(buf []byte, from int) []byte {
	extra := 0
	for _, c := range buf[from:] {
		if copyEscapes[c] != 0 {
			extra++
		}
	}
	if extra == 0 {
		return buf
	}
	read := len(buf) - 1
	buf = append(buf, make([]byte, extra)...)
	for write := len(buf) - 1; write > read; read-- {
		c := buf[read]
		if e := copyEscapes[c]; e != 0 {
			buf[write], buf[write-1] = e, '\\'
			write -= 2
		} else {
			buf[write] = c
			write--
		}
	}
	return buf
}
