package plan_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mzdio/mzd/core/modeltest"
	"github.com/mzdio/mzd/core/pgtest"
	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
	"github.com/mzdio/mzd/engine/sql"
)

var (
	firstSeed = flag.Uint64("seed", 1, "first seed of the generated queries")
	queries   = flag.Int("queries", 300, "generated queries to hold against PostgreSQL")
	ticks     = flag.Int("ticks", 20, "ticks of changes for each of them")
)

// queriesPerSeed is how many queries share tables and contents.
const queriesPerSeed = 10

// engineEvery is how often a seed is carried out by an engine with tables, statements and a restart.
const engineEvery = 10

// TestOracle holds generated queries over generated tables, after every tick of insertions and deletions, against PostgreSQL's answer
// to the same query: columns and their types, rows as a multiset, and evaluation errors. Each seed makes tables, some of them views,
// and queries over them. A failure is made smaller and printed as SQL for psql.
//
// When an error is an error: PostgreSQL fails for the first row that it evaluates an expression for, and which rows those are, or in
// which order the parts of a condition are taken, is its own affair. So all expressions but one are made such that they never fail
// (see [kind]), and any error is a difference. One query in ten has one expression that may fail, where both sides must evaluate it
// for the same rows ([partialGrammar]): then both must fail, in the same words, and again both must not when the row has gone.
//
// Where the engine means to differ from PostgreSQL (docs/sql.md has the list) the generator says the same in two ways ([dialect]),
// texts are compared in one form ([normal]), or the matter is left to the goldens.
func TestOracle(t *testing.T) {
	dsn := pgtest.Start(t)
	seeds := uint64((*queries + queriesPerSeed - 1) / queriesPerSeed)
	var next, failures atomic.Uint64
	var wg sync.WaitGroup
	for range 2 { // PostgreSQL works while the engine does
		wg.Go(func() {
			pg := connect(t, dsn)
			for {
				seed := *firstSeed + next.Add(1) - 1
				if seed >= *firstSeed+seeds || failures.Load() >= 5 {
					return
				}
				c := generate(seed, *ticks)
				for i, failure := range c.run(pg) {
					if failure == "" || failures.Add(1) > 5 {
						continue
					}
					t.Errorf("seed %d, query %d: %s", seed, i, c.only(i).shrink(pg, failure))
				}
			}
		})
	}
	wg.Wait()
}

// testCase is queries over tables, and what happens to the tables.
type testCase struct {
	tables  []*testTable // views among them, after what they use
	queries []*node
	ticks   [][]change
	engine  bool // to be carried out by an engine, in SQL, and not by the operators alone
}

// change is one more or one fewer of a row, which is written as a list of SQL values; or a statement, which only an engine can run.
type change struct {
	table     *testTable
	row       string
	insert    bool
	statement *node
}

// String is the change in SQL for PostgreSQL.
func (c change) String() string {
	switch {
	case c.statement != nil:
		return c.statement.Postgres()
	case c.insert:
		return fmt.Sprintf("INSERT INTO %s VALUES (%s)", c.table.name, c.row)
	}
	return fmt.Sprintf("DELETE FROM %[1]s WHERE ctid = (SELECT ctid FROM %[1]s WHERE %[1]s::text = (ROW(%[2]s)::%[1]s)::text LIMIT 1)", c.table.name, c.row)
}

// generate makes the case of a seed.
func generate(seed uint64, ticks int) *testCase {
	g := &generator{rnd: rand.New(rand.NewPCG(seed, 14))}
	for range 1 + g.rnd.IntN(4) {
		g.table()
	}
	c := &testCase{engine: seed%engineEvery == 0}
	if c.engine {
		c.ticks = g.statements(ticks)
	} else {
		c.ticks = history(g.rnd, g.tables, ticks)
	}
	for range g.rnd.IntN(3) {
		q, cols := g.query(nil, 1)
		g.tables = append(g.tables, &testTable{name: g.name("v"), columns: cols, query: q})
	}
	c.tables = g.tables
	for range queriesPerSeed - 1 {
		q, _ := g.query(nil, 2)
		c.queries = append(c.queries, q)
	}
	c.queries = append(c.queries, g.partialQuery())
	return c
}

