package plugins

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"strings"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/mzdio/mzd/core"
	mzdv1 "github.com/mzdio/mzd/plugins/proto/mzd/v1"
)

// A ServeOption says something about a plugin; see [Doc] and [Version].
type ServeOption func(*Info)

// Doc is one line that says what the plugin does, for people who list plugins.
func Doc(line string) ServeOption { return func(i *Info) { i.Doc = line } }

// Version is the plugin's own version. Without it, it is that of the main module,
// as the go command has stamped it.
func Version(v string) ServeOption { return func(i *Info) { i.Version = v } }

// ServeSink is the whole main of a plugin that is a sink: it serves what open
// makes from settings of type S, until mzd ends the process. What the settings
// are and how they are checked is what package schema makes of the struct.
//
//	func main() { plugins.ServeSink(New, plugins.Doc("Writes rows to a queue.")) }
//
// Abilities are found by the type that open returns: if T has the methods of
// [core.Positioner], the sink keeps its own positions, and if it has those of
// [core.Broadcaster], it is given readers.
//
// The logger of [EnvOf] writes to mzd's log, and so does what is printed.
// ServeSink panics if S has no schema (see [schema.Of]).
func ServeSink[S any, T core.Sink](open func(context.Context, S) (T, error), options ...ServeOption) {
	NewSink(binaryName("mzd-sink-"), "", open).serve(options)
}

// ServeSource is the whole main of a plugin that is a source, like [ServeSink].
// If T has the methods of [core.Identifier], the source is asked for the IDs of
// events that were landed before.
func ServeSource[S any, T core.Source](open func(context.Context, S) (T, error), options ...ServeOption) {
	NewSource(binaryName("mzd-source-"), "", open).serve(options)
}

// Serve serves the sink as a plugin of its own, like [ServeSink].
func (s Sink) Serve() { s.serve(nil) }

// Serve serves the source as a plugin of its own, like [ServeSource].
func (s Source) Serve() { s.serve(nil) }

func (s Sink) serve(options []ServeOption) {
	info := Info{
		Kind: KindSink, Name: s.Name, Version: moduleVersion(), Doc: s.Doc, Settings: s.Settings,
		KeepsPositions: implements[core.Positioner](s.opens), Broadcasts: implements[core.Broadcaster](s.opens),
	}
	serve(info, options, func(r grpc.ServiceRegistrar, log *slog.Logger) {
		mzdv1.RegisterSinkServer(r, newSinkServer(s, log))
	})
}

func (s Source) serve(options []ServeOption) {
	info := Info{
		Kind: KindSource, Name: s.Name, Version: moduleVersion(), Doc: s.Doc, Settings: s.Settings,
		Identifies: implements[core.Identifier](s.opens),
	}
	serve(info, options, func(r grpc.ServiceRegistrar, log *slog.Logger) {
		mzdv1.RegisterSourceServer(r, &sourceServer{kind: s, log: log})
	})
}

// implements reports whether a type that may be nil has the methods of I.
func implements[I any](t reflect.Type) bool { return t != nil && t.Implements(reflect.TypeFor[I]()) }

// serve serves a plugin until the process ends.
func serve(info Info, options []ServeOption, register func(grpc.ServiceRegistrar, *slog.Logger)) {
	for _, o := range options {
		o(&info)
	}
	if os.Getenv(handshake.MagicCookieKey) != handshake.MagicCookieValue {
		fmt.Fprintf(os.Stderr, "%s is a %s for mzd, which runs it itself: name it in pipeline.yaml, or try it with\n\n  mzd plugin describe %s\n", filepath.Base(os.Args[0]), info.Kind, strings.Join(os.Args, " "))
		os.Exit(2)
	}
	go endWithParent()
	// The real standard error: go-plugin puts pipes of its own in its place.
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: replaceKeys}))
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: handshake,
		VersionedPlugins: map[int]goplugin.PluginSet{protocolVersion: {pluginKey: connection{register: func(s *grpc.Server) {
			mzdv1.RegisterPluginServer(s, described{info: info})
			register(s, log)
		}}}},
		Logger:     hclog.NewNullLogger(),
		GRPCServer: newServer,
	})
}

// newServer makes the server of a plugin.
func newServer(options []grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(options,
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.InitialWindowSize(transportBytes),
		grpc.InitialConnWindowSize(transportBytes),
		grpc.ReadBufferSize(bufferBytes),
		grpc.WriteBufferSize(bufferBytes),
	)...)
}

// endWithParent ends this process when mzd has ended: then the standard input
// does, whatever it was that ended mzd.
func endWithParent() {
	io.Copy(io.Discard, os.Stdin)
	os.Exit(1)
}

func binaryName(prefix string) string {
	name := strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe")
	return strings.TrimPrefix(name, prefix)
}

func moduleVersion() string {
	if build, ok := debug.ReadBuildInfo(); ok {
		return build.Main.Version
	}
	return ""
}

// described serves what a plugin says about itself.
type described struct {
	mzdv1.UnimplementedPluginServer
	info Info
}

// Describe says what the plugin is.
func (d described) Describe(context.Context, *mzdv1.DescribeRequest) (*mzdv1.DescribeResponse, error) {
	answer := &mzdv1.DescribeResponse{
		Kind: mzdv1.Kind_KIND_SINK, Name: d.info.Name, Version: d.info.Version, Doc: d.info.Doc,
		SettingsSchema: d.info.Settings.JSONSchema(),
		KeepsPositions: d.info.KeepsPositions, Broadcasts: d.info.Broadcasts, Identifies: d.info.Identifies,
	}
	if d.info.Kind == KindSource {
		answer.Kind = mzdv1.Kind_KIND_SOURCE
	}
	return answer, nil
}

// openEnv is the context that a plugin is opened with.
func openEnv(name, pipeline string, log *slog.Logger) context.Context {
	return WithEnv(context.Background(), Env{Name: name, Pipeline: pipeline, Logger: log})
}

// settingsOf returns settings as the kind's Open takes them.
func settingsOf(data []byte) json.RawMessage {
	if len(data) == 0 {
		return json.RawMessage("{}")
	}
	return data
}
