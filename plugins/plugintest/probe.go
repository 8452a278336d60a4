package plugintest

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mzdio/mzd/plugins"
)

// label marks the goroutines that a rule has started.
const label = "plugintest"

var probes atomic.Uint64

// probe is what all rules work with: it says what was done, and ends the rule
// when something is wrong.
type probe struct {
	ctx      context.Context // of the rule
	rule     string
	id       string
	patience time.Duration

	done     journal
	cleanups []func()
	outcome  *outcome // nil: all is well
}

// outcome ends a rule early.
type outcome struct{ want, got, skip string }

func newProbe(rule string, patience time.Duration) *probe {
	return &probe{rule: rule, patience: patience, id: strconv.FormatUint(probes.Add(1), 10)}
}

// guard runs part of a rule, up to where it ends early.
func (p *probe) guard(f func()) {
	defer func() {
		switch x := recover().(type) {
		case nil:
		case *outcome:
			if p.outcome == nil {
				p.outcome = x
			}
		default:
			panic(x)
		}
	}()
	f()
}

// cleanUp ends what the rule has begun. What goes wrong then says nothing about
// the rule.
func (p *probe) cleanUp() {
	outcome := p.outcome
	for _, f := range slices.Backward(p.cleanups) {
		p.guard(f)
	}
	p.outcome = outcome
}

// fail ends the rule: it is broken.
func (p *probe) fail(want, got string, args ...any) {
	panic(&outcome{want: want, got: fmt.Sprintf(got, args...)})
}

// skip ends the rule: it cannot be checked.
func (p *probe) skip(reason string) { panic(&outcome{skip: reason}) }

// note says what was done.
func (p *probe) note(format string, args ...any) { p.done.add(fmt.Sprintf(format, args...)) }

// environment is the context of an instance. What it logs is part of what was
// done.
func (p *probe) environment() context.Context {
	log := slog.New(slog.NewTextHandler(&p.done, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	return plugins.WithEnv(p.ctx, plugins.Env{Name: "plugintest", Pipeline: "plugintest", Logger: log})
}

// panicked is what a call of the plugin panicked with.
type panicked struct {
	value any
	stack string
}

// call makes a call of the plugin that ought to return soon, and returns what it
// panicked with. After a while it is left behind, and the rule is broken.
func (p *probe) call(what string, f func()) {
	p.wait(what, p.start(f), p.patience)
}

// start makes a call of the plugin, whose end the channel tells.
func (p *probe) start(f func()) <-chan *panicked {
	ended := make(chan *panicked, 1)
	go func() {
		defer func() {
			if x := recover(); x != nil {
				ended <- &panicked{x, frames(debug.Stack())}
				return
			}
			ended <- nil
		}()
		f()
	}()
	return ended
}

// wait waits for the end of a call.
func (p *probe) wait(what string, ended <-chan *panicked, patience time.Duration) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case x := <-ended:
		if x != nil {
			p.fail(what+" returns", "it panicked: %v\n%s", x.value, x.stack)
		}
	case <-timer.C:
		p.fail(what+" returns within "+patience.String(), "it has not%s", p.whereCalls())
	}
}

// pause waits a moment; false: the rule's context has ended.
func (p *probe) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.ctx.Done():
		return false
	}
}

// eventually asks again and again, for as long as it may take a plugin, and
// reports whether the answer was yes.
func (p *probe) eventually(patience time.Duration, f func() bool) bool {
	wait := 5 * time.Millisecond
	for deadline := time.Now().Add(patience); ; wait = min(2*wait, 200*time.Millisecond) {
		if f() {
			return true
		}
		if time.Now().After(deadline) || !p.pause(wait) {
			return false
		}
	}
}

// journal is what was done, in order. It is an io.Writer of what a plugin logs.
type journal struct {
	mu     sync.Mutex // guards what follows
	lines  []string
	before int // lines that were dropped
}

// What a report repeats of what was done.
const (
	maxJournal = 20      // lines
	maxLogged  = 4 << 10 // bytes of a line that the plugin logs
)

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lines = append(j.lines, line); len(j.lines) > 2*maxJournal {
		j.before += len(j.lines) - maxJournal
		j.lines = slices.Clone(j.lines[len(j.lines)-maxJournal:])
	}
}

// Write adds a line of the plugin's log.
func (j *journal) Write(line []byte) (int, error) {
	j.add("log: " + strings.TrimSuffix(string(line[:min(len(line), maxLogged)]), "\n"))
	return len(line), nil
}

// last returns the last lines.
func (j *journal) last() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	over := max(0, len(j.lines)-maxJournal)
	if n := j.before + over; n > 0 {
		return append([]string{fmt.Sprintf("(%d lines before)", n)}, j.lines[over:]...)
	}
	return slices.Clone(j.lines)
}