// history makes ticks of changes of tables. Rows come twice, are changed, go again; now and then a table is emptied.
func history(rnd *rand.Rand, tables []*testTable, ticks int) [][]change {
	rows := make([][]string, len(tables))
	out := make([][]change, ticks)
	for tick := range out {
		for i, t := range tables {
			insert := func(row string) {
				rows[i] = append(rows[i], row)
				out[tick] = append(out[tick], change{table: t, row: row, insert: true})
			}
			remove := func(j int) {
				out[tick] = append(out[tick], change{table: t, row: rows[i][j]})
				rows[i] = slices.Delete(rows[i], j, j+1)
			}
			for range rnd.IntN(6) {
				n := len(rows[i])
				switch what := rnd.IntN(8); {
				case n == 0 || what < 4 && n < 12:
					insert(t.row(rnd))
				case what < 5:
					insert(pick(rnd, rows[i]))
				case what < 7:
					remove(rnd.IntN(n))
				default:
					remove(rnd.IntN(n))
					insert(t.row(rnd))
				}
			}
			for rnd.IntN(30) == 0 {
				for len(rows[i]) > 0 {
					remove(0)
				}
			}
		}
	}
	return out
}

// postgres is a connection to PostgreSQL.
type postgres struct {
	conn    *pgconn.PgConn
	schemas int
}

