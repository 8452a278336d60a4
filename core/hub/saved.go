package hub

import (
	"cmp"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/durable"
	"github.com/mzdio/mzd/core/viewlog"
)

// SavedPosition is where a sink stands with a view, as the disk has it.
type SavedPosition struct {
	Sink, View string
	Position   core.Token // everything before is acknowledged; zero: nothing is
	From, To   core.Token // of the attempt that is not acknowledged; To is zero if there is none
}

// SavedPositions returns the positions of all sinks that are kept in a data
// directory, by sink and view. It is for tools: it writes nothing, and may be
// called while a hub runs there. It returns what can be read, with an error for
// each file that cannot.
func SavedPositions(dir string) ([]SavedPosition, error) {
	d := disk{fs: durable.OS, dir: dir}
	files, err := d.fs.ReadDir(d.sinks())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var saved []SavedPosition
	var errs []error
	for _, f := range files {
		name, ours := strings.CutSuffix(f.Name(), positionsSuffix)
		sink, err := viewlog.ViewName(name)
		if !ours || err != nil {
			continue
		}
		p, err := openPositions(d.fs, filepath.Join(d.sinks(), f.Name()), sink)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for view, at := range p.places {
			saved = append(saved, SavedPosition{sink, view, at.position, at.from, at.to})
		}
	}
	slices.SortFunc(saved, func(a, b SavedPosition) int {
		return cmp.Or(cmp.Compare(a.Sink, b.Sink), cmp.Compare(a.View, b.View))
	})
	return saved, errors.Join(errs...)
}
