package engine

import (
	"bytes"
	"encoding/binary"
	"strings"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/sql"
)

// The formats are PostgreSQL's; see "COPY, File Formats" in its manual.

func newCopyFormat(n *sql.CopyFrom) copyFormat {
	first := func(s string, otherwise byte) byte {
		if s != "" {
			return s[0]
		}
		return otherwise
	}
	switch n.Format {
	case "binary":
		return &binaryFormat{}
	case "csv":
		f := &csvFormat{delimiter: first(n.Delimiter, ','), quote: first(n.Quote, '"')}
		f.escape = first(n.Escape, f.quote)
		if n.Null != nil {
			f.null = *n.Null
		}
		return f
	}
	f := &textFormat{delimiter: first(n.Delimiter, '\t'), null: `\N`}
	if n.Null != nil {
		f.null = *n.Null
	}
	return f
}

// line takes the end of a line off.
func line(b []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte{'\n'}), []byte{'\r'})
}

// textFormat is a line for each row, in which a backslash begins an escape.
type textFormat struct {
	delimiter byte
	null      string
	scanned   int // of the line that is cut off
}

func (f *textFormat) record(data []byte) ([]byte, int, error) {
	for i := f.scanned; i < len(data); i++ {
		switch {
		case data[i] == '\\' && i+1 == len(data):
			f.scanned = i
			return nil, 0, nil
		case data[i] == '\\' && (data[i+1] == '\n' || data[i+1] == '\\'): // an end of line in a value
			i++
		case data[i] == '\n':
			f.scanned = 0
			return line(data[:i+1]), i + 1, nil
		}
	}
	f.scanned = len(data)
	return nil, 0, nil
}

func (f *textFormat) last(data []byte) ([]byte, error) { return line(data), nil }

func (f *textFormat) isEnd(record []byte) bool { return string(record) == `\.` }

func (f *textFormat) values(record []byte) ([][]byte, error) {
	var values [][]byte
	for from, i := 0, 0; ; i++ {
		switch {
		case i < len(record) && record[i] == '\\':
			i++
		case i >= len(record) || record[i] == f.delimiter:
			raw := record[from:min(i, len(record))]
			if string(raw) == f.null {
				values = append(values, nil)
			} else {
				values = append(values, unescape(raw))
			}
			if i >= len(record) {
				return values, nil
			}
			from = i + 1
		}
	}
}

// unescape reads the escapes of the text format; it may return its argument.
func unescape(raw []byte) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' || i+1 == len(raw) {
			out = append(out, raw[i])
			continue
		}
		i++
		switch c := raw[i]; {
		case strings.IndexByte("bfnrtv", c) >= 0:
			out = append(out, "\b\f\n\r\t\v"[strings.IndexByte("bfnrtv", c)])
		case c >= '0' && c <= '7':
			v, n := digits(raw[i:], 8, 3)
			out, i = append(out, v), i+n-1
		case c == 'x' && i+1 < len(raw) && digit(raw[i+1]) < 16:
			v, n := digits(raw[i+1:], 16, 2)
			out, i = append(out, v), i+n
		default:
			out = append(out, c)
		}
	}
	return out
}

// digits reads up to limit digits and returns their value and number.
func digits(b []byte, base, limit int) (v byte, n int) {
	for n < min(limit, len(b)) && digit(b[n]) < base {
		v = v*byte(base) + byte(digit(b[n]))
		n++
	}
	return v, n
}

func digit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return 255
}

// csvFormat is comma separated values: what is in quotes may have ends of lines.
type csvFormat struct {
	delimiter, quote, escape byte
	null                     string
	scanned                  int  // of the record that is cut off
	quoted                   bool // it is cut off between quotes
}

func (f *csvFormat) record(data []byte) ([]byte, int, error) {
	for i := f.scanned; i < len(data); i++ {
		switch c := data[i]; {
		case f.quoted && c == f.escape && c != f.quote:
			if i+1 == len(data) {
				f.scanned = i
				return nil, 0, nil
			}
			i++
		case c == f.quote:
			f.quoted = !f.quoted // a doubled one does it twice
		case c == '\n' && !f.quoted:
			f.scanned = 0
			return line(data[:i+1]), i + 1, nil
		}
	}
	f.scanned = len(data)
	return nil, 0, nil
}

func (f *csvFormat) last(data []byte) ([]byte, error) {
	if f.quoted {
		return nil, errorf("22P04", "unterminated CSV quoted field")
	}
	return line(data), nil
}

func (f *csvFormat) isEnd(record []byte) bool { return string(record) == `\.` }

func (f *csvFormat) values(record []byte) ([][]byte, error) {
	var values [][]byte
	value := []byte{}
	quoted, hasQuotes := false, false
	add := func() {
		if !hasQuotes && string(value) == f.null {
			value = nil
		}
		values = append(values, value)
		value, hasQuotes = []byte{}, false
	}
	for i := 0; i < len(record); i++ {
		switch c := record[i]; {
		case quoted && c == f.escape && i+1 < len(record) && (record[i+1] == f.quote || record[i+1] == f.escape):
			i++
			value = append(value, record[i])
		case c == f.quote:
			quoted, hasQuotes = !quoted, true
		case c == f.delimiter && !quoted:
			add()
		default:
			value = append(value, c)
		}
	}
	add()
	return values, nil
}

// binaryFormat is what drivers send.
type binaryFormat struct{ begun bool }

const binarySignature = "PGCOPY\n\xff\r\n\x00"

func (f *binaryFormat) record(data []byte) ([]byte, int, error) {
	head := 0
	if !f.begun {
		const fixed = len(binarySignature) + 8
		if len(data) < fixed {
			return nil, 0, nil
		}
		flags, extension := binary.BigEndian.Uint32(data[fixed-8:]), binary.BigEndian.Uint32(data[fixed-4:])
		if string(data[:len(binarySignature)]) != binarySignature || flags != 0 || extension > 1<<16 {
			return nil, 0, errorf("22P04", "invalid COPY file header")
		}
		if head = fixed + int(extension); len(data) < head {
			return nil, 0, nil
		}
	}
	if f.isEnd(data[head:]) {
		f.begun = true
		return data[head : head+2], head + 2, nil
	}
	_, rest, ok := flow.Tuple(data[head:])
	if !ok {
		return nil, 0, nil
	}
	f.begun = true
	end := len(data) - len(rest)
	return data[head:end], end, nil
}

func (f *binaryFormat) last([]byte) ([]byte, error) {
	return nil, errorf("22P04", "unexpected EOF in COPY data")
}

func (f *binaryFormat) isEnd(record []byte) bool {
	return len(record) >= 2 && binary.BigEndian.Uint16(record) == 0xffff
}

func (f *binaryFormat) values(record []byte) ([][]byte, error) {
	values, _, _ := flow.Tuple(record)
	return values, nil
}