func connect(t *testing.T, dsn string) *postgres {
	conn, err := pgconn.Connect(t.Context(), dsn)
	if err != nil {
		t.Error(err)
		t.FailNow()
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return &postgres{conn: conn}
}

func (pg *postgres) exec(text string) error {
	_, err := pg.conn.Exec(context.Background(), text).ReadAll()
	return err
}

// types are the types of columns by their SQL names.
var types = sync.OnceValue(func() map[string]flow.Type {
	out := map[string]flow.Type{}
	for _, k := range kinds {
		if p, err := planText(plan.Env{}, "SELECT NULL::"+k.sql); err == nil {
			out[k.sql] = p.Columns[0].Type
		}
	}
	return out
})

func planText(env plan.Env, text string) (*plan.Plan, error) {
	list, err := sql.Parse(text)
	if err != nil {
		return nil, err
	}
	return plan.Query(env, list[0].Statement.(*sql.Query))
}

// env is the catalog of a case for the engine.
func (c *testCase) env() (plan.Env, error) {
	objects := catalog{}
	env := plan.Env{Catalog: objects}
	for _, t := range c.tables {
		o := &plan.Object{ID: t.name, Name: t.name}
		if t.query != nil {
			list, err := sql.Parse(t.query.String())
			if err != nil {
				return env, fmt.Errorf("view %s: %w", t.name, err)
			}
			o.Query = list[0].Statement.(*sql.Query)
			p, err := plan.Query(env, o.Query)
			if err != nil {
				return env, fmt.Errorf("view %s: %w", t.name, err)
			}
			o.Columns = p.Columns
		} else {
			for _, col := range t.columns {
				o.Columns = append(o.Columns, plan.Column{Name: col.name, Type: types()[col.kind.info().sql]})
			}
		}
		objects[t.name] = o
	}
	return env, nil
}

// create is the DDL of a case for PostgreSQL.
func (c *testCase) create() string {
	var b strings.Builder
	for _, t := range c.tables {
		if t.query != nil {
			fmt.Fprintf(&b, "CREATE VIEW %s AS %s;\n", t.name, t.query.Postgres())
			continue
		}
		cols := make([]string, len(t.columns))
		for i, col := range t.columns {
			cols[i] = col.name + " " + col.kind.info().sql
		}
		fmt.Fprintf(&b, "CREATE UNLOGGED TABLE %s (%s);\n", t.name, strings.Join(cols, ", "))
	}
	return b.String()
}

// subject is what is held against PostgreSQL.
type subject interface {
	// hold begins to keep a query up to date, and returns its columns.
	hold(q string) ([]plan.Column, error)
	// step makes the changes of a tick.
	step(changes []change) error
	// contents are the rows of a query, or its evaluation errors. Queries count from 0 in the order in which they are held.
	contents(query int) (bag, []string)
	close()
}

// dataflows are the operators alone.
type dataflows struct {
	env  plan.Env
	held []*held
	rows rowParser
}

type held struct {
	flow   *flow.Dataflow
	rows   bag
	errors map[string]int64
}

func (d *dataflows) hold(q string) ([]plan.Column, error) {
	p, err := planText(d.env, q)
	if err != nil {
		return nil, err
	}
	d.held = append(d.held, &held{p.Maintained(), bag{}, map[string]int64{}})
	return p.Columns, nil
}

func (d *dataflows) step(changes []change) error {
	updates, err := d.rows.updates(changes)
	if err != nil {
		return err
	}
	for _, h := range d.held {
		delta := step(h.flow, updates)
		h.rows.add(delta)
		for _, e := range delta.Errors {
			if h.errors[e.Message] += e.Diff; h.errors[e.Message] == 0 {
				delete(h.errors, e.Message)
			}
		}
	}
	return nil
}

func (d *dataflows) contents(query int) (bag, []string) {
	h := d.held[query]
	return h.rows, slices.Sorted(maps.Keys(h.errors))
}

func (d *dataflows) close() {}

// refused begins the failure of a query that was not accepted, by either side.
const refused = "refused: "

// run carries a case out on both sides and says for each query how it failed, or nothing.
func (c *testCase) run(pg *postgres) []string {
	out := make([]string, len(c.queries))
	fail := func(err error) []string {
		for i := range out {
			out[i] = refused + err.Error()
		}
		return out
	}
	s, err := c.subject()
	if err != nil {
		return fail(err)
	}
	defer s.close()
	pg.schemas++
	schema := fmt.Sprintf("s%d_%d", pg.conn.PID(), pg.schemas)
	if err := pg.exec("CREATE SCHEMA " + schema + "; SET search_path = " + schema); err != nil {
		return fail(err)
	}
	defer pg.exec("DEALLOCATE ALL; DROP SCHEMA " + schema + " CASCADE")
	if err := pg.exec(c.create()); err != nil {
		return fail(err)
	}
	held := make([]int, len(c.queries)) // the number that the subject knows a query by
	n := 0
	for i, q := range c.queries {
		cols, err := s.hold(q.String())
		if err != nil {
			out[i] = refused + err.Error() + "\n" + q.String()
			continue
		}
		held[i] = n
		n++
		out[i] = pg.prepare(i, q, cols)
	}
	for tick, changes := range c.ticks {
		answers, err := pg.ask(changes, out)
		if err != nil {
			return fail(err)
		}
		if err := s.step(changes); err != nil {
			out[0] = fmt.Sprintf("tick %d: changes fail, and not in PostgreSQL: %v", tick, err)
			return out
		}
		for i := range out {
			if out[i] != "" {
				continue
			}
			rows, errs := s.contents(held[i])
			if e := answers[i].err; e != nil && strings.HasPrefix(e.Message, "FULL JOIN") {
				continue // PostgreSQL knows none by what it finds to be a constant
			}
			if c.engine && len(errs) > 0 && answers[i].err != nil {
				continue // a reader is told one of several errors, as PostgreSQL's is
			}
			if failure := compare(rows, errs, answers[i]); failure != "" {
				out[i] = fmt.Sprintf("tick %d: %s", tick, failure)
			}
		}
	}
	return out
}

func (c *testCase) subject() (subject, error) {
	if c.engine {
		return c.startEngine()
	}
	env, err := c.env()
	return &dataflows{env: env, rows: rowParser{}}, err
}

// prepare prepares a query in PostgreSQL, and says what is wrong with it or with the columns that the engine says it has.
func (pg *postgres) prepare(i int, q *node, cols []plan.Column) string {
	desc, err := pg.conn.Prepare(context.Background(), fmt.Sprintf("q%d", i), q.Postgres(), nil)
	if err != nil {
		return refused + err.Error() + "\n" + q.Postgres()
	}
	for j, col := range cols {
		if f := desc.Fields[j]; f.DataTypeOID != col.Type.OID() || f.Name != col.Name {
			return fmt.Sprintf("column %d is %s %s, PostgreSQL has %s of type %d", j+1, col.Name, col.Type.Name(), f.Name, f.DataTypeOID)
		}
	}
	return ""
}

// answer is PostgreSQL's.
type answer struct {
	rows bag
	err  *pgconn.PgError
}

// ask makes changes and asks every query that has not failed, all in one go.
func (pg *postgres) ask(changes []change, failed []string) ([]answer, error) {
	ctx := context.Background()
	p := pg.conn.StartPipeline(ctx)
	for _, ch := range changes {
		p.SendQueryParams(ch.String(), nil, nil, nil, nil)
	}
	p.SendPipelineSync()
	for i, f := range failed {
		if f == "" {
			p.SendQueryPrepared(fmt.Sprintf("q%d", i), nil, nil, nil)
		}
		p.SendPipelineSync()
	}
	if err := p.Flush(); err != nil {
		return nil, err
	}
	made := read(p)
	out := make([]answer, len(failed))
	for i := range out {
		out[i] = read(p)
	}
	if err := p.Close(); err != nil {
		return nil, err
	}
	if made.err != nil {
		return nil, made.err
	}
	return out, nil
}

// read reads what came until the next synchronisation.
func read(p *pgconn.Pipeline) answer {
	a := answer{rows: bag{}}
	for {
		results, err := p.GetResults()
		if err != nil && !errors.As(err, &a.err) {
			panic(err)
		}
		switch r := results.(type) {
		case *pgconn.PipelineSync:
			return a
		case *pgconn.ResultReader:
			for r.NextRow() {
				cells := make([]string, len(r.Values()))
				for i, v := range r.Values() {
					cells[i] = normal(r.FieldDescriptions()[i], v)
				}
				a.rows[strings.Join(cells, " | ")]++
			}
			if _, err := r.Close(); err != nil && !errors.As(err, &a.err) {
				panic(err)
			}
		}
	}
}

// compare says how what the engine has differs from PostgreSQL's answer.
func compare(rows bag, errs []string, a answer) string {
	switch {
	case a.err != nil && len(errs) == 0:
		return "PostgreSQL fails: " + a.err.Message
	case a.err == nil && len(errs) > 0:
		return "evaluation error " + strings.Join(errs, ", ")
	case a.err != nil && !slices.ContainsFunc(errs, func(e string) bool { return sameError(e, a.err.Message) }):
		return fmt.Sprintf("error is\n%s\nPostgreSQL has %s", strings.Join(errs, ", "), a.err.Message)
	case a.err != nil:
		return ""
	}
	if got, want := rows.String(), a.rows.String(); got != want {
		return fmt.Sprintf("got\n%s\nPostgreSQL has\n%s", got, want)
	}
	return ""
}

// sameError compares evaluation errors. PostgreSQL meets the first one, the engine all; a jsonb is a json where PostgreSQL reads it,
// and what is wrong with it is in the details; and a text of digits is a time out of range to PostgreSQL, and none at all here.
func sameError(got, postgres string) bool {
	both := func(a, b string) bool { return strings.HasPrefix(got, a) && strings.HasPrefix(postgres, b) }
	const badJSON = "invalid input syntax for type json"
	return got == postgres || both(badJSON, badJSON) ||
		both("invalid input syntax for type date", "date/time field value out of range") ||
		both("invalid input syntax for type timestamp", "date/time field value out of range")
}

// rowParser turns the rows of changes into rows of the engine, each text once.
type rowParser map[string]flow.Row

func (p rowParser) updates(changes []change) (map[string][]flow.Update, error) {
	out := map[string][]flow.Update{}
	for _, c := range changes {
		if p[c.row] == nil {
			q, err := planText(plan.Env{}, "SELECT "+c.row)
			if err != nil {
				return nil, err
			}
			d := q.Once().Step(&flow.Context{}, nil)
			if len(d.Errors) > 0 {
				return nil, fmt.Errorf("%s: %s", c.row, d.Errors[0].Message)
			}
			p[c.row] = d.Rows[0].Row
		}
		diff := int64(-1)
		if c.insert {
			diff = 1
		}
		out[c.table.name] = append(out[c.table.name], flow.Update{Row: p[c.row], Diff: diff})
	}
	return out, nil
}

// only is the case with one of its queries, and the views it uses.
func (c *testCase) only(i int) *testCase {
	out := &testCase{queries: c.queries[i : i+1], engine: c.engine}
	uses := c.queries[i].Postgres()
	for _, t := range slices.Backward(c.tables) {
		if strings.Contains(uses, t.name+" ") {
			out.tables = append(out.tables, t)
			if t.query != nil {
				uses += t.query.Postgres()
			}
		}
	}
	slices.Reverse(out.tables)
	out.ticks = nil
	for _, tick := range c.ticks {
		out.ticks = append(out.ticks, slices.DeleteFunc(slices.Clone(tick), func(ch change) bool { return !slices.Contains(out.tables, ch.table) }))
	}
	return out
}

// mannerOf is how a failure begins, which must not change while its case is made smaller.
func mannerOf(failure string) string {
	m := regexp.MustCompile(`^(?:tick \d+: )?(\w+ ?\w*)`).FindStringSubmatch(failure)
	return m[1]
}

// shrink makes a case with one query smaller while it fails, and describes it as SQL for psql.
func (c *testCase) shrink(pg *postgres, failure string) string {
	if strings.HasPrefix(failure, refused) {
		return failure
	}
	attempts := 600
	was := mannerOf(failure)
	fails := func() bool {
		s := c.run(pg)[0]
		if s == "" || mannerOf(s) != was {
			return false
		}
		failure = s
		return true
	}
	c.shrinkTicks(fails)
	c.queries[0].shrink(&attempts, fails)
	for _, t := range c.tables {
		if t.query != nil {
			t.query.shrink(&attempts, fails)
		}
	}
	c.shrinkTicks(fails)
	fails()
	var b strings.Builder
	b.WriteString(c.create())
	for i, tick := range c.ticks {
		fmt.Fprintf(&b, "-- tick %d\n", i)
		for _, ch := range tick {
			fmt.Fprintf(&b, "%s;\n", ch)
		}
	}
	q := c.queries[0]
	if q.String() != q.Postgres() {
		fmt.Fprintf(&b, "-- in mzd: %s\n", q)
	}
	return fmt.Sprintf("%s\n%s%s;", failure, &b, q.Postgres())
}

// shrinkTicks takes ticks together and changes away: all that has gone again first.
func (c *testCase) shrinkTicks(fails func() bool) {
	play := func(script []change) error {
		before := c.ticks
		c.ticks = possible(inTicks(script))
		if fails() {
			return errors.New("fails")
		}
		c.ticks = before
		return nil
	}
	script := remaining(c.ticks)
	err := play(script)
	if err == nil {
		script = nil
		for _, tick := range c.ticks {
			script = append(append(script, tick...), endOfTick)
		}
		err = play(script)
	}
	if err != nil {
		modeltest.Shrink(script, err, 300, play)
	}
}

// endOfTick stands between the changes of two ticks in a script.
var endOfTick change

// inTicks splits a script.
func inTicks(script []change) [][]change {
	out := [][]change{nil}
	for _, ch := range script {
		if ch == endOfTick {
			out = append(out, nil)
		} else {
			out[len(out)-1] = append(out[len(out)-1], ch)
		}
	}
	return out
}

// possible leaves out the deletions of rows that are not there.
func possible(ticks [][]change) [][]change {
	there := map[string]int{}
	out := make([][]change, len(ticks))
	for i, tick := range ticks {
		for _, ch := range tick {
			key := ch.table.name + ch.row
			switch {
			case ch.statement != nil:
			case ch.insert:
				there[key]++
			case there[key] == 0:
				continue
			default:
				there[key]--
			}
			out[i] = append(out[i], ch)
		}
	}
	return out
}

// remaining are the insertions that make what is there after all ticks.
func remaining(ticks [][]change) []change {
	var out []change
	for _, tick := range ticks {
		for _, ch := range tick {
			if ch.insert || ch.statement != nil {
				out = append(out, ch)
			} else if i := slices.IndexFunc(out, func(x change) bool { return x.table == ch.table && x.row == ch.row }); i >= 0 {
				out = slices.Delete(out, i, i+1)
			}
		}
	}
	return out
}
