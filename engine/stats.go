package engine

import "cmp"

// Stats is what an operator wants to know of an engine.
type Stats struct {
	Views   []ViewStats   `json:"views"`
	Sources []SourceStats `json:"sources"`
	// Upper is the frontier, in milliseconds since 1970: all times below are closed. 0 while the engine is opening.
	Upper uint64 `json:"upper,string"`
	// Opening tells that the sources are being read again, and nothing can be read before.
	Opening bool `json:"opening"`
	// Problem is why no time closes, empty if times do.
	Problem string `json:"problem,omitempty"`
}

// ViewStats describes a maintained view.
type ViewStats struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	Kind         string `json:"kind"`              // materialized-view, source or table
	Rows         int64  `json:"rows"`              // now, with their counts
	Updates      uint64 `json:"updates"`           // rows that changed, since the process began
	Errors       int64  `json:"errors"`            // of evaluation, now
	Ready        bool   `json:"ready"`             // it can be read
	Since        uint64 `json:"since,string"`      // the earliest time that can be read
	Bytes        int    `json:"bytes"`             // estimate of what its rows hold in memory
	HistoryBytes int    `json:"history_bytes"`     // and of its history
	Problem      string `json:"problem,omitempty"` // why it cannot be read, if it never will
}

// SourceStats describes a source.
type SourceStats struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Path    string `json:"path"`
	State   string `json:"state"`             // one of the Source constants
	Problem string `json:"problem,omitempty"` // what is wrong with the file
	Offset  int64  `json:"offset"`            // bytes read
	Size    int64  `json:"opened_size"`       // length of the file when it was opened
	Lines   int64  `json:"lines"`             // read
	Bad     int64  `json:"bad_lines"`         // skipped, because they are too long, no UTF-8 or no JSON
}

// Stats may be called at any time.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stats()
}

func (e *Engine) stats() Stats {
	s := Stats{Views: []ViewStats{}, Sources: []SourceStats{}, Upper: e.upper, Opening: e.opening}
	if err := cmp.Or(e.saveErr, e.journalErr); err != nil {
		s.Problem = err.Error()
	}
	for _, o := range e.ordered() {
		if src := o.source; src != nil {
			x := SourceStats{ID: o.ID, Name: o.Name, Path: src.path, State: src.state, Offset: src.extent.Offset, Size: src.target,
				Lines: src.extent.Lines, Bad: src.bad, Problem: src.problem()}
			s.Sources = append(s.Sources, x)
		}
		if v := o.view; v != nil {
			x := ViewStats{ID: o.ID, Name: o.Name, Kind: o.kind, Rows: v.contents.rows, Updates: v.updates, Ready: v.ready, Since: v.since,
				Bytes: v.contents.bytes, HistoryBytes: v.bytes}
			for _, n := range v.errors {
				x.Errors += n
			}
			if v.broken != nil {
				x.Problem = v.broken.Message
			}
			s.Views = append(s.Views, x)
		}
	}
	return s
}

// skip leaves out a line before it was decoded.
func (e *Engine) skip(s *source, number int64, why string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leaveOut(s, rejects{1, number, why})
}

// leaveOut counts lines that are left out, and says so of the first. The caller holds mu.
func (e *Engine) leaveOut(s *source, r rejects) {
	if s.bad == 0 && r.lines > 0 {
		e.log.Warn("source has lines that are left out; SHOW SOURCES counts them", "source", s.name, "path", s.path, "line", r.first, "because", r.why)
	}
	s.bad += r.lines
}
