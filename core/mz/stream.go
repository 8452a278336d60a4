package mz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/mzdio/mzd/core"
)

// Stream is the changes of one view. It belongs to one goroutine.
type Stream struct {
	wire      *wire
	name      string
	log       *slog.Logger
	columns   []core.Column
	encode    rowEncoder
	identity  string
	resumed   bool
	restarted string
	progress  progress
	clock     clock
	buf       []byte                             // reused by every row
	ahead     pgproto3.BackendMessage            // received while the stream was opened; not yet read
	add       func(row []byte, copies core.Diff) // takes the rows of the snapshot; nil: they are collected
	dropped   string                             // the notice that the view was dropped; until 2024 that was all
	err       error                              // why the stream is over

	catalog     []string // queries for the objects that the target's names stand for
	objects     []string // what they were when the stream began
	stopLooking func()
	displaced   atomic.Bool // they are others now
}

// leading is the number of columns before those of the view: the time, whether
// the row is progress, and the diff. They were called timestamp, progressed and
// diff before v0.8.1.
const leading = 3

// start runs the statement of the stream.
func (s *Stream) start(ctx context.Context, sql string) error {
	if err := s.wire.start(ctx, sql); err != nil {
		return err
	}
	return s.describe(s.wire.fields)
}

// startAt runs a statement that names a time. A server of any release describes
// the rows first, and says only then, in place of the first one, that it has
// forgotten the time.
func (s *Stream) startAt(ctx context.Context, sql string) error {
	if err := s.start(ctx, sql); err != nil {
		return err
	}
	return s.wire.during(ctx, func() (err error) {
		s.ahead, err = s.wire.receive()
		return err
	})
}

// describe reads the description of the stream's rows.
func (s *Stream) describe(fields []pgproto3.FieldDescription) error {
	s.columns, s.encode = nil, nil
	var names []string
	for _, f := range fields {
		names = append(names, string(f.Name))
	}
	for i, want := range []string{"timestamp", "progressed", "diff"} {
		if i >= len(names) || strings.TrimPrefix(names[i], "mz_") != want {
			return protocolError("the stream has the columns %s; the first three must be mz_timestamp, mz_progressed, mz_diff", strings.Join(names, ", "))
		}
	}
	for i, f := range fields[leading:] {
		t := typeOf(f.DataTypeOID)
		s.columns = append(s.columns, core.Column{Name: names[leading+i], Type: t.name})
		s.encode = append(s.encode, t.encode)
	}
	s.wire.notice = func(n *pgconn.Notice) {
		if strings.Contains(n.Message, "has been terminated because") {
			s.dropped = n.Message
			return
		}
		s.log.Debug("notice", "code", n.Code, "message", n.Message)
	}
	return nil
}

// Columns returns the columns of the view.
func (s *Stream) Columns() []core.Column { return s.columns }

// Identity names the history that the stream belongs to: the upstream, its
// version, the view as an object of it, its columns, and the encoding of rows.
// Equal identities mean that batches of two streams may be added up. It is
// opaque, and never empty.
func (s *Stream) Identity() string { return s.identity }

// Resumed reports whether the first batch begins at Request.Upper. Otherwise it
// is the whole view; if the identity is that of the request, at a time above
// Request.Upper, so that the caller can go on with the difference, unless the
// upstream's times have gone back.
func (s *Stream) Resumed() bool { return s.resumed }

// Restarted says in words why a stream with a Request.Upper did not resume: what
// makes the history another one, or that the upstream has lost it. It is empty if
// the stream resumed.
func (s *Stream) Restarted() string { return s.restarted }

// Snapshot may take the place of the first Next of a stream that did not resume,
// for who does not want a large view in one piece. It passes rows to add as they
// come, each with so many copies more; the sum is the whole view, as an ordinary
// collection only if the view is one. It returns the Upper that Next would. The
// bytes of a row are good during the call.
func (s *Stream) Snapshot(ctx context.Context, add func(row []byte, copies core.Diff)) (core.Time, error) {
	s.add = add
	b, err := s.Next(ctx)
	for u := range b.Updates.All() {
		add([]byte(u.Row), u.Diff)
	}
	return b.Upper.Time, err
}

// Next waits for the next batch: consolidated, adjacent to the one before, its
// tokens without a generation. An empty one is progress. All updates of a
// snapshot carry the time before its Upper. A batch whose Upper is the end of
// time is the last: the view is constant, and the next Next returns io.EOF.
//
// Other errors are of type [*Error]. Any error ends the stream, also that ctx
// has ended.
func (s *Stream) Next(ctx context.Context) (core.Batch, error) {
	if s.err != nil {
		return core.Batch{}, s.err
	}
	var b core.Batch
	err := s.wire.during(ctx, func() (err error) {
		b, err = s.read(ctx)
		return err
	})
	if err == nil && b.IsBase() && s.add == nil {
		err = sound(b)
	}
	switch {
	case err == nil && b.Upper.Time < core.EndOfTime:
		return b, nil
	case err == nil:
		s.end(io.EOF)
		return b, nil
	case s.displaced.Load():
		err = errDisplaced
	}
	s.end(ofView(err, s.name))
	return core.Batch{}, s.err
}

