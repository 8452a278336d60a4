package plugins_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	mzdv1 "github.com/mzdio/mzd/plugins/proto/mzd/v1"
)

type (
	writeServer = grpc.BidiStreamingServer[mzdv1.SinkWriteRequest, mzdv1.SinkWriteResponse]
	readServer  = grpc.BidiStreamingServer[mzdv1.SourceReadRequest, mzdv1.SourceReadResponse]
)

// rude are plugins that serve the protocol by hand, and not well.
var rude = map[string]func(*grpc.Server){
	"acknowledges the future": rudeSink(func(s writeServer) error {
		s.Send(&mzdv1.SinkWriteResponse{Acknowledged: 7})
		return drain(s)
	}),
	"acknowledges in the middle": rudeSink(func(s writeServer) error {
		s.Recv() // the views
		s.Recv() // the first piece
		s.Send(&mzdv1.SinkWriteResponse{Acknowledged: 1})
		<-s.Context().Done() // the last piece is too far behind to be sent
		return nil
	}),
	"acknowledges backwards": rudeSink(func(s writeServer) error {
		s.Recv()
		s.Recv()
		s.Send(&mzdv1.SinkWriteResponse{Acknowledged: 1})
		s.Recv()
		s.Send(&mzdv1.SinkWriteResponse{})
		return drain(s)
	}),
	"never acknowledges": rudeSink(drain),
	"takes everything":   rudeSink(takeEverything),
	"acknowledges nothing for ever": rudeSink(func(s writeServer) error {
		for s.Send(&mzdv1.SinkWriteResponse{}) == nil {
		}
		return nil
	}),
	"reads nothing": rudeSink(func(s writeServer) error {
		if file := os.Getenv("STARTED"); file != "" {
			os.WriteFile(file, nil, 0o600)
		}
		<-s.Context().Done()
		return nil
	}),
	"ends the stream": rudeSink(func(writeServer) error { return nil }),
	"fails without a message": rudeSink(func(writeServer) error {
		return status.Error(codes.Unknown, "")
	}),
	"cannot write": func(s *grpc.Server) {
		mzdv1.RegisterPluginServer(s, rudePlugin{answer: &mzdv1.DescribeResponse{Kind: mzdv1.Kind_KIND_SINK}})
		mzdv1.RegisterSinkServer(s, openOnly{})
	},
	"has no position": func(s *grpc.Server) {
		mzdv1.RegisterPluginServer(s, rudePlugin{answer: &mzdv1.DescribeResponse{Kind: mzdv1.Kind_KIND_SINK, KeepsPositions: true}})
		mzdv1.RegisterSinkServer(s, openOnly{})
	},
	"cannot serve": func(s *grpc.Server) {
		mzdv1.RegisterPluginServer(s, rudePlugin{answer: &mzdv1.DescribeResponse{Kind: mzdv1.Kind_KIND_SINK, Broadcasts: true}})
		mzdv1.RegisterSinkServer(s, rudeBroadcaster{})
	},
	"is nothing": func(s *grpc.Server) { mzdv1.RegisterPluginServer(s, rudePlugin{answer: &mzdv1.DescribeResponse{}}) },
	"describes nonsense": func(s *grpc.Server) {
		mzdv1.RegisterPluginServer(s, rudePlugin{answer: &mzdv1.DescribeResponse{Kind: mzdv1.Kind_KIND_SINK, SettingsSchema: []byte(`{"type": 7`)}})
	},
	"describes too much": func(s *grpc.Server) {
		mzdv1.RegisterPluginServer(s, rudePlugin{answer: &mzdv1.DescribeResponse{Kind: mzdv1.Kind_KIND_SINK, Doc: strings.Repeat("x", 40<<20)}})
	},
	"describes nothing": func(*grpc.Server) {},
	"sends beyond the window": rudeSource(func(s readServer) error {
		start, err := s.Recv()
		if err != nil {
			return err
		}
		events := make([]*mzdv1.Event, start.GetStart().GetWindow()+1)
		for i := range events {
			events[i] = &mzdv1.Event{}
		}
		s.Send(&mzdv1.SourceReadResponse{Events: events})
		<-s.Context().Done()
		return nil
	}),
	"sends too much at once": rudeSource(func(s readServer) error {
		s.Send(&mzdv1.SourceReadResponse{Events: []*mzdv1.Event{{Data: make([]byte, 40<<20)}}})
		<-s.Context().Done()
		return nil
	}),
	"ends without an acknowledgement": rudeSource(func(s readServer) error {
		return s.Send(&mzdv1.SourceReadResponse{Events: []*mzdv1.Event{{Cursor: "1"}, {Cursor: "2"}}})
	}),
}

