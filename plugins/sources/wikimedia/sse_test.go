package wikimedia_test

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/mzdio/mzd/plugins/sources/wikimedia"
)

type messages = []wikimedia.Message

var streams = []struct {
	name, stream string
	want         messages
	skipped      int
}{
	{"the usual", "event: message\nid: 1\ndata: {}\n\n", messages{{"message", "1", "{}"}}, 0},
	{"nothing", "", nil, 0},
	{"comments", ":ok\n\n: hm\ndata: a\n:b\n\n:\n\n", messages{{"", "", "a"}}, 0},
	{"lines of data", "data: a\ndata\ndata: \ndata:  b\n\n", messages{{"", "", "a\n\n\n b"}}, 0},
	{"empty data", "data\n\ndata:\n\n", messages{{"", "", ""}, {"", "", ""}}, 0},
	{"no data", "event: x\nid: 7\n\ndata: a\n\n", messages{{"", "7", "a"}}, 0},
	{"the ID stays", "id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n", messages{{"", "1", "a"}, {"", "1", "b"}, {"", "", "c"}}, 0},
	{"an ID with NUL is none", "id: 1\ndata: a\n\nid: 2\x00\ndata: b\n\n", messages{{"", "1", "a"}, {"", "1", "b"}}, 0},
	{"the type does not stay", "event: x\ndata: a\n\ndata: b\n\n", messages{{"x", "", "a"}, {"", "", "b"}}, 0},
	{"CR", "id: 1\rdata: a\r\rdata: b\r\r", messages{{"", "1", "a"}, {"", "1", "b"}}, 0},
	{"CRLF", "id: 1\r\ndata: a\r\n\r\ndata: b\r\n\r\n", messages{{"", "1", "a"}, {"", "1", "b"}}, 0},
	{"mixed", "data: a\r\ndata: b\rdata: c\n\r\ndata: d\n\r", messages{{"", "", "a\nb\nc"}, {"", "", "d"}}, 0},
	{"byte order mark", "\xEF\xBB\xBFdata: a\n\n\xEF\xBB\xBFdata: b\n\n", messages{{"", "", "a"}}, 0},
	{"only a mark's beginning", "\xEF\xBBdata: a\n\n", nil, 0},
	{"other fields", "retry: 5\nfoo: bar\ndatax: b\n data: c\ndata: a\n\n", messages{{"", "", "a"}}, 0},
	{"cut off", "data: a\n\ndata: b\n", messages{{"", "", "a"}}, 0},
	{"colons", "data:a:b: c\n\n", messages{{"", "", "a:b: c"}}, 0},
	{"too large a line", "data: a\n\ndata: " + strings.Repeat("x", 100) + "\n\ndata: b\n\n", messages{{"", "", "a"}, {"", "", "b"}}, 1},
	{"too many lines", "data: a\n\n" + strings.Repeat("data: x\n", 20) + "\ndata: b\n\n", messages{{"", "", "a"}, {"", "", "b"}}, 1},
	{"too large a comment", ":" + strings.Repeat("x", 100) + "\ndata: a\n\ndata: b\n\n", messages{{"", "", "b"}}, 1},
	{"as large as may be", "data: " + strings.Repeat("x", 57) + "\n\n", messages{{"", "", strings.Repeat("x", 57)}}, 0},
	{"larger by one", "data: " + strings.Repeat("x", 58) + "\n\n", nil, 1},
	{"too large at the end", "data: " + strings.Repeat("x", 300), nil, 0},
}

const maxEvent = 64

func TestReadStream(t *testing.T) {
	for _, c := range streams {
		for how, src := range map[string]io.Reader{
			"at once":         strings.NewReader(c.stream),
			"byte by byte":    iotest.OneByteReader(strings.NewReader(c.stream)),
			"by halves":       iotest.HalfReader(strings.NewReader(c.stream)),
			"data with error": iotest.DataErrReader(strings.NewReader(c.stream)),
		} {
			got, skipped := wikimedia.ReadStream(src, maxEvent)
			if !slices.Equal(got, c.want) || skipped != c.skipped {
				t.Errorf("%s, %s: got %q, %d skipped; want %q, %d skipped", c.name, how, got, skipped, c.want, c.skipped)
			}
		}
	}
}

// naive reads a stream in the most obvious way.
func naive(stream []byte, max int) (got messages, skipped int) {
	text := strings.TrimPrefix(string(stream), "\xEF\xBB\xBF")
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	lines := strings.Split(text, "\n")
	var m wikimedia.Message
	var data []string
	size := 0
	for _, line := range lines[:len(lines)-1] { // the last has no end
		if line == "" {
			switch {
			case size > max:
				skipped++
			case data != nil:
				m.Data = strings.Join(data, "\n")
				got = append(got, m)
			}
			m.Event, data, size = "", nil, 0
			continue
		}
		size += len(line) + 1
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case name == "event":
			m.Event = value
		case name == "id" && !strings.Contains(value, "\x00"):
			m.ID = value
		case name == "data":
			data = append(data, value)
		}
	}
	return got, skipped
}

// FuzzReadStream holds the reader against the naive one, however the bytes
// arrive.
func FuzzReadStream(f *testing.F) {
	for _, c := range streams {
		f.Add([]byte(c.stream), uint8(3))
	}
	f.Fuzz(func(t *testing.T, stream []byte, piece uint8) {
		// The limit is tested above: which fields of an event that is too large
		// are seen depends on how it arrives.
		max := len(stream) + 2
		want, _ := naive(stream, max)
		got, skipped := wikimedia.ReadStream(&pieces{stream, int(piece) + 1}, max)
		if !slices.Equal(got, want) || skipped != 0 {
			t.Errorf("%q in pieces of %d: got %q, want %q", stream, int(piece)+1, got, want)
		}
		small, skippedSmall := wikimedia.ReadStream(&pieces{stream, int(piece) + 1}, 16)
		if wantSmall, wantSkipped := naive(stream, 16); len(small) != len(wantSmall) || skippedSmall != wantSkipped {
			t.Errorf("%q with a limit, in pieces of %d: got %q, %d skipped; want %q, %d", stream, int(piece)+1, small, skippedSmall, wantSmall, wantSkipped)
		}
	})
}

// pieces is a reader that gives n bytes at a time.
type pieces struct {
	rest []byte
	n    int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.rest[:min(p.n, len(p.rest))])
	p.rest = p.rest[n:]
	return n, nil
}

func BenchmarkReadStream(b *testing.B) {
	stream := bytes.Repeat([]byte("event: message\nid: [{\"topic\":\"eqiad.mediawiki.recentchange\"}]\ndata: {\"a\":\""+strings.Repeat("x", 1100)+"\"}\n\n"), 200)
	b.SetBytes(int64(len(stream)))
	b.ReportAllocs()
	for b.Loop() {
		wikimedia.ReadStream(bytes.NewReader(stream), 1<<20)
	}
}
