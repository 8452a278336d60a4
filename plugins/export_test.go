package plugins

import (
	"context"
	"errors"
	"log/slog"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mzdio/mzd/core"
	mzdv1 "github.com/mzdio/mzd/plugins/proto/mzd/v1"
)

// Impatient returns the command with less patience: to start, to answer, and to
// answer a health check.
func Impatient(c Command, start, call, check time.Duration) Command {
	c.limits = limits{start: start, call: call, shut: 300 * time.Millisecond, every: check / 10, check: check}
	return c
}

// Handshake is what a plugin is served with.
var Handshake = handshake

// PluginKey is the name of what it serves.
const PluginKey = pluginKey

// Register makes a plugin of go-plugin of services.
func Register(services func(*grpc.Server)) goplugin.Plugin { return connection{register: services} }

// What cuts are made of.
var (
	Pieces  = pieces
	ToViews = toViews

	NewServer = newServer
)

const (
	PieceBytes      = pieceBytes
	MaxMessageBytes = maxMessageBytes
)

// Assembler puts pieces together.
type Assembler struct{ a assembler }

// Describe takes views.
func (a *Assembler) Describe(v *mzdv1.Views) error { return a.a.describe(v) }

// Add takes a piece.
func (a *Assembler) Add(p *mzdv1.Piece) ([]core.Batch, error) { return a.a.add(p) }

// Connect runs the command, and returns a connection to it without anything else.
func Connect(ctx context.Context, c Command) (*grpc.ClientConn, func(), error) {
	p, err := c.launch(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, nil, err
	}
	return p.conn, p.stop, nil
}

// Replies gives everything that a plugin can answer to what reads it, and returns
// the texts that come of it.
func Replies(data []byte) (texts []string) {
	c := Command{Path: "/p", TLS: "off"}
	say := func(err error) {
		if err != nil {
			texts = append(texts, err.Error())
		}
	}
	var d mzdv1.DescribeResponse
	if proto.Unmarshal(data, &d) == nil {
		info, err := c.info(&d)
		say(err)
		texts = append(texts, info.Name, info.Version, info.Doc)
	}
	var s spb.Status
	if proto.Unmarshal(data, &s) == nil && s.GetCode() != 0 {
		err := fromStatus(c.Path, status.FromProto(&s).Err())
		say(err)
		var later interface{ RetryAfter() time.Duration }
		if errors.As(err, &later) && (later.RetryAfter() < 0 || later.RetryAfter() > maxRetryAfter) {
			panic(later.RetryAfter())
		}
	}
	var r mzdv1.SourceReadResponse
	if proto.Unmarshal(data, &r) == nil {
		q := &eventQueue{more: make(chan struct{}, 1), room: make(chan struct{}, 1)}
		say(q.put(context.Background(), c.Path, r.GetEvents()))
		if len(q.events) > sourceWindow {
			panic("the queue grows")
		}
	}
	st := &writeStream{process: &process{path: c.Path}, sent: 3}
	for _, b := range data {
		say(st.acknowledge(uint64(b)))
		if st.acked > st.sent {
			panic("acknowledged what was not sent")
		}
	}
	kid := &child{command: c, dir: "/d"}
	say(kid.checkHandshake(string(data)))
	kid.command.TLS = ""
	say(kid.checkHandshake(string(data)))
	logLines(slog.New(slog.DiscardHandler))(string(data))
	return texts
}
