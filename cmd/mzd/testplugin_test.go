package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	mzdv1 "github.com/mzdio/mzd/plugins/proto/mzd/v1"
)

// mainTestSink is a sink that is a binary. What it does wrong is said by its
// first argument, or, if it takes a working plugin to do it, by its settings.
func mainTestSink() {
	for _, arg := range os.Args[1:] {
		if wrong, ok := wrongStarts[arg]; ok {
			wrong()
			return
		}
	}
	if slices.Contains(os.Args[1:], "keeper") {
		plugins.ServeSink(func(ctx context.Context, s testSettings) (testKeeper, error) {
			sink, err := openTestSink(ctx, s)
			return testKeeper{sink, plugins.EnvOf(ctx).Logger}, err
		})
		return
	}
	plugins.ServeSink(openTestSink, plugins.Doc("Notes every write, and misbehaves."), plugins.Version("1.2.3"))
}

// wrongStarts are the ways to be no plugin.
var wrongStarts = map[string]func(){
	"exit": func() {
		fmt.Fprintln(os.Stderr, "no such table: orders")
		os.Exit(7)
	},
	"garbage": func() {
		fmt.Println("Hello! I am not a plugin.")
		select {}
	},
	"old":   func() { serveBare(0, bareSink{}) },
	"new":   func() { serveBare(99, bareSink{}) },
	"early": func() { serveBare(1, bareSink{early: true}) },
	"never": func() { serveBare(1, bareSink{}) },
}

type testSettings struct {
	File string `json:"file" required:"true" doc:"Where writes are noted, one a line."`
	Mode string `json:"mode" default:"good" enum:"good|crash|panic|hang|flood|print|family|refuse" doc:"What goes wrong."`
	Held string `json:"held" doc:"A pipe to hold open."`
}

// testSink appends each write to a file, durably, as a line of JSON.
type testSink struct {
	testSettings

	mu     sync.Mutex // guards what follows
	file   *os.File
	writes int
}

func openTestSink(ctx context.Context, s testSettings) (*testSink, error) {
	if s.Mode == "refuse" {
		return nil, fmt.Errorf("there is no database for the test: %w", core.ErrPermanent)
	}
	file, err := os.OpenFile(s.File, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	if s.Mode == "flood" {
		go func() {
			for line := bytes.Repeat([]byte("flood"), 100); ; {
				os.Stderr.Write(append(line, '\n'))
			}
		}()
	}
	if s.Mode == "family" {
		if err := haveFamily(s.Held); err != nil {
			return nil, err
		}
	}
	plugins.EnvOf(ctx).Logger.Info("the test sink is open", "mode", s.Mode)
	return &testSink{testSettings: s, file: file}, nil
}

// haveFamily starts a child that is deaf, and lets it hold the pipe as well as
// this process does.
func haveFamily(pipe string) error {
	held, err := os.OpenFile(pipe, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	child := exec.Command("sh", "-c", `trap "" TERM INT HUP; sleep 1000 & wait`)
	child.ExtraFiles = []*os.File{held}
	if err := child.Start(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(held, "%d %d\n", os.Getpid(), child.Process.Pid)
	return err
}

func (s *testSink) Write(_ context.Context, cut []core.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	w := recordedWrite{PID: os.Getpid(), Taken: true}
	for _, b := range cut {
		w.Cut = append(w.Cut, recordedBatch{b.View.Name, b.Lower.String(), b.Upper.String(), b.Updates.Slice()})
	}
	line, err := json.Marshal(w)
	if err != nil {
		return err
	}
	switch {
	case s.Mode == "crash" && s.writes == 2:
		die()
	case s.Mode == "panic" && s.writes == 2:
		panic("for the test")
	case s.Mode == "hang":
		if once, err := os.OpenFile(s.File+".hung", os.O_CREATE|os.O_EXCL, 0o644); err == nil {
			once.Close()
			syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		}
	case s.Mode == "print":
		fmt.Println("printed by the test sink")
	}
	if _, err := s.file.Write(append(line, '\n')); err != nil {
		return err
	}
	return s.file.Sync()
}

func (s *testSink) Close() error { return s.file.Close() }

// testKeeper is a testSink that keeps its own positions, or says so.
type testKeeper struct {
	*testSink
	log *slog.Logger
}

func (k testKeeper) Position(_ context.Context, v *core.View) (core.Token, error) {
	k.log.Info("asked for its position in " + v.Name)
	return core.Token{}, nil
}

// mainTestSource is a source that is a binary: it counts, and crashes after
// every tenth event that it was asked for.
func mainTestSource() {
	plugins.ServeSource(func(context.Context, struct{}) (testSource, error) { return testSource{}, nil })
}

type testSource struct{}

func (testSource) Run(ctx context.Context, cursor string, emit core.EmitFunc) error {
	n, _ := strconv.Atoi(cursor)
	for i := 0; ; i++ {
		if n == 30 {
			<-ctx.Done()
			return ctx.Err()
		}
		if i == 10 {
			os.Exit(9)
		}
		n++
		text := strconv.Itoa(n)
		if err := emit(ctx, core.Event{ID: text, Cursor: text, Data: []byte(text)}); err != nil {
			return err
		}
	}
}

// bareSink is a sink without the SDK, which cannot do what it does.
type bareSink struct {
	mzdv1.UnimplementedPluginServer
	mzdv1.UnimplementedSinkServer
	early bool // it acknowledges before anything was sent; otherwise never
}

// serveBare serves a sink without the SDK, and says that it speaks some version
// of the protocol.
func serveBare(version int, s bareSink) {
	path := filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	server := grpc.NewServer()
	mzdv1.RegisterPluginServer(server, s)
	mzdv1.RegisterSinkServer(server, s)
	h := health.NewServer()
	h.SetServingStatus("plugin", grpc_health_v1.HealthCheckResponse_SERVING)
	grpc_health_v1.RegisterHealthServer(server, h)
	fmt.Printf("1|%d|unix|%s|grpc|\n", version, path)
	server.Serve(l)
}

func (bareSink) Describe(context.Context, *mzdv1.DescribeRequest) (*mzdv1.DescribeResponse, error) {
	return &mzdv1.DescribeResponse{Kind: mzdv1.Kind_KIND_SINK, Name: "bare"}, nil
}

func (bareSink) Open(context.Context, *mzdv1.SinkOpenRequest) (*mzdv1.SinkOpenResponse, error) {
	return &mzdv1.SinkOpenResponse{}, nil
}

func (bareSink) Close(context.Context, *mzdv1.SinkCloseRequest) (*mzdv1.SinkCloseResponse, error) {
	return &mzdv1.SinkCloseResponse{}, nil
}

func (s bareSink) Write(stream grpc.BidiStreamingServer[mzdv1.SinkWriteRequest, mzdv1.SinkWriteResponse]) error {
	if s.early {
		if err := stream.Send(&mzdv1.SinkWriteResponse{Acknowledged: 7}); err != nil {
			return err
		}
	}
	for {
		if _, err := stream.Recv(); err != nil {
			return errors.New("the test is over")
		}
	}
}
