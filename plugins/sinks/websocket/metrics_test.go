package websocket_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// metric returns the sum of a metric's series, of those with a label if one is
// given.
func metric(t *testing.T, s *websocket.Sink, name string, label ...string) float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(s)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if label != nil && m.GetLabel()[0].GetValue() != label[0] {
				continue
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

func TestMetrics(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",1]`)
	s := serve(t, websocket.Settings{}, f)
	c := open(t, s, "websocket", "/api/stream/top10", "")
	if _, err := c.next(); err != nil {
		t.Fatal(err)
	}
	c.close()
	bad := open(t, s, "websocket", "/api/stream/top11", "")
	bad.next()
	bad.next()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	r := prometheus.NewPedanticRegistry()
	prometheus.WrapRegistererWith(prometheus.Labels{"sink": "web"}, r).MustRegister(s.Sink)
	want := `
# HELP mzd_broadcast_clients Streams that are open.
# TYPE mzd_broadcast_clients gauge
mzd_broadcast_clients{sink="web",transport="ndjson"} 0
mzd_broadcast_clients{sink="web",transport="sse"} 0
mzd_broadcast_clients{sink="web",transport="websocket"} 0
# HELP mzd_broadcast_messages_total Messages sent, each part of a large one counted.
# TYPE mzd_broadcast_messages_total counter
mzd_broadcast_messages_total{sink="web",type="base"} 1
mzd_broadcast_messages_total{sink="web",type="delta"} 0
mzd_broadcast_messages_total{sink="web",type="error"} 1
mzd_broadcast_messages_total{sink="web",type="progress"} 0
`
	if err := testutil.GatherAndCompare(r, strings.NewReader(want), "mzd_broadcast_clients", "mzd_broadcast_messages_total"); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"mzd_broadcast_bytes_total", "mzd_broadcast_netted_batches_total", "mzd_broadcast_closes_total", "mzd_broadcast_fanout_duration_seconds", "mzd_broadcast_mismatches_total"} {
		if n, err := testutil.GatherAndCount(r, name); err != nil || n == 0 {
			t.Errorf("%s has %d series, %v", name, n, err)
		}
	}
	if got, want := metric(t, s.Sink, "mzd_broadcast_closes_total"), 2.0; got != want {
		t.Errorf("%v closes, want %v", got, want)
	}
}
