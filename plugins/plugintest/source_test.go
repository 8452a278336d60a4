package plugintest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/plugintest"
)

// feed is the outside world of the sources of these tests: events that happened.
type feed struct {
	mu   sync.Mutex // guards what follows
	n    int
	news chan struct{} // closed when there are more
	end  chan struct{} // closed when the test ends, for what blocks on purpose
}

func newFeed() *feed { return &feed{news: make(chan struct{}), end: make(chan struct{})} }

func (f *feed) produce(_ context.Context, n int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n += n
	close(f.news)
	f.news = make(chan struct{})
	return nil
}

// wait returns how many events there are, more than n.
func (f *feed) wait(ctx context.Context, n int) (int, error) {
	for {
		f.mu.Lock()
		have, news := f.n, f.news
		f.mu.Unlock()
		if have > n {
			return have, ctx.Err()
		}
		select {
		case <-news:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// event is event n of the world, which are counted from 0.
func event(n int) core.Event {
	return core.Event{ID: fmt.Sprint("id", n), Cursor: strconv.Itoa(n + 1), Data: fmt.Appendf(nil, `{"id":"id%d","n":%d}`, n, n)}
}

// follower is a source that keeps the contract: it reads the feed in portions.
type follower struct {
	feed    *feed
	portion int
	change  func(e *core.Event) bool // false leaves the event out
}

type followerSettings struct {
	Portion int `json:"portion" default:"3"`
}

func (f *follower) Run(ctx context.Context, cursor string, emit core.EmitFunc) error {
	at := 0
	if cursor != "" {
		var err error
		if at, err = strconv.Atoi(cursor); err != nil || at < 0 {
			return fmt.Errorf("cursor %q: %w", cursor, core.ErrPermanent)
		}
	}
	if err := emit(ctx); err != nil {
		return err
	}
	for {
		have, err := f.feed.wait(ctx, at)
		if err != nil {
			return err
		}
		var events []core.Event
		for ; at < min(have, at+f.portion); at++ {
			if e := event(at); f.change == nil || f.change(&e) {
				events = append(events, e)
			}
			if len(events) == f.portion {
				at++
				break
			}
		}
		if err := emit(ctx, events...); err != nil {
			return err
		}
	}
}

func (f *follower) Identify(data []byte) string {
	var e struct{ ID string }
	json.Unmarshal(data, &e)
	return e.ID
}

type sourceOpener func(*feed, *follower) core.Source

func (open sourceOpener) source(f *feed) plugintest.Source {
	return plugintest.Source{
		Plugin: plugins.NewSource("follower", "for the tests", func(_ context.Context, s followerSettings) (core.Source, error) {
			return open(f, &follower{feed: f, portion: s.Portion}), nil
		}),
		Settings: json.RawMessage(`{}`),
		Produce:  f.produce,
	}
}

// runner is a source with another Run.
type runner struct {
	core.Source
	run func(ctx context.Context, cursor string, emit core.EmitFunc) error
}

func (r runner) Run(ctx context.Context, cursor string, emit core.EmitFunc) error {
	return r.run(ctx, cursor, emit)
}

func TestCorrectSources(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]sourceOpener{
		"follower": func(_ *feed, f *follower) core.Source { return f },
		"repeats": func(_ *feed, f *follower) core.Source {
			return runner{f, func(ctx context.Context, cursor string, emit core.EmitFunc) error {
				if n, err := strconv.Atoi(cursor); err == nil {
					cursor = strconv.Itoa(max(n-5, min(n, 0)))
				}
				return f.Run(ctx, cursor, emit)
			}}
		},
		"ends": func(_ *feed, f *follower) core.Source {
			return runner{f, func(ctx context.Context, cursor string, emit core.EmitFunc) error {
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				err := f.Run(ctx, cursor, func(ctx context.Context, events ...core.Event) error {
					if len(events) > 0 {
						defer cancel()
					}
					return emit(ctx, events...)
				})
				if errors.Is(err, core.ErrPermanent) {
					return err
				}
				return nil
			}}
		},
		"emits concurrently, with cursors that lag": func(_ *feed, f *follower) core.Source {
			f.change = func(e *core.Event) bool { e.Cursor = "0"; return true }
			return runner{f, concurrently(f, 8)}
		},
		"without identity": func(_ *feed, f *follower) core.Source {
			f.change = func(e *core.Event) bool { e.ID = ""; return true }
			return runner{f, f.Run}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				expectNoFailure(t, plugintest.CheckSource(t.Context(), open.source(newFeed()), nil))
			})
		})
	}
}

func TestSourceAsSubtests(t *testing.T) {
	t.Parallel()
	plugintest.TestSource(t, sourceOpener(func(_ *feed, f *follower) core.Source { return f }).source(newFeed()))
}

func TestSourceWithoutCursor(t *testing.T) {
	open := sourceOpener(func(_ *feed, f *follower) core.Source {
		f.change = func(e *core.Event) bool { e.Cursor = ""; return true }
		return f
	})
	for r := range plugintest.CheckSource(t.Context(), open.source(newFeed()), func(rule string) bool { return rule == "resume" }) {
		if r.Status != plugintest.NotChecked || !strings.Contains(r.Reason, "no cursor") {
			t.Errorf("got %+v, want that it is not checked", r)
		}
	}
}

