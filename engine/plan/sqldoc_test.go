package plan_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mzdio/mzd/engine/flow"
)

// The document begins with what no golden shows.
const sqlIntro = `# SQL of the embedded engine

*Generated from the tests by ` + "`go test ./engine/plan -update`" + `: every example below is run, and its result is what the engine gave.*

The embedded engine maintains SQL views: each change of the data becomes the change of every view, at a cost that follows the
change and not the data. It speaks the PostgreSQL protocol, and its SQL is PostgreSQL's, in the dialect of
[Materialize](https://materialize.com) where the two differ, so that the same views run there when one process is no longer
enough. What is not here is refused with SQLSTATE 0A000, the line and the column, never computed in another way.

How it is known to be right: the examples are compared with a real PostgreSQL, and so are every function with all types that it
takes, and thousands of generated queries after every step of random insertions and deletions. "Differences from PostgreSQL", at
the end, lists all that such comparison leaves out.

Three things to know before the rest:

- **A view is a function of its contents.** There is no ` + "`now()`" + `, and where PostgreSQL would pick a row or an order by chance, the
  engine has a rule.
- **An error in one row is an error of the view** for as long as the row is there: reading the view fails with PostgreSQL's words,
  a stream of it ends, and when the row goes the view is back.
- **Text is compared by its bytes**, as under PostgreSQL's C collation. All times are in UTC.

[Types](#types) · [Statements](#statements) · [Queries](#queries) · [Expressions](#expressions) ·
[Differences from PostgreSQL](#differences-from-postgresql) · [What is refused](#what-is-refused)
`

// TestReference holds docs/sql.md against the goldens.
func TestReference(t *testing.T) {
	d := document{expressions: expressions(t), queries: paragraphs(t, queriesFile), statements: paragraphs(t, "../sql/testdata/statements.txt")}
	d.refusals.queries, d.refusals.errors = refusals(t)
	got := d.markdown()
	const file = "../../docs/sql.md"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil || string(want) != got {
		t.Errorf("%s is not what the goldens say; run go test ./engine/plan -update (%v)", file, err)
	}
}

// TestEveryFunction looks for functions and operators that no golden shows.
func TestEveryFunction(t *testing.T) {
	var all strings.Builder
	for _, g := range expressions(t) {
		fmt.Fprintf(&all, " %s \n", g.input)
	}
	for _, name := range flow.Functions() {
		shown := strings.Contains(all.String(), " "+name+" ")
		if name[0] >= 'a' && name[0] <= 'z' {
			shown = strings.Contains(all.String(), name+"(") || name == "not"
		}
		if !shown {
			t.Errorf("testdata/expressions.txt shows no %s", name)
		}
	}
}

// document is what the goldens say.
type document struct {
	expressions, queries, statements []golden
	refusals                         struct{ queries, errors []string }
	b                                strings.Builder
}

func (d *document) markdown() string {
	d.b.WriteString(sqlIntro)
	d.types()
	d.b.WriteString("\n## Statements\n\nWhat stands on one line is one text that a client may send.\n")
	d.examples(byVerb(d.statements))
	fmt.Fprintf(&d.b, "\n## Queries\n\nThe tests keep each of these up to date while tables change, and hold it against PostgreSQL. The tables are %s.\n", tableList())
	d.examples(d.queries)
	d.b.WriteString("\n## Expressions\n\nThe right column is the value as psql shows it, or the error.\n")
	for _, section := range sections(d.expressions) {
		fmt.Fprintf(&d.b, "\n### %s\n\n| expression | type | value |\n|---|---|---|\n", section[0].heading)
		for _, g := range section {
			d.expression(g)
		}
	}
	d.differences()
	d.refused()
	return d.b.String()
}

// sections are the goldens by heading, in order.
func sections(list []golden) [][]golden {
	var out [][]golden
	for i, g := range list {
		if i == 0 || g.heading != list[i-1].heading {
			out = append(out, nil)
		}
		out[len(out)-1] = append(out[len(out)-1], g)
	}
	return out
}

// code is text as code in a cell of a table.
func code(s string) string {
	s = strings.ReplaceAll(s, "|", `\|`)
	if strings.TrimSpace(s) != s || s == "" {
		s = "'" + s + "'"
	}
	return "`" + s + "`"
}

// split returns the type and the value of a result, or the error.
func (g golden) split() (typ, value string) {
	if message, ok := strings.CutPrefix(g.output, "error: "); ok {
		return "", strings.ReplaceAll("*"+strings.TrimPrefix(message, "evaluation: ")+"*", "|", `\|`)
	}
	typ, value, _ = strings.Cut(g.output, " ")
	if value == "NULL" {
		return typ, value
	}
	return typ, code(value)
}

func (d *document) expression(g golden) {
	typ, value := g.split()
	fmt.Fprintf(&d.b, "| %s | %s | %s |\n", code(g.input), typ, value)
}

