package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/mzdio/mzd/config"
	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/hub"
	"github.com/mzdio/mzd/core/ingest"
	"github.com/mzdio/mzd/core/viewlog"
	"github.com/mzdio/mzd/engine"
	"github.com/mzdio/mzd/plugins/sinks/stdout"
)

// logVerbs are the verbs that look at a data directory.
func logVerbs() []verb {
	return []verb{
		{
			name:  "log",
			short: "see, print and check what is on disk",
			long: `
Looks at a data directory, that of a pipeline or of an engine: the log of each
view, the tables, the positions of sinks, and the events that sources have landed.
It only reads, so that it is safe while mzd runs on the same directory.
docs/log.md describes the files.`,
			operands: "VERB",
			examples: `
mzd log ls
mzd help log cat`,
			setup: leadTo("log"),
		},
		{
			name:  "log ls",
			short: "list what a data directory holds",
			long: `
Lists the log of each view: its rows, the times that it can be read at (from,
through), up to where later writes confirm that it was durable, and its files.
Then the tables of the engine, the files of landed events, and where each sink
stands.

Times are those of the database: for most, milliseconds since 1970.`,
			examples: `
mzd log ls
mzd log ls -data-dir ./data`,
			setup: func(flags *flag.FlagSet) runFunc {
				where := logFlags(flags)
				return func(ctx context.Context, e env, operands []string) error {
					d, err := where.open()
					if err != nil {
						return err
					}
					return d.list(ctx, e)
				}
			},
		},
		{
			name:  "log cat",
			short: "print the log of a view, or the view at a time",
			long: `
Prints the batches of a view's log, oldest first. With -as-of, the view as it was
at a time; with -from, the net change between two times. Both work for all that
is on disk, also when mzd does not run.

A time is a timestamp (1721310001000), a token (1721310001000-k3f9), or written as
2026-01-31T12:00:00Z. What is printed is complete for everything below it.`,
			operands: "VIEW",
			examples: `
mzd log cat top10
mzd log cat top10 -as-of 1721310001000
mzd log cat top10 -from 1721310001000 -to 1721310002000 -format json`,
			setup: func(flags *flag.FlagSet) runFunc {
				where := logFlags(flags)
				var o catOptions
				flags.Var(&o.AsOf, "as-of", "print the view at `TIME`")
				flags.Var(&o.From, "from", "print the net change since `TIME`")
				flags.Var(&o.To, "to", "up to `TIME` (default: all there is)")
				o.Format.addTo(flags)
				return func(ctx context.Context, e env, operands []string) error {
					if err := o.validate(operands); err != nil {
						return usage(fmt.Errorf("log cat: %w\nTry: mzd help log cat", err))
					}
					d, err := where.open()
					if err != nil {
						return err
					}
					return d.print(ctx, e, operands[0], o)
				}
			},
		},
		{
			name:  "log verify",
			short: "check every byte of the logs",
			long: `
Reads the logs of all views and the tables of the engine, or the logs of the views
that are named, and checks all that opening them checks. It says which file is damaged, where, and what to do; the
exit code is 1 then.

An end that is torn, by a crash or because mzd is just writing it, is no damage:
nothing that was acknowledged is in it.`,
			operands: "[VIEW...]",
			examples: `
mzd log verify
mzd log verify top10 -data-dir ./data`,
			setup: func(flags *flag.FlagSet) runFunc {
				where := logFlags(flags)
				return func(ctx context.Context, e env, operands []string) error {
					d, err := where.open()
					if err != nil {
						return err
					}
					return d.verify(ctx, e, operands)
				}
			},
		},
	}
}

// engineDir is where the data directory of a pipeline has that of its engine.
const engineDir = "engine"

// logPlace are the flags that say which data directory is meant.
type logPlace struct{ dataDir, config *string }

func logFlags(flags *flag.FlagSet) logPlace {
	return logPlace{
		dataDir: flags.String("data-dir", "", "look at the data directory `DIR` (default: that of the configuration)"),
		config:  configFlag(flags),
	}
}

