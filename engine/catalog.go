package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
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

// catalog is what there is at a moment.
type catalog struct {
	id      string             // of the engine
	objects map[string]*object // by name
	system  []*object          // the engine's own
}

// catalog returns what there is now. A statement is planned in it and bound to it, which takes as long as the statement makes it: nobody
// waits for that.
func (e *Engine) catalog() catalog {
	e.mu.Lock()
	defer e.mu.Unlock()
	return catalog{e.id, e.objects, e.system}
}

// amend changes the catalog. The caller holds mu, or is the only one who knows the engine.
func (e *Engine) amend(change func(objects map[string]*object)) {
	next := maps.Clone(e.objects)
	change(next)
	e.objects = next
}

// add puts an object into the catalog, in place of another of its name. The caller holds mu, or is the only one who knows the engine.
func (e *Engine) add(o *object) { e.amend(func(objects map[string]*object) { objects[o.Name] = o }) }

// env is what a statement is planned in.
func (c catalog) env(params plan.Params) plan.Env {
	return plan.Env{Catalog: c, Params: params, Constants: map[string]string{
		"mz_version":        Version,
		"version":           "PostgreSQL 9.5.0 on mzd (" + Version + ")",
		"mz_environment_id": c.id,
	}}
}

// Object implements [plan.Catalog].
func (c catalog) Object(name sql.Name) *plan.Object {
	if o := c.lookup(name); o != nil {
		return &o.Object
	}
	return nil
}

// lookup finds an object. The caller holds mu.
func (e *Engine) lookup(name sql.Name) *object {
	return catalog{e.id, e.objects, e.system}.lookup(name)
}

// lookup finds an object. All objects live in materialize.public.
func (c catalog) lookup(name sql.Name) *object {
	switch q := strings.Join(name.Parts[:len(name.Parts)-1], "."); q {
	case "", "public", "materialize.public":
		if o := c.objects[name.Base()]; o != nil {
			return o
		}
		if q != "" {
			return nil
		}
	case "mz_catalog", "materialize.mz_catalog", "mz_internal", "materialize.mz_internal":
	default:
		return nil
	}
	for _, o := range c.system {
		if o.Name == name.Base() {
			return o
		}
	}
	return nil
}

// ordered lists the objects in the order of their creation. The caller holds mu.
func (e *Engine) ordered() []*object { return catalog{objects: e.objects}.ordered() }

func (c catalog) ordered() []*object {
	return slices.SortedFunc(maps.Values(c.objects), func(a, b *object) int { return number(a.ID) - number(b.ID) })
}

// names lists objects for a message.
func (c catalog) names(ids []string) string {
	var out []string
	for _, o := range c.ordered() {
		if slices.Contains(ids, o.ID) {
			out = append(out, o.Name)
		}
	}
	if out == nil {
		return "the query"
	}
	return strings.Join(out, ", ")
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
	if add != nil {
		if err := add.readsBack(); err != nil {
			return err
		}
	}
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

// readsBack refuses an object whose text a restart could not read, or would read otherwise: the normal form of a statement near the bounds
// may be beyond them.
func (o *object) readsBack() error {
	parsed, err := sql.Parse(o.text)
	if err != nil {
		return &Error{Code: "54001", Message: fmt.Sprintf("the definition of %s cannot be kept: in its normal form, %v", o.title(), err),
			Hint: "Write it in a simpler way, or divide it into views."}
	}
	if text := normal(parsed[0].Statement); text != o.text {
		return errorf("XX000", "the definition of %s cannot be kept: it would be read back as %s", o.title(), text)
	}
	return nil
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
	s := savedCatalog{Version: stateVersion, NextID: e.nextID}
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
			return fmt.Errorf("load catalog: %s %.200s: %w; take the object out of %s if it is not needed", saved.ID, saved.SQL, err,
				filepath.Join(e.opt.DataDir, catalogFile))
		}
		e.add(o)
		if o.view != nil {
			e.attach(o.view)
		}
	}
	written, err := e.recall(rows)
	if err != nil {
		return err
	}
	c := &flow.Context{Budget: e.opt.MaxBytes}
	for _, o := range e.stepGraph(c, nil, written) { // what is there from the beginning, like a count of nothing
		o.view.apply(o.change, false)
	}
	e.enforce()
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
			e.log.Error("source stopped", "source", o.Name, "state", o.source.state, "error", o.source.problem())
		}
		return o, nil
	case *sql.CreateTable:
		return e.makeTable(saved.ID, s)
	case *sql.CreateView:
		return e.makeView(saved.ID, s)
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
		Hint: s.remedy(),
	}
}

// makeView plans a view and makes its object. The caller holds ddl, or is the only one who knows the engine.
func (e *Engine) makeView(id string, s *sql.CreateView) (*object, error) {
	if s.Query.AsOf != nil {
		return nil, sql.Errorf(s.Query.Pos(), "42601", "a view cannot have an AS OF")
	}
	cat := e.catalog()
	p, err := plan.Query(cat.env(plan.Params{}), s.Query)
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
	o.view = newView(id, o.Name, cols, df, cat.bind(df))
	o.view.uses, o.view.wanted = p.Uses, now
	return o, nil
}

// bind finds what the slots of a dataflow read that has been planned in the catalog. Whether it still is there turns out when it is read.
func (c catalog) bind(df *flow.Dataflow) []input {
	byID := map[string]*object{}
	for _, o := range c.objects {
		byID[o.ID] = o
	}
	for _, o := range c.system {
		byID[o.ID] = o
	}
	inputs := make([]input, len(df.Slots))
	for i, slot := range df.Slots {
		inputs[i].work = slot.Map
		if o := byID[slot.Object]; o.source != nil {
			inputs[i].src = o.source
			inputs[i].proj = &projection{o.source.project(slot.Map)}
		} else {
			inputs[i].view = o.view
		}
	}
	return inputs
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
