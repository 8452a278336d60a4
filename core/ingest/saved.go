package ingest

import (
	"os"
	"strings"
)

// Saved returns how far the landing in the file at path has come, as the disk
// has it: for tools, also while a daemon lands events there. Bytes is the size
// of the file, of which the end may be a line that is being written; Cursor is
// the saved one, which may be some events old. The error wraps [fs.ErrNotExist]
// if there is no such file.
func Saved(path string) (Position, error) {
	saved, err := loadCursor(cursorPath(path))
	if err != nil {
		return Position{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return Position{}, err
	}
	return Position{Target: path, Bytes: info.Size(), Cursor: saved.Cursor}, nil
}

// SavedFile returns the file that a cursor file belongs to, and whether the path
// is that of a cursor file.
func SavedFile(path string) (file string, ok bool) { return strings.CutSuffix(path, cursorPath("")) }
