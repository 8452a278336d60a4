package main

import "github.com/prometheus/client_golang/prometheus"

// pluginMetrics collects the state of plugins at the time of a scrape.
type pluginMetrics struct{ states func() []plugged }

var (
	pluginUp       = prometheus.NewDesc("mzd_plugin_up", "1 while the plugin runs, 0 while it has ended by itself, or has not started, and waits to be started again, and when it has failed for good.", []string{"plugin"}, nil)
	pluginRestarts = prometheus.NewDesc("mzd_plugin_restarts_total", "Times the plugin was started again after it had ended by itself, or had not started.", []string{"plugin"}, nil)
)

// Describe implements [prometheus.Collector].
func (pluginMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- pluginUp
	ch <- pluginRestarts
}

// Collect implements [prometheus.Collector].
func (m pluginMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, p := range m.states() {
		up := 0.0
		if p.Up {
			up = 1
		}
		ch <- prometheus.MustNewConstMetric(pluginUp, prometheus.GaugeValue, up, p.Name)
		ch <- prometheus.MustNewConstMetric(pluginRestarts, prometheus.CounterValue, float64(p.Restarts), p.Name)
	}
}
