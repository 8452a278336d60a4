// Package engine is mzd's embedded engine: SQL views over files and tables, kept up to date as these change, in memory, in one process. It is
// what mzd runs on before there is a Materialize, and speaks its dialect.
//
// [Open] loads the catalog, [Engine.Run] reads the sources and maintains the views, and a [Session] executes statements. Package
// engine/pgwire serves sessions to PostgreSQL clients.
//
// Time goes in ticks. A tick takes what the sources have read since the last one and the transactions that wait to be committed,
// makes these durable, steps the views in order of dependency, and publishes all changes together at one time; a time is closed
// when nothing more can happen at it. All reading happens at closed times.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/mzdio/mzd/core/durable"
	"github.com/mzdio/mzd/core/viewlog"
	"github.com/mzdio/mzd/engine/flow"
)

// Options are what an engine is opened with. The zero value is an engine that keeps nothing.
type Options struct {
	DataDir      string        // directory of the catalog, the clock, the offsets and the tables; "" keeps nothing
	FS           durable.FS    // what DataDir is in; default the operating system's
	BaseDir      string        // what relative paths of FILE sources are relative to; default the working directory
	Logger       *slog.Logger  // default discards
	TickInterval time.Duration // the least time between two ticks; default 10 ms
	TickEvents   int           // the most lines of a tick; default 1000
	History      time.Duration // how far back AS OF reaches; default 10 minutes
	HistoryBytes int           // and how many bytes of changes a view keeps for it at most; default 64 MiB
	MaxBytes     int64         // what all views may hold in memory, about; default 2 GiB
	// Shuffle changes the order of the rows of one time in streams, which no reader may rely on. It is for tests.
	Shuffle func(n int, swap func(i, j int))
}

// Engine is an open engine. Its methods may be called from several goroutines.
type Engine struct {
	opt Options
	log *slog.Logger
	id  string

	work    chan *chunk   // to the decoders
	chunks  chan *chunk   // to the dataflow, in order for each source
	stopped chan struct{} // closed when Run has ended

	wake chan struct{} // has an element when there may be transactions to commit

	ddl           sync.Mutex // serializes statements that change the catalog, and guards what follows
	nextID        int
	catalogUnsure bool // the one on disk may have a change that was not made

	saveMu sync.Mutex // serializes writing of the state file

	// graphMu guards the graph, the operators of its views and the journal. It is taken before mu.
	graphMu  sync.Mutex
	journal  *viewlog.Journal // of the tables; nil if nothing is kept
	graph    []*view          // in order of dependency
	observed time.Time        // when the engine's own relations were last brought up to date

	// mu guards the catalog, what is published of views and sources, and time.
	mu         sync.Mutex
	objects    map[string]*object // by name; replaced, never changed, because [catalog] is read without mu
	system     []*object          // the engine's own, constant
	ticks      tickStats
	upper      uint64        // all times below are closed
	reserved   uint64        // times below may be used
	saveErr    error         // why no more can be reserved, while that lasts
	journalErr error         // why it is not certain what the journal has, while that lasts
	opening    bool          // no time closes before the sources have been read again
	changed    chan struct{} // closed, and replaced, when something has been published
	holds      map[*hold]struct{}
	filling    int64     // bytes that views hold which are not in the graph yet
	reading    int64     // bytes of the results of SELECTs that have not been closed
	starting   []*source // for Run to read
	hydrating  []*view   // for Run to fill
	writers    writers
	running    bool
}

// hold keeps the history from a time on.
type hold struct{ time uint64 }

// idleTick is how often the frontier advances when nothing comes in.
const idleTick = time.Second

// Open loads the catalog of a data directory, or begins a new one.
func Open(opt Options) (*Engine, error) {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.TickInterval <= 0 {
		opt.TickInterval = 10 * time.Millisecond
	}
	if opt.TickEvents <= 0 {
		opt.TickEvents = 1000
	}
	if opt.History <= 0 {
		opt.History = 10 * time.Minute
	}
	if opt.HistoryBytes <= 0 {
		opt.HistoryBytes = 64 << 20
	}
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = 2 << 30
	}
	if opt.BaseDir == "" {
		dir, err := os.Getwd()
		if err != nil {
			return nil, fmt.Errorf("open engine: %w", err)
		}
		opt.BaseDir = dir
	}
	if opt.FS == nil {
		opt.FS = durable.OS
	}
	e := &Engine{
		opt: opt, log: opt.Logger, wake: make(chan struct{}, 1),
		work: make(chan *chunk, 8), chunks: make(chan *chunk, 8), stopped: make(chan struct{}),
		nextID: 1, objects: map[string]*object{}, changed: make(chan struct{}), holds: map[*hold]struct{}{},
		opening: true, reserved: math.MaxUint64,
	}
	e.makeSystem()
	if err := e.load(); err != nil {
		return nil, err
	}
	return e, nil
}

