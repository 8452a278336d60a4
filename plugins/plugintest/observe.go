package plugintest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/mzdio/mzd/core"
)

// An Observer returns the rows that a reader of the sink's target sees of a view
// now, in any order, each as often as it is there. A row is a JSON array of the
// values in the order of the columns, or an object with the columns as its keys.
type Observer func(ctx context.Context, v *core.View) ([]json.RawMessage, error)

// contentsOf reads what an observer has returned, in the form of
// [contents.comparable]. Those rows that are wanted as they are need no reading.
func contentsOf(v *core.View, rows []json.RawMessage, want contents) (contents, error) {
	c := contents{}
	for _, raw := range rows {
		r := core.Row(raw)
		if _, ok := want[r]; !ok {
			values, err := valuesOf(v, raw)
			if err != nil {
				return nil, fmt.Errorf("the observer returned %s: %w", shorten(string(raw)), err)
			}
			r = row(values...)
		}
		c[r]++
	}
	return c, nil
}

// comparable returns contents of the suite in a form in which equal rows have
// equal bytes: the keys of objects inside of values are in order.
func (c contents) comparable(v *core.View) contents {
	out := make(contents, len(c))
	for r, n := range c {
		if strings.Contains(string(r), "{") {
			values, err := valuesOf(v, json.RawMessage(r))
			if err != nil {
				panic(err) // a row of the suite
			}
			r = row(values...)
		}
		out[r] += n
	}
	return out
}

// valuesOf returns the values of a row that is an array or an object.
func valuesOf(v *core.View, raw json.RawMessage) ([]any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var doc any
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("more than one JSON value on a line")
	}
	switch doc := doc.(type) {
	case []any:
		if len(doc) != len(v.Columns) {
			return nil, fmt.Errorf("%d values, but the view has %d columns", len(doc), len(v.Columns))
		}
		return doc, nil
	case map[string]any:
		values := make([]any, len(v.Columns))
		for i, c := range v.Columns {
			value, ok := doc[c.Name]
			if !ok {
				return nil, fmt.Errorf("column %q is missing", c.Name)
			}
			values[i] = value
			delete(doc, c.Name)
		}
		for _, extra := range slices.Sorted(maps.Keys(doc)) {
			return nil, fmt.Errorf("%q is no column of the view", extra)
		}
		return values, nil
	}
	return nil, fmt.Errorf("neither an array nor an object")
}

// difference says how the rows differ from those wanted, empty if they do not.
func difference(want, got contents) string {
	if maps.Equal(want, got) {
		return ""
	}
	var missing, extra []string
	for _, row := range slices.Sorted(maps.Keys(want)) {
		if n := want[row] - got[row]; n > 0 {
			missing = append(missing, times(n, row))
		}
	}
	for _, row := range slices.Sorted(maps.Keys(got)) {
		if n := got[row] - want[row]; n > 0 {
			extra = append(extra, times(n, row))
		}
	}
	var parts []string
	if len(missing) > 0 {
		parts = append(parts, "missing: "+few(missing))
	}
	if len(extra) > 0 {
		parts = append(parts, "too many: "+few(extra))
	}
	return strings.Join(parts, "; ")
}

func times(n core.Diff, row core.Row) string {
	if n == 1 {
		return shorten(string(row))
	}
	return fmt.Sprintf("%d times %s", n, shorten(string(row)))
}

func few(list []string) string {
	if over := len(list) - maxShown; over > 0 {
		list = append(slices.Clone(list[:maxShown]), fmt.Sprintf("and %d more", over))
	}
	return strings.Join(list, ", ")
}
