package plugintest_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/plugintest"
)

// target is what the sinks of these tests write to: tables in memory, which
// outlive each of them.
type target struct {
	mu     sync.Mutex // guards what follows
	tables map[string]map[string]table
	down   chan struct{} // nil: it works; closed when it works again
	gone   bool
	last   chan struct{} // closed when what was queued last is applied
	end    chan struct{} // closed when the test ends, for what blocks on purpose
}

// table is the rows of a view and up to where they are applied.
type table struct {
	rows map[core.Row]core.Diff
	at   core.Token
}

func newTarget() *target {
	return &target{tables: make(map[string]map[string]table), end: make(chan struct{})}
}

var (
	errDown = errors.New("the target is down")
	errGone = fmt.Errorf("the target is gone: %w", core.ErrPermanent)
)

// ready waits until the target works.
func (t *target) ready(ctx context.Context) error {
	t.mu.Lock()
	down, gone := t.down, t.gone
	t.mu.Unlock()
	if gone {
		return errGone
	}
	if down == nil {
		return ctx.Err()
	}
	select {
	case <-down:
		return ctx.Err()
	case <-ctx.Done():
		return errors.Join(errDown, ctx.Err())
	}
}

func (t *target) outage(context.Context) (func(), error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.down = make(chan struct{})
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		close(t.down)
		t.down = nil
	}, nil
}

func (t *target) leave(context.Context) (func(), error) {
	set := func(gone bool) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.gone = gone
	}
	set(true)
	return func() { set(false) }, nil
}

// later applies something a moment later, in order.
func (t *target) later(apply func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before, done := t.last, make(chan struct{})
	t.last = done
	go func() {
		defer close(done)
		if before != nil {
			<-before
		}
		<-time.After(time.Millisecond)
		apply()
	}()
}

// observe looks at the tables under a place.
func (t *target) observe(place string) plugintest.Observer {
	return func(_ context.Context, v *core.View) ([]json.RawMessage, error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		var rows []json.RawMessage
		for row, n := range t.tables[place][v.Name].rows {
			for range n {
				rows = append(rows, json.RawMessage(row))
			}
		}
		return rows, nil
	}
}

// mirror is a sink that keeps the contract.
type mirror struct {
	target *target
	place  string
}

type mirrorSettings struct {
	Place string            `json:"place" required:"true"`
	Mode  string            `json:"mode" default:"plain" enum:"plain|fancy"`
	Size  int               `json:"size"`
	Tags  map[string]string `json:"tags"`
}

func (m *mirror) Write(ctx context.Context, cut []core.Batch) error {
	if err := m.target.ready(ctx); err != nil {
		return err
	}
	m.target.mu.Lock()
	defer m.target.mu.Unlock()
	tables := m.tables()
	for _, b := range cut {
		t := tables[b.View.Name]
		if t.at == b.Upper {
			continue // it has come before
		}
		if t.rows = maps.Clone(t.rows); t.rows == nil || b.IsBase() {
			t.rows = make(map[core.Row]core.Diff)
		}
		for u := range b.Updates.All() {
			if t.rows[u.Row] += u.Diff; t.rows[u.Row] == 0 {
				delete(t.rows, u.Row)
			}
		}
		t.at = b.Upper
		tables[b.View.Name] = t
	}
	return nil
}

// tables returns the tables of the sink; the target's lock is held.
func (m *mirror) tables() map[string]table {
	if m.target.tables[m.place] == nil {
		m.target.tables[m.place] = make(map[string]table)
	}
	return m.target.tables[m.place]
}

func (m *mirror) Position(_ context.Context, v *core.View) (core.Token, error) {
	m.target.mu.Lock()
	defer m.target.mu.Unlock()
	return m.tables()[v.Name].at, nil
}

func (m *mirror) Close() error { return nil }

// silent is a sink of which only the methods of core.Sink show.
type silent struct{ core.Sink }