func drain(s writeServer) error {
	for {
		if _, err := s.Recv(); err != nil {
			return nil
		}
	}
}

type rudePlugin struct {
	mzdv1.UnimplementedPluginServer
	answer *mzdv1.DescribeResponse
}

func (p rudePlugin) Describe(context.Context, *mzdv1.DescribeRequest) (*mzdv1.DescribeResponse, error) {
	return p.answer, nil
}

type openOnly struct{ mzdv1.UnimplementedSinkServer }

func (openOnly) Open(context.Context, *mzdv1.SinkOpenRequest) (*mzdv1.SinkOpenResponse, error) {
	return &mzdv1.SinkOpenResponse{}, nil
}

type rudeWriter struct {
	openOnly
	write func(writeServer) error
}

func (w rudeWriter) Write(s writeServer) error { return w.write(s) }

func (rudeWriter) Position(context.Context, *mzdv1.PositionRequest) (*mzdv1.PositionResponse, error) {
	return &mzdv1.PositionResponse{Token: "yesterday"}, nil
}

func rudeSink(write func(writeServer) error) func(*grpc.Server) {
	return func(s *grpc.Server) {
		mzdv1.RegisterPluginServer(s, rudePlugin{answer: &mzdv1.DescribeResponse{Kind: mzdv1.Kind_KIND_SINK, KeepsPositions: true}})
		mzdv1.RegisterSinkServer(s, rudeWriter{write: write})
	}
}

type rudeBroadcaster struct{ openOnly }

func (rudeBroadcaster) Serve(s grpc.BidiStreamingServer[mzdv1.SinkServeRequest, mzdv1.SinkServeResponse]) error {
	s.Recv() // the views
	s.Recv() // the first piece; the next ones are on their way
	return status.Error(codes.Unknown, "no room for more")
}

type rudeReader struct {
	mzdv1.UnimplementedSourceServer
	read func(readServer) error
}

func (rudeReader) Open(context.Context, *mzdv1.SourceOpenRequest) (*mzdv1.SourceOpenResponse, error) {
	return &mzdv1.SourceOpenResponse{}, nil
}

func (r rudeReader) Read(s readServer) error { return r.read(s) }

func rudeSource(read func(readServer) error) func(*grpc.Server) {
	return func(s *grpc.Server) {
		mzdv1.RegisterPluginServer(s, rudePlugin{answer: &mzdv1.DescribeResponse{Kind: mzdv1.Kind_KIND_SOURCE}})
		mzdv1.RegisterSourceServer(s, rudeReader{read: read})
	}
}

func TestRudeSinks(t *testing.T) {
	t.Parallel()
	large := slices.Repeat([]string{strings.Repeat("x", 1<<20)}, 30) // more than is sent to who does not read
	for _, tt := range []struct {
		act     string
		cuts    [][]core.Batch
		want    string
		rule    bool // it is a rule of the protocol
		forGood bool
	}{
		{act: "acknowledges the future", want: "it acknowledges cut 7 of a stream of which", rule: true},
		{act: "acknowledges in the middle", cuts: [][]core.Batch{{base("v", 5, large...)}}, want: "it acknowledges cut 1 of a stream of which 0 were sent: an acknowledgement follows the last piece of its cut", rule: true},
		{act: "acknowledges backwards", cuts: [][]core.Batch{{base("v", 5)}, {base("v", 6)}}, want: "it acknowledges cut 0 of a stream after cut 1", rule: true},
		{act: "never acknowledges", want: "a cut is acknowledged, and this one was not within 200ms; the limit is ack_timeout", rule: true},
		{act: "acknowledges nothing for ever", want: "was not within 200ms", rule: true},
		{act: "reads nothing", cuts: [][]core.Batch{{base("v", 5, strings.Repeat("x", 30<<20))}}, want: "was not within 200ms", rule: true},
		{act: "ends the stream", want: "ended the stream of a view without an error"},
		{act: "fails without a message", want: "failed without a message, with the code Unknown"},
		{act: "cannot write", want: "does not serve a call of the protocol", forGood: true},
	} {
		t.Run(tt.act, func(t *testing.T) {
			t.Parallel()
			c := command(t, tt.act)
			c.AckTimeout = 200 * time.Millisecond
			if tt.act != "never acknowledges" && tt.act != "acknowledges nothing for ever" && tt.act != "reads nothing" {
				c.AckTimeout = time.Minute
			}
			sink := openSink(t, c, struct{}{})
			if tt.cuts == nil {
				tt.cuts = [][]core.Batch{{base("v", 5, "[1]")}}
			}
			var err error
			for _, cut := range tt.cuts {
				err = sink.Write(t.Context(), cut)
			}
			var broken *plugins.ProtocolError
			if err == nil || !strings.Contains(err.Error(), tt.want) || errors.As(err, &broken) != tt.rule || !strings.Contains(err.Error(), c.Path) {
				t.Errorf("got  %v\nwant ...%s...", err, tt.want)
			}
			if got := errors.Is(err, core.ErrPermanent); got != tt.forGood {
				t.Errorf("permanent is %v, want %v", got, tt.forGood)
			}
		})
	}
}

