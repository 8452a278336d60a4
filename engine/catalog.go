package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
	"github.com/mzdio/mzd/engine/sql"
)

// The kinds of object, as mz_objects names them.
const (
	kindSource           = "source"
	kindTable            = "table"
	kindView             = "view"
	kindMaterializedView = "materialized-view"
)

// object is an entry of the catalog. It is immutable but for what its source and view guard themselves.
type object struct {
	plan.Object
	kind   string
	text   string   // the statement in normal form: what SHOW CREATE says and what a second CREATE is compared with
	uses   []string // ids of the objects that it names
	source *source
	view   *view // for a materialized view or source, a table, and a relation of the engine itself
}

// lookup finds an object. All objects live in materialize.public. The caller holds mu.
func (e *Engine) lookup(name sql.Name) *object {
	switch q := strings.Join(name.Parts[:len(name.Parts)-1], "."); q {
	case "", "public", "materialize.public":
		if o := e.objects[name.Base()]; o != nil {
			return o
		}
		if q != "" {
			return nil
		}
	case "mz_catalog", "materialize.mz_catalog", "mz_internal", "materialize.mz_internal":
	default:
		return nil
	}
	return e.systemObject(name.Base())
}

// ordered lists the objects in the order of their creation. The caller holds mu.
func (e *Engine) ordered() []*object {
	list := make([]*object, 0, len(e.objects))
	for _, o := range e.objects {
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b *object) int { return number(a.ID) - number(b.ID) })
	return list
}

func number(id string) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(id, "u"))
	return n
}

// savedCatalog is the catalog on disk.
type savedCatalog struct {
	Version int           `json:"version"`
	NextID  int           `json:"next_id"`
	Objects []savedObject `json:"objects"`
}

type savedObject struct {
	ID  string `json:"id"`
	SQL string `json:"sql"`
}

// saveCatalog writes the catalog with some objects more and some less. After an error the catalog is what it was. The caller holds ddl.
func (e *Engine) saveCatalog(add *object, remove []*object) error {
	if e.opt.DataDir == "" {
		return nil
	}
	path := filepath.Join(e.opt.DataDir, catalogFile)
	before, _ := e.opt.FS.ReadFile(path)
	err := e.writeCatalog(add, remove)
	if err == nil {
		return nil
	}
	// It may be there and not be known to stay there: then what was there before must come back.
	after, readErr := e.opt.FS.ReadFile(path)
	same := bytes.Equal(before, after) && (readErr == nil || errors.Is(readErr, fs.ErrNotExist))
	if !same && e.writeCatalog(nil, nil) != nil {
		e.catalogUnsure = true
		return &Error{Code: "40003", Message: fmt.Sprintf("it is not known whether a restart would find the change: %v", err)}
	}
	return diskError("the catalog", err)
}

// settleCatalog brings back the catalog on disk after a change of which it is not known whether it is there.
func (e *Engine) settleCatalog() {
	e.ddl.Lock()
	defer e.ddl.Unlock()
	if e.catalogUnsure && e.writeCatalog(nil, nil) == nil {
		e.catalogUnsure = false
	}
}

func (e *Engine) writeCatalog(add *object, remove []*object) error {
	s := savedCatalog{Version: 1, NextID: e.nextID}
	e.mu.Lock()
	for _, o := range e.ordered() {
		if !slices.Contains(remove, o) {
			s.Objects = append(s.Objects, savedObject{o.ID, o.text})
		}
	}
	e.mu.Unlock()
	if add != nil {
		s.Objects = append(s.Objects, savedObject{add.ID, add.text})
	}
	return e.writeJSON(catalogFile, s)
}

