package hub

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mzdio/mzd/core"
)

// Registerer is where metrics are registered.
type Registerer = prometheus.Registerer

// metrics are the series of a hub. Gauges that follow the logs are computed when
// they are scraped, so that a lag grows while nothing happens.
type metrics struct {
	hub         *Hub
	reconnects  *prometheus.CounterVec
	resnapshots *prometheus.CounterVec
	deliveries  *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	retries     *prometheus.CounterVec
	syncs       prometheus.Histogram
}

// viewMetrics are the counters of one view.
type viewMetrics struct {
	resnapshots prometheus.Counter
	reconnects  func(reason string) prometheus.Counter
}

// sinkMetrics are the counters of one group of a sink.
type sinkMetrics struct {
	retries   prometheus.Counter
	delivered func(took time.Duration, err error)
}

func newMetrics(h *Hub) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return &metrics{
		hub:         h,
		reconnects:  counter("mzd_upstream_reconnects_total", "Streams of the upstream that ended, by reason.", "view", "reason"),
		resnapshots: counter("mzd_upstream_resnapshots_total", "Snapshots taken of a view that was there already: the upstream's history was gone, or is another one.", "view"),
		deliveries:  counter("mzd_sink_deliveries_total", "Writes of a sink, by outcome. A sink that cannot tell its position fails, too.", "sink", "view", "outcome"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "mzd_sink_delivery_duration_seconds", Help: "How long writes of a sink took.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 10),
		}, []string{"sink"}),
		retries: counter("mzd_sink_retries_total", "Writes of a sink that were tried again.", "sink"),
		syncs: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "mzd_log_fsync_duration_seconds", Help: "How long syncs of the logs of views took.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}),
	}
}

// synced notes how long a sync of a log took.
func (m *metrics) synced(took time.Duration) { m.syncs.Observe(took.Seconds()) }

func (m *metrics) ofView(name string, reasons []string) viewMetrics {
	for _, r := range append([]string{keyError("").Reason(), tooManyRowsError(0).Reason(), otherReason}, reasons...) {
		m.reconnects.WithLabelValues(name, r)
	}
	return viewMetrics{
		resnapshots: m.resnapshots.WithLabelValues(name),
		reconnects:  func(reason string) prometheus.Counter { return m.reconnects.WithLabelValues(name, reason) },
	}
}

func (m *metrics) ofSink(name string, views []string) sinkMetrics {
	duration := m.duration.WithLabelValues(name)
	outcomes := make(map[string][]prometheus.Counter)
	for _, outcome := range []string{"ok", "error"} {
		for _, v := range views {
			outcomes[outcome] = append(outcomes[outcome], m.deliveries.WithLabelValues(name, v, outcome))
		}
	}
	return sinkMetrics{
		retries: m.retries.WithLabelValues(name),
		delivered: func(took time.Duration, err error) {
			outcome := "ok"
			if err != nil {
				outcome = "error"
			}
			for _, c := range outcomes[outcome] {
				c.Inc()
			}
			duration.Observe(took.Seconds())
		},
	}
}

func (m *metrics) register(r prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{
		m.reconnects, m.resnapshots, m.deliveries, m.duration, m.retries, m.syncs, gauges{m.hub},
	} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// gauges collects what follows from the logs at the time of a scrape.
type gauges struct{ hub *Hub }

var (
	viewFrontier = prometheus.NewDesc("mzd_view_frontier_timestamp_seconds", "Time below which the view is complete.", []string{"view"}, nil)
	viewLag      = prometheus.NewDesc("mzd_view_lag_seconds", "How far the view is behind the wall clock.", []string{"view"}, nil)
	viewRows     = prometheus.NewDesc("mzd_view_rows", "Rows in the view.", []string{"view"}, nil)
	viewUpdates  = prometheus.NewDesc("mzd_view_updates_total", "Changes of rows that the view has seen.", []string{"view"}, nil)
	viewState    = prometheus.NewDesc("mzd_view_state", "1 for the state that the view is in, 0 for the others.", []string{"view", "state"}, nil)
	connected    = prometheus.NewDesc("mzd_upstream_connected", "1 while the view's stream from the upstream is open, or the view is sealed and needs none.", []string{"view"}, nil)
	logBytes     = prometheus.NewDesc("mzd_log_bytes", "Memory that the log of the view holds, about; what it has on disk is in /api/status.", []string{"view"}, nil)
	logSince     = prometheus.NewDesc("mzd_log_since_timestamp_seconds", "Time from which on the log of the view keeps history.", []string{"view"}, nil)
	logDurable   = prometheus.NewDesc("mzd_log_durable_timestamp_seconds", "Time below which the log of the view is on disk.", []string{"view"}, nil)
	compactions  = prometheus.NewDesc("mzd_log_compactions_total", "Merges done in the log of the view.", []string{"view"}, nil)
	sinkFrontier = prometheus.NewDesc("mzd_sink_frontier_timestamp_seconds", "Time below which the sink has taken the view.", []string{"sink", "view"}, nil)
	sinkLag      = prometheus.NewDesc("mzd_sink_lag_seconds", "How far the sink is behind the wall clock.", []string{"sink", "view"}, nil)
)

// Describe implements [prometheus.Collector].
func (gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		viewFrontier, viewLag, viewRows, viewUpdates, viewState, connected, logBytes, logSince, logDurable, compactions, sinkFrontier, sinkLag,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c gauges) Collect(ch chan<- prometheus.Metric) {
	now := time.Now()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	count := func(d *prometheus.Desc, value int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	frontier := func(timestamp, behind *prometheus.Desc, upper core.Time, labels ...string) {
		if l := lag(now, upper); l != nil {
			gauge(timestamp, upper.Seconds(), labels...)
			gauge(behind, *l, labels...)
		}
	}
	for _, v := range c.hub.views {
		s := v.status(now)
		stats := v.data.Stats()
		frontier(viewFrontier, viewLag, stats.Upper, v.Name)
		gauge(viewRows, float64(s.Rows), v.Name)
		for _, state := range states {
			gauge(viewState, truth(s.State == state), v.Name, string(state))
		}
		gauge(connected, truth(s.State == Live || s.State == CatchingUp || s.State == Sealed), v.Name)
		gauge(logBytes, float64(s.LogBytes), v.Name)
		count(viewUpdates, stats.Updates, v.Name)
		if stats.Since.IsWall() {
			gauge(logSince, stats.Since.Seconds(), v.Name)
		}
		if stats.Durable.IsWall() {
			gauge(logDurable, stats.Durable.Seconds(), v.Name)
		}
		count(compactions, stats.Compactions, v.Name)
	}
	for _, g := range c.hub.groups {
		if g.broadcasts() {
			continue
		}
		for i, p := range g.stands() {
			frontier(sinkFrontier, sinkLag, p.position.Time, g.name, g.views[i].Name)
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
