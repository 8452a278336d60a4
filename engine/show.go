package engine

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
	"github.com/mzdio/mzd/engine/sql"
)

// foreign gives a better error to a statement that failed because it asks PostgreSQL's own catalog, which is not imitated: psql's \d and
// its relatives do.
func foreign(e *sql.Error, query string) *sql.Error {
	for _, schema := range []string{"pg_catalog", "information_schema"} {
		if at := strings.Index(query, schema+"."); at >= 0 {
			return &sql.Error{Pos: at, Code: "0A000", Message: "there is no " + schema + " in the embedded engine", Hint: noCatalog}
		}
	}
	if strings.HasPrefix(e.Message, "unknown catalog item 'pg_") {
		e.Hint = noCatalog
	}
	return e
}

const noCatalog = "Instead of psql's \\d use SHOW OBJECTS, SHOW TABLES, SHOW VIEWS, SHOW SOURCES, SHOW COLUMNS FROM name and SHOW CREATE VIEW name; " +
	"instead of \\l and \\dn, SHOW DATABASES and SHOW SCHEMAS."

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// parameters are the session parameters that clients ask for, with their defaults.
var parameters = map[string]string{
	"application_name": "", "client_encoding": "UTF8", "client_min_messages": "notice", "cluster": "default", "database": "materialize",
	"datestyle": "ISO, MDY", "extra_float_digits": "1", "idle_in_transaction_session_timeout": "0", "integer_datetimes": "on",
	"intervalstyle": "postgres", "mz_version": Version, "search_path": "public", "server_version": "9.5.0",
	"server_version_num": "90500", "standard_conforming_strings": "on", statementTimeout: "0", "timezone": "UTC",
	"transaction_isolation": "strict serializable",
}

// fixed are the parameters that have the value they have: a client that needs another must learn that it cannot have it.
var fixed = map[string][]string{
	"client_encoding": {"utf8", "utf-8", "unicode"}, "timezone": {"utc", "gmt", "etc/utc", "z", "default"},
	"standard_conforming_strings": {"on", "true"}, "integer_datetimes": {"on"}, "datestyle": {"iso", "iso, mdy", "default"},
	"mz_version": {}, "server_version": {}, "server_version_num": {},
}

// maxParameters bounds the parameters that a session may invent.
const maxParameters = 100

func (s *Session) set(n *sql.Set) (*Result, error) {
	if n.Reset {
		delete(s.params, n.Name)
		if n.Name == "all" {
			clear(s.params)
		}
		return done("RESET"), nil
	}
	value := strings.Join(n.Values, ", ")
	if allowed, ok := fixed[n.Name]; ok && !slices.Contains(allowed, strings.ToLower(value)) {
		return nil, errorf("22023", "parameter %s cannot be set to %q in the embedded engine: it is %q", n.Name, value, parameters[n.Name])
	} else if ok {
		return done("SET"), nil
	}
	if err := checkParameter(n.Name, value); err != nil {
		return nil, err
	}
	into := s.params
	if n.Local {
		if s.status != 'T' {
			return done("SET", Notice{"WARNING", "25P01", "SET LOCAL can only be used in transaction blocks"}), nil
		}
		if s.tx.local == nil {
			s.tx.local = map[string]string{}
		}
		into = s.tx.local
	}
	if len(into) >= maxParameters || len(value) > 1024 {
		return nil, errorf("54000", "too many session parameters")
	}
	into[n.Name] = value
	return done("SET"), nil
}

func checkParameter(name, value string) error {
	if name != statementTimeout {
		return nil
	}
	_, err := parseStatementTimeout(value)
	return err
}

// Configure sets a parameter as a client asks for it when it connects. Those that it does not know, and those that have the value they have,
// it passes over: clients ask for them by habit, and would not know what to do without.
func (s *Session) Configure(name, value string) error {
	name = strings.ToLower(name)
	_, known := parameters[name]
	if _, ok := fixed[name]; ok || !known {
		return nil
	}
	s.startup[name] = value
	return checkParameter(name, value)
}

// showFields are the columns of a SHOW.
func showFields(n *sql.Show) []Field {
	text := func(names ...string) []Field {
		var f []Field
		for _, n := range names {
			f = append(f, Field{n, flow.Text})
		}
		return f
	}
	switch {
	case n.Parameter && n.What == "all":
		return text("name", "setting")
	case n.Parameter:
		return text(n.What)
	case n.What == "sources":
		return append(text("name", "state"), Field{"read", flow.Int8}, Field{"size", flow.Int8}, Field{"lines", flow.Int8},
			Field{"rejected", flow.Int8}, Field{"problem", flow.Text})
	case n.What == "columns":
		return append(text("name"), Field{"nullable", flow.Bool}, Field{"type", flow.Text})
	case n.What == "indexes":
		return text("name", "on", "cluster", "key")
	case n.What == "objects":
		return text("name", "type")
	case strings.HasPrefix(n.What, "create"):
		return text("name", "create_sql")
	}
	return text("name")
}

func (s *Session) show(n *sql.Show) (*Result, error) {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	rows, err := s.showRows(n)
	if err != nil {
		return nil, err
	}
	return table(showFields(n), rows, "SELECT"), nil
}

