package websocket_test

import (
	"cmp"
	"context"
	"net"
	"regexp"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
	"github.com/mzdio/mzd/plugins/sinks/websocket/conformance"
)

// TestConformance holds the sink against the rules of docs/protocol.md.
func TestConformance(t *testing.T) {
	f := newFixture(t)
	s := serve(t, websocket.Settings{}, f.views()...)
	conformance.Run(t, f.subject(s.url))
}

// TestConformanceOverPipes does so where waiting costs nothing, with every
// lever, so that no rule is skipped.
func TestConformanceOverPipes(t *testing.T) {
	for _, rule := range conformance.Rules() {
		t.Run(rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				s := servePipes(t, websocket.Settings{}, f.views()...)
				subject := f.subject(s.url)
				subject.Patient = true
				var mu sync.Mutex // guards s
				subject.Dial = func(ctx context.Context) (net.Conn, error) {
					mu.Lock()
					dial := s.dial
					mu.Unlock()
					return dial(ctx)
				}
				subject.Restart = func() {
					s.stop()
					mu.Lock()
					defer mu.Unlock()
					s = servePipes(t, websocket.Settings{}, f.views()...)
				}
				conformance.Check(t, rule, subject)
			})
			if t.Skipped() {
				t.Error("a rule was skipped")
			}
		})
	}
}

// Each rule of the document has a check, and each check a rule.
func TestRulesOfTheDocument(t *testing.T) {
	var documented []string
	for _, m := range regexp.MustCompile(`(?m)^- \*\*(R\d+)\*\* `).FindAllStringSubmatch(document(t), -1) {
		documented = append(documented, m[1])
	}
	if got, want := conformance.Rules(), documented; !slices.Equal(got, want) {
		t.Errorf("checks: %v\nrules:  %v", got, want)
	}
}

// A fixture is the views of a [conformance.Subject], as logs.
type fixture struct {
	people, counter, fixed, later *feed
	rows                          []conformance.Row
	at                            core.Time
}

func newFixture(t *testing.T) *fixture {
	n := core.Column{Name: "n", Type: "int8"}
	f := &fixture{
		people:  newFeed(t, "people", core.Column{Name: "name", Type: "text"}, n),
		counter: newFeed(t, "counter", n),
		fixed:   newFeed(t, "fixed", n),
		later:   newFeed(t, "later", n),
		at:      1_721_310_000_000,
	}
	for _, v := range []*feed{f.counter, f.fixed, f.later} {
		v.view.Key = nil
	}
	f.people.reset(f.at)
	f.counter.reset(f.at, `[0]`)
	f.fixed.reset(core.EndOfTime, `[7]`)
	return f
}

func (f *fixture) views() []core.Reader {
	return []core.Reader{f.people, f.counter, f.fixed, f.later}
}

func (f *fixture) subject(url string) conformance.Subject {
	return conformance.Subject{
		URL:   url,
		Table: f,
		Pass:  func() { f.set(f.rows) },
		NewHistory: func() {
			f.at++
			var rows []core.Row
			for _, r := range f.rows {
				rows = append(rows, row(`["%s",%d]`, r.Name, r.N))
			}
			f.people.reset(f.at, rows...)
			f.counter.append(f.at)
		},
		Sealed: true,
		Later:  "later",
		Begin:  func() { f.later.reset(f.at, `[1]`) },
	}
}

func (f *fixture) Insert(rows ...conformance.Row) { f.set(slices.Concat(f.rows, rows)) }

func (f *fixture) Delete(names ...string) {
	f.set(slices.DeleteFunc(slices.Clone(f.rows), func(r conformance.Row) bool { return slices.Contains(names, r.Name) }))
}

func (f *fixture) Move(from, to string, by int64) {
	rows := slices.Clone(f.rows)
	for i := range rows {
		switch rows[i].Name {
		case from:
			rows[i].N -= by
		case to:
			rows[i].N += by
		}
	}
	f.set(rows)
}

// set changes the table, and both views of it at one time.
func (f *fixture) set(rows []conformance.Row) {
	var people, counter []change
	for _, r := range f.rows {
		people = append(people, change{-1, row(`["%s",%d]`, r.Name, r.N)})
	}
	for _, r := range rows {
		people = append(people, change{1, row(`["%s",%d]`, r.Name, r.N)})
	}
	if len(rows) != len(f.rows) {
		counter = []change{{-1, row("[%d]", len(f.rows))}, {1, row("[%d]", len(rows))}}
	}
	slices.SortFunc(rows, func(a, b conformance.Row) int { return cmp.Compare(a.Name, b.Name) })
	f.rows = rows
	f.at++
	f.people.append(f.at, people...)
	f.counter.append(f.at, counter...)
}
