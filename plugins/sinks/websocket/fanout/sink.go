//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/viewlog"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// viewName is short: it is in every message.
const viewName = "v"

// A sinkTarget is the sink, on a log in memory that is written as a view's is.
type sinkTarget struct {
	sink  *websocket.Sink
	log   *viewlog.Log
	width int
	at    core.Time
	n     int // messages so far
}

func newSink(j job) (*sinkTarget, error) {
	// Old history is not what is measured.
	t := &sinkTarget{log: viewlog.New(viewName, viewlog.Options{RetainBytes: 1 << 20}), width: j.Width, at: startTime}
	snapshot := t.log.Snapshot()
	for i := range j.Rows {
		snapshot.Add([]byte(rowOf(i, rowWidth)), 1)
	}
	view := &core.View{Name: viewName, Columns: []core.Column{{Name: "user", Type: "text"}, {Name: "edits", Type: "text"}}}
	if err := t.log.Reset(view, "fanout", t.at, snapshot); err != nil {
		return nil, err
	}
	settings := websocket.Settings{Listen: "127.0.0.1:0", MaxConnections: 1 << 20}
	if j.TLS {
		dir, err := os.MkdirTemp("", "fanout")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		cert, key, err := certificate(dir)
		if err != nil {
			return nil, err
		}
		settings.TLS = &websocket.TLS{Cert: cert, Key: key}
	}
	sink, err := websocket.New(context.Background(), settings)
	if err != nil {
		return nil, err
	}
	t.sink = sink
	go func() {
		err := sink.Serve(context.Background(), []core.Reader{t.log})
		fmt.Fprintln(os.Stderr, "fanout: the sink ended:", err)
		os.Exit(1)
	}()
	return t, nil
}

func (t *sinkTarget) address() string { return t.sink.Addr().String() }

// cycle is a number of messages that add a row each, after which as many take
// them away again. Whole bursts fit in it.
const cycle = 64

func (t *sinkTarget) publish(messages int) error {
	for range messages {
		u := core.Update{Time: t.at, Diff: 1, Row: rowOf(1_000_000+t.n%cycle, t.width)}
		if t.n/cycle%2 == 1 {
			u.Diff = -1
		}
		if err := t.log.Append(t.at, t.at+1, []core.Update{u}); err != nil {
			return err
		}
		t.log.Compact()
		t.at++
		t.n++
	}
	return nil
}

// rowWidth is the width of a row of the view that is there at the start.
const rowWidth = 16

// rowOf returns a row of the given width, beside some 20 bytes that each has.
func rowOf(i, width int) core.Row {
	return core.Row(fmt.Sprintf(`["%08d","%s"]`, i, strings.Repeat("x", width)))
}
