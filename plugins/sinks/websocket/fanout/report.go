//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// report prints the results of a scenario.
func report(out io.Writer, s scenario, j job, results map[string][]result, loads []string) {
	fmt.Fprintf(out, "\n%v\n", s)
	unit, per := "CPU s per million deliveries", func(r result) float64 { return r.cpu.Seconds() / float64(r.deliveries) * 1e6 }
	if s.size == 0 {
		fmt.Fprintf(out, "each client is sent %d B\n", len(j.Hello))
		unit, per = "CPU ms per connection", func(r result) float64 { return r.cpu.Seconds() * 1e3 / float64(s.clients) }
	} else if s.burst > 1 {
		fmt.Fprintf(out, "a message alone is a frame of %d B, the net delta of a burst one of %d B\n", len(j.One), len(j.Many))
	}
	kinds := s.kinds()
	against := kinds[len(kinds)-2]
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\t%s\tof %s\tper s\tframes\tB\tB/conn idle\tafter\theap\tstacks\tkernel B/conn idle\tafter\n", unit, against)
	for _, kind := range kinds {
		rs := results[kind]
		of := func(f func(r result) float64) []float64 {
			var all []float64
			for _, r := range rs {
				all = append(all, f(r))
			}
			return all
		}
		each := func(f func(r result) int64) string {
			return spread("%.0f", of(func(r result) float64 { return float64(f(r)) / float64(s.clients) }))
		}
		count := func(r result) float64 { return float64(max(r.deliveries, s.clients)) }
		ratio, costs := "", of(per)
		if kind == kindSink {
			ratios := slices.Clone(costs)
			for i, r := range results[against] {
				ratios[i] /= per(r)
			}
			if ratio = spread("%.2f", ratios); s.target > 0 {
				ratio += fmt.Sprintf(", target %.1f", s.target)
			}
		}
		fmt.Fprintln(w, strings.Join([]string{
			kind,
			spread("%.2f", costs),
			ratio,
			spread("%.0f", of(func(r result) float64 { return count(r) / r.took.Seconds() })),
			spread("%.2f", of(func(r result) float64 { return float64(r.frames) / count(r) })),
			spread("%.0f", of(func(r result) float64 { return float64(r.bytes) / count(r) })),
			each(func(r result) int64 { return r.idle.process }),
			each(func(r result) int64 { return r.end.process }),
			each(func(r result) int64 { return r.end.heap }),
			each(func(r result) int64 { return r.end.stacks }),
			each(func(r result) int64 { return r.idle.kernel }),
			each(func(r result) int64 { return r.end.kernel }),
		}, "\t"))
	}
	w.Flush()
	fmt.Fprintf(out, "load of the machine after each measurement: %s\n", strings.Join(loads, " "))
}

// spread writes the median and, if they differ in print, the extremes.
func spread(format string, values []float64) string {
	sorted := slices.Sorted(slices.Values(values))
	text := func(v float64) string { return fmt.Sprintf(format, v) }
	low, middle, high := text(sorted[0]), text(sorted[len(sorted)/2]), text(sorted[len(sorted)-1])
	if low == high {
		return middle
	}
	return fmt.Sprintf("%s (%s–%s)", middle, low, high)
}
