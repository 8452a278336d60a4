package websocket

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the sink's series. Whoever registers the sink adds the label that
// names it.
type metrics struct {
	clients    *prometheus.GaugeVec
	messages   *prometheus.CounterVec
	bytes      prometheus.Counter
	netted     prometheus.Counter
	closes     *prometheus.CounterVec
	fanout     prometheus.Histogram
	mismatches prometheus.Counter
}

// closeCodes are the codes that are counted by themselves; what else clients
// come up with is "other".
var closeCodes = []closeCode{
	1000, 1001, codeProtocol, codeNone, codeGone, codeNotUTF8, codeRefused, codeTooBig, codeInternal, codeRestart, codeBusy, codeStalled,
}

const otherCode = "other"

func newMetrics() *metrics {
	m := &metrics{
		clients: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mzd_broadcast_clients",
			Help: "Streams that are open.",
		}, []string{"transport"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mzd_broadcast_messages_total",
			Help: "Messages sent, each part of a large one counted.",
		}, []string{"type"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mzd_broadcast_bytes_total",
			Help: "Bytes of messages sent, before framing.",
		}),
		netted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mzd_broadcast_netted_batches_total",
			Help: "Net batches sent for what happened while a stream was sending or waiting for its interval.",
		}),
		closes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mzd_broadcast_closes_total",
			Help: "Streams that ended, by websocket close code; 4000 is a client that took nothing for the stall timeout.",
		}, []string{"code"}),
		fanout: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "mzd_broadcast_fanout_duration_seconds",
			Help:    "Time from when a change was encoded to when it had been written to all streams of a shard that were waiting for it and had room.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
		}),
		mismatches: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mzd_broadcast_mismatches_total",
			Help: "Clients that came back for a base because what they were sent did not lead to its checksum.",
		}),
	}
	for _, transport := range []string{"websocket", "sse", "ndjson"} {
		m.clients.WithLabelValues(transport)
	}
	for _, kind := range []string{kindBase, kindDelta, kindProgress, kindError} {
		m.messages.WithLabelValues(kind)
	}
	for _, code := range closeCodes {
		m.closes.WithLabelValues(strconv.Itoa(int(code)))
	}
	m.closes.WithLabelValues(otherCode)
	return m
}

// sent counts a part that was sent to a number of streams.
func (m *metrics) sent(kind string, p *part, streams int) {
	if p.messages > 0 {
		m.messages.WithLabelValues(kind).Add(float64(p.messages * streams))
	}
	m.bytes.Add(float64(p.bytes * streams))
}

func (m *metrics) closed(code closeCode) {
	for _, c := range closeCodes {
		if c == code {
			m.closes.WithLabelValues(strconv.Itoa(int(code))).Inc()
			return
		}
	}
	m.closes.WithLabelValues(otherCode).Inc()
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.clients, m.messages, m.bytes, m.netted, m.closes, m.fanout, m.mismatches}
}

// Describe implements prometheus.Collector.
func (s *Sink) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range s.metrics.all() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (s *Sink) Collect(ch chan<- prometheus.Metric) {
	for _, c := range s.metrics.all() {
		c.Collect(ch)
	}
}

var _ prometheus.Collector = (*Sink)(nil)