// loadCatalog creates the objects again, and fills the tables.
func (e *Engine) loadCatalog(extents map[string]extent, rows []core.Update) error {
	var s savedCatalog
	if _, err := e.readJSON(catalogFile, &s); err != nil {
		return err
	}
	e.nextID = max(s.NextID, 1)
	for _, saved := range s.Objects {
		o, err := e.restore(saved, extents[saved.ID])
		if err != nil {
			return fmt.Errorf("load catalog: %s %s: %w", saved.ID, saved.SQL, err)
		}
		e.objects[o.Name] = o
		if o.view != nil {
			e.attach(o.view)
		}
	}
	written, err := e.recall(rows)
	if err != nil {
		return err
	}
	for _, o := range e.stepGraph(&flow.Context{}, nil, written) { // what is there from the beginning, like a count of nothing
		o.view.apply(o.change, false)
	}
	return nil
}

func (e *Engine) restore(saved savedObject, recorded extent) (*object, error) {
	parsed, err := sql.Parse(saved.SQL)
	if err != nil {
		return nil, err
	}
	switch s := parsed[0].Statement.(type) {
	case *sql.CreateSource:
		o, err := e.makeSource(saved.ID, s)
		if err != nil {
			return nil, err
		}
		o.source.recorded = recorded
		if err := e.openSource(o.source); err != nil {
			e.log.Error("source stopped", "source", o.Name, "state", o.source.state, "error", err)
		}
		return o, nil
	case *sql.CreateTable:
		return e.makeTable(saved.ID, s)
	case *sql.CreateView:
		return e.makeView(saved.ID, s, saved.SQL)
	}
	return nil, fmt.Errorf("not a statement that creates")
}

// normal is the text by which two CREATE statements are the same.
func normal(s sql.Statement) string {
	switch s := s.(type) {
	case *sql.CreateSource:
		c := *s
		c.IfNotExists = false
		return c.String()
	case *sql.CreateTable:
		c := *s
		c.IfNotExists = false
		return c.String()
	case *sql.CreateView:
		c := *s
		c.IfNotExists, c.OrReplace = false, false
		return c.String()
	}
	return s.String()
}

// makeSource makes the object of a source; nothing is opened yet.
func (e *Engine) makeSource(id string, s *sql.CreateSource) (*object, error) {
	src, err := newSource(id, s, e.opt.BaseDir)
	if err != nil {
		return nil, err
	}
	o := &object{kind: kindSource, text: normal(s), source: src}
	o.Object = plan.Object{ID: id, Name: src.name, Columns: src.columns}
	if s.Materialized {
		all := &flow.Map{}
		for i, c := range src.columns {
			all.Exprs = append(all.Exprs, &flow.Col{Index: i, T: c.Type, Name: c.Name})
		}
		df := &flow.Dataflow{Root: &flow.Input{Name: src.name, Map: all}, Slots: []flow.Slot{{Object: id, Map: all}}}
		in := input{work: all, src: src, proj: &projection{src.project(all)}}
		o.view = newView(id, src.name, src.columns, df, []input{in})
		o.view.uses, o.view.wanted = []string{id}, now
	}
	return o, nil
}

// openSource holds the file against what was recorded of it, and notes how long it is. Its error is nil, or says why the source will not
// be read.
func (e *Engine) openSource(s *source) error {
	f, err := os.Open(s.path)
	var file reader
	if err == nil {
		defer f.Close()
		file = f
		if info, err := f.Stat(); err == nil {
			s.target = info.Size()
		}
	} else if !os.IsNotExist(err) {
		e.starting = append(e.starting, s) // whatever it is, the reader meets it, reports it and tries again
		return nil
	}
	if err := checkExtent(file, s.path, s.recorded); err != nil {
		s.state, s.err = SourceShrunk, err
		s.broken = brokenSource(s)
		return err
	}
	e.starting = append(e.starting, s)
	return nil
}

func brokenSource(s *source) *Error {
	return &Error{
		Code: "58030", Message: fmt.Sprintf("source %s cannot be read: %v", s.name, s.err),
		Hint: "Bring the file back, or DROP the source and create it again, which begins with what the file has.",
	}
}