// open finds the data directory and the logs in it.
func (p logPlace) open() (*dataDir, error) {
	d := &dataDir{path: *p.dataDir}
	if d.path == "" {
		cfg, err := config.Load(*p.config, known())
		if errors.Is(err, fs.ErrNotExist) {
			return nil, usage(fmt.Errorf("%w\nName the data directory with -data-dir DIR, or the configuration with -config FILE", err))
		}
		if err != nil {
			return nil, usage(err)
		}
		d.path = cfg.DataDir
		for _, s := range cfg.Sources {
			if s.To.File != "" {
				d.landed = append(d.landed, s.To.File)
			}
		}
	}
	if _, err := os.Stat(d.path); err != nil {
		return nil, usage(fmt.Errorf("data directory: %w", err))
	}
	entries, err := os.ReadDir(filepath.Join(d.path, "views"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, environment(err)
	}
	for _, e := range entries {
		if name, err := viewlog.ViewName(e.Name()); err == nil && e.IsDir() {
			d.views = append(d.views, name)
		}
	}
	for _, dir := range []string{engine.TablesDir, filepath.Join(engineDir, engine.TablesDir)} {
		if info, err := os.Stat(filepath.Join(d.path, dir)); err == nil && info.IsDir() {
			d.tables = append(d.tables, dir)
		}
	}
	return d, d.findLanded()
}

// dataDir is a data directory to look at: that of a pipeline, or of an engine alone.
type dataDir struct {
	path   string
	views  []string // that have a log
	tables []string // directories of the engine's tables, in path
	landed []string // files of events
}

// findLanded finds the files of events in the directory, by their cursors.
func (d *dataDir) findLanded() error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return environment(err)
	}
	for _, e := range entries {
		if file, ok := ingest.SavedFile(e.Name()); ok {
			d.landed = append(d.landed, filepath.Join(d.path, file))
		}
	}
	for i, file := range d.landed {
		d.landed[i] = filepath.Clean(file)
	}
	slices.Sort(d.landed)
	d.landed = slices.Compact(d.landed)
	return nil
}

// read opens the log of a view for use, which gets to see how far it has come
// on the terminal, after the name of what it does.
func (d *dataDir) read(e env, doing, view string, use func(*viewlog.Inspection) error) error {
	if !slices.Contains(d.views, view) {
		return usage(fmt.Errorf("%s has no log of a view %q; views: %s", d.path, view, cmp.Or(strings.Join(d.views, ", "), "none")))
	}
	err := inspect(e, doing+" "+view, filepath.Join(d.path, "views", viewlog.DirName(view)), view, use)
	if err != nil {
		return fmt.Errorf("view %s: %w", view, err)
	}
	return nil
}

// readTables does the same with the journal of the tables in a directory.
func (d *dataDir) readTables(e env, doing, dir string, use func(*viewlog.Inspection) error) error {
	err := inspect(e, doing+" "+dir, filepath.Join(d.path, dir), engine.TablesDir, use)
	if damage := (*viewlog.DamageError)(nil); errors.As(err, &damage) {
		damage.OnlyCopy = true
	}
	if err != nil {
		return fmt.Errorf("tables: %w", err)
	}
	return nil
}

func inspect(e env, what, dir, name string, use func(*viewlog.Inspection) error) error {
	p := &progress{e: e, what: what}
	defer p.clear()
	i, err := viewlog.Inspect(dir, name, viewlog.InspectOptions{Progress: p.show})
	if errors.Is(err, fs.ErrNotExist) {
		return errNothingDurable
	}
	if err != nil {
		return err
	}
	return errors.Join(use(i), i.Close())
}

// errNothingDurable means that a log has been begun, and no more.
var errNothingDurable = errors.New("nothing of it is durable yet")

// list is the verb "log ls". What cannot be read does not hide the rest.
func (d *dataDir) list(ctx context.Context, e env) error {
	var errs []error
	logs := [][]any{{"VIEW", "ROWS", "FROM", "THROUGH", "DURABLE", "SEGMENTS", "BYTES", "GENERATIONS"}}
	for _, view := range d.views {
		row := []any{view, "-", "-", "-", "-", "-", "-", "-"}
		err := d.read(e, "reading", view, func(i *viewlog.Inspection) error {
			s, err := i.Scan(ctx, func(viewlog.StoredBatch) error { return nil })
			if err == nil {
				row = []any{view, s.Rows, s.Since, through(s.Upper), through(s.Durable), len(i.Segments), i.Bytes(), len(i.Generations)}
			}
			return err
		})
		if err != nil && !errors.Is(err, errNothingDurable) {
			errs = append(errs, err)
		}
		logs = append(logs, row)
	}
	tables := [][]any{{"TABLES", "ROWS", "DURABLE", "SEGMENTS", "BYTES"}}
	for _, dir := range d.tables {
		row := []any{filepath.Join(d.path, dir), "-", "-", "-", "-"}
		err := d.readTables(e, "reading", dir, func(i *viewlog.Inspection) error {
			s, err := i.Scan(ctx, func(viewlog.StoredBatch) error { return nil })
			if err == nil {
				row = []any{row[0], s.Rows, through(s.Durable), len(i.Segments), i.Bytes()}
			}
			return err
		})
		if err != nil && !errors.Is(err, errNothingDurable) {
			errs = append(errs, err)
		}
		tables = append(tables, row)
	}
	landed := [][]any{{"LANDED FILE", "BYTES", "CURSOR"}}
	for _, file := range d.landed {
		p, err := ingest.Saved(file)
		switch {
		case err == nil:
			landed = append(landed, []any{file, p.Bytes, cmp.Or(p.Cursor, "-")})
		case !errors.Is(err, fs.ErrNotExist): // a source that has landed nothing yet
			errs = append(errs, err)
		}
	}
	places := [][]any{{"SINK", "VIEW", "POSITION", "ATTEMPT"}}
	saved, err := hub.SavedPositions(d.path)
	for _, p := range saved {
		places = append(places, []any{p.Sink, p.View, cmp.Or(p.Position.String(), "-"), cmp.Or(p.To.String(), "-")})
	}
	errs = append(errs, err, writeTables(e.stdout, logs, tables, landed, places))
	return errors.Join(errs...)
}

