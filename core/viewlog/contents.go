package viewlog

import (
	"iter"
	"slices"
	"sort"

	"github.com/mzdio/mzd/core"
)

// contents is a whole view at one time: its rows in order, each once, in chunks
// that are never changed. A later state shares with an earlier one every chunk
// that is the same in both, so that reading a large view at several times, and
// moving it from one to another, costs what has changed and not what is there.
// The times of its updates mean nothing.
type contents struct {
	chunks [][]core.Update // none is empty
	bytes  int64           // see size
	below  int             // rows of which there are fewer copies than none, see [Log.Check]
}

// chunkRows is the size that chunks are made with, at most. One changed row
// costs a chunk of 2 KiB; a million rows cost 16,000 places of chunks, which are
// copied when a state is made.
const chunkRows = 64

// contentsOf makes the contents of rows that come in order.
func contentsOf(rows iter.Seq[core.Update]) contents {
	var b contentsBuilder
	for u := range rows {
		b.add(u)
	}
	b.flush()
	return b.contents
}

// contentsInOrder makes the contents of rows that come in order, in pieces. It
// empties pieces on its way, so that what was taken over can go.
func contentsInOrder(pieces [][]core.Update) contents {
	var b contentsBuilder
	for i, piece := range pieces {
		pieces[i] = nil
		for _, u := range piece {
			b.add(u)
		}
	}
	b.flush()
	return b.contents
}

// plus returns the contents with the changes of a run that is ordered by row,
// each row once.
func (c contents) plus(run []core.Update) contents {
	if len(run) == 0 {
		return c
	}
	b := contentsBuilder{contents: contents{chunks: make([][]core.Update, 0, len(c.chunks)+len(run)/chunkRows+1), bytes: c.bytes, below: c.below}}
	rest := c.chunks
	for len(run) > 0 && len(rest) > 0 {
		// The first row of the run belongs to the last chunk that does not begin
		// behind it, or to the first of all.
		n := sort.Search(len(rest), func(i int) bool { return rest[i][0].Row > run[0].Row })
		n = max(n-1, 0)
		b.share(rest[:n])
		chunk := rest[n]
		rest = rest[n+1:]
		end := len(run)
		if len(rest) > 0 {
			end = sort.Search(len(run), func(i int) bool { return run[i].Row >= rest[0][0].Row })
		}
		b.leaveOut(chunk)
		for u := range merged([][]core.Update{chunk, run[:end]}) {
			b.add(u)
		}
		b.flush()
		run = run[end:]
	}
	b.share(rest)
	for _, u := range run {
		b.add(u)
	}
	b.flush()
	return b.contents
}

// minus returns the contents without the changes of a run.
func (c contents) minus(run []core.Update) contents {
	back := slices.Clone(run)
	for i := range back {
		back[i].Diff = -back[i].Diff
	}
	return c.plus(back)
}

// records yields the contents as the first batch of a log, in pieces that fit a
// frame. A piece is good until the next one.
func (c contents) records(upper core.Time) iter.Seq[record] {
	return func(yield func(record) bool) {
		r := record{flags: flagSolid | flagMore, upper: upper}
		bytes := 0
		for u := range c.all() {
			if bytes >= pieceBytes {
				if !yield(r) {
					return
				}
				r.updates, bytes = r.updates[:0], 0
			}
			r.updates = append(r.updates, u)
			bytes += pieceSize(u)
		}
		r.flags = flagSolid
		yield(r)
	}
}

// all yields the rows in order.
func (c contents) all() iter.Seq[core.Update] {
	return core.NetUpdates(0, c.chunks...).All()
}

// find returns where a row is.
func (c contents) find(row []byte) (at place, ok bool) {
	at.chunk = sort.Search(len(c.chunks), func(i int) bool { return string(c.chunks[i][0].Row) > string(row) }) - 1
	if at.chunk < 0 {
		return place{}, false
	}
	chunk := c.chunks[at.chunk]
	at.index = sort.Search(len(chunk), func(i int) bool { return string(chunk[i].Row) >= string(row) })
	return at, at.index < len(chunk) && string(chunk[at.index].Row) == string(row)
}

// place is where a row is.
type place struct{ chunk, index int }

// next returns the place after one, and false if there is none.
func (c contents) next(at place) (place, bool) {
	if at.chunk >= len(c.chunks) {
		return place{}, false
	}
	if at.index++; at.index == len(c.chunks[at.chunk]) {
		at = place{chunk: at.chunk + 1}
	}
	return at, at.chunk < len(c.chunks)
}

// row returns the row at a place.
func (c contents) row(at place) core.Row { return c.chunks[at.chunk][at.index].Row }

// count returns the number of rows, and of their copies, and the checksum.
func (c contents) count() (rows, copies int64, sum uint64) {
	for _, chunk := range c.chunks {
		for _, u := range chunk {
			copies += int64(u.Diff)
		}
		rows += int64(len(chunk))
		sum += core.ChecksumOf(chunk)
	}
	return rows, copies, sum
}

// contentsBuilder makes contents of rows in order, and of whole chunks between
// them.
type contentsBuilder struct {
	contents
	rows []core.Update // to become chunks
}

// add adds a row that is there at all.
func (b *contentsBuilder) add(u core.Update) {
	b.rows = append(b.rows, u)
	if len(b.rows) == 2*chunkRows {
		b.cut(chunkRows)
	}
}

// share adds chunks of other contents.
func (b *contentsBuilder) share(chunks [][]core.Update) { b.chunks = append(b.chunks, chunks...) }

// flush makes chunks of the rows that wait: of what is too much for one, two; a
// small rest joins the chunk before it if there is room, so that deleting leaves
// no crowd of tiny chunks.
func (b *contentsBuilder) flush() {
	n := len(b.rows)
	switch last := len(b.chunks) - 1; {
	case n == 0:
		return
	case n > chunkRows:
		b.cut(n / 2)
		b.cut(len(b.rows))
	case last >= 0 && len(b.chunks[last])+n <= chunkRows/2:
		before := b.chunks[last]
		b.chunks = b.chunks[:last]
		b.leaveOut(before)
		b.rows = append(slices.Clone(before), b.rows...)
		b.cut(len(b.rows))
	default:
		b.cut(n)
	}
}

// cut makes a chunk of the first n rows that wait.
func (b *contentsBuilder) cut(n int) {
	chunk := slices.Clone(b.rows[:n]) // of its own: it must not keep its neighbours in memory
	b.rows = slices.Delete(b.rows, 0, n)
	b.chunks = append(b.chunks, chunk)
	b.bytes += size(chunk)
	b.below += belowNone(chunk)
}

// leaveOut takes a chunk out of the figures, because others take its place.
func (b *contentsBuilder) leaveOut(chunk []core.Update) {
	b.bytes -= size(chunk)
	b.below -= belowNone(chunk)
}

// belowNone counts rows of which there are fewer copies than none.
func belowNone(chunk []core.Update) int {
	n := 0
	for _, u := range chunk {
		if u.Diff < 0 {
			n++
		}
	}
	return n
}
