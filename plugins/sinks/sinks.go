// Package sinks lists the sinks that are built into mzd.
package sinks

import (
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/sinks/exec"
	"github.com/mzdio/mzd/plugins/sinks/stdout"
	"github.com/mzdio/mzd/plugins/sinks/webhook"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// Builtin returns the builtin sinks, ordered by name.
func Builtin() []plugins.Sink {
	return []plugins.Sink{
		plugins.NewSink("exec", "Hands every change to a command, as a line of JSON on its stdin; a line back says that it is applied. See [plugins.md](plugins.md#a-sink-without-an-sdk).", exec.New),
		plugins.NewSink("stdout", "Prints every change: a line of JSON, or a table on a terminal.", stdout.New),
		plugins.NewSink("webhook", "Posts every change to a URL: in order, signed, and again until it is taken. See [webhook.md](webhook.md).", webhook.New),
		plugins.NewSink("websocket", "Serves views to browsers and to curl: a page, websockets, server-sent events, JSON lines and snapshots.", websocket.New),
	}
}