// opener makes a sink of what a target has for it.
type opener func(*target, *mirror) core.Sink

func (open opener) plugin(t *target) plugins.Sink {
	return plugins.NewSink("mirror", "for the tests", func(_ context.Context, s mirrorSettings) (core.Sink, error) {
		return open(t, &mirror{target: t, place: s.Place}), nil
	})
}

func (open opener) sink(t *target) plugintest.Sink {
	return plugintest.Sink{
		Plugin:   open.plugin(t),
		Settings: json.RawMessage(`{"place": "here"}`),
		Observe:  t.observe("here"),
		Outage:   t.outage,
		Gone:     t.leave,
	}
}

func TestCorrectSinks(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]opener{
		"positioner": func(_ *target, m *mirror) core.Sink { return m },
		"plain":      func(_ *target, m *mirror) core.Sink { return silent{m} },
		"slow": func(_ *target, m *mirror) core.Sink {
			return writer{m, func(ctx context.Context, cut []core.Batch) error {
				select {
				case <-time.After(30 * time.Millisecond):
					return m.Write(ctx, cut)
				case <-ctx.Done():
					return ctx.Err()
				}
			}}
		},
		"applies what was cancelled": func(_ *target, m *mirror) core.Sink {
			return writer{m, func(ctx context.Context, cut []core.Batch) error {
				if err := m.target.ready(ctx); err != nil {
					return err
				}
				return errors.Join(m.Write(context.WithoutCancel(ctx), cut), ctx.Err())
			}}
		},
		"starts over": func(_ *target, m *mirror) core.Sink { return &forgetful{mirror: m, began: make(map[string]bool)} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				target := newTarget()
				defer close(target.end)
				// How much they are written makes no difference between them.
				expectNoFailure(t, plugintest.CheckSink(t.Context(), open.sink(target), func(rule string) bool {
					return *soak || name == "plain" || rule == "cancel-mid-write" || !slices.Contains(heavyRules, rule)
				}))
			})
		})
	}
}

func TestSinkAsSubtests(t *testing.T) {
	t.Parallel()
	plugintest.TestSink(t, opener(func(_ *target, m *mirror) core.Sink { return m }).sink(newTarget()))
}

// forgetful is a sink that stands nowhere when it was opened again, and says so.
type forgetful struct {
	*mirror
	mu    sync.Mutex // guards began
	began map[string]bool
}

func (f *forgetful) Write(ctx context.Context, cut []core.Batch) error {
	f.mu.Lock()
	for _, b := range cut {
		f.began[b.View.Name] = true
	}
	f.mu.Unlock()
	return f.mirror.Write(ctx, cut)
}

func (f *forgetful) Position(ctx context.Context, v *core.View) (core.Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.began[v.Name] {
		return core.Token{}, nil
	}
	return f.mirror.Position(ctx, v)
}

// writer is a sink with another Write.
type writer struct {
	core.Sink
	write func(context.Context, []core.Batch) error
}

func (w writer) Write(ctx context.Context, cut []core.Batch) error { return w.write(ctx, cut) }

// mapped changes each batch before it is written.
func mapped(f func(core.Batch) core.Batch) opener {
	return func(_ *target, m *mirror) core.Sink {
		return writer{m, func(ctx context.Context, cut []core.Batch) error {
			var other []core.Batch
			for _, b := range cut {
				other = append(other, f(b))
			}
			return m.Write(ctx, other)
		}}
	}
}

// updated changes each update before it is written; false leaves it out.
func updated(f func(b core.Batch, n int, u *core.Update) bool) opener {
	return mapped(func(b core.Batch) core.Batch {
		var updates []core.Update
		for n, u := range b.Updates.From(0) {
			if f(b, n, &u) {
				updates = append(updates, u)
			}
		}
		b.Updates = core.UpdatesOf(updates)
		return b
	})
}