// TestRudeBroadcaster ends the stream while pieces are being sent, again and again:
// each time it is what the plugin says that is told, and not how the sending ended.
func TestRudeBroadcaster(t *testing.T) {
	t.Parallel()
	sink := openSink(t, command(t, "cannot serve"), struct{}{}).(core.Broadcaster)
	var rows []string
	for i := range 12 { // more than is sent to who does not read
		rows = append(rows, fmt.Sprint(i, strings.Repeat("x", 1<<20)))
	}
	large := newLog(t, "v", 10, rows...)
	for range 20 {
		if err := sink.Serve(t.Context(), []core.Reader{large}); err == nil || !strings.Contains(err.Error(), "no room for more") {
			t.Fatalf("got %v", err)
		}
	}
}

func TestRudePositions(t *testing.T) {
	t.Parallel()
	sink := openSink(t, command(t, "never acknowledges"), struct{}{})
	at, err := sink.(core.Positioner).Position(t.Context(), &core.View{Name: "v"})
	if want := `the position of view v is a token that it was sent: "yesterday"`; !at.IsZero() || err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, %v", at, err)
	}
	sink = openSink(t, command(t, "has no position"), struct{}{})
	if _, err := sink.(core.Positioner).Position(t.Context(), &core.View{Name: "v"}); !errors.Is(err, core.ErrPermanent) {
		t.Errorf("got %v, want a permanent error", err)
	}
}

func TestRudeDescriptions(t *testing.T) {
	t.Parallel()
	for act, want := range map[string]string{
		"is nothing":         "Describe says that it is a sink or a source, and not KIND_UNSPECIFIED",
		"describes nonsense": "the schema of its settings",
		"describes too much": "a message has at most 33 MiB",
		"describes nothing":  "does not serve a call of the protocol",
	} {
		t.Run(act, func(t *testing.T) {
			t.Parallel()
			if _, err := command(t, act).Describe(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got  %v\nwant ...%s...", err, want)
			}
		})
	}
}

func TestRudeSources(t *testing.T) {
	t.Parallel()
	for act, want := range map[string]string{
		"sends beyond the window":         "4097 events are unacknowledged, and the window is 4096",
		"sends too much at once":          "a message has at most 33 MiB",
		"ends without an acknowledgement": "",
	} {
		t.Run(act, func(t *testing.T) {
			t.Parallel()
			source := openSource(t, command(t, act), struct{}{})
			var got []core.Event
			err := source.Run(t.Context(), "", func(_ context.Context, events ...core.Event) error {
				got = append(got, events...)
				return nil
			})
			if want == "" && (err != nil || len(got) != 2) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("got  %v and %d events\nwant ...%s...", err, len(got), want)
			}
		})
	}
}

// numbers returns rows.
func numbers(first, n int) []string {
	rows := make([]string, n)
	for i := range rows {
		rows[i] = fmt.Sprintf("[%d]", first+i)
	}
	return rows
}

var oneColumn = []core.Column{{Name: "n", Type: "int8"}}

// base is the whole view at a time.
func base(view string, upper core.Time, rows ...string) core.Batch {
	updates := make([]core.Update, len(rows))
	for i, r := range rows {
		updates[i] = core.Update{Time: upper - 1, Diff: 1, Row: core.Row(r)}
	}
	return core.Batch{View: &core.View{Name: view, Columns: oneColumn}, Upper: core.Token{Time: upper, Generation: "g"}, Updates: core.UpdatesOf(updates)}
}

// delta continues from a time.
func delta(view string, lower, upper core.Time, rows ...string) core.Batch {
	b := base(view, upper, rows...)
	b.Lower = core.Token{Time: lower, Generation: "g"}
	return b
}
