package engine

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"unicode/utf8"
	"unsafe"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
	"github.com/mzdio/mzd/engine/sql"
)

// The states of a source.
const (
	SourceLoading = "loading"       // reading what the file had when the source was opened
	SourceTailing = "tailing"       // following the file
	SourceDone    = "done"          // read once, without tail
	SourceMissing = "missing"       // there is no file yet
	SourceShrunk  = "source_shrunk" // the file is not the one that was read, or shorter
	SourceFailed  = "failed"        // the file cannot be read
)

// source is a file that is read line by line.
type source struct {
	id, name string
	path     string
	format   string
	tail     bool
	regex    *regexp.Regexp
	columns  []plan.Column

	// projections are what the decoders compute for the slots that read the source. The slice is replaced, never changed.
	projections atomic.Pointer[[]*projection]

	// Guarded by Engine.mu.
	state    string
	err      error
	file     reader // open once there is one
	caughtUp bool   // all that the file had at the start has been published
	broken   *Error // why it will never be caught up
	recorded extent // what a former process had published
	extent   extent // what has been published
	bad      int64
	marks    []mark // how far the source had been read at which time, ascending
	target   int64  // bytes the file had when the source was opened
	dropped  bool
	stop     func() // ends the reader; nil before it has begun
}

// mark says how much of a source belongs to a time.
type mark struct {
	time          uint64
	offset, lines int64
}

// projection is the work that a slot asks of a source's decoders.
type projection struct{ work *flow.Map }

func newSource(id string, def *sql.CreateSource, base string) (*source, error) {
	s := &source{id: id, name: def.Name.Base(), path: def.Path, format: def.Format, tail: def.Tail, state: SourceLoading}
	if !filepath.IsAbs(s.path) {
		s.path = filepath.Join(base, s.path)
	}
	s.projections.Store(&[]*projection{})
	switch s.format {
	case "text":
		s.columns = []plan.Column{{Name: "text", Type: flow.Text}}
	case "json":
		s.columns = []plan.Column{{Name: "data", Type: flow.Jsonb}}
	case "regex":
		re, err := regexp.Compile(def.Regex)
		if err != nil {
			return nil, errorf("2201B", "invalid regular expression: %v", err)
		}
		if re.NumSubexp() == 0 {
			return nil, errorf("42601", "the regular expression of a source needs a capture group for each column")
		}
		s.regex = re
		for i, name := range re.SubexpNames()[1:] {
			if name == "" {
				name = "column" + strconv.Itoa(i+1)
			}
			s.columns = append(s.columns, plan.Column{Name: name, Type: flow.Text})
		}
	}
	s.columns = append(s.columns, plan.Column{Name: "mz_line_no", Type: flow.Int8})
	return s, nil
}

// project returns the work of a slot as the decoders do it: they hand on a JSON line as the text it is, so that a field can be read
// without making a value of the document.
func (s *source) project(m *flow.Map) *flow.Map {
	if s.format != "json" {
		return m
	}
	parsed := func(c *flow.Col) flow.Expr {
		if c.Index != 0 {
			return c
		}
		return &flow.ReadJSON{X: &flow.Col{Index: 0, T: flow.Text, Name: c.Name}, T: flow.Jsonb}
	}
	out := &flow.Map{}
	for _, f := range m.Filters {
		out.Filters = append(out.Filters, flow.Substitute(f, parsed))
	}
	for _, x := range m.Exprs {
		out.Exprs = append(out.Exprs, flow.Substitute(x, parsed))
	}
	return out
}

func (s *source) register(p *projection) {
	next := append(slices.Clone(*s.projections.Load()), p)
	s.projections.Store(&next)
}

func (s *source) unregister(p *projection) {
	next := slices.DeleteFunc(slices.Clone(*s.projections.Load()), func(x *projection) bool { return x == p })
	s.projections.Store(&next)
}

// at returns how far the source had been read at a time. The caller holds Engine.mu.
func (s *source) at(time uint64) mark {
	i, _ := slices.BinarySearchFunc(s.marks, time, func(m mark, t uint64) int {
		if m.time <= t {
			return -1
		}
		return 1
	})
	if i == 0 {
		return mark{}
	}
	return s.marks[i-1]
}

// trim forgets marks before a time, less the last. The caller holds Engine.mu.
func (s *source) trim(until uint64) {
	n := 0
	for n+1 < len(s.marks) && s.marks[n+1].time <= until {
		n++
	}
	s.marks = s.marks[n:]
	if n > 0 && cap(s.marks) > 64 && len(s.marks) < cap(s.marks)/4 {
		s.marks = slices.Clone(s.marks)
	}
}