// end ends the stream, for a reason.
func (s *Stream) end(why error) {
	s.err = why
	s.stopLooking()
	s.wire.close()
}

// sound reports a base that is not a collection. Some views of SQL that is not
// quite defined have such rows; a sum over them would mean nothing.
func sound(base core.Batch) error {
	for u := range base.Updates.All() {
		if u.Diff < 0 {
			return &Error{reason: Evaluation, message: fmt.Sprintf("the upstream counts %d copies of the row %.200s; correct the view, or what it reads", u.Diff, u.Row)}
		}
	}
	return nil
}

// Close ends the stream. It may be called at any time by the goroutine that
// owns the stream, and more than once.
func (s *Stream) Close() {
	if s.err == nil {
		s.end(&Error{reason: Cancelled, message: "the stream was closed"})
	}
}

// read reads rows until they close a batch.
func (s *Stream) read(ctx context.Context) (core.Batch, error) {
	for {
		msg, err := s.receive()
		if err != nil {
			return core.Batch{}, err
		}
		switch m := msg.(type) {
		case *pgproto3.DataRow:
			if b, closed, err := s.row(m.Values); closed || err != nil {
				return b, err
			}
		case *pgproto3.CommandComplete:
			return s.complete(ctx)
		default:
			return core.Batch{}, protocolError("unexpected %T in a stream", m)
		}
	}
}

// receive returns the next message.
func (s *Stream) receive() (pgproto3.BackendMessage, error) {
	if msg := s.ahead; msg != nil {
		s.ahead = nil
		return msg, nil
	}
	return s.wire.receive()
}

// complete returns the last batch of a stream that the server says is complete: what
// it follows has no time to come. Until 2024 a server said the same of a stream
// whose view was dropped, and no more than a notice told the difference, which
// may come after it; and the server may be about to stop. So it is asked, once
// more, for the objects.
func (s *Stream) complete(ctx context.Context) (core.Batch, error) {
	for ready := false; !ready; {
		msg, err := s.wire.receive()
		if err != nil {
			return core.Batch{}, err
		}
		_, ready = msg.(*pgproto3.ReadyForQuery)
	}
	if s.dropped != "" {
		return core.Batch{}, &Error{reason: Dropped, retryable: true, message: s.dropped}
	}
	same, err := s.stands(ctx, s.wire)
	if err != nil {
		return core.Batch{}, err
	}
	if !same {
		return core.Batch{}, errDisplaced
	}
	b, sealed := s.progress.end()
	if !sealed {
		return core.Batch{}, &Error{reason: Ended, retryable: true, message: "the server ended the stream before it began"}
	}
	return b, nil
}

// row takes a row of the stream, and returns the batch that it closes, if any.
func (s *Stream) row(values [][]byte) (b core.Batch, closed bool, err error) {
	if len(values) != leading+len(s.encode) {
		return b, false, protocolError("a row of %d columns in a stream of %d", len(values), leading+len(s.encode))
	}
	t, err := s.clock.read(values[0])
	if err != nil {
		return b, false, err
	}
	if string(values[1]) == "t" {
		b, closed = s.progress.mark(t)
		return b, closed, nil
	}
	diff, err := strconv.ParseInt(string(values[2]), 10, 64)
	if err != nil {
		return b, false, protocolError("diff %.40q is not a 64-bit number", values[2])
	}
	s.buf, err = s.encode.append(s.buf[:0], values[leading:])
	if err != nil {
		var bad *valueError
		if errors.As(err, &bad) {
			err = fmt.Errorf("column %s: %w", s.columns[bad.column].Name, err)
		}
		return b, false, &Error{reason: Protocol, message: err.Error()}
	}
	if len(s.buf) > core.MaxRowBytes {
		return b, false, &Error{reason: Evaluation, message: fmt.Sprintf(
			"the view has a row of %d bytes (%.100s...); a row may have %d", len(s.buf), s.buf, core.MaxRowBytes)}
	}
	if s.add != nil && s.progress.opening(t) {
		s.add(s.buf, core.Diff(diff))
		return b, false, nil
	}
	return b, false, s.progress.update(core.Update{Time: t, Diff: core.Diff(diff), Row: core.Row(s.buf)})
}

// clock reads times. Most are the same as the one before.
type clock struct {
	text []byte
	time core.Time
}

func (c *clock) read(text []byte) (core.Time, error) {
	if len(text) > 0 && bytes.Equal(text, c.text) {
		return c.time, nil
	}
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		return 0, protocolError("timestamp %.40q is not an unsigned 64-bit number", text)
	}
	c.text, c.time = append(c.text[:0], text...), core.Time(n)
	return c.time, nil
}
