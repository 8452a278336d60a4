package engine

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mzdio/mzd/engine/sql"
)

// FuzzCopyFormat reads data as each format in one piece and cut in two: the rows must be the same, or the error. What PostgreSQL makes of
// the formats is tested over the wire.
func FuzzCopyFormat(f *testing.F) {
	for _, seed := range []string{
		"1\ta\n2\t\\N\n\\.\nx", "a\\tb\t\\x41\\101\\\\\n", "line\\\nbreak\n", "no end", "a\r\nb\r\n",
		"1,\"a\"\"b\",\n2,\"x\ny\",\"\"\n", "\"open\n", "a\\,b\n", "\"a\\\"b\"\n",
		binarySignature + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x011\xff\xff\xff\xff\xff\xff",
		binarySignature + "\x00\x00\x00\x00\x00\x00\x00\x02xx\xff\xff",
	} {
		f.Add([]byte(seed), uint16(3))
	}
	null := "0"
	formats := []*sql.CopyFrom{
		{}, {Delimiter: ",", Null: &null}, {Format: "csv"}, {Format: "csv", Delimiter: ";", Quote: "'", Escape: "\\", Null: &null}, {Format: "binary"},
	}
	f.Fuzz(func(t *testing.T, data []byte, at uint16) {
		data = data[:min(len(data), 1<<12)]
		for _, n := range formats {
			whole := readCopy(newCopyFormat(n), data)
			cut := int(at) % (len(data) + 1)
			if pieces := readCopy(newCopyFormat(n), data[:cut], data[cut:]); pieces != whole {
				t.Fatalf("format %q, cut at %d:\n%s\nin one piece:\n%s", n.Format, cut, pieces, whole)
			}
		}
	})
}

// readCopy reads data that comes in pieces, as CopyIn does.
func readCopy(f copyFormat, pieces ...[]byte) string {
	var rest []byte
	var rows strings.Builder
	ended := false
	row := func(record []byte) {
		if ended = f.isEnd(record); ended {
			return
		}
		values, err := f.values(record)
		fmt.Fprintf(&rows, "%q %v\n", values, err)
	}
	for _, p := range pieces {
		rest = append(rest, p...)
		for !ended {
			record, n, err := f.record(rest)
			if err != nil {
				return rows.String() + err.Error()
			}
			if n == 0 {
				break
			}
			row(record)
			rest = rest[n:]
		}
	}
	if !ended && len(rest) > 0 {
		record, err := f.last(rest)
		if err != nil {
			return rows.String() + err.Error()
		}
		row(record)
	}
	return rows.String()
}
