package engine

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/viewlog"
	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
	"github.com/mzdio/mzd/engine/sql"
)

// createTable is CREATE TABLE.
func (e *Engine) createTable(s *sql.CreateTable) (*Result, error) {
	e.ddl.Lock()
	defer e.ddl.Unlock()
	old, err := e.vacant(s.Name)
	if err != nil {
		return nil, err
	}
	if old != nil {
		return existing(old, normal(s), s.IfNotExists, "CREATE TABLE")
	}
	o, err := e.makeTable(e.takeID(), s)
	if err != nil {
		return nil, err
	}
	if err := e.saveCatalog(o, nil); err != nil {
		return nil, err
	}
	e.graphMu.Lock()
	defer e.graphMu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.attach(o.view)
	if !e.opening {
		o.view.readyFrom(e.upper - 1)
	}
	e.add(o)
	e.notify()
	return done("CREATE TABLE"), nil
}

// maxColumns is how many columns a table may have, as in PostgreSQL.
const maxColumns = 1600

// makeTable makes the object of a table.
func (e *Engine) makeTable(id string, s *sql.CreateTable) (*object, error) {
	o := &object{kind: kindTable, text: normal(s)}
	o.Object = plan.Object{ID: id, Name: s.Name.Base(), Writable: []plan.Writable{}}
	if len(s.Columns) > maxColumns {
		return nil, sql.Errorf(s.Name.Pos(), "54011", "tables can have at most %d columns", maxColumns)
	}
	for _, def := range s.Columns {
		typ, fit, err := plan.TypeOf(def.Type)
		if err != nil {
			return nil, err
		}
		c := plan.Column{Name: def.Name, Type: typ}
		if slices.ContainsFunc(o.Columns, func(other plan.Column) bool { return other.Name == c.Name }) {
			return nil, sql.Errorf(def.Pos(), "42701", "column %s specified more than once", sql.Ident(c.Name))
		}
		if def.Default != nil {
			if err := plan.CheckDefault(plan.Env{}, c, def.Default); err != nil {
				return nil, err
			}
		}
		o.Columns = append(o.Columns, c)
		o.Writable = append(o.Writable, plan.Writable{NotNull: def.NotNull, Default: def.Default, Fit: fit})
	}
	o.view = newView(id, o.Name, o.Columns, nil, nil)
	return o, nil
}

// TablesDir is the directory of the tables' rows, in the data directory, and the name of the [viewlog.Journal] there.
const TablesDir = "tables"

// openJournal opens the log of the tables and returns what they hold.
func (e *Engine) openJournal() ([]core.Update, error) {
	j, rows, err := viewlog.OpenJournal(filepath.Join(e.opt.DataDir, TablesDir), TablesDir, viewlog.Options{FS: e.opt.FS})
	if err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	e.journal = j
	return rows, nil
}

// settleJournal makes certain what is in the journal. The caller holds graphMu.
func (e *Engine) settleJournal() error {
	if e.journal == nil {
		return nil
	}
	err := e.journal.Settle()
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil && e.journalErr != nil {
		e.log.Info("the tables can be written again")
	}
	e.journalErr = err
	return err
}

func (e *Engine) closeJournal() error {
	e.graphMu.Lock()
	defer e.graphMu.Unlock()
	if e.journal == nil {
		return nil
	}
	return e.journal.Close()
}

// journalRow is a row of a table in the journal: the table's id, a space, and the row as COPY's binary format has it, which loses
// nothing of any type.
func journalRow(id string, r flow.Row) core.Row {
	b := make([]byte, 0, 64)
	b = append(append(b, id...), ' ')
	return core.Row(flow.AppendTuple(b, r))
}

// recall reads the rows of the journal. Those of tables that have been dropped go when it is written anew.
func (e *Engine) recall(rows []core.Update) (map[*view][]flow.Update, error) {
	tables := map[string]*object{}
	for _, o := range e.objects {
		if o.kind == kindTable {
			tables[o.ID] = o
		}
	}
	types := map[string][]flow.Type{}
	written := map[*view][]flow.Update{}
	for _, u := range rows {
		id, tuple, _ := strings.Cut(string(u.Row), " ")
		t := tables[id]
		if t == nil {
			if number(id) >= e.nextID {
				return nil, fmt.Errorf("load tables: the journal has rows of %s, which the catalog has never known; restore %s", id, catalogFile)
			}
			continue
		}
		if types[id] == nil {
			types[id] = columnTypes(t.Columns)
		}
		values, _, ok := flow.Tuple([]byte(tuple))
		row, err := flow.FromTuple(types[id], values)
		if !ok || err != nil {
			return nil, fmt.Errorf("load tables: a row of %s in the journal is none of the table: %v", t.Name, err)
		}
		written[t.view] = append(written[t.view], flow.Update{Row: row, Diff: int64(u.Diff)})
	}
	return written, nil
}

func columnTypes(columns []plan.Column) []flow.Type {
	out := make([]flow.Type, len(columns))
	for i, c := range columns {
		out[i] = c.Type
	}
	return out
}

// shrinkJournal writes the journal anew when it has become much larger than what the tables hold. The caller holds graphMu, so that
// nobody writes meanwhile.
func (e *Engine) shrinkJournal() {
	if e.journal == nil || !e.journal.Grown() {
		return
	}
	e.mu.Lock()
	objects := e.ordered()
	e.mu.Unlock()
	var rows []core.Update
	for _, o := range objects {
		if o.kind != kindTable {
			continue
		}
		for _, shard := range o.view.contents.shards { // which change under graphMu only
			for _, u := range shard {
				rows = append(rows, core.Update{Diff: core.Diff(u.Diff), Row: journalRow(o.ID, u.Row)})
			}
		}
	}
	if err := e.journal.Rewrite(core.Consolidate(rows)); err != nil {
		e.log.Warn("the tables cannot be written anew, which would take less space; it is tried again later", "error", err)
	}
}
