package plugintest_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/mzdio/mzd/plugins/plugintest"
)

var reported = []plugintest.Result{
	{Rule: "open", Says: "A sink opens.", Why: "nothing works", Status: plugintest.OK, Took: 12 * time.Millisecond},
	{Rule: "outage", Says: "After an outage it goes on.", Why: "rows are lost", Status: plugintest.NotChecked, Reason: "nobody makes the target fail"},
	{
		Rule: "cut-twice", Says: "A cut that comes twice is applied once.", Why: "rows double", Status: plugintest.Failed,
		Done: []string{"Open {}: ok", "Write base of v: ok"}, Want: "v with 1 rows", Got: "2 rows\nin two lines", Took: 1500 * time.Millisecond,
	},
}

func TestReport(t *testing.T) {
	var out strings.Builder
	report := plugintest.Report{Out: &out}
	for _, r := range reported {
		report.Add(r)
	}
	if report.End() {
		t.Error("nothing failed, by what it says")
	}
	const want = `ok           open                   0.01s
not checked  outage               nobody makes the target fail
FAILED       cut-twice              1.50s
             A cut that comes twice is applied once.
               done:     Open {}: ok
                         Write base of v: ok
               wanted:   v with 1 rows
               got:      2 rows
                         in two lines
               matters:  rows double
1 ok, 1 failed, 1 not checked in `
	if got := out.String(); !strings.HasPrefix(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestReportAsJSON(t *testing.T) {
	var out strings.Builder
	report := plugintest.Report{Out: &out, JSON: true}
	for _, r := range reported[:2] {
		report.Add(r)
	}
	if !report.End() {
		t.Error("something failed, by what it says")
	}
	n := 0
	for line := range strings.Lines(out.String()) {
		var r plugintest.Result
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.Rule != reported[n].Rule || r.Status != reported[n].Status || r.Reason != reported[n].Reason {
			t.Errorf("line %d: got %s (%v)", n, line, err)
		}
		n++
	}
	if n != 2 {
		t.Errorf("%d lines, want 2", n)
	}
}