func (d *document) types() {
	d.b.WriteString("\n## Types\n\n| type | also called | OID | for example | is shown as |\n|---|---|---|---|---|\n")
	for _, ty := range flow.Scalars() {
		i := slices.IndexFunc(d.expressions, func(g golden) bool {
			return strings.HasPrefix(g.output, ty.Name()+" ") && !strings.HasSuffix(g.output, " NULL") && g.difference == "" &&
				strings.HasSuffix(g.input, "::"+ty.Name())
		})
		if i < 0 {
			i = slices.IndexFunc(d.expressions, func(g golden) bool { return strings.HasPrefix(g.output, ty.Name()+" ") && g.difference == "" })
		}
		example, value := "", ""
		if i >= 0 {
			_, v := d.expressions[i].split()
			example, value = code(d.expressions[i].input), v
		}
		also := ty.SQL()
		if also == ty.Name() {
			also = ""
		}
		fmt.Fprintf(&d.b, "| %s | %s | %d | %s | %s |\n", ty.Name(), also, ty.OID(), example, value)
	}
	d.b.WriteString("\nOf each there are arrays of one dimension, which aggregates and casts make.\n")
}

// verbs are headings for statements by the word they begin with, in the order of the document.
var verbs = []struct{ heading, words string }{
	{"Tables, sources and views", "create drop alter"},
	{"Changing tables", "insert update delete truncate copy"},
	{"Streams and cursors", "subscribe tail declare fetch close"},
	{"Looking around", "show explain"},
	{"Sessions and transactions", "begin start commit set reset discard"},
	{"The grammar of queries", "select with values"},
}

// byVerb groups statements.
func byVerb(list []golden) []golden {
	var out []golden
	for _, v := range verbs {
		for _, g := range list {
			word, rest, _ := strings.Cut(strings.ToLower(g.input), " ")
			word = strings.TrimSuffix(word, ";")
			if word == "copy" && strings.HasPrefix(rest, "(") { // which is a way to read
				word = "subscribe"
			}
			if slices.Contains(strings.Fields(v.words), word) {
				g.heading = v.heading
				out = append(out, g)
			}
		}
	}
	return out
}

// tableList names the tables of the goldens.
func tableList() string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		cols := make([]string, len(tables[name].Columns))
		for i, c := range tables[name].Columns {
			cols[i] = c.Name + " " + c.Type.Name()
		}
		out = append(out, fmt.Sprintf("`%s (%s)`", name, strings.Join(cols, ", ")))
	}
	return strings.Join(out, ", ")
}

// examples lists inputs that are accepted.
func (d *document) examples(list []golden) {
	for _, section := range sections(list) {
		var b strings.Builder
		for _, g := range section {
			if !g.failed() && !strings.Contains(g.input, "--") {
				fmt.Fprintf(&b, "%s;\n", g.input)
			}
		}
		if b.Len() > 0 {
			fmt.Fprintf(&d.b, "\n### %s\n\n```sql\n%s```\n", section[0].heading, &b)
		}
	}
}

func (g golden) failed() bool { return strings.HasPrefix(g.output, "error") }

// differences lists the goldens to which PostgreSQL has another answer, less what is only missing.
func (d *document) differences() {
	d.b.WriteString("\n## Differences from PostgreSQL\n\nThe tests make sure that PostgreSQL's answer to each of these is another one. Besides, a `power()` in double precision\nmay have another last digit, as it has between one machine and another.\n\n| what is different | for example | here |\n|---|---|---|\n")
	last := ""
	for _, g := range d.expressions {
		if g.difference == "" || g.missing() {
			continue
		}
		what := g.difference
		if what == last {
			what = ""
		}
		last = g.difference
		_, value := g.split()
		fmt.Fprintf(&d.b, "| %s | %s | %s |\n", what, code(g.input), value)
	}
}

// missing tells whether an expression is none that the engine knows.
func (g golden) missing() bool {
	return g.failed() && !strings.HasPrefix(g.output, "error: evaluation: ")
}

func (d *document) refused() {
	d.b.WriteString("\n## What is refused\n\nWhat the engine knows of and does not do, or not so. The error has the line and the column, and a hint where Materialize can do it.\n\n| SQL | answer |\n|---|---|\n")
	row := func(input, message string) {
		fmt.Fprintf(&d.b, "| %s | %s |\n", code(strings.ReplaceAll(input, "\n", " ")), strings.ReplaceAll(message, "|", `\|`))
	}
	for _, g := range d.statements {
		if message, ok := strings.CutPrefix(g.output, "error 0A000 at "); ok {
			_, message, _ = strings.Cut(message, ": ")
			message, _, _ = strings.Cut(message, "\n")
			row(g.input, message)
		}
	}
	for i, q := range d.refusals.queries {
		if _, message, ok := strings.Cut(d.refusals.errors[i], " 0A000 "); ok {
			message, _, _ = strings.Cut(message, " | ")
			row(q, message)
		}
	}
	for _, g := range d.expressions {
		if g.difference != "" && g.missing() {
			row("SELECT "+g.input, strings.TrimPrefix(g.output, "error: "))
		}
	}
}
