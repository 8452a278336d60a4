package engine

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/mzdio/mzd/core/durable"
)

// reserveAhead is how far ahead of its use time is reserved on disk. After a crash the engine's time is ahead of the clock by at most
// that.
const reserveAhead = 2 * time.Second

// state is what the engine keeps on disk beside its catalog.
type state struct {
	Version int               `json:"version"`
	ID      string            `json:"id"`      // of the environment, for ever
	Clock   uint64            `json:"clock"`   // no time from here on has been used
	Sources map[string]extent `json:"sources"` // by object id: what views may have shown of each file
}

// extent says how much of a file has been read, and tells that file from another or a changed one.
type extent struct {
	Offset  int64  `json:"offset"`
	Lines   int64  `json:"lines"`
	Head    int    `json:"head"` // length of the beginning that HeadSum is over
	HeadSum uint32 `json:"head_sum"`
	Tail    int    `json:"tail"` // length of what lies before Offset that TailSum is over
	TailSum uint32 `json:"tail_sum"`
}

const (
	stateFile   = "engine.json"
	catalogFile = "catalog.json"
)

func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// stateVersion is the version of all files of the data directory that have one.
const stateVersion = 1

// readJSON reads a file of the data directory; ok is false if there is none. A file of another version is an error: it may be read and be
// misunderstood.
func (e *Engine) readJSON(name string, into any) (ok bool, err error) {
	path := filepath.Join(e.opt.DataDir, name)
	text, err := e.opt.FS.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read engine state: %w", err)
	}
	var header struct {
		Version int `json:"version"`
	}
	if err = json.Unmarshal(text, &header); err == nil {
		if header.Version != stateVersion {
			return false, fmt.Errorf("read engine state: %s has version %d, this mzd reads version %d", path, header.Version, stateVersion)
		}
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		return false, fmt.Errorf("read engine state %s: %w; restore the file, or remove the directory to begin anew", path, err)
	}
	return true, nil
}

// writeJSON replaces a file of the data directory so that after a crash there is the old or the new one.
func (e *Engine) writeJSON(name string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(e.opt.DataDir, name)
	if err := durable.ReplaceIn(e.opt.FS, path, append(text, '\n')); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// save records what has been published and reserves time; exact reserves none, for a clean stop.
func (e *Engine) save(exact bool) error {
	e.saveMu.Lock()
	defer e.saveMu.Unlock()
	e.mu.Lock()
	s := state{Version: stateVersion, ID: e.id, Clock: e.upper, Sources: map[string]extent{}}
	for _, o := range e.objects {
		if o.source == nil {
			continue
		}
		// A source that is still being read again keeps what was recorded: that much must come before anything is shown.
		if o.source.caughtUp {
			s.Sources[o.ID] = o.source.extent
		} else if o.source.recorded.Offset > 0 {
			s.Sources[o.ID] = o.source.recorded
		}
	}
	e.mu.Unlock()
	if !exact {
		s.Clock = max(s.Clock, uint64(time.Now().UnixMilli())) + uint64(reserveAhead.Milliseconds())
	}
	var err error
	if e.opt.DataDir != "" {
		err = e.writeJSON(stateFile, s)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case err == nil && e.saveErr != nil:
		e.log.Info("the state can be written again")
	case err != nil && (e.saveErr == nil || e.saveErr.Error() != err.Error()):
		e.log.Error("the state cannot be written; no time closes until it can", "error", err)
	}
	if e.saveErr = err; err == nil {
		e.reserved = s.Clock
	}
	return err
}
