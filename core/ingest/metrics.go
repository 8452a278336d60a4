package ingest

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var _ prometheus.Collector = (*Runner)(nil)

// metrics describes the metrics of one source. The values are those of its
// Status: nothing is counted twice.
type metrics struct {
	events, bytes, duplicates, rejected, reconnects, up, lag *prometheus.Desc
}

func newMetrics(source string) metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, prometheus.Labels{"source": source})
	}
	return metrics{
		events:     desc("mzd_source_events_total", "Events that became durable."),
		bytes:      desc("mzd_source_bytes_total", "Bytes of events that became durable."),
		duplicates: desc("mzd_source_duplicates_total", "Events left out because they had become durable before."),
		rejected:   desc("mzd_source_rejected_total", "Events left out because they cannot or should not be kept.", "reason"),
		reconnects: desc("mzd_source_reconnects_total", "Times the source was run again, by why it had ended.", "reason"),
		up:         desc("mzd_source_up", "1 while the source streams, 0 while it connects, waits or has failed."),
		lag:        desc("mzd_source_lag_seconds", "Wall clock minus the time of the newest event."),
	}
}

// Describe implements [prometheus.Collector].
func (r *Runner) Describe(ch chan<- *prometheus.Desc) {
	m := &r.metrics
	for _, d := range []*prometheus.Desc{m.events, m.bytes, m.duplicates, m.rejected, m.reconnects, m.up, m.lag} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector]. The lag is computed here, so that
// it grows while nothing arrives; it is absent until the first event.
func (r *Runner) Collect(ch chan<- prometheus.Metric) {
	s, m := r.Status(), &r.metrics
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	counter(m.events, s.Events)
	counter(m.bytes, s.Bytes)
	counter(m.duplicates, s.Duplicates)
	for reason, n := range s.Rejected {
		counter(m.rejected, n, reason)
	}
	for reason, n := range s.Reconnects {
		counter(m.reconnects, n, reason)
	}
	if s.State == Streaming {
		gauge(m.up, 1)
	} else {
		gauge(m.up, 0)
	}
	if !s.LastEvent.IsZero() {
		gauge(m.lag, time.Since(s.LastEvent).Seconds())
	}
}
