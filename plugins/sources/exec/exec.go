// Package exec takes the lines that a command prints for events: a source for
// people without an SDK. It is the source that the configuration calls "exec".
//
//	load:
//	  plugin: exec
//	  settings: {command: [vmstat, -n, "5"]}
//
// A line is an event. Empty lines are none. A command that goes on for ever, such
// as this one, is run again when it ends, after a while. With an interval the
// command is one that ends, and it is run every so often.
//
// # Going on
//
// A line says nothing about where its successor begins, so that by itself the
// source cannot know what was printed while nobody listened. If the lines are JSON,
// the setting "cursor" is the path of a member that knows: its value in the last
// event that is durable is what the command finds in the variable MZD_CURSOR when it
// starts again, and the variable is not there before the first event. The
// command then prints what comes after that; to print some of it again does no
// harm if the setting "id" is the path of a member that tells repeats apart.
//
//	{"cursor": "/meta/offset", "id": "/meta/id"}
//
// Paths are JSON Pointers (RFC 6901). With one of them, lines that are not JSON or
// do not have it are left out, and counted.
package exec

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/backoff"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/internal/proc"
	"github.com/mzdio/mzd/schema"
)

// Settings are what users can set. New takes zero values for the defaults.
type Settings struct {
	Command     []string          `json:"command" required:"true" doc:"The command and its arguments. No shell looks at them; for one, write [sh, -ec, ...]."`
	Env         map[string]string `json:"env" doc:"Its environment, beside PATH and HOME."`
	Interval    schema.Duration   `json:"interval" doc:"How often to run a command that ends. Absent: it goes on for ever, and is run again when it ends nevertheless."`
	Cursor      string            `json:"cursor" doc:"Where each line, which is JSON, says how to go on after it, as a path such as /meta/offset. The command finds the last one in the variable MZD_CURSOR."`
	ID          string            `json:"id" doc:"Where each line, which is JSON, has what tells repeats apart, as a path such as /meta/id."`
	MaxLine     schema.Bytes      `json:"max_line" default:"1MiB" doc:"Longer lines are left out."`
	StopTimeout schema.Duration   `json:"stop_timeout" default:"10s" doc:"How long it may take to end after it was asked to, by SIGTERM."`
}

const (
	defaultMaxLine     = 1 << 20
	defaultStopTimeout = 10 * time.Second

	// cursorVariable tells a command where to go on.
	cursorVariable = "MZD_CURSOR"
)

func (s Settings) withDefaults() Settings {
	s.MaxLine = cmp.Or(s.MaxLine, defaultMaxLine)
	s.StopTimeout = cmp.Or(s.StopTimeout, schema.Duration(defaultStopTimeout))
	return s
}

// Validate says what is wrong with the settings, beyond their types: also that there
// is no such command.
func (s Settings) Validate() error {
	s = s.withDefaults()
	errs := []error{proc.CheckCommand(s.Command, s.Env)}
	if _, ok := s.Env[cursorVariable]; ok {
		errs = append(errs, schema.Errorf(schema.Path("env").Key(cursorVariable), "is what the source itself sets"))
	}
	if _, err := parsePointer(s.Cursor); err != nil {
		errs = append(errs, schema.Errorf("cursor", "%s", err))
	}
	if _, err := parsePointer(s.ID); err != nil {
		errs = append(errs, schema.Errorf("id", "%s", err))
	}
	if s.MaxLine < 1<<10 || s.MaxLine > maxMaxLine {
		errs = append(errs, schema.Errorf("max_line", "not between 1KiB and %s", schema.Bytes(maxMaxLine)))
	}
	return errors.Join(errs...)
}

// maxMaxLine bounds max_line: nothing that is larger fits in a row.
const maxMaxLine = core.MaxRowBytes

// Source runs the command. Its Run may be called again after it returned, but not
// twice at a time.
type Source struct {
	settings   Settings
	cursor, id pointer
	name       string // of the command, in messages
	log        *slog.Logger

	tooLong, invalid atomic.Uint64
}

var (
	_ core.Source     = (*Source)(nil)
	_ core.Identifier = (*Source)(nil)
)

// New makes a source from its settings. It starts nothing.
func New(ctx context.Context, s Settings) (*Source, error) {
	s = s.withDefaults()
	if err := s.Validate(); err != nil {
		return nil, &plugins.SettingsError{Plugin: "exec", Err: err}
	}
	source := &Source{settings: s, name: proc.Name(s.Command), log: plugins.EnvOf(ctx).Logger}
	source.cursor, _ = parsePointer(s.Cursor) // it was checked
	source.id, _ = parsePointer(s.ID)
	return source, nil
}

