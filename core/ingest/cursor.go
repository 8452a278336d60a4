package ingest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/mzdio/mzd/core/durable"
)

// savedCursor is the content of the cursor file.
type savedCursor struct {
	Version int    `json:"version"` // cursorVersion
	Offset  int64  `json:"offset"`  // bytes landed when Cursor was durable: the size of a file
	Cursor  string `json:"cursor"`
}

const cursorVersion = 1

func cursorPath(path string) string { return path + ".cursor" }

// loadCursor reads the cursor file; one that does not exist is a beginning.
func loadCursor(path string) (savedCursor, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return savedCursor{}, nil
	}
	if err != nil {
		return savedCursor{}, fmt.Errorf("read the cursor: %w", err)
	}
	var c savedCursor
	if err := json.Unmarshal(data, &c); err != nil {
		return savedCursor{}, fmt.Errorf("read the cursor: %s is damaged (%w); restore it, or remove it to let the source begin anew", path, err)
	}
	if c.Version != cursorVersion || c.Offset < 0 {
		return savedCursor{}, fmt.Errorf("read the cursor: %s has version %d, offset %d; this mzd reads version %d", path, c.Version, c.Offset, cursorVersion)
	}
	return c, nil
}

// save replaces the cursor file.
func (c savedCursor) save(path string) error {
	c.Version = cursorVersion
	data, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("save the cursor: %w", err)
	}
	if err := durable.Replace(path, append(data, '\n')); err != nil {
		return fmt.Errorf("save the cursor: %w", err)
	}
	return nil
}

// saveCursorIfOld saves the cursor when the saved one is old. It is only logged
// when that fails: the events are durable, and the source repeats from the
// cursor before.
func (f *File) saveCursorIfOld() {
	if f.cursor == f.savedCursor || time.Since(f.savedAt) < saveEvery && f.unsaved < cap(f.recent.ring)/2 {
		return
	}
	if err := f.saveCursor(); err != nil {
		f.log.Warn("cursor not saved; after a crash the source repeats more", "error", err)
	}
}

// saveCursor makes the cursor durable as it stands.
func (f *File) saveCursor() error {
	f.savedAt = time.Now()
	if f.cursor != f.savedCursor {
		if err := (savedCursor{Offset: f.size, Cursor: f.cursor}).save(cursorPath(f.path)); err != nil {
			return err
		}
		f.savedCursor = f.cursor
	}
	f.unsaved = 0
	return nil
}
