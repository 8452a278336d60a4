package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/sinks"
)

// mainRecording is mzd with the sink of the test of crashes.
func mainRecording() {
	builtinSinks = func() []plugins.Sink {
		return append(sinks.Builtin(), plugins.NewSink("recorder", "Notes every write, and kills the process.", openRecorder))
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
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // it does not return from there
	}
}

func (r *recorder) Close() error { return r.file.Close() }
