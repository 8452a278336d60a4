// Command mzd-sink-changes is a sink for mzd that appends every change to a file.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
)

type Settings struct {
	File string `json:"file" required:"true" doc:"The file to append to."`
}

type Sink struct{ file *os.File }

func Open(_ context.Context, s Settings) (*Sink, error) {
	file, err := os.OpenFile(s.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	return &Sink{file}, err
}

func (s *Sink) Write(_ context.Context, cut []core.Batch) error {
	var text []byte
	for _, b := range cut {
		for u := range b.Updates.All() {
			text = fmt.Appendf(text, "%s %+d %s\n", b.View.Name, u.Diff, u.Row)
		}
	}
	if _, err := s.file.Write(text); err != nil {
		return err // the same cut comes again
	}
	return s.file.Sync() // nil: it is applied, and durable
}

func (s *Sink) Close() error { return s.file.Close() }

func main() { plugins.ServeSink(Open, plugins.Doc("Appends every change to a file.")) }