// skipping acknowledges batches that it does not write.
func skipping(skip func(t *target, m *mirror) func(b core.Batch) bool) opener {
	return func(t *target, m *mirror) core.Sink {
		skips := skip(t, m)
		return writer{silent{m}, func(ctx context.Context, cut []core.Batch) error {
			return m.Write(ctx, slices.DeleteFunc(slices.Clone(cut), skips))
		}}
	}
}

// stands returns the table of a view.
func stands(t *target, m *mirror, b core.Batch) table {
	t.mu.Lock()
	defer t.mu.Unlock()
	return m.tables()[b.View.Name]
}

// closer is a sink with another Close.
type closer struct {
	core.Sink
	close func() error
}

func (c closer) Close() error { return c.close() }

// positioner is a sink with another Position.
type positioner struct {
	core.Sink
	position func(context.Context, *core.View) (core.Token, error)
}

func (p positioner) Position(ctx context.Context, v *core.View) (core.Token, error) {
	return p.position(ctx, v)
}

// brokenSinks are sinks with one mistake each, by the rule that finds it.
var brokenSinks = []struct {
	flaw, rule string
	open       opener
}{
	{"acknowledges early", "early-ack", func(_ *target, m *mirror) core.Sink {
		return writer{silent{m}, func(ctx context.Context, cut []core.Batch) error {
			if err := m.target.ready(ctx); err != nil {
				return err
			}
			m.target.later(func() { m.Write(context.WithoutCancel(ctx), cut) })
			return nil
		}}
	}},
	{"ignores a base of what it has", "base-replaces", skipping(func(t *target, m *mirror) func(core.Batch) bool {
		return func(b core.Batch) bool { return b.IsBase() && stands(t, m, b).rows != nil }
	})},
	{"adds a base to what it has", "base-replaces", func(t *target, m *mirror) core.Sink {
		return writer{m, func(ctx context.Context, cut []core.Batch) error {
			for i, b := range cut {
				if has := stands(t, m, b); b.IsBase() && has.rows != nil {
					cut = slices.Clone(cut)
					cut[i].Lower = has.at
				}
			}
			return m.Write(ctx, cut)
		}}
	}},
	{"takes a base without rows for progress", "base-empty", skipping(func(t *target, m *mirror) func(core.Batch) bool {
		return func(b core.Batch) bool { return b.IsBase() && b.Updates.Len() == 0 && stands(t, m, b).rows != nil }
	})},
	{"applies a repeated cut twice", "cut-twice", func(t *target, m *mirror) core.Sink {
		return writer{silent{m}, func(ctx context.Context, cut []core.Batch) error {
			t.mu.Lock()
			for name, table := range m.tables() {
				table.at = core.Token{}
				m.tables()[name] = table
			}
			t.mu.Unlock()
			return m.Write(ctx, cut)
		}}
	}},
	{"knows repeats by the time alone", "new-generation", skipping(func(t *target, m *mirror) func(core.Batch) bool {
		return func(b core.Batch) bool {
			return !b.IsBase() && b.Lower.Generation != b.Upper.Generation
		}
	})},
	{"drops what comes after the first piece", "pieces", updated(func(_ core.Batch, n int, _ *core.Update) bool { return n < 1300 })},
	{"drops rows over a megabyte", "large-rows", updated(func(_ core.Batch, _ int, u *core.Update) bool { return len(u.Row) <= 1<<20 })},
	{"mixes up two views", "several-views", func(_ *target, m *mirror) core.Sink {
		return writer{m, func(ctx context.Context, cut []core.Batch) error {
			cut = slices.Clone(cut)
			if len(cut) == 3 {
				cut[0].View, cut[1].View = cut[1].View, cut[0].View
			}
			return m.Write(ctx, cut)
		}}
	}},
	{"applies only the first view of a cut", "several-views", func(_ *target, m *mirror) core.Sink {
		return writer{m, func(ctx context.Context, cut []core.Batch) error {
			if len(cut) == 3 {
				cut = cut[:1]
			}
			return m.Write(ctx, cut)
		}}
	}},
	{"forgets its settings", "settings-used", func(_ *target, m *mirror) core.Sink { m.place = "somewhere else"; return m }},
	{"keeps the settings of its first instance", "settings-refused", func(t *target, m *mirror) core.Sink { return m }},
	{"leaks a goroutine for each write", "goroutine-leak", func(t *target, m *mirror) core.Sink {
		return writer{m, func(ctx context.Context, cut []core.Batch) error {
			go func() { <-t.end }()
			return m.Write(ctx, cut)
		}}
	}},
	{"leaks a goroutine for each instance", "goroutine-leak", func(t *target, m *mirror) core.Sink {
		go func() { <-t.end }()
		return m
	}},
	{"swaps what is inserted and deleted", "delta", updated(func(b core.Batch, _ int, u *core.Update) bool {
		if !b.IsBase() {
			u.Diff = -u.Diff
		}
		return true
	})},
	{"forgets the copies of a row", "copies", updated(func(_ core.Batch, _ int, u *core.Update) bool {
		u.Diff = min(max(u.Diff, -1), 1)
		return true
	})},
	{"deletes by the key after it has inserted", "key-update", func(t *target, m *mirror) core.Sink {
		return writer{m, func(ctx context.Context, cut []core.Batch) error {
			for i, b := range cut {
				if b.IsBase() || b.View.Key == nil {
					continue
				}
				deleted := map[string]bool{}
				for u := range b.Updates.All() {
					if u.Diff < 0 {
						deleted[keyOf(u.Row)] = true
					}
				}
				cut = slices.Clone(cut)
				cut[i].Updates = core.UpdatesOf(slices.DeleteFunc(slices.Clone(b.Updates.Slice()), func(u core.Update) bool { return u.Diff > 0 && deleted[keyOf(u.Row)] }))
			}
			return m.Write(ctx, cut)
		}}
	}},
	{"remembers nothing after it was closed", "reopen", func(t *target, m *mirror) core.Sink {
		return closer{silent{m}, func() error {
			t.mu.Lock()
			defer t.mu.Unlock()
			clear(m.tables())
			return nil
		}}
	}},
	{"forgets after it was closed what it has seen", "cut-twice-reopened", func(t *target, m *mirror) core.Sink {
		return closer{silent{m}, func() error {
			t.mu.Lock()
			defer t.mu.Unlock()
			for name, table := range m.tables() {
				table.at = core.Token{}
				m.tables()[name] = table
			}
			return nil
		}}
	}},
	{"blocks Close", "close", func(t *target, m *mirror) core.Sink {
		return closer{m, func() error { <-t.end; return nil }}
	}},
	{"panics when it is closed twice", "close-twice", func(_ *target, m *mirror) core.Sink {
		closed := make(chan struct{})
		return closer{m, func() error { close(closed); return nil }}
	}},
	{"panics on a cut in which nothing happened", "progress", func(_ *target, m *mirror) core.Sink {
		return writer{m, func(ctx context.Context, cut []core.Batch) error {
			if !cut[0].IsBase() && len(cut) == 1 && cut[0].Lower.Generation == cut[0].Upper.Generation {
				_ = cut[0].Updates.Slice()[0]
			}
			return m.Write(ctx, cut)
		}}
	}},
	{"returns nil when it is cancelled", "cancel-before-write", func(_ *target, m *mirror) core.Sink {
		return writer{silent{m}, func(ctx context.Context, cut []core.Batch) error {
			if err := m.Write(ctx, cut); !errors.Is(err, context.Canceled) || errors.Is(err, errDown) {
				return err
			}
			return nil
		}}
	}},
	{"returns nil when it is cancelled in the middle", "cancel-mid-write", func(_ *target, m *mirror) core.Sink {
		return writer{silent{m}, func(ctx context.Context, cut []core.Batch) error {
			if err := m.target.ready(ctx); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(20 * time.Millisecond):
				return m.Write(ctx, cut)
			}
		}}
	}},
	{"does not hear that it is cancelled", "backpressure", func(_ *target, m *mirror) core.Sink {
		return writer{m, func(ctx context.Context, cut []core.Batch) error {
			if err := m.target.ready(context.WithoutCancel(ctx)); err != nil {
				return err
			}
			return m.Write(ctx, cut)
		}}
	}},
	{"queues while the target is down", "backpressure", func(t *target, m *mirror) core.Sink {
		return writer{silent{m}, func(ctx context.Context, cut []core.Batch) error {
			t.mu.Lock()
			down := t.down
			t.mu.Unlock()
			if down == nil {
				return m.Write(ctx, cut)
			}
			go func() { <-down; m.Write(context.WithoutCancel(ctx), cut) }()
			return nil
		}}
	}},
	{"drops the cut after an outage", "outage", func(t *target, m *mirror) core.Sink {
		var mu sync.Mutex
		failed := false
		return writer{silent{m}, func(ctx context.Context, cut []core.Batch) error {
			mu.Lock()
			defer mu.Unlock()
			if failed && ctx.Err() == nil && m.target.ready(ctx) == nil {
				failed = false
				return nil
			}
			err := m.Write(ctx, cut)
			failed = errors.Is(err, errDown)
			return err
		}}
	}},
	{"tries for ever what can never work", "permanent-error", func(_ *target, m *mirror) core.Sink {
		return writer{m, func(ctx context.Context, cut []core.Batch) error {
			if err := m.Write(ctx, cut); err != nil {
				return errors.New(err.Error())
			}
			return nil
		}}
	}},
	{"sorts the batches that it is given", "cut-unchanged", func(_ *target, m *mirror) core.Sink {
		return writer{m, func(ctx context.Context, cut []core.Batch) error {
			err := m.Write(ctx, cut)
			for _, b := range cut {
				slices.SortFunc(b.Updates.Slice(), func(x, y core.Update) int { return int(x.Diff - y.Diff) })
			}
			return err
		}}
	}},
	{"reads times as signed numbers", "end-of-time", skipping(func(t *target, m *mirror) func(core.Batch) bool {
		return func(b core.Batch) bool { return !b.IsBase() && int64(b.Upper.Time) < int64(b.Lower.Time) }
	})},
	{"drops what is older than what it has", "time-goes-back", skipping(func(t *target, m *mirror) func(core.Batch) bool {
		return func(b core.Batch) bool { at := stands(t, m, b).at; return b.Upper.Time < at.Time && at.Time < 1<<62 }
	})},
	{"knows repeats by the time of any view", "groups-apart", func(_ *target, m *mirror) core.Sink {
		var mu sync.Mutex
		var last core.Time
		return writer{silent{m}, func(ctx context.Context, cut []core.Batch) error {
			mu.Lock()
			defer mu.Unlock()
			if cut[0].Upper.Time == last && cut[0].Lower.Time != last {
				return nil
			}
			err := m.Write(ctx, cut)
			if err == nil {
				last = cut[0].Upper.Time
			}
			return err
		}}
	}},
	{"applies a large cut in two steps", "all-at-once", func(t *target, m *mirror) core.Sink {
		return writer{silent{m}, func(ctx context.Context, cut []core.Batch) error {
			b := cut[0]
			all := b.Updates.Slice()
			if len(cut) > 1 || b.IsBase() || len(all) < 100 || stands(t, m, b).at == b.Upper {
				return m.Write(ctx, cut)
			}
			half := b
			half.Upper.Generation = "half"
			half.Updates = core.UpdatesOf(all[:len(all)/2])
			if err := m.Write(ctx, []core.Batch{half}); err != nil {
				return err
			}
			time.Sleep(20 * time.Millisecond) // of the bubble
			b.Updates = core.UpdatesOf(all[len(all)/2:])
			return m.Write(context.WithoutCancel(ctx), []core.Batch{b})
		}}
	}},
	{"loses digits", "values", updated(func(_ core.Batch, _ int, u *core.Update) bool {
		var values []any
		json.Unmarshal([]byte(u.Row), &values)
		text, _ := json.Marshal(values)
		u.Row = core.Row(text)
		return true
	})},
	{"takes names that differ in case for one", "names", mapped(func(b core.Batch) core.Batch {
		view := *b.View
		if view.Name = strings.ToLower(view.Name); view.Name == "plugintest_names_v_a" {
			b.View = &view
		}
		return b
	})},
	{"keeps the columns that it saw first", "columns-change", func(_ *target, m *mirror) core.Sink {
		var mu sync.Mutex
		columns := map[string]int{}
		return writer{m, func(ctx context.Context, cut []core.Batch) error {
			mu.Lock()
			defer mu.Unlock()
			for _, b := range cut {
				if n := len(b.View.Columns); columns[b.View.Name] == 0 {
					columns[b.View.Name] = n
				} else if columns[b.View.Name] != n {
					return errors.New("no such column")
				}
			}
			return m.Write(ctx, cut)
		}}
	}},
	{"says that it stands where the last base was", "position", func(t *target, m *mirror) core.Sink {
		return positioner{m, func(ctx context.Context, v *core.View) (core.Token, error) {
			at, err := m.Position(ctx, v)
			if strings.Contains(v.Name, "_position_") {
				at.Generation = "old"
			}
			return at, err
		}}
	}},
	{"opens with anything", "settings-refused", func(_ *target, m *mirror) core.Sink { return m }},
}

