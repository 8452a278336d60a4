package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/mzdio/mzd/config"
	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/hub"
	"github.com/mzdio/mzd/core/mz"
	"github.com/mzdio/mzd/plugins/sinks/stdout"
)

func tailVerb() verb {
	return verb{
		name:  "tail",
		short: "print the changes of a view as they happen",
		long: `
Prints a view, and then each of its changes, until it is interrupted. The view is
one of the configuration, any other one of its database, or a query in quotes. It
is asked for in the database itself, and kept nowhere. The embedded engine can be
asked while mzd runs, if engine.listen opens it.

What is wrong at first ends it. Later it is tried again: when a connection was
lost, what has happened meanwhile is printed as one change. A view that can never
change again ends it, too.`,
		operands: "VIEW",
		examples: `
mzd tail top10
mzd tail top10 -snapshot=false -format json
mzd tail -url postgres://materialize@localhost:6875/materialize "SELECT count(*) FROM t"`,
		setup: func(flags *flag.FlagSet) runFunc {
			o := tailOptions{config: configFlag(flags)}
			flags.StringVar(&o.URL, "url", "", "`ADDRESS` of the database (default: that of the configuration)")
			o.Format.addTo(flags)
			flags.BoolVar(&o.Progress, "progress", false, "print also that nothing happened")
			flags.BoolVar(&o.Snapshot, "snapshot", true, "begin with the whole view")
			return func(ctx context.Context, e env, operands []string) error {
				if len(operands) != 1 {
					return tailVerb().usage("name one view, or a query in quotes")
				}
				return runTail(ctx, operands[0], o, e)
			}
		},
	}
}

// tailOptions are the flags of "mzd tail".
type tailOptions struct {
	config   *string // file
	URL      string  // empty: that of the configuration
	Format   printFormat
	Progress bool
	Snapshot bool
}

// find returns the view that is meant, and the address of its database.
func (o tailOptions) find(name string) (v hub.View, url string, err error) {
	v = hub.View{Name: name}
	url = o.URL
	if url == "" {
		cfg, err := loadConfig(*o.config, known())
		if err != nil {
			return v, "", err
		}
		if url = cfg.Materialize.URL; url == config.Embedded {
			if cfg.Engine.Listen == "" {
				return v, "", usage(fmt.Errorf(`tail: nobody can ask the embedded engine of %s; open it with engine: {listen: "127.0.0.1:6875"}, or see what is on disk with mzd log cat`, *o.config))
			}
			url = "postgres://materialize@" + reachable(cfg.Engine.Listen) + "/materialize"
		}
		if c, ok := cfg.Views[name]; ok {
			return hub.View{Name: name, Query: c.Query, Key: c.Key}, url, nil
		}
	}
	if strings.ContainsAny(strings.TrimSpace(name), " \t\n") {
		v = hub.View{Name: "query", Query: name}
	}
	return v, url, nil
}

// tailed is how long changes are kept apart: as a printer has nowhere to go back to,
// no longer than one that is slow may need.
const tailed = 10 * time.Second

// runTail prints a view until ctx ends, nobody reads it, or nothing can come.
func runTail(ctx context.Context, name string, o tailOptions, e env) error {
	v, url, err := o.find(name)
	if err != nil {
		return err
	}
	log := newLogger(e, config.Log{Level: "warn"})
	client, err := mz.New(mz.Config{URL: url, Logger: log})
	if url == config.Embedded {
		err = errors.New("-url embedded: the embedded engine has no address but that of engine.listen; name the configuration instead")
	}
	if err != nil {
		return usage(fmt.Errorf("tail: %w", err))
	}
	interrupted := ctx
	ctx, end := context.WithCancelCause(interrupted)
	defer end(nil)
	w := watched{client: client, fail: end}
	h, err := hub.New(hub.Options{
		Views: []hub.View{v},
		Sinks: []hub.Sink{{
			Name: "tail", Views: []string{v.Name}, SkipSnapshot: !o.Snapshot,
			Sink: printer{stdout.To(e.stdout, stdout.Settings{Format: string(o.Format), Progress: o.Progress}), func() { end(errPrinted) }},
		}},
		Subscribe: w.subscribe, Reasons: mz.Reasons(), Retain: tailed, Logger: log,
	})
	if err != nil {
		return fmt.Errorf("tail: %w", err)
	}
	err = h.Run(ctx)
	if why := context.Cause(ctx); err == nil && interrupted.Err() == nil && why != errPrinted {
		err = why
	}
	if err != nil {
		return fmt.Errorf("tail: %w", err)
	}
	return nil
}

// errPrinted is why printing ends when there is nothing left to print, or nobody
// who reads it.
var errPrinted = errors.New("all is printed")

// printer is a sink that says when there is no more to print.
type printer struct {
	*stdout.Sink
	done func()
}

func (p printer) Write(ctx context.Context, cut []core.Batch) error {
	err := p.Sink.Write(ctx, cut)
	switch {
	case errors.Is(err, core.ErrPermanent): // nobody reads it any more, which is how people end it
		p.done()
		return nil
	case err == nil && cut[0].Upper.Time == core.EndOfTime:
		p.done()
	}
	return err
}

// watched is a client whose errors end the printing until the view has been seen.
// After that they are trouble, which passes.
type watched struct {
	client *mz.Client
	fail   func(error)
	seen   bool // belongs to the one goroutine that follows the view
}

func (w *watched) subscribe(ctx context.Context, r hub.Request) (hub.Stream, error) {
	s, err := w.client.Subscribe(ctx, mz.Request(r))
	if w.look(err) != nil {
		return nil, err
	}
	return watchedStream{s, w}, nil
}

func (w *watched) look(err error) error {
	if err != nil && !w.seen {
		w.fail(err)
	}
	return err
}

// watchedStream is a stream of a watched client.
type watchedStream struct {
	hub.Stream
	w *watched
}

func (s watchedStream) Snapshot(ctx context.Context, add func(row []byte, copies core.Diff)) (core.Time, error) {
	at, err := s.Stream.Snapshot(ctx, add)
	s.w.seen = s.w.look(err) == nil || s.w.seen
	return at, err
}
