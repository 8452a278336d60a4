// Command mzd-source-directory is a source for mzd that follows a directory of JSON
// files: every file that appears is an event.
//
// Files count in the order of their names, and the cursor is the name of the last
// one. So names must sort as the files appear, as those do that begin with a time or
// a number of fixed width. A file must appear whole: write it under a name that
// begins with a dot, or does not end with .json, and rename it.
//
// An event is the document with the name of its file, which also is its ID:
//
//	{"file":"2026-01-31T10-00-00.json","document":{"user":"Ada"}}
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/schema"
)

func main() {
	plugins.ServeSource(Open, plugins.Doc("Follows a directory: every JSON file that appears is an event."))
}

// Settings are what users write under "settings:".
type Settings struct {
	Dir      string          `json:"dir" required:"true" doc:"The directory."`
	Interval schema.Duration `json:"interval" default:"1s" doc:"How often to look."`
	Settle   schema.Duration `json:"settle" default:"5s" doc:"How long to wait for the rest of a file that is no JSON yet. What comes after it waits too."`
	MaxFile  schema.Bytes    `json:"max_file" default:"1MiB" doc:"Larger files are left out."`
}

// Validate says what types and tags cannot say.
func (s Settings) Validate() error {
	var errs []error
	if s.Interval <= 0 {
		errs = append(errs, schema.Errorf("interval", "must be more than nothing"))
	}
	if s.MaxFile <= 0 || s.MaxFile > 32<<20 {
		errs = append(errs, schema.Errorf("max_file", "not between 1 and 32MiB"))
	}
	return errors.Join(errs...)
}

// Source follows a directory.
type Source struct {
	settings Settings
	log      *slog.Logger
}

var (
	_ core.Source     = (*Source)(nil)
	_ core.Identifier = (*Source)(nil)
)

// Open makes the source. It looks at nothing yet: the directory may come later.
func Open(ctx context.Context, s Settings) (*Source, error) {
	return &Source{s, plugins.EnvOf(ctx).Logger}, nil
}

// isOurs reports whether a file of that name is an event.
func isOurs(name string) bool {
	return strings.HasSuffix(name, ".json") && !strings.HasPrefix(name, ".") && !strings.ContainsAny(name, "/\x00")
}

// Run emits the files whose names come after the cursor, and then those that appear.
func (s *Source) Run(ctx context.Context, cursor string, emit core.EmitFunc) error {
	if cursor != "" && !isOurs(cursor) {
		return fmt.Errorf("cursor %q is not the name of a file: %w", cursor, core.ErrPermanent)
	}
	tick := time.NewTicker(time.Duration(s.settings.Interval))
	defer tick.Stop()
	for {
		var err error
		if cursor, err = s.look(ctx, cursor, emit); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// maxBatch is how much is emitted at once: what is emitted together becomes durable
// together, which costs as much as one event.
const maxBatch = 1 << 20

// look emits what there is after the cursor, and returns the new one.
func (s *Source) look(ctx context.Context, cursor string, emit core.EmitFunc) (string, error) {
	entries, err := os.ReadDir(s.settings.Dir) // in the order of names
	if err != nil {
		return "", err
	}
	var batch []core.Event
	size := 0
	for _, entry := range entries {
		name := entry.Name()
		if name <= cursor || !isOurs(name) || !entry.Type().IsRegular() {
			continue
		}
		event, err := s.read(name)
		switch {
		case errors.Is(err, errUnfinished):
			return cursor, emit(ctx, batch...) // the next look may find it whole
		case errors.Is(err, errRefused):
			s.log.Warn("file left out", "file", name, "error", err)
		case errors.Is(err, fs.ErrNotExist): // somebody has taken it away
		case err != nil:
			return "", err
		default:
			batch = append(batch, event)
			size += len(event.Data)
		}
		cursor = name // where the next look begins; mzd has that of the last event
		if size >= maxBatch {
			if err := emit(ctx, batch...); err != nil {
				return "", err
			}
			batch, size = nil, 0
		}
	}
	return cursor, emit(ctx, batch...) // without events: all is well
}

var (
	errUnfinished = errors.New("not whole yet")
	errRefused    = errors.New("not an event")
)

// document is an event as it lands.
type document struct {
	File     string          `json:"file"`
	Document json.RawMessage `json:"document"`
}

// read makes an event of a file.
func (s *Source) read(name string) (core.Event, error) {
	path := filepath.Join(s.settings.Dir, name)
	info, err := os.Stat(path)
	if err != nil {
		return core.Event{}, err
	}
	if info.Size() > int64(s.settings.MaxFile) {
		return core.Event{}, fmt.Errorf("%w: %s is larger than max_file", errRefused, schema.Bytes(info.Size()))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return core.Event{}, err
	}
	data, err := json.Marshal(document{name, text})
	if err != nil { // the text is no JSON
		if time.Since(info.ModTime()) < time.Duration(s.settings.Settle) {
			return core.Event{}, errUnfinished
		}
		return core.Event{}, fmt.Errorf("%w: it is not JSON", errRefused)
	}
	return core.Event{ID: name, Cursor: name, Time: info.ModTime(), Data: data}, nil
}

// Identify returns the ID of an event that was landed before.
func (s *Source) Identify(data []byte) string {
	var d document
	if json.Unmarshal(data, &d) != nil || !isOurs(d.File) {
		return ""
	}
	return d.File
}