func keyOf(row core.Row) string {
	key, _, _ := strings.Cut(string(row), ",")
	return key
}

// heavyRules write megabytes: they are held only against mistakes about that,
// unless there is time.
var heavyRules = []string{"large-rows", "pieces", "all-at-once", "cancel-mid-write"}

var soak = flag.Bool("soak", false, "hold every sink against every rule")

// TestBrokenSinks finds each mistake, by the rule that it breaks and by no other.
func TestBrokenSinks(t *testing.T) {
	t.Parallel()
	for _, tt := range brokenSinks {
		t.Run(tt.flaw, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				target := newTarget()
				defer close(target.end)
				s := tt.open.sink(target)
				switch tt.flaw {
				case "opens with anything":
					open := s.Plugin.Open
					s.Plugin.Open = func(ctx context.Context, settings json.RawMessage) (core.Sink, error) {
						return open(ctx, json.RawMessage(`{"place": "here"}`))
					}
				case "keeps the settings of its first instance":
					open := s.Plugin.Open
					s.Plugin.Open = func(ctx context.Context, settings json.RawMessage) (core.Sink, error) {
						sink, err := open(ctx, settings)
						if err != nil {
							return nil, errors.New(err.Error()) // as if it could work later
						}
						return sink, nil
					}
				}
				expectFailure(t, tt.rule, plugintest.CheckSink(t.Context(), s, func(rule string) bool {
					return *soak || !slices.Contains(heavyRules, rule) || slices.Contains(heavyRules, tt.rule)
				}))
			})
		})
	}
}

// TestInterrupted cancels a check in the middle of a rule: that is nothing that
// the sink has done wrong.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sink := plugintest.Sink{
		Plugin: plugins.NewSink("memory", "", func(ctx context.Context, _ struct{}) (memory, error) { return make(memory), ctx.Err() }),
		Observe: func(ctx context.Context, _ *core.View) ([]json.RawMessage, error) {
			cancel()
			return nil, ctx.Err()
		},
	}
	for r := range plugintest.CheckSink(ctx, sink, nil) {
		if r.Status == plugintest.Failed {
			t.Errorf("%s failed: got %s", r.Rule, r.Got)
		}
	}
	if ctx.Err() == nil {
		t.Error("nothing was interrupted")
	}
}
