// Package exec hands the changes of views to a command, as lines of JSON on its
// stdin: a sink for people without an SDK. It is the sink that the configuration
// calls "exec".
//
//	hook:
//	  plugin: exec
//	  settings:
//	    command:
//	      - sh
//	      - -ec
//	      - |
//	        while read -r message; do
//	          printf '%s\n' "$message" | jq -c '.inserted[]' >> rows.jsonl
//	          echo ok
//	        done
//
// # The conversation
//
// A line is a message of package message, or a part of one. The command answers
// each with one line on its stdout, and gets the next when it has:
//
//	ok           it is applied, and durable
//	error TEXT   it is not; it comes again after a while
//	fatal TEXT   it is not, and trying again cannot help: the sink is shown as failed
//
// A message in parts comes again as a whole, from part 1 on. Any other line, none
// within ack_timeout, and the end of the command are failures too. They end the
// command, and the message comes again, to a new one. So a shell with -e needs no
// more than an "echo ok" at the end of its loop.
//
// There is one command for all views of the sink, which get their turns. It is
// started when there is something to say, and again when it has ended. What it
// writes to stderr is logged. At the end its stdin is closed, and it has
// stop_timeout to do what it has to.
package exec

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/internal/proc"
	"github.com/mzdio/mzd/plugins/message"
	"github.com/mzdio/mzd/schema"
)

// Settings are what users can set. New takes zero values for the defaults.
type Settings struct {
	Command     []string          `json:"command" required:"true" doc:"The command and its arguments. No shell looks at them; for one, write [sh, -ec, ...]."`
	Env         map[string]string `json:"env" doc:"Its environment, beside PATH and HOME."`
	AckTimeout  schema.Duration   `json:"ack_timeout" default:"5m" doc:"How long it may take to answer a message."`
	StopTimeout schema.Duration   `json:"stop_timeout" default:"10s" doc:"How long it may take to end after its stdin was closed."`
	MaxMessage  schema.Bytes      `json:"max_message" default:"1MiB" doc:"A larger message comes in parts, which apply together."`
	Progress    bool              `json:"progress" doc:"Whether it gets to know also that nothing happened, and up to when the view is complete."`
}

const (
	defaultAckTimeout  = 5 * time.Minute
	defaultStopTimeout = 10 * time.Second
	defaultMaxMessage  = 1 << 20
)

func (s Settings) withDefaults() Settings {
	s.AckTimeout = cmp.Or(s.AckTimeout, schema.Duration(defaultAckTimeout))
	s.StopTimeout = cmp.Or(s.StopTimeout, schema.Duration(defaultStopTimeout))
	s.MaxMessage = cmp.Or(s.MaxMessage, defaultMaxMessage)
	return s
}

// Validate says what is wrong with the settings, beyond their types: also that there
// is no such command.
func (s Settings) Validate() error {
	s = s.withDefaults()
	errs := []error{proc.CheckCommand(s.Command, s.Env)}
	if s.MaxMessage < 1<<10 || s.MaxMessage > 1<<30 {
		errs = append(errs, schema.Errorf("max_message", "not between 1KiB and 1GiB"))
	}
	return errors.Join(errs...)
}

// Sink runs the command. It may be written concurrently: messages take turns.
type Sink struct {
	settings Settings
	name     string // of the command, in messages
	log      *slog.Logger

	turn    chan struct{} // held by who uses what follows
	command *conversation // nil: it does not run
}

var _ core.Sink = (*Sink)(nil)

// New makes a sink from its settings. It starts nothing.
func New(ctx context.Context, s Settings) (*Sink, error) {
	s = s.withDefaults()
	if err := s.Validate(); err != nil {
		return nil, &plugins.SettingsError{Plugin: "exec", Err: err}
	}
	return &Sink{
		settings: s,
		name:     proc.Name(s.Command),
		log:      plugins.EnvOf(ctx).Logger,
		turn:     make(chan struct{}, 1),
	}, nil
}

// Write hands the cut to the command, and returns nil when that has answered that
// it is applied. What it answers with "fatal" wraps [core.ErrPermanent].
func (s *Sink) Write(ctx context.Context, cut []core.Batch) error {
	if message.IsProgress(cut) && !s.settings.Progress {
		return nil
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	command, err := s.running()
	if err != nil {
		return err
	}
	for part := range message.Parts(cut, int(s.settings.MaxMessage)) {
		if err := s.hand(ctx, command, part.Body); err != nil {
			return err
		}
	}
	return nil
}

// running returns the command, started if it does not run or cannot be talked to
// any more.
func (s *Sink) running() (*conversation, error) {
	if s.command != nil && s.command.usable() {
		return s.command, nil
	}
	if s.command != nil {
		s.command.kill()
		s.command = nil
	}
	cmd, err := proc.Command(s.settings.Command, s.settings.Env)
	if err != nil {
		return nil, err
	}
	process, err := proc.Start(cmd, s.log)
	if err != nil {
		return nil, err
	}
	s.command = converse(process)
	return s.command, nil
}

// hand hands over one line and waits for the answer to it.
func (s *Sink) hand(ctx context.Context, command *conversation, line []byte) error {
	limit := time.Duration(s.settings.AckTimeout)
	limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not answer within %s", limit))
	defer cancel()
	answer, err := command.ask(limited, line)
	switch {
	case ctx.Err() != nil:
		return ctx.Err() // Close says goodbye
	case err != nil:
		command.kill()
		return fmt.Errorf("%s: %w", s.name, err)
	}
	word, text, _ := strings.Cut(answer, " ")
	text = cmp.Or(text, "it gave no reason")
	switch word {
	case "ok":
		return nil
	case "error":
		return fmt.Errorf("%s: %s", s.name, text)
	case "fatal":
		return fmt.Errorf("%s: %s: %w", s.name, text, core.ErrPermanent)
	}
	command.kill()
	return fmt.Errorf(`%s: it answered %.80q, where only "ok", "error TEXT" and "fatal TEXT" are answers; what is for people goes to stderr (>&2)`, s.name, answer)
}

// Close lets the command end. Its error is that of the command.
func (s *Sink) Close() error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	if s.command == nil {
		return nil
	}
	command := s.command
	s.command = nil
	if err := command.stop(time.Duration(s.settings.StopTimeout)); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}