// load reads what is on disk.
func (e *Engine) load() error {
	e.id = newID()
	var s state
	if e.opt.DataDir == "" {
		return nil
	}
	if err := e.opt.FS.MkdirAll(e.opt.DataDir); err != nil {
		return fmt.Errorf("open engine: %w", err)
	}
	known, err := e.readJSON(stateFile, &s)
	if err != nil {
		return err
	}
	if known {
		if s.ID == "" {
			return fmt.Errorf("open engine: %s has no id; restore the file, or remove the directory to begin anew", filepath.Join(e.opt.DataDir, stateFile))
		}
		e.id, e.upper = s.ID, s.Clock
	}
	rows, err := e.openJournal()
	if err != nil {
		return err
	}
	e.upper = max(e.upper, uint64(e.journal.Upper()))
	e.reserved = e.upper
	if err := e.loadCatalog(s.Sources, rows); err != nil {
		return err
	}
	if known {
		return nil
	}
	return e.save(true)
}

// ID identifies the environment: it is made with the data directory and never changes.
func (e *Engine) ID() string { return e.id }

// Run reads the sources and maintains the views until the context ends. When it returns, everything it started has ended, and
// whoever waits for the engine gets an error. It may be called once.
func (e *Engine) Run(ctx context.Context) error {
	e.mu.Lock()
	if e.running {
		e.mu.Unlock()
		return errors.New("run engine: it has been run before")
	}
	e.running = true
	e.mu.Unlock()
	defer close(e.stopped)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	spawn := func(f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil {
				cancel(err)
			}
		})
	}
	for range runtime.GOMAXPROCS(0) {
		spawn(e.decoder)
	}
	spawn(e.saver)
	spawn(func(ctx context.Context) error { return e.hydrator(ctx, &wg) })
	spawn(func(ctx context.Context) error { return e.starter(ctx, &wg) })
	spawn(e.dataflow)
	<-ctx.Done()
	wg.Wait()

	e.mu.Lock()
	for _, o := range e.objects {
		if o.source != nil && o.source.file != nil {
			o.source.file.Close()
		}
	}
	e.mu.Unlock()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return errors.Join(e.save(true), e.closeJournal())
}

// decoder decodes chunks; there is one for each processor.
func (e *Engine) decoder(ctx context.Context) error {
	c := &flow.Context{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case chunk := <-e.work:
			chunk.decode(c)
			close(chunk.done)
		}
	}
}

// saver keeps the state on disk ahead of the clock.
func (e *Engine) saver(ctx context.Context) error {
	tick := time.NewTicker(reserveAhead / 2)
	defer tick.Stop()
	for {
		e.save(false) // it is tried again soon, and says itself what is wrong
		e.settleCatalog()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// starter starts the readers of new sources.
func (e *Engine) starter(ctx context.Context, wg *sync.WaitGroup) error {
	for {
		e.mu.Lock()
		for _, s := range e.starting {
			if s.dropped {
				continue
			}
			ctx, stop := context.WithCancel(ctx)
			s.stop = stop
			t := &tailer{e: e, src: s, target: s.target}
			wg.Go(func() {
				defer stop()
				t.run(ctx)
			})
		}
		e.starting = nil
		changed := e.changed
		e.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// notify wakes whoever waits for something to be published. The caller holds mu.
func (e *Engine) notify() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// await blocks until a condition, which is asked with mu held, is met or fails.
func (e *Engine) await(ctx context.Context, met func() (bool, error)) error {
	for {
		e.mu.Lock()
		ok, err := met()
		changed := e.changed
		e.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.stopped:
			return errStopped
		case <-changed:
		}
	}
}

// Version is what SELECT mz_version() answers: it says what this is not.
const Version = "mzd embedded (not Materialize)"