// through is how a frontier is shown.
func through(t core.Time) string {
	if t == core.EndOfTime {
		return "sealed"
	}
	return t.String()
}

// writeTables writes the tables that have more than their heading.
func writeTables(w io.Writer, tables ...[][]any) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	written := false
	for _, rows := range tables {
		if len(rows) == 1 {
			continue
		}
		if written {
			fmt.Fprintln(out)
		}
		written = true
		for _, row := range rows {
			for n, cell := range row {
				if n > 0 {
					fmt.Fprint(out, "\t")
				}
				fmt.Fprint(out, cell)
			}
			fmt.Fprintln(out)
		}
	}
	if !written {
		fmt.Fprintln(out, "nothing here")
	}
	return out.Flush()
}

// verify is the verb "log verify".
func (d *dataDir) verify(ctx context.Context, e env, views []string) error {
	var errs []error
	checked := func(name string, err error) {
		switch {
		case errors.Is(err, errNothingDurable):
			fmt.Fprintf(e.stdout, "%s: nothing is durable yet\n", name)
		case err != nil:
			errs = append(errs, err)
		}
	}
	all := len(views) == 0
	if all {
		views = d.views
	}
	for _, view := range views {
		checked(view, d.read(e, "checking", view, judge(ctx, e, view)))
	}
	if all {
		for _, dir := range d.tables {
			checked(dir, d.readTables(e, "checking", dir, judge(ctx, e, dir)))
		}
		if len(d.views)+len(d.tables) == 0 {
			fmt.Fprintf(e.stdout, "nothing to check in %s\n", d.path)
		}
	}
	return errors.Join(errs...)
}

// judge reads all of a log and tells that it is good.
func judge(ctx context.Context, e env, name string) func(*viewlog.Inspection) error {
	return func(i *viewlog.Inspection) error {
		s, err := i.Scan(ctx, func(viewlog.StoredBatch) error { return nil })
		if err != nil {
			return err
		}
		good := fmt.Sprintf("%s: good through %s: %s, %s in %s", name, through(s.Upper),
			counted(s.Batches, "batch", "es"), counted(s.Updates, "update", "s"), counted(int64(len(i.Segments)), "segment", "s"))
		if t := s.Torn; t != nil {
			good += fmt.Sprintf("; %s is torn from offset %d on (%s): mzd is writing it, or cuts it off at its next start; nothing acknowledged is in it",
				t.File, t.Offset, counted(t.Bytes, "byte", "s"))
		}
		_, err = fmt.Fprintln(e.stdout, good)
		return err
	}
}

func counted(n int64, noun, plural string) string {
	if n == 1 {
		plural = ""
	}
	return fmt.Sprintf("%d %s%s", n, noun, plural)
}

// catOptions are the flags of "mzd log cat".
type catOptions struct {
	AsOf, From, To position
	Format         printFormat
}

func (o catOptions) validate(operands []string) error {
	switch {
	case len(operands) != 1:
		return errors.New("name one view; mzd log ls lists them")
	case o.AsOf != position{} && (o.From != position{} || o.To != position{}):
		return errors.New("-as-of is one time, -from and -to are two; use either")
	case o.To != position{} && o.From == position{}:
		return errors.New("-to goes with -from; for the view at a time use -as-of")
	}
	return nil
}