// maxLine is the length of the longest line that is read; longer ones are counted and skipped.
const maxLine = 1 << 20

// chunk is a run of whole lines on its way to a tick.
type chunk struct {
	src   *source
	lines string // each ends with a newline
	first int64  // number of the first line, from 1
	count int
	after extent // what has been read of the file with this chunk

	caughtUp bool  // the reader has come to the end of what there was
	failure  error // what is wrong with the file
	ended    bool  // the reader has ended

	projections []*projection
	outs        []flow.Delta
	bad         rejects
	done        chan struct{} // closed when it is decoded
}

// decode computes the projections of all lines.
func (c *chunk) decode(ctx *flow.Context) {
	c.projections = *c.src.projections.Load()
	c.outs = make([]flow.Delta, len(c.projections))
	c.bad = c.src.decode(ctx, c.lines, c.first, c.projections, c.outs)
}

// out is what the chunk means to a slot. A slot that came after the chunk was decoded is computed now.
func (c *chunk) out(ctx *flow.Context, p *projection) flow.Delta {
	if i := slices.Index(c.projections, p); i >= 0 {
		return c.outs[i]
	}
	var out [1]flow.Delta
	c.src.decode(ctx, c.lines, c.first, []*projection{p}, out[:])
	return out[0]
}

// decode computes projections of lines and returns those that it has left out.
func (s *source) decode(ctx *flow.Context, lines string, number int64, projections []*projection, outs []flow.Delta) (bad rejects) {
	row := make(flow.Row, len(s.columns))
	base := uintptr(unsafe.Pointer(unsafe.StringData(lines)))
	starts := make([]int, len(outs))
	for i := range outs {
		starts[i] = len(outs[i].Rows)
	}
	for rest := lines; rest != ""; number++ {
		i := strings.IndexByte(rest, '\n')
		line := rest[:i]
		rest = rest[i+1:]
		why := unreadable(line)
		ok := false
		if why == "" {
			ok, why = s.row(ctx, line, row)
		}
		if why != "" {
			bad.add(number, why)
		}
		if !ok {
			continue
		}
		row[len(row)-1] = flow.NewInt(flow.Int8, number)
		for j, p := range projections {
			p.work.Apply(ctx, row, 1, &outs[j])
		}
	}
	// A text that is part of a line must not keep the whole chunk in memory.
	for i := range outs {
		for _, u := range outs[i].Rows[starts[i]:] {
			u.Row.Own(base, base+uintptr(len(lines)))
		}
	}
	return bad
}

// rejects are lines that are left out: how many, and the first one.
type rejects struct {
	lines, first int64
	why          string
}

func (r *rejects) add(number int64, why string) {
	if r.lines++; r.lines == 1 {
		r.first, r.why = number, why
	}
}

// tooLong is why a line is left out of which only the beginning was read.
const tooLong = "it is longer than 1 MiB"

// unreadable is why a line is left out, whatever the format is; empty: it is not.
func unreadable(line string) string {
	switch {
	case len(line) > maxLine:
		return tooLong
	case !utf8.ValidString(line):
		return "it is no UTF-8"
	case strings.IndexByte(line, 0) >= 0:
		return "it has a NUL byte"
	}
	return ""
}

// row reads the columns of a line, less the last. It is false for a line that is no row, and says why for one that ought to be.
func (s *source) row(ctx *flow.Context, line string, row flow.Row) (ok bool, why string) {
	switch s.format {
	case "json":
		if strings.TrimLeft(line, " \t\r") == "" {
			return false, ""
		}
		if !ctx.ValidJSON(line) {
			return false, "it is no JSON; each line is a document of its own"
		}
		row[0] = flow.NewText(line)
	case "regex":
		m := s.regex.FindStringSubmatchIndex(line)
		if m == nil {
			return false, ""
		}
		for i := range len(row) - 1 {
			row[i] = flow.Null
			if from := m[2*i+2]; from >= 0 {
				row[i] = flow.NewText(line[from:m[2*i+3]])
			}
		}
	default:
		row[0] = flow.NewText(line)
	}
	return true, ""
}

// problem is what is wrong with the file, and what to do; empty: nothing is.
func (s *source) problem() string {
	switch {
	case s.err == nil:
		return ""
	case s.state == SourceShrunk:
		return s.err.Error() + ". " + s.remedy()
	}
	return s.err.Error()
}

// remedy is what to do about a file that is not the one that was read.
func (s *source) remedy() string {
	return fmt.Sprintf("Bring the file back and restart, or DROP SOURCE %s CASCADE and create it and its views again: it then begins with what the file has", s.name)
}

func (s *source) String() string { return fmt.Sprintf("source %s (%s)", s.name, s.path) }
