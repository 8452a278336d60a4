package hub

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/durable"
	"github.com/mzdio/mzd/core/viewlog"
)

// disk is where logs and positions are. Its zero value is nowhere: everything
// is in memory.
//
//	dir/views/VIEW            a directory, see package viewlog
//	dir/sinks/SINK.positions  a file, see positions
//
// Names are escaped as [viewlog.DirName] does.
type disk struct {
	fs  durable.FS
	dir string
	log *slog.Logger
}

const positionsSuffix = ".positions"

func (d disk) views() string { return filepath.Join(d.dir, "views") }
func (d disk) sinks() string { return filepath.Join(d.dir, "sinks") }

// openDisk makes the directories of the options, and makes them durable.
func openDisk(o Options) (disk, error) {
	if o.Dir == "" {
		return disk{}, nil
	}
	d := disk{fs: o.FS, dir: o.Dir, log: o.Logger}
	if d.fs == nil {
		d.fs = durable.OS
	}
	for _, dir := range []string{d.views(), d.sinks()} {
		if err := d.fs.MkdirAll(dir); err != nil {
			return disk{}, err
		}
	}
	return d, d.fs.SyncDir(d.dir)
}

// openLog opens the log of a view.
func (d disk) openLog(name string, o Options, m *metrics) (*viewlog.Log, error) {
	vo := viewlog.Options{
		Retain: o.Retain, RetainBytes: o.RetainBytes, RewriteBytes: o.RewriteBytes,
		Synced: m.synced, Logger: o.Logger, FS: d.fs,
	}
	if d.dir == "" {
		return viewlog.New(name, vo), nil
	}
	return viewlog.Open(filepath.Join(d.views(), viewlog.DirName(name)), name, vo)
}

// openPositions reads where a sink stands; nil: nowhere is where it is kept.
func (d disk) openPositions(sink string) (*positions, error) {
	if d.dir == "" {
		return nil, nil
	}
	return openPositions(d.fs, filepath.Join(d.sinks(), viewlog.DirName(sink)+positionsSuffix), sink)
}

// opened makes the directories of logs durable, and says what else is there:
// whoever takes a view or a sink out of the configuration loses nothing by it.
func (d disk) opened(o Options) error {
	if d.dir == "" {
		return nil
	}
	if err := d.fs.SyncDir(d.views()); err != nil {
		return err
	}
	known := make(map[string]bool)
	for _, v := range o.Views {
		known[filepath.Join(d.views(), viewlog.DirName(v.Name))] = true
	}
	for _, s := range o.Sinks {
		if _, broadcasts := s.Sink.(core.Broadcaster); !broadcasts {
			known[filepath.Join(d.sinks(), viewlog.DirName(s.Name)+positionsSuffix)] = true
		}
	}
	logs, err1 := d.fs.ReadDir(d.views())
	for _, e := range logs {
		path := filepath.Join(d.views(), e.Name())
		if name, err := viewlog.ViewName(e.Name()); err == nil && !known[path] {
			d.log.Info("keeping the log of a view that is not in the configuration; remove its directory if it is not needed", "view", name, "dir", path)
		}
	}
	files, err2 := d.fs.ReadDir(d.sinks())
	for _, e := range files {
		path := filepath.Join(d.sinks(), e.Name())
		dir, ours := strings.CutSuffix(e.Name(), positionsSuffix)
		if name, err := viewlog.ViewName(dir); ours && err == nil && !known[path] {
			d.log.Info("keeping the positions of a sink that is not in the configuration, or keeps none; what comes after them is not kept for it", "sink", name, "file", path)
		}
	}
	return errors.Join(err1, err2)
}

// Disk returns what is wrong with the disk: the logs and positions that cannot
// be written now. It is nil if nothing is.
func (h *Hub) Disk() error {
	var errs []error
	for _, v := range h.views {
		if err := v.data.Stats().Trouble; err != nil {
			errs = append(errs, fmt.Errorf("log of view %s: %w", v.Name, err))
		}
	}
	for _, p := range h.kept {
		if err := p.err(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
