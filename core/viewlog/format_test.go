package viewlog_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/durable"
	"github.com/mzdio/mzd/core/viewlog"
)

// readLog is a reader of logs that was written from docs/log.md alone, and uses
// nothing of the package. It returns the contents of the view at a time. It
// panics where it does not understand, and leaves a torn tail out.
func readLog(dir string, at uint64) (contents map[string]int64, upper uint64) {
	text, err := os.ReadFile(filepath.Join(dir, "manifest"))
	demand(err == nil, "no manifest")
	line, sum, _ := strings.Cut(string(text), "\n")
	demand(sum == fmt.Sprintf("crc32c %08x\n", checksum([]byte(line+"\n"))), "manifest")
	var m struct {
		Format   int
		Name     string
		Segments []struct{ Number, Bytes int }
	}
	demand(json.Unmarshal([]byte(line), &m) == nil && m.Format == 1, "format")

	contents = map[string]int64{}
	for n, seg := range m.Segments {
		data, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%08d.log", seg.Number)))
		demand(err == nil && len(data) >= seg.Bytes, "segment")
		if n < len(m.Segments)-1 {
			data = data[:seg.Bytes]
		}
		size := len(data)
		h, data := frame(data)
		demand(h.byte() == 'h' && h.int() == 1 && h.int() == uint64(seg.Number) && h.string() == m.Name, "header")
		change := map[string]int64{} // of the pieces so far
		for len(data) > 0 {
			var f fields
			offset := size - len(data)
			if f, data = frame(data); f == nil {
				demand(n == len(m.Segments)-1 && offset >= seg.Bytes, "a torn tail where it was durable")
				break
			}
			kind, flags, _, _, lower, end, count := f.byte(), f.byte(), f.int(), f.int(), f.int(), f.int(), f.int()
			demand(kind == 'b' && flags < 4 && lower == upper && lower < end, "batch")
			last := end // of the interval, as far as reading at a time goes
			solid := flags&1 != 0 || lower == 0
			if solid && end == 1<<64-1 {
				last = lower + 1
			}
			demand(!solid || at <= lower || at >= last, "inside of a solid batch")
			for range count {
				t, diff, row := lower+f.int(), f.signed(), f.string()
				if solid {
					t = last - 1
				}
				if t < at {
					change[row] += diff
				}
			}
			demand(len(f) == 0, "something is left")
			if flags&2 == 0 { // the last piece
				upper = end
				for row, diff := range change {
					if contents[row] += diff; contents[row] == 0 {
						delete(contents, row)
					}
				}
				clear(change)
			}
		}
	}
	return contents, upper
}

// fields are what is left of a payload; nil: there is no intact frame.
type fields []byte

func frame(data []byte) (f fields, rest []byte) {
	if len(data) < 8 || uint64(binary.LittleEndian.Uint32(data)) > uint64(len(data)-8) {
		return nil, nil
	}
	length, sum := binary.LittleEndian.Uint32(data), binary.LittleEndian.Uint32(data[4:])
	if f = data[8 : 8+length]; checksum(f) != sum {
		return nil, nil
	}
	return f, data[8+length:]
}

func (f *fields) byte() byte {
	b := (*f)[0]
	*f = (*f)[1:]
	return b
}

func (f *fields) int() (v uint64) {
	for shift := 0; ; shift += 7 {
		b := f.byte()
		if v |= uint64(b&127) << shift; b < 128 {
			return v
		}
	}
}

func (f *fields) signed() int64 {
	if v := f.int(); v%2 == 1 {
		return -int64(v/2) - 1
	} else {
		return int64(v / 2)
	}
}

func (f *fields) string() string {
	n := f.int()
	s := string((*f)[:n])
	*f = (*f)[n:]
	return s
}

func checksum(data []byte) uint32 { return crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)) }

func demand(ok bool, what string) {
	if !ok {
		panic(what)
	}
}

// syncFails is the real file system, of which one sync fails when it is told so.
type syncFails struct {
	durable.FS
	fail atomic.Bool
}

func (s *syncFails) Open(name string, flag int) (durable.File, error) {
	f, err := s.FS.Open(name, flag)
	return syncFailsFile{f, s}, err
}

type syncFailsFile struct {
	durable.File
	fs *syncFails
}

func (f syncFailsFile) Sync() error {
	if f.fs.fail.Swap(false) {
		return syscall.EIO
	}
	return f.File.Sync()
}

// TestFormat writes a log with the package and reads it with readLog: exact and
// solid batches, pieces, several segments, a torn tail, the end of time.
func TestFormat(t *testing.T) {
	dir := t.TempDir()
	files := &syncFails{FS: durable.OS}
	l, err := viewlog.Open(dir, "a view", viewlog.Options{FS: files})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	big := strings.Repeat("x", 400_000)
	row := func(n int) core.Row { return core.Row("[" + strconv.Itoa(n) + `,"` + big + `"]`) }
	must(t, l.Reset(&core.View{Name: "a view"}, "upstream", 1000, snapshot(l, []core.Update{{Diff: 3, Row: row(1)}, {Diff: 1, Row: row(2)}, {Diff: 1, Row: row(3)}, {Diff: 1, Row: row(4)}})))
	untilDurable(l)
	must(t, l.Append(1000, 1300, []core.Update{{Time: 1000, Diff: -1, Row: row(1)}, {Time: 1200, Diff: -1, Row: row(2)}, {Time: 1200, Diff: 200, Row: `["é"]`}}))
	untilDurable(l)
	files.fail.Store(true) // so that a second segment begins
	must(t, l.Append(1300, 1400, []core.Update{{Time: 1399, Diff: -200, Row: `["é"]`}}))
	untilDurable(l)
	must(t, l.Append(1400, 1500, nil))
	must(t, l.Rebase(2000, snapshot(l, []core.Update{{Diff: 1, Row: `["new"]`}})))
	untilDurable(l)

	compare := func(times ...core.Time) {
		t.Helper()
		for _, at := range times {
			_, want, err := netOf(dir, "a view", core.Token{}, core.Token{Time: at})
			must(t, err)
			contents, upper := readLog(dir, uint64(at))
			got := map[core.Row]core.Diff{}
			for r, n := range contents {
				got[core.Row(r)] = core.Diff(n)
			}
			if frontier, _ := l.Frontier(); !maps.Equal(got, want) || core.Time(upper) != frontier.Time {
				t.Errorf("at %d: got %d rows up to %d; want %d rows", at, len(got), upper, len(want))
			}
		}
	}
	compare(1000, 1001, 1200, 1201, 1300, 1399, 1400, 1450, 1500, 2000)
	if _, err := os.Stat(filepath.Join(dir, "00000002.log")); err != nil {
		t.Errorf("the test needs a second segment: %v", err)
	}

	must(t, l.Rebase(core.EndOfTime, snapshot(l, []core.Update{{Diff: 1, Row: `["last"]`}})))
	untilDurable(l)
	compare(2000, 2001, 5000, core.EndOfTime)
	cancel()
	must(t, <-done)

	// What is behind the last batch, and is none, is left out.
	last, err := os.OpenFile(filepath.Join(dir, "00000002.log"), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = last.WriteString("torn")
	must(t, errors.Join(err, last.Close()))
	compare(1000, 5000)
}
