package plugintest

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// A Report writes results as they come, for people or, as a line of JSON each,
// for programs.
type Report struct {
	Out     io.Writer
	JSON    bool
	Verbose bool // say of each rule what it asks for

	counts map[Status]int
	begun  time.Time
}

// Add writes one result.
func (r *Report) Add(result Result) {
	if r.counts == nil {
		r.counts, r.begun = make(map[Status]int), time.Now().Add(-result.Took)
	}
	r.counts[result.Status]++
	if r.JSON {
		json.NewEncoder(r.Out).Encode(result)
		return
	}
	var s strings.Builder
	fmt.Fprintf(&s, "%-12s %-20s ", result.Status, result.Rule)
	switch took := result.Took.Seconds(); result.Status {
	case OK:
		fmt.Fprintf(&s, "%6.2fs\n", took)
	case NotChecked:
		fmt.Fprintf(&s, "%s\n", result.Reason)
	case Failed:
		fmt.Fprintf(&s, "%6.2fs\n%s", took, indent(result.explain()))
	}
	if r.Verbose && result.Status != Failed {
		s.WriteString(indent(result.Says))
	}
	io.WriteString(r.Out, s.String())
}

// End writes the sum and returns whether no rule failed.
func (r *Report) End() bool {
	if !r.JSON {
		fmt.Fprintf(r.Out, "%d ok, %d failed, %d not checked in %.1fs\n",
			r.counts[OK], r.counts[Failed], r.counts[NotChecked], time.Since(r.begun).Seconds())
	}
	return r.counts[Failed] == 0
}

// explain is a failure for people.
func (r Result) explain() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s\n", r.Says)
	for i, line := range r.Done {
		name := ""
		if i == 0 {
			name = "done:"
		}
		writeField(&s, name, line)
	}
	writeField(&s, "wanted:", r.Want)
	writeField(&s, "got:", r.Got)
	writeField(&s, "matters:", r.Why)
	return strings.TrimSuffix(s.String(), "\n")
}

func writeField(s *strings.Builder, name, text string) {
	for i, line := range strings.Split(text, "\n") {
		if i > 0 {
			name = ""
		}
		fmt.Fprintf(s, "  %-9s %s\n", name, line)
	}
}

func indent(text string) string {
	return "             " + strings.ReplaceAll(text, "\n", "\n             ") + "\n"
}