func (s *Session) showRows(n *sql.Show) ([]flow.Row, error) {
	var rows []flow.Row
	add := func(cells ...string) {
		r := make(flow.Row, len(cells))
		for i, c := range cells {
			r[i] = flow.NewText(c)
		}
		rows = append(rows, r)
	}
	switch {
	case n.Parameter && n.What == "all":
		for _, name := range slices.Sorted(maps.Keys(parameters)) {
			value, _ := s.parameter(name)
			add(name, value)
		}
		return rows, nil
	case n.Parameter:
		value, known := s.parameter(n.What)
		if !known {
			return nil, errorf("42704", "unrecognized configuration parameter %q", n.What)
		}
		add(value)
		return rows, nil
	case n.Name != nil:
		return s.e.showObject(n)
	case n.What == "databases":
		add("materialize")
		return rows, nil
	case n.What == "schemas":
		add("mz_catalog")
		add("mz_internal")
		add("public")
		return rows, nil
	case n.What == "clusters":
		add(parameters["cluster"])
		return rows, nil
	case n.What == "sources":
		for _, r := range s.e.sourceRows() { // name, state, read, size, lines, rejected, problem
			if o := s.e.objects[r[1].Str()]; !n.Materialized || o.view != nil {
				rows = append(rows, slices.Delete(r[1:], 1, 2))
			}
		}
	}
	for _, o := range s.e.ordered() {
		switch {
		case n.What == "objects":
			add(o.Name, o.kind)
		case n.What == "tables" && o.kind == kindTable, n.What == "views" && o.isView(n.Materialized):
			add(o.Name)
		}
	}
	slices.SortFunc(rows, flow.CompareRows)
	return rows, nil
}

// isView tells whether an object is a view, or a maintained one.
func (o *object) isView(materialized bool) bool {
	return o.kind == kindMaterializedView || o.kind == kindView && !materialized
}

// showObject answers the forms of SHOW that are about one object. The caller holds mu.
func (e *Engine) showObject(n *sql.Show) ([]flow.Row, error) {
	o := e.lookup(*n.Name)
	if o == nil {
		return nil, sql.Errorf(n.Name.Pos(), "42704", "unknown catalog item '%s'", n.Name)
	}
	switch kind := strings.TrimPrefix(n.What, "create "); {
	case n.What == "indexes": // there are none: what is maintained is in memory
		return nil, nil
	case n.What == "columns":
		var rows []flow.Row
		for i, c := range o.Columns {
			nullable := o.Writable == nil || !o.Writable[i].NotNull
			rows = append(rows, flow.Row{flow.NewText(c.Name), flow.NewBool(nullable), flow.NewText(c.Type.SQL())})
		}
		return rows, nil
	case kind == "view" && !o.isView(n.Materialized), kind == "source" && o.source == nil, kind == "table" && o.kind != kindTable:
		if n.Materialized {
			kind = "materialized " + kind
		}
		return nil, sql.Errorf(n.Name.Pos(), "42809", "%s is not a %s", n.Name, kind)
	}
	return []flow.Row{{flow.NewText("materialize.public." + o.Name), flow.NewText(o.text)}}, nil
}

// parameter is the value of a session parameter, if it has one.
func (s *Session) parameter(name string) (value string, known bool) {
	for _, given := range []map[string]string{s.tx.local, s.params, s.startup, parameters} {
		if v, ok := given[name]; ok {
			return v, true
		}
	}
	return "", false
}

// explain prints the operators that a query or view is made of, and for a view that is maintained what each of them holds.
func (s *Session) explain(n *sql.Explain) (*Result, error) {
	q := n.Query
	if n.View != nil {
		s.e.mu.Lock()
		o := s.e.lookup(*n.View)
		s.e.mu.Unlock()
		if o == nil {
			return nil, sql.Errorf(n.View.Pos(), "42704", "unknown catalog item '%s'", n.View)
		}
		if o.kind != kindView && o.kind != kindMaterializedView {
			return nil, sql.Errorf(n.View.Pos(), "42809", "%s is not a view", n.View)
		}
		if lines := s.e.explainMaintained(o.view); lines != nil {
			return explained(lines), nil
		}
		parsed, err := sql.Parse(o.text)
		if err != nil {
			return nil, err
		}
		q = parsed[0].Statement.(*sql.CreateView).Query
	}
	p, err := plan.Query(s.e.catalog().env(plan.Params{}), q)
	if err != nil {
		return nil, err
	}
	df := p.Once()
	if n.View != nil {
		df = p.Maintained()
	}
	return explained(df.Explain(false)), nil
}

// explainMaintained describes a view that is part of the ticks, with what it holds.
func (e *Engine) explainMaintained(v *view) []string {
	e.graphMu.Lock()
	defer e.graphMu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.Contains(e.graph, v) {
		return nil
	}
	return append(v.flow.Explain(true),
		fmt.Sprintf("Contents -- %d rows, %d bytes, and %d bytes of history", v.contents.rows, v.contents.bytes, v.bytes))
}

func explained(lines []string) *Result {
	rows := make([]flow.Row, len(lines))
	for i, line := range lines {
		rows[i] = flow.Row{flow.NewText(line)}
	}
	return table([]Field{{"Physical Plan", flow.Text}}, rows, "EXPLAIN")
}