// position is a flag that names a place in a log: a token, or only its time. The
// zero value is none.
type position core.Token

// String implements [flag.Value].
func (p *position) String() string {
	if p.Generation == "" && p.Time != 0 {
		return p.Time.String()
	}
	return core.Token(*p).String()
}

// Set implements [flag.Value].
func (p *position) Set(s string) error {
	if t, err := core.ParseTime(s); err == nil && t > 0 {
		*p = position{Time: t}
		return nil
	}
	if t, err := core.ParseToken(s); err == nil && !t.IsZero() {
		*p = position(t)
		return nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil && t.UnixMilli() > 0 {
		*p = position{Time: core.Time(t.UnixMilli())}
		return nil
	}
	return errors.New("want a timestamp (1721310001000), a token (1721310001000-k3f9) or a time (2026-01-31T12:00:00Z)")
}

// print is the verb "log cat".
func (d *dataDir) print(ctx context.Context, e env, view string, o catOptions) error {
	if o.Format == "auto" {
		o.Format = "json"
		if f, ok := e.stdout.(*os.File); ok && isTerminal(f) {
			o.Format = "text"
		}
	}
	out := bufio.NewWriter(e.stdout)
	p := &batchPrinter{out: out, sink: stdout.To(out, stdout.Settings{Format: string(o.Format)}), json: o.Format == "json"}
	var err error
	if from := (position{}); o.AsOf != from || o.From != from {
		var net core.Batch
		err = d.read(e, "reading", view, func(i *viewlog.Inspection) (err error) {
			net, err = i.Net(ctx, core.Token(o.From), core.Token(cmp.Or(o.AsOf, o.To)))
			return err
		})
		if err == nil {
			err = p.sink.Write(ctx, []core.Batch{net})
		}
	} else {
		e.terminal = false // what is printed shows how far it is
		err = d.read(e, "reading", view, func(i *viewlog.Inspection) error {
			p.view = i.View
			_, err := i.Scan(ctx, func(b viewlog.StoredBatch) error { return p.print(ctx, b) })
			return err
		})
	}
	if err = errors.Join(err, out.Flush()); errors.Is(err, syscall.EPIPE) {
		return nil // whoever read it has seen enough
	}
	return err
}

// batchPrinter prints batches as they are stored: a line about the batch, and
// its updates as the stdout sink prints them.
type batchPrinter struct {
	out  *bufio.Writer
	sink *stdout.Sink
	json bool
	view *core.View
}

func (p *batchPrinter) print(ctx context.Context, b viewlog.StoredBatch) error {
	if b.First {
		if err := p.heading(b); err != nil {
			return err
		}
	}
	end := core.Token{Time: b.Upper}
	return p.sink.Write(ctx, []core.Batch{{View: p.view, Lower: end, Upper: end, Updates: core.UpdatesOf(b.Updates)}})
}

func (p *batchPrinter) heading(b viewlog.StoredBatch) error {
	arrived := ""
	if !b.Arrived.IsZero() {
		arrived = b.Arrived.UTC().Format("2006-01-02T15:04:05.000Z07:00")
	}
	if p.json {
		return json.NewEncoder(p.out).Encode(struct {
			View    string    `json:"view"`
			Lower   core.Time `json:"lower,string"`
			Upper   core.Time `json:"upper,string"`
			Solid   bool      `json:"solid"`
			Arrived string    `json:"arrived,omitempty"`
		}{p.view.Name, b.Lower, b.Upper, b.Solid, arrived})
	}
	line := fmt.Sprintf("-- %s to %s", b.Lower, through(b.Upper))
	switch {
	case b.IsBase():
		line = "-- base to " + through(b.Upper)
	case b.Solid:
		line += ", solid"
	default:
		line += ", exact"
	}
	if arrived != "" {
		line += ", arrived " + arrived
	}
	_, err := fmt.Fprintln(p.out, line)
	return err
}

// progress is a line on the terminal that tells how far long work is; elsewhere
// it is nothing.
type progress struct {
	e       env
	what    string
	percent int64
}

func (p *progress) show(read, total int64) {
	if percent := 100 * read / max(total, 1); p.e.terminal && percent != p.percent {
		p.percent = percent
		fmt.Fprintf(p.e.stderr, "\r\x1b[K%s: %d%% of %d bytes", p.what, percent, total)
	}
}

func (p *progress) clear() {
	if p.percent != 0 {
		fmt.Fprint(p.e.stderr, "\r\x1b[K")
		p.percent = 0
	}
}