// brokenSources are sources with one mistake each, by the rule that finds it.
var brokenSources = []struct {
	flaw, rule string
	open       sourceOpener
}{
	{"brings nothing", "events", func(_ *feed, f *follower) core.Source {
		f.change = func(*core.Event) bool { return false }
		return f
	}},
	{"brings empty events", "events", func(_ *feed, f *follower) core.Source {
		f.change = func(e *core.Event) bool { e.Data = nil; return true }
		return f
	}},
	{"makes up IDs", "ids", func(_ *feed, f *follower) core.Source {
		f.change = func(e *core.Event) bool { e.ID = strconv.FormatUint(rand.Uint64(), 36); return true }
		return runner{f, f.Run}
	}},
	{"gives events of one second one ID", "ids", func(_ *feed, f *follower) core.Source {
		f.change = func(e *core.Event) bool { e.ID = e.ID[:3]; return true }
		return runner{f, f.Run}
	}},
	{"identifies nothing", "identify", func(_ *feed, f *follower) core.Source { return anonymous{f} }},
	{"skips an event when it resumes", "resume", func(_ *feed, f *follower) core.Source {
		return runner{f, func(ctx context.Context, cursor string, emit core.EmitFunc) error {
			if n, err := strconv.Atoi(cursor); err == nil && n == 17 {
				cursor = "18"
			}
			return f.Run(ctx, cursor, emit)
		}}
	}},
	{"resumes from its memory", "cursor-is-all", func(_ *feed, f *follower) core.Source {
		seen := map[string]bool{}
		return runner{f, func(ctx context.Context, cursor string, emit core.EmitFunc) error {
			if n, err := strconv.Atoi(cursor); err == nil && n > 0 && len(seen) == 0 {
				cursor = strconv.Itoa(n + 3)
			}
			seen[cursor] = true
			return f.Run(ctx, cursor, emit)
		}}
	}},
	{"begins anew with what is to come from a cursor that it cannot read", "cursor-refused", func(feed *feed, f *follower) core.Source {
		return runner{f, func(ctx context.Context, cursor string, emit core.EmitFunc) error {
			if n, err := strconv.Atoi(cursor); cursor != "" && (err != nil || n < 0) {
				feed.mu.Lock()
				cursor = strconv.Itoa(feed.n)
				feed.mu.Unlock()
			}
			return f.Run(ctx, cursor, emit)
		}}
	}},
	{"drops what could not be emitted", "emit-fails", func(_ *feed, f *follower) core.Source {
		return runner{f, func(ctx context.Context, cursor string, emit core.EmitFunc) error {
			return f.Run(ctx, cursor, func(ctx context.Context, events ...core.Event) error {
				emit(ctx, events...)
				return ctx.Err()
			})
		}}
	}},
	{"emits concurrently with cursors ahead", "cursor-waits", func(_ *feed, f *follower) core.Source {
		return runner{f, concurrently(f, 8)}
	}},
	{"reads on without end", "backpressure", func(_ *feed, f *follower) core.Source {
		f.change = func(e *core.Event) bool { e.Cursor = "0"; return true }
		return runner{f, concurrently(f, 1<<20)}
	}},
	{"does not hear that it is cancelled", "cancel", func(feed *feed, f *follower) core.Source {
		return runner{f, func(ctx context.Context, cursor string, emit core.EmitFunc) error {
			err := f.Run(ctx, cursor, emit)
			if ctx.Err() != nil && !errors.Is(err, core.ErrPermanent) {
				<-feed.end
			}
			return err
		}}
	}},
	{"emits on when Run has returned", "run-ends", func(_ *feed, f *follower) core.Source {
		return runner{f, func(ctx context.Context, cursor string, emit core.EmitFunc) error {
			err := f.Run(ctx, cursor, emit)
			go func() {
				<-time.After(time.Millisecond)
				emit(ctx, event(0))
			}()
			return err
		}}
	}},
	{"leaks a goroutine for each run", "goroutine-leak", func(feed *feed, f *follower) core.Source {
		return runner{f, func(ctx context.Context, cursor string, emit core.EmitFunc) error {
			go func() { <-feed.end }()
			return f.Run(ctx, cursor, emit)
		}}
	}},
	{"takes a wrong setting for a failure that may pass", "settings-refused", func(_ *feed, f *follower) core.Source { return f }},
	{"panics", "cancel", func(_ *feed, f *follower) core.Source {
		return runner{f, func(context.Context, string, core.EmitFunc) error { panic("oh no") }}
	}},
}

// anonymous is a source that finds an ID in no event.
type anonymous struct{ core.Source }

func (anonymous) Identify([]byte) string { return "" }

// concurrently makes a source emit without waiting, up to a number of calls.
func concurrently(f *follower, calls int) func(context.Context, string, core.EmitFunc) error {
	return func(ctx context.Context, cursor string, emit core.EmitFunc) error {
		var all sync.WaitGroup
		defer all.Wait()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		slots := make(chan struct{}, calls)
		return f.Run(ctx, cursor, func(_ context.Context, events ...core.Event) error {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			all.Go(func() {
				defer func() { <-slots }()
				if emit(ctx, events...) != nil {
					cancel()
				}
			})
			<-time.After(time.Microsecond) // so that they land in order, if they land
			return nil
		})
	}
}

// TestBrokenSources finds each mistake, by the rule that it breaks and by no
// other.
func TestBrokenSources(t *testing.T) {
	t.Parallel()
	for _, tt := range brokenSources {
		t.Run(tt.flaw, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				feed := newFeed()
				defer close(feed.end)
				s := tt.open.source(feed)
				if tt.rule == "settings-refused" {
					open := s.Plugin.Open
					s.Plugin.Open = func(ctx context.Context, settings json.RawMessage) (core.Source, error) {
						source, err := open(ctx, settings)
						if err != nil {
							return nil, errors.New(err.Error())
						}
						return source, nil
					}
				}
				expectFailure(t, tt.rule, plugintest.CheckSource(t.Context(), s, nil))
			})
		})
	}
}
