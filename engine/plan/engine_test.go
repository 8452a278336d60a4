package plan_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mzdio/mzd/engine"
	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
)

// statements makes ticks of statements that change the tables, for an engine.
func (g *generator) statements(ticks int) [][]change {
	out := make([][]change, ticks)
	for tick := range out {
		for range g.rnd.IntN(4) {
			t := pick(g.rnd, g.tables)
			out[tick] = append(out[tick], change{table: t, statement: g.statement(t)})
		}
	}
	return out
}

func (g *generator) statement(t *testTable) *node {
	var s scope
	var names []string
	for _, c := range t.columns {
		s = append(s, readable{text(c.name), c.kind})
		names = append(names, c.name)
	}
	g.plain++
	defer func() { g.plain-- }()
	where := optional(" WHERE ", g.expr("bool", s, 1))
	switch g.rnd.IntN(7) {
	case 0, 1, 2:
		rows := &node{list: true}
		for range 1 + g.rnd.IntN(4) {
			rows.parts = append(rows.parts, text("("+t.row(g.rnd)+")"))
		}
		return text("INSERT INTO ", t.name, optional(" ("+strings.Join(names, ", ")+")"), " VALUES ", rows)
	case 3: // some rows once more
		c := t.columns[0]
		return text("INSERT INTO ", t.name, " SELECT * FROM ", t.name, " WHERE "+c.name+" = ", text(c.kind.value(g.rnd)))
	case 4, 5:
		c := pick(g.rnd, t.columns)
		depth := 1
		if c.kind.is("text") || c.kind == "jsonb" { // which would grow
			depth = 0
		}
		return text("UPDATE ", t.name, " SET "+c.name+" = ", g.expr(c.kind, s, depth), where)
	default:
		return text("DELETE FROM ", t.name, where)
	}
}

// running is an engine with the tables, views and queries of a case.
type running struct {
	dir     string
	engine  *engine.Engine
	session *engine.Session
	stop    func()
	held    int
	ticks   int
}

func (c *testCase) startEngine() (*running, error) {
	dir, err := os.MkdirTemp("", "mzdengine")
	if err != nil {
		return nil, err
	}
	r := &running{dir: dir}
	if err := r.start(); err != nil {
		return nil, err
	}
	for i, t := range c.tables {
		create := ""
		if t.query != nil {
			create = fmt.Sprintf("CREATE %sVIEW %s AS %s", []string{"", "MATERIALIZED "}[i%2], t.name, t.query)
		} else {
			cols := make([]string, len(t.columns))
			for i, col := range t.columns {
				cols[i] = col.name + " " + col.kind.info().sql
			}
			create = fmt.Sprintf("CREATE TABLE %s (%s)", t.name, strings.Join(cols, ", "))
		}
		if _, _, err := r.run(create); err != nil {
			r.close()
			return nil, err
		}
	}
	return r, nil
}

func (r *running) start() error {
	e, err := engine.Open(engine.Options{DataDir: r.dir, TickInterval: time.Millisecond})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	r.engine, r.session = e, e.NewSession()
	r.stop = func() {
		r.session.Close()
		cancel()
		<-done
	}
	return nil
}

func (r *running) close() {
	r.stop()
	os.RemoveAll(r.dir)
}

// run executes a statement.
func (r *running) run(text string) ([]engine.Field, []flow.Row, error) {
	ctx := context.Background()
	parsed, err := r.session.Parse(text)
	if err != nil {
		return nil, nil, err
	}
	result, err := r.session.Execute(ctx, parsed[0])
	if err != nil {
		return nil, nil, err
	}
	defer result.Close()
	var all []flow.Row
	for result.Next != nil {
		rows, err := result.Next(ctx)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		all = append(all, rows...)
	}
	return result.Fields, all, nil
}

func (r *running) hold(q string) ([]plan.Column, error) {
	name := fmt.Sprintf("q%d", r.held)
	if _, _, err := r.run("CREATE MATERIALIZED VIEW " + name + " AS " + q); err != nil {
		return nil, err
	}
	r.held++
	fields, _, err := r.run("SELECT * FROM " + name + " LIMIT 0")
	if err != nil {
		return nil, err
	}
	cols := make([]plan.Column, len(fields))
	for i, f := range fields {
		cols[i] = plan.Column{Name: f.Name, Type: f.Type}
	}
	return cols, nil
}

// step runs the statements of a tick. Every few ticks the engine is stopped and opened again.
func (r *running) step(changes []change) error {
	for _, ch := range changes {
		if _, _, err := r.run(ch.statement.String()); err != nil {
			return fmt.Errorf("%s: %w", ch.statement, err)
		}
	}
	if r.ticks++; r.ticks%7 == 0 {
		r.stop()
		return r.start()
	}
	return nil
}

func (r *running) contents(query int) (bag, []string) {
	_, rows, err := r.run(fmt.Sprintf("SELECT * FROM q%d", query))
	var e *engine.Error
	if errors.As(err, &e) {
		return nil, []string{strings.TrimPrefix(e.Message, "Evaluation error: ")}
	}
	if err != nil {
		return nil, []string{err.Error()}
	}
	out := bag{}
	for _, row := range rows {
		out[rowText(row)]++
	}
	return out, nil
}
