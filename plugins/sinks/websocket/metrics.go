package websocket

import (
	"strconv"

	"github.com/coder/websocket"
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
var closeCodes = []websocket.StatusCode{1000, 1001, 1005, 1006, 1008, 1009, 1011, 1012, codeStalled}

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
			Help:    "Time from when the first stream saw a change to when a stream that was waiting for it had sent it.",
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

// joined counts a stream until the function it returns is called.
func (m *metrics) joined(transport string) (left func()) {
	clients := m.clients.WithLabelValues(transport)
	clients.Inc()
	return clients.Dec
}

// counting returns the sender, counting what it sends.
func (m *metrics) counting(out sender) sender { return countingSender{out, m} }

type countingSender struct {
	sender
	metrics *metrics
}

func (c countingSender) send(m message) error {
	if err := c.sender.send(m); err != nil {
		return err
	}
	c.metrics.bytes.Add(float64(len(m.data)))
	if !m.unfinished {
		c.metrics.messages.WithLabelValues(m.kind).Inc()
	}
	return nil
}

func (m *metrics) closed(code websocket.StatusCode) {
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
