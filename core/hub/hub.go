// Package hub moves the changes of views from the upstream into their logs, and
// from the logs to the sinks.
//
// There is one goroutine for each view, which follows the upstream and appends
// to the view's log, and one for each group of views of each sink, which reads
// the logs and writes the sink. They meet in the logs only: a sink that is slow
// or dead holds up neither a view nor another sink, and trouble upstream
// reaches sinks as nothing but a pause.
//
// With a directory the logs are on disk, and so is where each sink stands. Then
// a sink gets nothing that a crash could take back, each cut is announced on
// disk before it is written, and comes again with the same bytes until the sink
// has taken it, whatever dies in between. Broadcasters, whose readers can start
// over, do not wait for the disk.
package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/backoff"
	"github.com/mzdio/mzd/core/durable"
)

// View is a view to follow.
type View struct {
	Name  string
	Query string   // empty: the upstream's view called Name
	Key   []string // names of the columns that identify a row, if any
}

// Sink is a configured sink.
type Sink struct {
	Name string
	// Sink is what to write; a [core.Broadcaster] is served the logs instead.
	// Whoever opened it closes it, after Run has returned.
	Sink core.Sink
	// Views are the names of the views it gets, in its order.
	Views []string
	// SkipSnapshot starts with what happens from now on, instead of a base.
	SkipSnapshot bool
	// Together makes all views move as one cut; otherwise each moves alone.
	Together bool
}

// Options are what a [Hub] is made of. Views, Sinks and Subscribe are required.
type Options struct {
	Views     []View
	Sinks     []Sink
	Subscribe Subscribe
	Reasons   []string // the words of [Trouble] that Subscribe may use, for metrics

	// MaxRows is how many rows a view may have, copies counted. One that has more
	// stands still until it has fewer. 0: any number.
	MaxRows int64

	// Dir is the directory of logs and positions, made if there is none; one
	// process at a time. Empty: everything is in memory, and begins again with
	// the process.
	Dir string
	FS  durable.FS // where Dir is; nil: durable.OS

	// How each log keeps history and files; see [viewlog.Options].
	Retain       time.Duration
	RetainBytes  int64
	RewriteBytes int64

	Logger     *slog.Logger // nil: none
	Registerer Registerer   // where metrics go; nil: nowhere
}

// Subscribe opens a stream of a view's changes. The errors it returns, and
// those of the stream, may have the methods of [Trouble].
type Subscribe func(ctx context.Context, r Request) (Stream, error)

// Request asks for the changes of one view.
type Request struct {
	Name  string
	Query string // empty: the upstream's view called Name

	// Upper and Identity are where the log stands and the identity of the
	// upstream whose history it holds; zero for an empty log. If the upstream
	// is the same and still has the history, the stream resumes there.
	Upper    core.Time
	Identity string

	// Afresh asks for the whole view also where the stream could resume, because
	// the log holds what cannot be.
	Afresh bool
}

// Stream is the changes of one view, in closed batches. It is used by one
// goroutine.
type Stream interface {
	// Columns are the columns of the view.
	Columns() []core.Column
	// Identity identifies the upstream and the view in it: while it stays the
	// same, times and contents belong to one history.
	Identity() string
	// Resumed reports whether the first batch continues from Request.Upper.
	// Otherwise the stream begins with the whole view, at a time above
	// Request.Upper if the identity is that of the request and the upstream's
	// times have not gone back.
	Resumed() bool
	// Restarted says in words why a stream with a Request.Upper did not resume;
	// empty if it did.
	Restarted() string
	// Snapshot is called once, before Next, if the stream did not resume. It
	// passes the rows of the whole view to add as they come, in any order, with
	// so many copies more each time, and returns the time that the sum is the
	// view at. An error ends the stream.
	Snapshot(ctx context.Context, add func(row []byte, copies core.Diff)) (core.Time, error)
	// Next waits for the next batch. Its tokens have no generation. An error
	// ends the stream.
	Next(ctx context.Context) (core.Batch, error)
	// Close ends the stream.
	Close()
}

// Trouble is what an error of the upstream can tell about itself. It may also have
//
//	RetryAfter() time.Duration // how long to wait before the next try, at least
//	Away() bool                // nobody could be asked: it says nothing about the view
type Trouble interface {
	error
	// Reason is one word for what happened, usable as a metric's label.
	Reason() string
	// Retryable is false where nothing will change until somebody acts: the
	// hub goes on trying, because somebody may, but seldom.
	Retryable() bool
}

// Hub runs views and sinks.
type Hub struct {
	views  []*view
	groups []*group
	sinks  []Sink
	kept   []*positions // of the sinks that have some
}

