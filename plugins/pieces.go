package plugins

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unsafe"

	"github.com/mzdio/mzd/core"
	mzdv1 "github.com/mzdio/mzd/plugins/proto/mzd/v1"
)

const (
	// pieceBytes bounds the rows of a piece, unless one alone is larger.
	pieceBytes = 1 << 20
	// pieceRows bounds their number, so that many short ones are bounded too.
	pieceRows = 1 << 16
	// maxMessageBytes is the largest message: a piece with the largest row, and
	// room for everything else in it.
	maxMessageBytes = core.MaxRowBytes + 1<<20
)

// pieces cuts a cut in pieces.
func pieces(cut []core.Batch) iter.Seq[*mzdv1.Piece] {
	return func(yield func(*mzdv1.Piece) bool) {
		for i, b := range cut {
			c := newCutter(i, b)
			for u := range b.Updates.All() {
				if c.full(u) {
					c.next.More = true
					if !yield(c.next) {
						return
					}
					c.begin()
				}
				c.add(u)
			}
			c.next.More = i < len(cut)-1
			if !yield(c.next) {
				return
			}
		}
	}
}

// cutter cuts a batch in pieces.
type cutter struct {
	view  uint32
	batch core.Batch
	bytes int // of the rows that are left, with what separates them
	rows  int // that are left
	next  *mzdv1.Piece
}

func newCutter(view int, b core.Batch) *cutter {
	c := &cutter{view: uint32(view), batch: b, rows: b.Updates.Len()}
	for u := range b.Updates.All() {
		c.bytes += len(u.Row) + 1
	}
	c.begin()
	return c
}

// begin begins a piece. It has room from the start: growing would cost more than
// all the rest.
func (c *cutter) begin() {
	b := c.batch
	c.next = &mzdv1.Piece{View: c.view, From: b.Lower.String(), To: b.Upper.String(), Checksum: b.Sum}
	if c.rows > 0 {
		c.next.Rows = make([]byte, 0, min(c.bytes, pieceBytes))
		c.next.Diffs = make([]int64, 0, min(c.rows, pieceRows, 1+cap(c.next.Rows)*c.rows/c.bytes*5/4))
	}
}

// full reports whether the piece has no room for an update.
func (c *cutter) full(u core.Update) bool {
	n := len(c.next.Diffs)
	return n > 0 && (len(c.next.Rows)+1+len(u.Row) > pieceBytes || n == pieceRows)
}

// add adds an update to the piece.
func (c *cutter) add(u core.Update) {
	p, last := c.next, c.batch.Upper.Time-1
	if len(p.Diffs) > 0 {
		p.Rows = append(p.Rows, '\n')
	}
	p.Rows = append(p.Rows, u.Row...)
	if u.Time != last && p.Times == nil {
		p.Times = slices.Repeat([]uint64{uint64(last)}, len(p.Diffs))
	}
	if p.Times != nil {
		p.Times = append(p.Times, uint64(u.Time))
	}
	p.Diffs = append(p.Diffs, int64(u.Diff))
	c.rows, c.bytes = c.rows-1, c.bytes-len(u.Row)-1
}

// assembler puts the pieces of one stream together again.
type assembler struct {
	views []*core.View
	batch batchBuilder
	cut   []core.Batch
}

// describe takes the views over that pieces refer to from now on.
func (a *assembler) describe(views *mzdv1.Views) error {
	if a.batch.begun() || len(a.cut) > 0 {
		return fmt.Errorf("views in the middle of a cut")
	}
	if len(views.GetViews()) == 0 {
		return fmt.Errorf("no views")
	}
	a.views = nil
	for _, v := range views.GetViews() {
		view, err := fromView(v)
		if err != nil {
			return err
		}
		a.views = append(a.views, view)
	}
	return nil
}

// add takes a piece, and returns the cut if that completes it.
func (a *assembler) add(p *mzdv1.Piece) ([]core.Batch, error) {
	if int(p.GetView()) >= len(a.views) {
		return nil, fmt.Errorf("a piece of view %d of %d", p.GetView(), len(a.views))
	}
	if a.batch.begun() && a.batch.view != p.GetView() {
		if err := a.finishBatch(); err != nil {
			return nil, err
		}
	}
	if !a.batch.begun() && int(p.GetView()) != len(a.cut) {
		return nil, fmt.Errorf("a piece of view %d where one of view %d follows", p.GetView(), len(a.cut))
	}
	if err := a.batch.add(p); err != nil {
		return nil, err
	}
	if p.GetMore() {
		return nil, nil
	}
	if err := a.finishBatch(); err != nil {
		return nil, err
	}
	if len(a.cut) < len(a.views) {
		return nil, fmt.Errorf("a cut of %d views instead of %d", len(a.cut), len(a.views))
	}
	cut := a.cut
	a.cut = nil
	return cut, nil
}

func (a *assembler) finishBatch() error {
	b := a.batch.finish(a.views[a.batch.view])
	a.cut = append(a.cut, b)
	if b.Upper.Time != a.cut[0].Upper.Time {
		return fmt.Errorf("a cut whose batches end at %s and %s", a.cut[0].Upper, b.Upper)
	}
	return nil
}

