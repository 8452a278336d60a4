package plugintest

import (
	"slices"
	"testing"
)

// Rules take only those for granted that are checked before them.
func TestRulesBefore(t *testing.T) {
	checkBefore(t, sinkRules)
	checkBefore(t, sourceRules)
}

func checkBefore[P any](t *testing.T, rules []rule[P]) {
	var before []string
	for _, r := range rules {
		for _, name := range r.after {
			if !slices.Contains(before, name) {
				t.Errorf("%s takes %s for granted, which does not come before it", r.name, name)
			}
		}
		before = append(before, r.name)
	}
}
