package plugintest_test

import (
	"iter"
	"strings"
	"testing"

	"github.com/mzdio/mzd/plugins/plugintest"
)

// expectFailure fails unless exactly the one rule has failed, and all that does
// not follow from it was checked.
func expectFailure(t *testing.T, rule string, results iter.Seq[plugintest.Result]) {
	t.Helper()
	found := false
	for r := range results {
		switch {
		case r.Status == plugintest.Failed && r.Rule == rule:
			found = true
			if r.Want == "" || r.Got == "" || r.Why == "" {
				t.Errorf("%s says too little: %+v", r.Rule, r)
			}
			t.Logf("wanted %s\ngot %s\ndone %s", r.Want, r.Got, strings.Join(r.Done, "\n     "))
		case r.Status == plugintest.Failed:
			t.Errorf("%s failed too: wanted %s, got %s\n%s", r.Rule, r.Want, r.Got, strings.Join(r.Done, "\n"))
		case r.Status == plugintest.NotChecked && !found && !strings.HasPrefix(r.Reason, "the s"): // the sink keeps no position, the source has no Identify
			t.Errorf("%s was not checked: %s", r.Rule, r.Reason)
		}
	}
	if !found {
		t.Errorf("%s did not find it", rule)
	}
}

// expectNoFailure fails if any rule failed.
func expectNoFailure(t *testing.T, results iter.Seq[plugintest.Result]) {
	t.Helper()
	for r := range results {
		if r.Status == plugintest.Failed {
			t.Errorf("%s failed: wanted %s, got %s\n%s", r.Rule, r.Want, r.Got, strings.Join(r.Done, "\n"))
		}
	}
}