// Run implements [core.Source]. Without an interval it returns when the command has
// ended: nil if that was a success.
func (s *Source) Run(ctx context.Context, cursor string, emit core.EmitFunc) error {
	every := time.Duration(s.settings.Interval)
	for {
		begun := time.Now()
		if err := s.runOnce(ctx, &cursor, emit); err != nil || every == 0 {
			return err
		}
		if err := backoff.Wait(ctx, every-time.Since(begun)); err != nil {
			return err
		}
	}
}

// runOnce runs the command until it ends. The cursor moves with the events.
func (s *Source) runOnce(ctx context.Context, cursor *string, emit core.EmitFunc) error {
	cmd, err := proc.Command(s.settings.Command, s.settings.Env)
	if err != nil {
		return err
	}
	if *cursor != "" {
		cmd.Env = append(cmd.Env, cursorVariable+"="+*cursor)
	}
	p, err := proc.Start(cmd, s.log)
	if err != nil {
		return err
	}
	defer p.Kill()
	p.Stdin.Close()
	// What it has printed and we have not read is not lost: it comes after the
	// cursor.
	defer context.AfterFunc(ctx, func() { p.Stdout.SetReadDeadline(time.Unix(1, 0)) })()
	if err := emit(ctx); err != nil { // it says that the command runs
		return err
	}
	in := newLines(p.Stdout, int(s.settings.MaxLine))
	err = s.land(ctx, in, cursor, emit)
	if err == nil { // nobody prints any more, but the command may go on
		select {
		case <-p.Ended():
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		p.Terminate()
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			drain(p.Stdout)
		}()
		p.Stop(time.Duration(s.settings.StopTimeout))
		<-drained
		return err
	}
	if err := p.Err(); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return s.emit(ctx, in, [][]byte{in.rest()}, cursor, emit) // as of "printf x", and not cut off
}

// drain reads what a command prints that is about to end, until the pipe is closed:
// it would be killed for writing to nobody (SIGPIPE) before it has ended in order.
func drain(stdout *os.File) {
	for {
		stdout.SetReadDeadline(time.Time{})
		if _, err := io.Copy(io.Discard, stdout); !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

// land emits the lines until nobody can print any more, or ctx ends.
func (s *Source) land(ctx context.Context, in *lines, cursor *string, emit core.EmitFunc) error {
	for {
		batch, err := in.next()
		if emitErr := s.emit(ctx, in, batch, cursor, emit); emitErr != nil {
			return emitErr
		}
		if err != nil {
			return ctx.Err() // the command itself says whether this was a good end
		}
	}
}

// emit emits lines that in has read, and then moves the cursor.
func (s *Source) emit(ctx context.Context, in *lines, batch [][]byte, cursor *string, emit core.EmitFunc) error {
	if n := in.takeSkipped(); n > 0 && s.tooLong.Add(n) == n {
		s.log.Warn("line left out: it is longer than max_line", "max_line", s.settings.MaxLine)
	}
	at := *cursor
	var events []core.Event
	for _, line := range batch {
		if len(line) == 0 {
			continue
		}
		e, problem := s.event(line)
		if problem != "" {
			if s.invalid.Add(1) == 1 {
				s.log.Warn("line left out: "+problem, "line", shorten(line))
			}
			continue
		}
		at = e.Cursor
		events = append(events, e)
	}
	if len(events) == 0 {
		return nil
	}
	if err := emit(ctx, events...); err != nil {
		return err
	}
	*cursor = at
	return nil
}

// shorten returns as much of a line as the log should have.
func shorten(line []byte) string { return string(line[:min(len(line), 200)]) }

// event makes an event of a line, or says what is wrong with it.
func (s *Source) event(line []byte) (e core.Event, problem string) {
	e.Data = line
	if s.cursor == nil && s.id == nil {
		return e, ""
	}
	doc, err := parse(line)
	if err != nil {
		return e, "it is not JSON"
	}
	if s.cursor != nil {
		if e.Cursor = s.cursor.in(doc); e.Cursor == "" {
			return e, "it has no " + s.settings.Cursor
		}
	}
	if s.id != nil {
		if e.ID = s.id.in(doc); e.ID == "" {
			return e, "it has no " + s.settings.ID
		}
	}
	return e, ""
}

// Identify implements [core.Identifier].
func (s *Source) Identify(data []byte) string {
	if s.id == nil {
		return ""
	}
	doc, err := parse(data)
	if err != nil {
		return ""
	}
	return s.id.in(doc)
}

// Rejected counts the lines that were left out, by reason.
func (s *Source) Rejected() map[string]uint64 {
	return map[string]uint64{"too_large": s.tooLong.Load(), "invalid": s.invalid.Load()}
}
