package engine

import "github.com/prometheus/client_golang/prometheus"

var _ prometheus.Collector = (*Engine)(nil)

// The metrics of an engine. The values are those of its Stats: nothing is counted twice.
var (
	metricLines    = prometheus.NewDesc("mzd_engine_source_lines_total", "Lines that the embedded engine has read of a file.", []string{"source"}, nil)
	metricRejected = prometheus.NewDesc("mzd_engine_source_rejected_lines_total", "Lines left out because they are too long, no UTF-8 or no JSON.", []string{"source"}, nil)
	metricRead     = prometheus.NewDesc("mzd_engine_source_read_bytes", "How far a file has been read.", []string{"source"}, nil)
	metricSize     = prometheus.NewDesc("mzd_engine_source_opened_bytes", "The length of a file when it was opened: what a restart reads before anything is shown.", []string{"source"}, nil)
	metricUp       = prometheus.NewDesc("mzd_engine_source_up", "1 unless the file cannot be read, or is not the one that was read before.", []string{"source"}, nil)
)

// Describe implements [prometheus.Collector].
func (e *Engine) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{metricLines, metricRejected, metricRead, metricSize, metricUp} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (e *Engine) Collect(ch chan<- prometheus.Metric) {
	for _, s := range e.Stats().Sources {
		send := func(d *prometheus.Desc, kind prometheus.ValueType, v int64) {
			ch <- prometheus.MustNewConstMetric(d, kind, float64(v), s.Name)
		}
		up := int64(1)
		if s.State == SourceFailed || s.State == SourceShrunk {
			up = 0
		}
		send(metricLines, prometheus.CounterValue, s.Lines)
		send(metricRejected, prometheus.CounterValue, s.Bad)
		send(metricRead, prometheus.GaugeValue, s.Offset)
		send(metricSize, prometheus.GaugeValue, s.Size)
		send(metricUp, prometheus.GaugeValue, up)
	}
}