// makeView plans a view and makes its object. The caller holds mu, or is the only one who knows the engine.
func (e *Engine) makeView(id string, s *sql.CreateView, text string) (*object, error) {
	if s.Query.AsOf != nil {
		return nil, sql.Errorf(s.Query.Pos(), "42601", "a view cannot have an AS OF")
	}
	p, err := plan.Query(e.env(), s.Query)
	if err != nil {
		return nil, err
	}
	if p.Introspection {
		return nil, sql.Errorf(s.Query.Pos(), "0A000", "a view cannot read the relations of the engine itself, which no release keeps as they are")
	}
	cols := slices.Clone(p.Columns)
	if len(s.Columns) > len(cols) {
		return nil, sql.Errorf(s.Query.Pos(), "42601", "%d column names given for %d columns", len(s.Columns), len(cols))
	}
	for i := range cols {
		if i < len(s.Columns) {
			cols[i].Name = s.Columns[i]
		}
		for _, c := range cols[:i] {
			if c.Name == cols[i].Name {
				return nil, sql.Errorf(s.Query.Pos(), "42701", "column %s specified more than once", sql.Ident(c.Name))
			}
		}
	}
	o := &object{kind: kindView, text: normal(s), uses: p.Uses}
	o.Object = plan.Object{ID: id, Name: s.Name.Base(), Columns: cols}
	if !s.Materialized {
		o.Query = s.Query
		return o, nil
	}
	o.kind = kindMaterializedView
	df := p.Maintained()
	inputs, err := e.bind(df)
	if err != nil {
		return nil, err
	}
	o.view = newView(id, o.Name, cols, df, inputs)
	o.view.uses, o.view.wanted = p.Uses, now
	return o, nil
}

// bind finds what the slots of a dataflow read. The caller holds mu.
func (e *Engine) bind(df *flow.Dataflow) ([]input, error) {
	byID := map[string]*object{}
	for _, o := range e.objects {
		byID[o.ID] = o
	}
	for _, o := range e.system {
		byID[o.ID] = o
	}
	inputs := make([]input, len(df.Slots))
	for i, slot := range df.Slots {
		inputs[i].work = slot.Map
		switch o := byID[slot.Object]; {
		case o == nil:
			return nil, errorf("XX000", "object %s is gone", slot.Object)
		case o.source != nil:
			inputs[i].src = o.source
			inputs[i].proj = &projection{o.source.project(slot.Map)}
		default:
			inputs[i].view = o.view
		}
	}
	return inputs, nil
}

// attach makes a view part of every tick from now on. The caller holds graphMu and mu, or is the only one who knows the engine.
func (e *Engine) attach(v *view) {
	for _, in := range v.inputs {
		if in.src != nil {
			in.src.register(in.proj)
			if in.src.broken != nil {
				v.broken = in.src.broken
			}
		}
		if in.view != nil && in.view.broken != nil {
			v.broken = in.view.broken
		}
	}
	e.graph = append(e.graph, v)
}

// detach takes a view out of the ticks.
func (e *Engine) detach(v *view) {
	e.graphMu.Lock()
	defer e.graphMu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	v.dropped = true
	e.unlink(v)
	e.notify()
}

// unlink takes a view out of the graph, if it is in it. The caller holds graphMu and mu.
func (e *Engine) unlink(v *view) {
	i := slices.Index(e.graph, v)
	if i < 0 {
		return
	}
	e.graph = slices.Delete(e.graph, i, i+1)
	for _, in := range v.inputs {
		if in.src != nil {
			in.src.unregister(in.proj)
		}
	}
}

// breakDependents marks the views that can never be read because a source they need cannot. The caller holds graphMu and mu.
func (e *Engine) breakDependents() {
	for _, v := range e.graph {
		for _, in := range v.inputs {
			switch {
			case in.src != nil && in.src.broken != nil:
				v.broken = in.src.broken
			case in.view != nil && in.view.broken != nil:
				v.broken = in.view.broken
			}
		}
	}
}
