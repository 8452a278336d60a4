// Package stdout prints the changes of views: one JSON object a line for
// programs, aligned text for people at a terminal. It is the sink that the
// configuration calls "stdout".
//
// # Lines
//
// A line of JSON is one of
//
//	{"view":"top10","timestamp":"1721310001000","base":true,"rows":10}
//	{"view":"top10","timestamp":"1721310000999","diff":1,"row":{"user":"Ada","count":12}}
//	{"view":"top10","timestamp":"1721310001000","progress":true}
//
// The second is an update: diff copies of the row were added, or removed if
// diff is negative, at the timestamp. The first says that the view starts over:
// what was printed of it before is void, and the lines that follow, one for each
// different row, are the whole view. The third, printed only if the
// settings ask for it, follows the updates of a batch: everything below the
// timestamp is complete. Values are as the database has them, every digit of a
// number included, and timestamps are strings, because many readers of JSON
// lose digits above 2^53.
//
// All lines of a batch are written at once. After a crash or a failed write the
// last batch may be printed again. Lines are whole: what a full disk cuts off comes
// before anything else.
package stdout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/mzdio/mzd/core"
)

// Settings are what the configuration says about the sink. The zero value is
// the default.
type Settings struct {
	Format   string `json:"format" default:"auto" enum:"auto|json|text" doc:"How to print: json, text, or auto, which is text on a terminal and json otherwise."`
	Progress bool   `json:"progress" doc:"Whether to print also that nothing happened, and up to when the view is complete."`
}

// Sink prints batches. It may be written concurrently.
type Sink struct {
	out      io.Writer
	format   func(buf []byte, b core.Batch, progress bool) []byte
	progress bool

	turn chan struct{} // held while something is written, by who uses what follows
	torn []byte        // what is missing of a line since a write has failed
}

var _ core.Sink = (*Sink)(nil)

// New returns a sink that prints to the standard output.
func New(_ context.Context, s Settings) (*Sink, error) { return To(os.Stdout, s), nil }

// To returns a sink that prints to w. Text has colours if w is a terminal and
// the environment has no NO_COLOR.
func To(w io.Writer, s Settings) *Sink {
	terminal := isTerminal(w)
	sink := &Sink{out: w, format: appendJSON, progress: s.Progress, turn: make(chan struct{}, 1)}
	if s.Format == "text" || s.Format != "json" && terminal {
		sink.format = text{colour: terminal && os.Getenv("NO_COLOR") == ""}.append
	}
	return sink
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Write prints the batches, in one write. When nobody reads the other end of a
// pipe any more the error wraps [core.ErrPermanent]. When ctx ends while the
// reader of a pipe lets mzd wait, Write returns and the write under way stays
// behind: nothing can call it back.
func (s *Sink) Write(ctx context.Context, cut []core.Batch) error {
	var buf []byte
	for _, b := range cut {
		buf = s.format(buf, b, s.progress)
	}
	if len(buf) == 0 {
		return nil
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if ctx.Err() != nil { // or it would be printed, and then again
		<-s.turn
		return ctx.Err()
	}
	written := make(chan error, 1)
	go func() {
		err := s.print(buf)
		<-s.turn
		written <- err
	}()
	select {
	case err := <-written:
		return explain(err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// print writes lines, after the end of one that was cut off before.
func (s *Sink) print(lines []byte) error {
	if len(s.torn) > 0 {
		n, err := s.out.Write(s.torn)
		if s.torn = s.torn[n:]; err != nil {
			return err
		}
	}
	n, err := s.out.Write(lines)
	if written, rest := lines[:n], lines[n:]; err != nil && n > 0 && written[n-1] != '\n' {
		s.torn = bytes.Clone(rest[:bytes.IndexByte(rest, '\n')+1])
	}
	return err
}

func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, os.ErrClosed):
		return fmt.Errorf("print: %w, nobody reads it any more: %w", err, core.ErrPermanent)
	}
	return fmt.Errorf("print: %w", err)
}

// Close does nothing: the standard output stays open.
func (s *Sink) Close() error { return nil }