// New checks that the options fit together, opens the logs and finds out where
// the sinks stand. It starts nothing; what it opened is closed by [Hub.Run].
//
// Files that are damaged or cannot be used are an error that names them.
func New(o Options) (*Hub, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Hub{sinks: o.Sinks}
	if err := h.open(o); err != nil {
		for _, v := range h.views {
			v.close()
		}
		return nil, err
	}
	return h, nil
}

func (h *Hub) open(o Options) error {
	metrics := newMetrics(h)
	disk, err := openDisk(o)
	if err != nil {
		return err
	}
	byName := make(map[string]*view)
	for _, c := range o.Views {
		if byName[c.Name] != nil {
			return fmt.Errorf("view %s is configured twice", c.Name)
		}
		data, err := disk.openLog(c.Name, o, metrics)
		if err != nil {
			return err
		}
		v := newView(c, data, o, metrics)
		byName[c.Name] = v
		h.views = append(h.views, v)
	}
	if err := disk.opened(o); err != nil {
		return err
	}
	for _, c := range o.Sinks {
		var views []*view
		for _, name := range c.Views {
			v := byName[name]
			if v == nil {
				return fmt.Errorf("sink %s: no view %s", c.Name, name)
			}
			views = append(views, v)
		}
		if _, broadcasts := c.Sink.(core.Broadcaster); broadcasts {
			h.groups = append(h.groups, newGroup(c, views, o, metrics))
			continue
		}
		kept, err := disk.openPositions(c.Name)
		if err != nil {
			return err
		}
		if kept != nil {
			h.kept = append(h.kept, kept)
		}
		together := [][]*view{views}
		if !c.Together {
			together = slices.Collect(slices.Chunk(views, 1))
		}
		for _, views := range together {
			g := newGroup(c, views, o, metrics)
			g.recover(kept)
			h.groups = append(h.groups, g)
		}
	}
	if o.Registerer != nil {
		if err := metrics.register(o.Registerer); err != nil {
			return fmt.Errorf("register metrics of views and sinks: %w", err)
		}
	}
	return nil
}

// Run follows the views and writes the sinks until ctx ends. Then the views
// stop, then the sinks, then the logs become durable and are closed, and it
// returns what went wrong with that. Trouble with a view or a sink before is
// retried and shown in [Hub.Status]; it does not end Run. Run is called once.
func (h *Hub) Run(ctx context.Context) error {
	// What is written to outlives what writes to it.
	forSinks, stopSinks := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSinks()
	forLogs, stopLogs := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLogs()

	var views, sinks, logs sync.WaitGroup
	errs := make([]error, len(h.views)+len(h.groups))
	for i, v := range h.views {
		views.Go(func() { v.run(ctx) })
		logs.Go(func() { errs[i] = v.data.Run(forLogs) })
	}
	for i, g := range h.groups {
		sinks.Go(func() { errs[len(h.views)+i] = g.run(forSinks) })
	}
	<-ctx.Done()
	views.Wait()
	stopSinks()
	sinks.Wait()
	stopLogs()
	logs.Wait()
	for _, p := range h.kept {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}

// Reader returns the log of a view, nil if there is no such view.
func (h *Hub) Reader(name string) core.CutReader {
	for _, v := range h.views {
		if v.Name == name {
			return v.data
		}
	}
	return nil
}

// trouble is the state of something that is retried. It is a value; its owner
// guards it.
type trouble struct {
	err   error     // of the last try
	since time.Time // when it last worked, whatever has been wrong since
	next  time.Time // of the next try
}

// set notes a failed try and reports whether it says anything new.
func (t *trouble) set(err error, next time.Time) (news bool) {
	news = t.err == nil || t.err.Error() != err.Error()
	if t.err == nil {
		t.since = time.Now()
	}
	t.err, t.next = err, next
	return news
}

// reason returns the word for an error of the upstream.
func reason(err error) string {
	var t Trouble
	if errors.As(err, &t) {
		return t.Reason()
	}
	return otherReason
}

// otherReason is the reason of errors that do not say one.
const otherReason = "other"

// retryable reports whether an error of the upstream may go away by itself.
func retryable(err error) bool {
	var t Trouble
	return !errors.As(err, &t) || t.Retryable()
}

// away reports whether an error says only that nobody could be asked.
func away(err error) bool {
	var a interface{ Away() bool }
	return errors.As(err, &a) && a.Away()
}

// retryAfter returns how long an error says to wait before the next try.
func retryAfter(err error) time.Duration {
	var later interface{ RetryAfter() time.Duration }
	if !errors.As(err, &later) {
		return 0
	}
	return later.RetryAfter()
}

// retryWait bounds the waits between tries, for the upstream and for sinks.
var retryWait = backoff.Backoff{Min: 100 * time.Millisecond, Max: longestWait}

const longestWait = 15 * time.Second
