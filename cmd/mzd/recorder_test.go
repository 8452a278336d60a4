package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/durable"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/sinks"
)

// mainRecording is mzd as the test of crashes has it.
func mainRecording() {
	dataFS, rewriteBytes = &deadly, 1
	builtinSinks = func() []plugins.Sink {
		return append(sinks.Builtin(),
			plugins.NewSink("recorder", "Notes every write, and kills the process.", openRecorder),
			plugins.NewSink("dying", "Serves nobody, and not for long.", openDying))
	}
	main()
}

// recorder is a sink that appends each write to a file, durably, as a line of
// JSON, and refuses some. It kills its process where it is told to.
type recorder struct {
	settings recorderSettings

	mu     sync.Mutex // guards what follows
	file   *os.File
	writes int
}

type recorderSettings struct {
	File   string `json:"file" required:"true" doc:"Where lines go."`
	Refuse int    `json:"refuse" doc:"Refuse every such write; 0: none."`
	Kill   int    `json:"kill" doc:"Kill the process at that write; 0: never."`
	When   string `json:"when" default:"before" enum:"before|written|synced" doc:"When at that write."`

	Rewrite int `json:"rewrite" doc:"Kill the process at that operation on files, counted from when a log is first written anew; 0: never."`
}

// recordedWrite is a line of the file.
type recordedWrite struct {
	PID   int
	Taken bool
	Cut   []recordedBatch
}

type recordedBatch struct {
	View, Lower, Upper string
	Updates            []core.Update
}

func openRecorder(_ context.Context, s recorderSettings) (*recorder, error) {
	file, err := os.OpenFile(s.File, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(file)
	if err != nil {
		return nil, err
	}
	// A process that is killed may leave part of a line behind.
	whole := int64(bytes.LastIndexByte(data, '\n') + 1)
	if err := errors.Join(file.Truncate(whole), seekTo(file, whole)); err != nil {
		return nil, err
	}
	deadly.arm(s.Rewrite)
	return &recorder{settings: s, file: file}, nil
}

func seekTo(f *os.File, offset int64) error {
	_, err := f.Seek(offset, io.SeekStart)
	return err
}

func (r *recorder) Write(_ context.Context, cut []core.Batch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes++
	w := recordedWrite{PID: os.Getpid(), Taken: r.settings.Refuse == 0 || r.writes%r.settings.Refuse != 0}
	for _, b := range cut {
		w.Cut = append(w.Cut, recordedBatch{b.View.Name, b.Lower.String(), b.Upper.String(), b.Updates.Slice()})
	}
	line, err := json.Marshal(w)
	if err != nil {
		return err
	}
	r.killAt("before")
	if _, err := r.file.Write(append(line, '\n')); err != nil {
		return err
	}
	r.killAt("written")
	if err := r.file.Sync(); err != nil {
		return err
	}
	r.killAt("synced")
	if !w.Taken {
		return errors.New("refused, for the test")
	}
	return nil
}

func (r *recorder) killAt(when string) {
	if r.writes == r.settings.Kill && when == r.settings.When {
		die()
	}
}

func (r *recorder) Close() error { return r.file.Close() }

// die ends the process as SIGKILL does.
func die() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // it does not return from there
}

// dying is a broadcaster that ends by itself after a while.
type dying struct{}

func openDying(context.Context, struct{}) (*dying, error) { return &dying{}, nil }

func (d *dying) Serve(ctx context.Context, _ []core.Reader) error {
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(time.Second): // long enough to be seen by a scrape
		return errors.New("died, for the test")
	}
}

func (d *dying) Write(context.Context, []core.Batch) error { return errors.New("not written to") }
func (d *dying) Close() error                              { return nil }

// deadly is the file system of mainRecording.
var deadly = deadlyFS{FS: durable.OS}

// deadlyFS kills the process at some operation after a segment was begun. Of a
// write it does half.
type deadlyFS struct {
	durable.FS

	mu    sync.Mutex // guards what follows
	left  int        // operations until the end; 0: there is none
	begun bool
}

func (d *deadlyFS) arm(operations int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = max(d.left, operations)
}

// due counts an operation, and reports whether it is the last one.
func (d *deadlyFS) due() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.begun || d.left == 0 {
		return false
	}
	d.left--
	return d.left == 0
}

// do does an operation, unless the process dies before it.
func (d *deadlyFS) do(operation func() error) error {
	if d.due() {
		die()
	}
	return operation()
}

func (d *deadlyFS) Open(name string, flag int) (f durable.File, err error) {
	if flag&os.O_CREATE != 0 && strings.HasSuffix(name, ".log") {
		d.mu.Lock()
		d.begun = true
		d.mu.Unlock()
	}
	err = d.do(func() error {
		f, err = d.FS.Open(name, flag)
		return err
	})
	if err != nil {
		return nil, err
	}
	return deadlyFile{f, d}, nil
}

func (d *deadlyFS) Rename(from, to string) error {
	return d.do(func() error { return d.FS.Rename(from, to) })
}

func (d *deadlyFS) Remove(name string) error {
	return d.do(func() error { return d.FS.Remove(name) })
}

func (d *deadlyFS) SyncDir(dir string) error {
	return d.do(func() error { return d.FS.SyncDir(dir) })
}

type deadlyFile struct {
	durable.File
	fs *deadlyFS
}

func (f deadlyFile) Write(p []byte) (int, error) {
	if f.fs.due() {
		f.File.Write(p[:len(p)/2])
		die()
	}
	return f.File.Write(p)
}

func (f deadlyFile) Sync() error { return f.fs.do(f.File.Sync) }
