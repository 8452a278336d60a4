package plan_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
	"github.com/mzdio/mzd/engine/sql"
)

// nested writes a query within itself, with %s for the one inside.
func nested(pattern, innermost string, depth int) string {
	q := innermost
	for range depth {
		q = fmt.Sprintf(pattern, q)
	}
	return q
}

// TestLimits holds the planner against queries that are short to write and large to carry out, or deep.
func TestLimits(t *testing.T) {
	var doubling strings.Builder
	doubling.WriteString("WITH q0 AS (SELECT 1 AS x)")
	for i := range 40 {
		fmt.Fprintf(&doubling, ", q%d AS (SELECT a.x FROM q%d AS a, q%d AS b WHERE a.x = (SELECT max(x) FROM q%d))", i+1, i, i, i)
	}
	doubling.WriteString(" SELECT * FROM q40")
	for name, q := range map[string]string{
		"tables that double": doubling.String(),
		"NOT IN in NOT IN":   nested("SELECT x FROM u WHERE x NOT IN (%s)", "SELECT 1", 40),
		"values in values":   nested("SELECT (%s)", "SELECT 1", 150),
		"joins":              "SELECT 1 FROM t" + joins(1500),
		"functions":          "SELECT 1 FROM t" + functions(1500),
		"derived tables":     nested("SELECT * FROM (%s) AS q", "SELECT 1", 150),
		"lateral queries":    "SELECT 1 FROM t" + laterals(600),
		"columns":            "SELECT 1" + strings.Repeat(", 1", 1700),
		"stars":              "SELECT *" + strings.Repeat(", *", 300_000) + " FROM t",
		"columns of VALUES":  "VALUES (1" + strings.Repeat(", 1", 1700) + ")",
		"columns of joins":   "SELECT 1 FROM t" + repeated(" CROSS JOIN (SELECT *, *, *, *, *, *, *, *, *, * FROM t) AS t%d", 200),
		"order":              "SELECT a FROM t ORDER BY a" + repeated(", a + %d", 1700),
		"keys":               "SELECT count(*) FROM t GROUP BY a" + repeated(", a + %d", 1700),
		"aggregates":         "SELECT concat(''" + repeated(", sum(a + %d)", 20_000) + ") FROM t",
	} {
		_, err := planText(env(), q)
		var e *sql.Error
		if !errors.As(err, &e) || !strings.HasPrefix(e.Code, "54") {
			t.Errorf("%s: got %v, want an error of class 54", name, err)
		}
	}
	for name, q := range map[string]string{
		"NOT IN in NOT IN":           nested("SELECT x FROM u WHERE x NOT IN (%s)", "SELECT 1", 5),
		"values in values":           nested("SELECT (%s)", "SELECT 1", 40),
		"joins":                      "SELECT 1 FROM t" + joins(200),
		"columns":                    "SELECT 1" + strings.Repeat(", 1", 1600),
		"operators above a GROUP BY": "SELECT a" + strings.Repeat(" + 1", 500) + ", " + strings.Repeat("a + ", 500) + "count(*) FROM t GROUP BY a",
	} {
		p, err := planText(env(), q)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p.Maintained().Step(&flow.Context{}, make([]flow.Delta, len(p.Maintained().Slots)))
	}
}

// TestGroupedChain makes sure that what planning a chain of operators above a GROUP BY takes does not grow with the cube of its length.
func TestGroupedChain(t *testing.T) {
	allocated := func(n int) float64 {
		q := parse("SELECT a" + strings.Repeat(" + 1", n) + " FROM t GROUP BY a")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := plan.Query(env(), q); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return float64(after.TotalAlloc - before.TotalAlloc)
	}
	if short, long := allocated(200), allocated(800); long > 30*short {
		t.Errorf("a chain of 800 takes %.0f bytes, one of 200 %.0f", long, short)
	}
}

func repeated(pattern string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, pattern, i)
	}
	return b.String()
}

func joins(n int) string     { return repeated(" CROSS JOIN u AS u%d", n) }
func functions(n int) string { return repeated(", generate_series(1, a) AS g%d", n) }
func laterals(n int) string {
	return repeated(", LATERAL (SELECT x FROM u WHERE u.a = t.a LIMIT 1) AS l%d", n)
}

// TestScalar lets a subquery that is used as a value have too many rows for a while.
func TestScalar(t *testing.T) {
	df := mustPlan(t, "SELECT (SELECT x FROM u WHERE a = 1) + 1").Maintained()
	rows, errs := bag{}, map[string]int64{}
	row := func(a, x int64) flow.Row {
		return flow.Row{flow.NewInt(flow.Int4, a), flow.NewInt(flow.Int4, x), flow.Null}
	}
	const tooMany = "more than one row returned by a subquery used as an expression"
	for i, c := range []struct {
		row  flow.Row
		diff int64
		want string
	}{
		{nil, 0, "NULL x1"},
		{row(1, 5), 1, "6 x1"},
		{row(2, 7), 1, "6 x1"},
		{row(1, 7), 1, tooMany},
		{row(1, 5), 1, tooMany},
		{row(1, 7), -1, tooMany}, // one row twice
		{row(1, 5), -1, "6 x1"},
		{row(1, 5), -1, "NULL x1"},
	} {
		changes := map[string][]flow.Update{}
		if c.row != nil {
			changes["u"] = []flow.Update{{Row: c.row, Diff: c.diff}}
		}
		d := step(df, changes)
		rows.add(d)
		for _, e := range d.Errors {
			if errs[e.Message] += e.Diff; errs[e.Message] == 0 {
				delete(errs, e.Message)
			}
		}
		got := rows.String()
		for message := range errs {
			got = message
		}
		if got != c.want {
			t.Errorf("step %d: got %s, want %s", i, got, c.want)
		}
	}
}
