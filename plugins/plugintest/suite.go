package plugintest

import (
	"context"
	"iter"
	"runtime/pprof"
	"slices"
	"testing"
	"time"
)

// Status is what came of a rule.
type Status string

// What may come of a rule. A rule that could not be checked is never passed.
const (
	OK         Status = "ok"
	Failed     Status = "FAILED"
	NotChecked Status = "not checked"
)

// A Rule is a sentence of the contract.
type Rule struct {
	Name string // it stays the same for ever
	Says string // what it asks for
	Why  string // what happens to users where it is broken
}

// Result is what came of one rule.
type Result struct {
	Rule   string        `json:"rule"` // its name
	Says   string        `json:"says"`
	Why    string        `json:"why"`
	Status Status        `json:"status"`
	Reason string        `json:"reason,omitempty"` // why it was not checked
	Done   []string      `json:"done,omitempty"`   // what was done, in order, and what came back
	Want   string        `json:"want,omitempty"`   // of a failure
	Got    string        `json:"got,omitempty"`    // of a failure
	Took   time.Duration `json:"took"`             // in nanoseconds
}

// rule is a sentence of the contract, and what holds a plugin against it. P is
// what it works with.
type rule[P any] struct {
	name string
	says string
	why  string
	// after names the rules that this one takes for granted: where one of them is
	// broken, this one would only tell the same again.
	after []string
	needs []need
	check func(P)
}

// need is something that only the author of a plugin can give.
type need string

// suite is a table of rules and a plugin to hold against it.
type suite[P any] struct {
	rules    []rule[P]
	exempt   map[string]string
	missing  map[need]string // what the author did not give, and what to do
	patience time.Duration
	begin    func(*probe) P

	outcomes map[string]Status // by rule
}

// defaultPatience is how long a call may take that ought to return soon.
const defaultPatience = 10 * time.Second

// results checks the rules whose names match, until the context ends.
func (s *suite[P]) results(ctx context.Context, match func(name string) bool) iter.Seq[Result] {
	return func(yield func(Result) bool) {
		for _, r := range s.rules {
			if match != nil && !match(r.name) {
				continue
			}
			result := s.check(ctx, r)
			if ctx.Err() != nil {
				return // what failed now says nothing about the plugin
			}
			if !yield(result) {
				return
			}
		}
	}
}

// test makes each rule a subtest.
func (s *suite[P]) test(t *testing.T) {
	for name := range s.exempt {
		if !slices.ContainsFunc(s.rules, func(r rule[P]) bool { return r.name == name }) {
			t.Errorf("exempt from %q, which is no rule", name)
		}
	}
	for _, r := range s.rules {
		t.Run(r.name, func(t *testing.T) {
			switch result := s.check(t.Context(), r); result.Status {
			case Failed:
				t.Error(result.explain())
			case NotChecked:
				t.Skip("not checked: " + result.Reason)
			}
		})
	}
}

// check holds the plugin against one rule.
func (s *suite[P]) check(ctx context.Context, r rule[P]) (result Result) {
	result = Result{Rule: r.name, Says: r.says, Why: r.why, Status: NotChecked}
	defer func() { s.outcomes[r.name] = result.Status }()
	if result.Reason = s.obstacle(r); result.Reason != "" {
		return result
	}
	begun := time.Now()
	p := newProbe(r.name, s.patience)
	// Whatever the plugin starts inherits the label, so that it can be found.
	pprof.Do(ctx, pprof.Labels(label, p.id), func(ctx context.Context) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		p.ctx = ctx
		p.guard(func() { r.check(s.begin(p)) })
		p.cleanUp()
	})
	result.Took = time.Since(begun)
	switch f := p.outcome; {
	case f == nil:
		result.Status = OK
	case f.skip != "":
		result.Reason = f.skip
	default:
		result.Status, result.Want, result.Got, result.Done = Failed, f.want, f.got, p.done.last()
	}
	return result
}

// obstacle returns why a rule cannot be checked, empty if it can.
func (s *suite[P]) obstacle(r rule[P]) string {
	if reason, ok := s.exempt[r.name]; ok {
		return "exempt: " + reason
	}
	for _, n := range r.needs {
		if reason, ok := s.missing[n]; ok {
			return reason
		}
	}
	for _, name := range r.after {
		if s.outcomes[name] == Failed {
			return "it takes " + name + " for granted, which failed"
		}
		if reason := s.outcomes[name]; reason == NotChecked && s.blocked(name) {
			return "it takes " + name + " for granted, which was not checked because of a failure"
		}
	}
	return ""
}

// blocked reports whether a rule was not checked because of one that failed.
func (s *suite[P]) blocked(name string) bool {
	i := slices.IndexFunc(s.rules, func(r rule[P]) bool { return r.name == name })
	return slices.ContainsFunc(s.rules[i].after, func(before string) bool {
		return s.outcomes[before] == Failed || s.outcomes[before] == NotChecked && s.blocked(before)
	})
}

// listed returns what a table of rules says.
func listed[P any](rules []rule[P]) []Rule {
	var all []Rule
	for _, r := range rules {
		all = append(all, Rule{r.name, r.says, r.why})
	}
	return all
}
