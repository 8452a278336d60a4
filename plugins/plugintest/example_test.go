package plugintest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/plugintest"
)

// memory is a sink that forgets to look whether a batch is a base.
type memory map[string][]json.RawMessage

func (m memory) Write(_ context.Context, cut []core.Batch) error {
	for _, b := range cut {
		for u := range b.Updates.All() {
			if u.Diff > 0 {
				m[b.View.Name] = append(m[b.View.Name], json.RawMessage(u.Row))
			} else {
				m[b.View.Name] = slices.DeleteFunc(m[b.View.Name], func(r json.RawMessage) bool { return string(r) == string(u.Row) })
			}
		}
	}
	return nil
}

func (m memory) Close() error { return nil }

func ExampleCheckSink() {
	m := make(memory)
	sink := plugintest.Sink{
		Plugin:  plugins.NewSink("memory", "keeps rows in memory", func(context.Context, struct{}) (memory, error) { return m, nil }),
		Observe: func(_ context.Context, v *core.View) ([]json.RawMessage, error) { return m[v.Name], nil },
	}
	for r := range plugintest.CheckSink(context.Background(), sink, func(rule string) bool { return rule == "base" || rule == "base-replaces" }) {
		fmt.Println(r.Rule, r.Status)
		if r.Status == plugintest.Failed {
			fmt.Println("  wanted:", r.Want)
			fmt.Println("  got:   ", r.Got)
		}
	}
	// Output:
	// base ok
	// base-replaces FAILED
	//   wanted: plugintest_base_replaces_v with 2 rows: [2,"Ben"], [3,"Cy"]
	//   got:    4 rows: [1,"Ada"], [2,"Ben"], [2,"Bob"], [3,"Cy"] (too many: [1,"Ada"], [2,"Bob"])
}