// batchBuilder puts the pieces of one batch together.
type batchBuilder struct {
	view         uint32
	from, to     string
	lower, upper core.Token
	runs         [][]core.Update
	sum          uint64
	uneven       bool // not all updates are at the time before the end
}

func (b *batchBuilder) begun() bool { return b.to != "" }

// add takes a piece of the batch.
func (b *batchBuilder) add(p *mzdv1.Piece) error {
	if !b.begun() {
		if err := b.begin(p); err != nil {
			return err
		}
	}
	if p.GetFrom() != b.from || p.GetTo() != b.to {
		return fmt.Errorf("pieces of one batch from %q to %q and from %q to %q", b.from, b.to, p.GetFrom(), p.GetTo())
	}
	run, err := b.updates(p)
	if err != nil {
		return err
	}
	if len(run) > 0 {
		b.runs = append(b.runs, run)
	}
	return nil
}

func (b *batchBuilder) begin(p *mzdv1.Piece) error {
	lower, err := core.ParseToken(p.GetFrom())
	if err != nil {
		return err
	}
	upper, err := core.ParseToken(p.GetTo())
	if err != nil {
		return err
	}
	if upper.Time == 0 || upper.Time < lower.Time || upper == lower { // at one time, a new history may begin
		return fmt.Errorf("a batch from %q to %q", lower, upper)
	}
	*b = batchBuilder{view: p.GetView(), from: p.GetFrom(), to: p.GetTo(), lower: lower, upper: upper, sum: p.GetChecksum()}
	return nil
}

// updates reads the updates of a piece. Their rows share its memory, which is nobody
// else's.
func (b *batchBuilder) updates(p *mzdv1.Piece) ([]core.Update, error) {
	diffs, times := p.GetDiffs(), p.GetTimes()
	if len(diffs) == 0 && len(p.GetRows()) == 0 {
		return nil, nil
	}
	if n := bytes.Count(p.GetRows(), []byte{'\n'}) + 1; n != len(diffs) || len(times) != 0 && len(times) != n {
		return nil, fmt.Errorf("a piece of %d rows, %d diffs and %d times", n, len(diffs), len(times))
	}
	if b.lower.Time == b.upper.Time {
		return nil, fmt.Errorf("updates in a batch from %q to %q, which has no time for them", b.lower, b.upper)
	}
	rest := unsafe.String(unsafe.SliceData(p.GetRows()), len(p.GetRows()))
	run := make([]core.Update, len(diffs))
	for i := range run {
		row, after, _ := strings.Cut(rest, "\n")
		run[i] = core.Update{Time: b.upper.Time - 1, Diff: core.Diff(diffs[i]), Row: core.Row(row)}
		rest = after
	}
	for i, t := range times {
		run[i].Time, b.uneven = core.Time(t), true
		if run[i].Time < b.lower.Time || run[i].Time >= b.upper.Time {
			return nil, fmt.Errorf("an update at %d in a batch from %q to %q", t, b.lower, b.upper)
		}
	}
	return run, nil
}

// finish returns the batch, and makes room for the next one.
func (b *batchBuilder) finish(view *core.View) core.Batch {
	batch := core.Batch{View: view, Lower: b.lower, Upper: b.upper, Sum: b.sum}
	if b.uneven {
		batch.Updates = core.UpdatesOf(slices.Concat(b.runs...))
	} else {
		batch.Updates = core.NetUpdates(b.upper.Time-1, b.runs...)
	}
	*b = batchBuilder{}
	return batch
}

// toViews describes views to a plugin.
func toViews(views []*core.View) *mzdv1.Views {
	out := &mzdv1.Views{}
	for _, v := range views {
		out.Views = append(out.Views, toView(v))
	}
	return out
}

func toView(v *core.View) *mzdv1.View {
	out := &mzdv1.View{Name: v.Name}
	for _, c := range v.Columns {
		out.Columns = append(out.Columns, &mzdv1.Column{Name: c.Name, Type: c.Type})
	}
	for _, k := range v.Key {
		out.Key = append(out.Key, uint32(k))
	}
	return out
}

func fromView(v *mzdv1.View) (*core.View, error) {
	out := &core.View{Name: v.GetName()}
	for _, c := range v.GetColumns() {
		out.Columns = append(out.Columns, core.Column{Name: c.GetName(), Type: c.GetType()})
	}
	for _, k := range v.GetKey() {
		if int(k) >= len(out.Columns) {
			return nil, fmt.Errorf("key column %d of %d of view %s", k, len(out.Columns), out.Name)
		}
		out.Key = append(out.Key, int(k))
	}
	return out, nil
}

// sameViews reports whether the views are described alike.
func sameViews(a, b []*core.View) bool {
	return slices.EqualFunc(a, b, func(a, b *core.View) bool {
		return a == b || a.Name == b.Name && slices.Equal(a.Columns, b.Columns) && slices.Equal(a.Key, b.Key)
	})
}
