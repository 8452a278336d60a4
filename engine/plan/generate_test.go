package plan_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// testColumn is a column of a generated relation.
type testColumn struct {
	name string
	kind kind
}

// testTable is a relation that a query may name: a table, or a view if it has a query.
type testTable struct {
	name    string
	columns []testColumn
	query   *node
}

// generator makes tables, their contents and queries over them. All it does follows from rnd.
type generator struct {
	rnd    *rand.Rand
	tables []*testTable // and views
	ctes   []*testTable // in sight
	names  int          // names given so far
	plain  int          // above zero where no subquery may stand
	open   int          // above zero where a query has no ORDER BY, because it has no parentheses
}

// scope is what an expression may read.
type scope []readable

// readable is an expression that reads something: a column, or above GROUP BY a key or an aggregate.
type readable struct {
	node *node
	kind kind
}

func (g *generator) chance(n int) bool { return g.rnd.IntN(n) == 0 }

func (g *generator) name(prefix string) string {
	g.names++
	return prefix + strconv.Itoa(g.names)
}

// visible are the relations that a FROM may name: of one name the innermost.
func (g *generator) visible() []*testTable {
	all := slices.Concat(g.tables, g.ctes)
	var out []*testTable
	for i, t := range all {
		if !slices.ContainsFunc(all[i+1:], func(other *testTable) bool { return other.name == t.name }) {
			out = append(out, t)
		}
	}
	return out
}

// table makes a table. Names of columns are few, so that tables have some in common.
func (g *generator) table() *testTable {
	t := &testTable{name: fmt.Sprintf("t%d", len(g.tables)+1)}
	for i := range 3 + g.rnd.IntN(5) {
		k := pick(g.rnd, classes["any"])
		if i == 0 {
			k = pick(g.rnd, []kind{"int4s", "text", "int8s"}) // something to join and to group by
		}
		t.columns = append(t.columns, testColumn{string(rune('a' + i)), k})
	}
	g.tables = append(g.tables, t)
	return t
}

// row makes a row of a table.
func (t *testTable) row(rnd *rand.Rand) string {
	values := make([]string, len(t.columns))
	for i, c := range t.columns {
		values[i] = c.kind.value(rnd)
	}
	return strings.Join(values, ", ")
}

// expr makes an expression of a kind. depth bounds how many are within each other.
func (g *generator) expr(k kind, s scope, depth int) *node {
	if depth > 0 && g.plain == 0 && g.chance(25) {
		if n := g.subqueryExpr(k, s, depth-1); n != nil {
			return n
		}
	}
	if lines := productions[k]; depth > 0 && len(lines) > 0 && !g.chance(4) {
		n := g.write(g.production(lines, s), s, depth-1, map[string]*node{})
		n.kind = k
		return n
	}
	if reads := readables(s, k); len(reads) > 0 && !g.chance(5) {
		return &node{kind: k, parts: []any{pick(g.rnd, reads).node}}
	}
	if k == "int4s" && g.chance(2) { // a number without a type
		return &node{kind: k, parts: []any{pick(g.rnd, []string{"0", "1", "2", "3", "(-1)"})}}
	}
	return &node{kind: k, parts: []any{k.value(g.rnd)}}
}

// readables are what there is of a kind.
func readables(s scope, k kind) []readable {
	return slices.DeleteFunc(slices.Clone(s), func(r readable) bool { return !r.kind.is(k) })
}

// write fills the holes of a production. Some labels may have been filled already.
func (g *generator) write(p production, s scope, depth int, labels map[string]*node) *node {
	var fill func(parts []any) *node
	fill = func(parts []any) *node {
		n := &node{}
		for _, p := range parts {
			switch p := p.(type) {
			case string:
				n.parts = append(n.parts, p)
			case [2][]any:
				n.parts = append(n.parts, dialect{fill(p[0]), fill(p[1])})
			case hole:
				x := labels[p.label]
				if p.label == "" || x == nil {
					x = g.fill(p.want, s, depth)
				}
				if p.label != "" {
					labels[p.label] = x
				}
				n.parts = append(n.parts, x)
			}
		}
		return n
	}
	return fill(p.parts)
}

func (g *generator) fill(want string, s scope, depth int) *node {
	if list := words[want]; list != nil {
		return text(pick(g.rnd, list))
	}
	if list := classes[want]; list != nil {
		want = string(g.among(list, s))
	}
	return g.expr(kind(want), s, depth)
}

// among picks a kind, mostly one that can be read.
func (g *generator) among(list []kind, s scope) kind {
	if !g.chance(4) {
		there := slices.DeleteFunc(slices.Clone(list), func(k kind) bool { return len(readables(s, k)) == 0 })
		if len(there) > 0 {
			return pick(g.rnd, there)
		}
	}
	return pick(g.rnd, list)
}

// production picks a way to write an expression of a kind, mostly one that reads something and is particular to the kind.
func (g *generator) production(lines []line, s scope) production {
	p := pick(g.rnd, pick(g.rnd, lines))
	for range 4 {
		reads := slices.ContainsFunc(p.parts, func(part any) bool {
			h, ok := part.(hole)
			return ok && (classes[h.want] != nil || len(readables(s, kind(h.want))) > 0)
		})
		if reads && (!p.general || g.chance(2)) {
			break
		}
		p = pick(g.rnd, pick(g.rnd, lines))
	}
	return p
}

// subqueryExpr makes an expression of a subquery, or nil.
func (g *generator) subqueryExpr(k kind, s scope, depth int) *node {
	if k == "bool" {
		inner := kind(pick(g.rnd, classes["ord"]))
		switch g.rnd.IntN(3) {
		case 0:
			q, _ := g.query(nil, depth)
			return &node{kind: k, parts: []any{pick(g.rnd, []string{"(EXISTS (", "(NOT EXISTS ("}), q, "))"}}
		default:
			q, _ := g.query([]kind{inner}, depth)
			how := pick(g.rnd, []string{" IN (", " NOT IN (", " = ANY (", " <> ALL (", " = SOME ("})
			return &node{kind: k, parts: []any{"(", g.expr(inner, s, depth), how, q, "))"}}
		}
	}
	// Of an aggregate without GROUP BY there is one row, and of a LIMIT 1 there is at most one.
	from, inner := g.single(depth)
	if agg := g.aggregate(k, inner, depth); agg != nil && g.chance(2) {
		return &node{kind: k, parts: []any{"(SELECT ", agg, " FROM ", from, ")"}}
	}
	items := &node{list: true, parts: []any{g.expr(k, inner, depth)}}
	if k.base() == "interval" {
		return nil
	}
	return &node{kind: k, parts: []any{"(SELECT ", items, " FROM ", from, " ORDER BY 1 LIMIT 1)"}}
}

// aggregate makes an aggregate of a kind, or nil if there is none.
func (g *generator) aggregate(k kind, inner scope, depth int) *node {
	lines := aggregators[k]
	if len(lines) == 0 {
		return nil
	}
	g.plain++ // PostgreSQL would take the aggregate for one of the outer query
	defer func() { g.plain-- }()
	filter := text()
	if g.chance(4) {
		filter = optional(" FILTER (WHERE ", g.expr("bool", inner, min(depth, 1)), ")")
	}
	n := g.write(g.production(lines, inner), inner, min(depth, 2), map[string]*node{"filter": filter})
	n.kind = k
	return n
}

// from makes a FROM clause of at most n relations, and says what can be read in it.
func (g *generator) from(depth, n int) (*node, scope) {
	if n <= 1 || g.chance(2) {
		return g.relation(depth)
	}
	right, rs := g.relation(depth)
	if n == 2 && g.chance(4) { // a join on the right side, and then not more than a relation on the left
		second, ss := g.relation(depth)
		right, rs = g.join(depth, right, second, rs, ss)
	}
	left, ls := g.from(depth, n-1)
	return g.join(depth, left, right, ls, rs)
}

// join makes a join of two pieces of a FROM clause, and says what can be read in it.
func (g *generator) join(depth int, left, right *node, ls, rs scope) (*node, scope) {
	both := slices.Concat(ls, rs)
	g.plain++
	defer func() { g.plain-- }()
	how := pick(g.rnd, []string{" JOIN ", " JOIN ", " LEFT JOIN ", " LEFT JOIN ", " RIGHT JOIN ", " FULL JOIN ", " CROSS JOIN "})
	var keys []any
	for range 6 {
		l := pick(g.rnd, ls)
		if same := readables(rs, l.kind.base()); len(same) > 0 && len(keys) < 2 {
			keys = append(keys, text("(", l.node, " = ", pick(g.rnd, same).node, ")"))
		}
	}
	switch {
	case how == " CROSS JOIN " || len(keys) == 0 && (how == " FULL JOIN " || g.chance(2)):
		return &node{kind: "from", parts: []any{"(", left, " CROSS JOIN ", right, ")"}}, both
	case len(keys) == 0:
		return &node{kind: "from", parts: []any{"(", left, how, right, " ON ", g.expr("bool", both, min(depth, 1)), ")"}}, both
	}
	keys = keys[:1+g.rnd.IntN(len(keys))]
	cond := &node{}
	for i, k := range keys {
		if i > 0 {
			k = optional(" AND ", k)
		}
		cond.parts = append(cond.parts, k)
	}
	if how != " FULL JOIN " && g.chance(3) {
		cond.parts = append(cond.parts, optional(" AND ", g.expr("bool", both, min(depth, 1))))
	}
	return &node{kind: "from", parts: []any{"(", left, how, right, " ON ", cond, ")"}}, both
}

// relation makes one entry of FROM.
func (g *generator) relation(depth int) (*node, scope) {
	alias := g.name("r")
	switch {
	case depth > 0 && g.chance(5):
		q, cols := g.query(nil, depth-1)
		return &node{kind: "from", parts: []any{"(", q, ") AS ", alias}}, named(alias, cols)
	case g.chance(15):
		q, cols := g.values(nil)
		return &node{kind: "from", parts: []any{"(", q, ") AS ", alias}}, named(alias, cols)
	}
	t := pick(g.rnd, g.visible())
	list, cols := g.renamed(8, t.columns)
	n := &node{kind: "from", parts: []any{t.name + " AS " + alias + list}}
	s := named(alias, cols)
	if docs := readables(s, "jsonb"); len(docs) > 0 && g.chance(4) {
		item := g.name("e")
		doc := pick(g.rnd, docs).node
		function := pick(g.rnd, []struct {
			call, of string
			kind     kind
		}{{"jsonb_array_elements", "array", "jsonb"}, {"jsonb_array_elements_text", "array", "text"}, {"jsonb_object_keys", "object", "text"}})
		how := pick(g.rnd, [][2]string{{" CROSS JOIN ", ""}, {" LEFT JOIN ", " ON true"}})
		n.parts = append([]any{"("}, append(n.parts, how[0]+function.call+"(CASE WHEN jsonb_typeof(", doc, ") = '"+function.of+"' THEN ", doc, " END) AS "+item+" (v)"+how[1]+")")...)
		s = append(s, readable{text(item + ".v"), function.kind})
	}
	return n, s
}

// single makes a FROM clause of one relation, whose columns are sometimes written without its name.
func (g *generator) single(depth int) (*node, scope) {
	n, s := g.relation(depth)
	if g.chance(2) {
		for i, r := range s {
			s[i].node = text(r.column())
		}
	}
	return n, s
}

// column is the name of a column that is read, without that of its relation.
func (r readable) column() string {
	name := r.node.parts[0].(string)
	return name[strings.IndexByte(name, '.')+1:]
}

// renamed gives, one time in n, the first of some columns other names: the list of them that follows an alias, and what the columns are
// called then.
func (g *generator) renamed(n int, cols []testColumn) (list string, out []testColumn) {
	if !g.chance(n) {
		return "", cols
	}
	out = slices.Clone(cols)
	var names []string
	for i := range out[:1+g.rnd.IntN(len(out))] {
		out[i].name = g.name("x")
		names = append(names, out[i].name)
	}
	return " (" + strings.Join(names, ", ") + ")", out
}

func named(alias string, cols []testColumn) scope {
	var s scope
	for _, c := range cols {
		s = append(s, readable{text(alias + "." + c.name), c.kind})
	}
	return s
}

// outputs are names for columns of the given kinds.
func outputs(kinds []kind) []testColumn {
	out := make([]testColumn, len(kinds))
	for i, k := range kinds {
		out[i] = testColumn{fmt.Sprintf("c%d", i+1), k}
	}
	return out
}

func (g *generator) someKinds(s scope) []kind {
	var out []kind
	for range 1 + g.rnd.IntN(6) {
		out = append(out, g.among(classes["any"], s))
	}
	return out
}

// query makes a query with columns of the given kinds, called c1, c2 and so on, or of any kinds. depth bounds its nesting.
func (g *generator) query(want []kind, depth int) (*node, []testColumn) {
	ctes := len(g.ctes)
	defer func() { g.ctes = g.ctes[:ctes] }()
	n := &node{kind: "query"}
	if depth > 0 && g.chance(8) {
		with := &node{list: true}
		for range 1 + g.rnd.IntN(2) {
			q, inner := g.query(nil, depth-1)
			list, cols := g.renamed(4, inner)
			c := &testTable{name: g.name("w"), columns: cols}
			if hides := pick(g.rnd, g.visible()); g.chance(4) && !slices.Contains(g.ctes[ctes:], hides) {
				c.name = hides.name
			}
			with.parts = append(with.parts, text(c.name+list+" AS (", q, ")"))
			g.ctes = append(g.ctes, c)
		}
		n.parts = append(n.parts, optional("WITH ", with, " "))
	}
	switch {
	case depth > 0 && g.open == 0 && g.chance(6):
		return n, g.setOperation(n, want, depth)
	case g.chance(25):
		q, values := g.values(want)
		n.parts = append(n.parts, q)
		return n, values
	}
	return n, g.selectQuery(n, want, depth)
}

var setOperations = []string{" UNION ", " UNION ALL ", " UNION ALL ", " EXCEPT ", " EXCEPT ALL ", " INTERSECT ", " INTERSECT ALL "}

// setOperation makes UNION and the like: of two queries, or of three between which precedence decides.
func (g *generator) setOperation(n *node, want []kind, depth int) []testColumn {
	if g.chance(3) {
		g.open++
		first := &node{kind: "query"}
		cols := g.selectQuery(first, want, depth-1)
		n.parts = append(n.parts, first)
		for range 2 {
			next := &node{kind: "query"}
			g.selectQuery(next, kindsOf(cols), depth-1)
			n.parts = append(n.parts, pick(g.rnd, setOperations), next)
		}
		g.open--
		g.window(n, ordinalsOf(cols), nil, cols)
		return cols
	}
	l, cols := g.query(want, depth-1)
	kinds := kindsOf(cols)
	if want == nil {
		cols = slices.Clone(cols)
		for i := range cols {
			if others := meets[cols[i].kind]; len(others) > 0 && g.chance(3) {
				both := pick(g.rnd, others)
				kinds[i], cols[i].kind = both[0], both[1]
			}
		}
	}
	r, _ := g.query(kinds, depth-1)
	n.parts = append(n.parts, "(", l, ")", pick(g.rnd, setOperations), "(", r, ")")
	g.window(n, ordinalsOf(cols), nil, cols)
	return cols
}

// meets are the kinds that stand below others in a set operation, and the kind of both.
var meets = map[kind][][2]kind{
	"int2":      {{"int4", "int4"}, {"int8", "int8"}},
	"int4":      {{"int8", "int8"}, {"numeric", "numeric"}, {"int2", "int4"}},
	"int4s":     {{"int8s", "int8s"}, {"numerics", "numerics"}, {"float8s", "float8s"}},
	"int8":      {{"numeric", "numeric"}, {"float8", "float8"}, {"int4", "int8"}},
	"int8s":     {{"int4s", "int8s"}, {"numerics", "numerics"}},
	"numeric":   {{"float8", "float8"}, {"int8", "numeric"}},
	"float4":    {{"float8", "float8"}},
	"date":      {{"timestamp", "timestamp"}, {"timestamptz", "timestamptz"}},
	"timestamp": {{"timestamptz", "timestamptz"}, {"date", "timestamp"}},
	"digits":    {{"text", "text"}},
}

func kindsOf(cols []testColumn) []kind {
	out := make([]kind, len(cols))
	for i, c := range cols {
		out[i] = c.kind
	}
	return out
}

func ordinalsOf(cols []testColumn) *node {
	n := &node{}
	for i := range cols {
		n.parts = append(n.parts, strconv.Itoa(i+1))
	}
	return n
}

// values makes a VALUES, whose columns have names of their own.
func (g *generator) values(want []kind) (*node, []testColumn) {
	if want == nil {
		want = g.someKinds(nil)
	}
	rows := &node{list: true}
	for range 1 + g.rnd.IntN(3) {
		row := &node{}
		for i, k := range want {
			row.parts = append(row.parts, []string{"(", ", "}[min(i, 1)], g.expr(k, nil, 0))
		}
		row.parts = append(row.parts, ")")
		rows.parts = append(rows.parts, row)
	}
	cols := make([]testColumn, len(want))
	for i, k := range want {
		cols[i] = testColumn{fmt.Sprintf("column%d", i+1), k}
	}
	return &node{kind: "query", parts: []any{"VALUES ", rows}}, cols
}

// fromList is a FROM clause, perhaps with the beginning of a WHERE.
type fromList struct {
	node *node
	and  string // what begins a further condition
}

// fromClause makes what follows FROM: mostly joins, and sometimes what can only stand there; or there is no FROM.
func (g *generator) fromClause(depth int) (fromList, scope) {
	switch g.rnd.IntN(16) {
	case 0: // a list whose keys are in WHERE
		left, ls := g.relation(depth)
		right, rs := g.relation(depth)
		l := pick(g.rnd, ls)
		if same := readables(rs, l.kind.base()); len(same) > 0 {
			r := pick(g.rnd, same)
			return fromList{text(left, ", ", right, " WHERE ", l.node, " = ", r.node), " AND "}, slices.Concat(ls, rs)
		}
		return fromList{text(left, ", ", right), " WHERE "}, slices.Concat(ls, rs)
	case 1: // USING, of which there is one column for both
		l, r := pick(g.rnd, g.visible()), pick(g.rnd, g.visible())
		for _, c := range l.columns {
			i := slices.IndexFunc(r.columns, func(x testColumn) bool { return x.name == c.name && x.kind.base() == c.kind.base() })
			if i < 0 {
				continue
			}
			a, b := g.name("r"), g.name("r")
			s := slices.Concat(named(a, l.columns), named(b, r.columns))
			for range 3 {
				s = append(s, readable{text(c.name), c.kind.base()})
			}
			how := pick(g.rnd, []string{"JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"})
			return fromList{text(fmt.Sprintf("%s AS %s %s %s AS %s USING (%s)", l.name, a, how, r.name, b, c.name)), " WHERE "}, s
		}
	case 2:
		left, ls := g.relation(depth)
		l := pick(g.rnd, ls)
		if l.kind.base() == "interval" {
			break
		}
		alias := g.name("l")
		if inner, cols := g.lateral(l); inner != nil {
			how, on := " CROSS JOIN LATERAL (", ""
			if g.chance(2) {
				how, on = " LEFT JOIN LATERAL (", " ON true"
			}
			return fromList{text(left, how, inner, ") AS "+alias+on), " WHERE "}, slices.Concat(ls, named(alias, cols))
		}
	case 3:
		left, ls := g.relation(depth)
		if counts := readables(ls, "int4s"); len(counts) > 0 {
			n, count := g.name("n"), pick(g.rnd, counts).node
			call := pick(g.rnd, []*node{text("(1, ", count, ")"), text("(", count, ", -1, -2)"), text("(0, ", count, "::int8, 3)"), text("(", count, ", ", count, " + 1)")})
			how := pick(g.rnd, [][2]string{{", generate_series", ""}, {" LEFT JOIN generate_series", " ON true"}, {" LEFT JOIN LATERAL generate_series", " ON " + n + " > 1"}})
			item := readable{text(n), "int4s"}
			if strings.Contains(call.String(), "int8") {
				item.kind = "int8s"
			}
			return fromList{text(left, how[0], call, " AS "+n+how[1]), " WHERE "}, append(slices.Clone(ls), item)
		}
		return fromList{left, " WHERE "}, ls
	case 4:
		if g.chance(2) {
			return fromList{nil, " WHERE "}, nil
		}
	case 5:
		n, s := g.single(depth)
		return fromList{n, " WHERE "}, s
	}
	n, s := g.from(depth, 1+g.rnd.IntN(3))
	return fromList{n, " WHERE "}, s
}

// lateral makes a query of a LATERAL: what equals a value of the row before it, the first of it, what is distinct of it, or groups of it.
func (g *generator) lateral(of readable) (*node, []testColumn) {
	t := pick(g.rnd, g.visible())
	alias := g.name("r")
	s := named(alias, t.columns)
	same := readables(s, of.kind.base())
	if len(same) == 0 || hasIntervals(t.columns) {
		return nil, nil
	}
	from := text(" FROM "+t.name+" AS "+alias+" WHERE ", pick(g.rnd, same).node, " = ", of.node)
	if g.chance(4) {
		key := pick(g.rnd, s)
		having := optional(" HAVING count(*) > 1")
		return text("SELECT count(*) AS c1, ", key.node, " AS c2", from, " GROUP BY ", key.node, having), []testColumn{{"c1", "int8s"}, {"c2", key.kind}}
	}
	items := &node{}
	for i, r := range s {
		items.parts = append(items.parts, []string{"", ", "}[min(i, 1)]+r.node.parts[0].(string))
	}
	distinct := optional()
	if g.chance(4) {
		distinct = optional("DISTINCT ")
	}
	order := fmt.Sprintf(" ORDER BY %d%s", 1+g.rnd.IntN(len(s)), pick(g.rnd, []string{"", " DESC"}))
	limit := pick(g.rnd, []string{fmt.Sprintf(" LIMIT %d", 1+g.rnd.IntN(3)), fmt.Sprintf(" LIMIT %d", 1+g.rnd.IntN(3)), " OFFSET 1"})
	return text("SELECT ", distinct, items, from, order, ordinals{items}, limit), t.columns
}

// selectQuery makes a SELECT.
func (g *generator) selectQuery(n *node, want []kind, depth int) []testColumn {
	if want == nil && g.chance(15) {
		return g.selectStar(n, depth)
	}
	from, s := g.fromClause(depth)
	if want == nil {
		want = g.someKinds(s)
	}
	where := &node{}
	if g.chance(3) {
		where = optional(from.and, g.expr("bool", s, min(depth+1, 2)))
	}
	tail := &node{}
	inner := s
	grouped := g.chance(3)
	if grouped {
		s = g.group(tail, s, want, depth)
	}
	items := &node{list: true}
	for i, k := range want {
		items.parts = append(items.parts, text(g.expr(k, s, 1+g.rnd.IntN(min(depth+1, 3))), fmt.Sprintf(" AS c%d", i+1)))
	}
	distinct := &node{}
	n.parts = append(n.parts, "SELECT ", distinct, items)
	if from.node != nil {
		n.parts = append(n.parts, " FROM ", from.node)
	}
	n.parts = append(n.parts, where, tail)
	cols := outputs(want)
	switch {
	case g.open > 0:
	case g.chance(8):
		distinct.optional, distinct.parts = true, []any{"DISTINCT "}
		g.window(n, items, nil, cols)
	case g.chance(10):
		g.distinctOn(n, distinct, items, s, cols)
	case grouped:
		g.window(n, items, s, cols)
	default:
		g.window(n, items, inner, cols)
	}
	return cols
}

// selectStar makes SELECT *.
func (g *generator) selectStar(n *node, depth int) []testColumn {
	from, s := g.single(depth)
	var cols []testColumn
	for _, r := range s {
		cols = append(cols, testColumn{r.column(), r.kind})
	}
	distinct, where := &node{}, &node{}
	if g.chance(4) {
		distinct = optional("DISTINCT ")
	}
	if g.chance(2) {
		where = optional(" WHERE ", g.expr("bool", s, 1))
	}
	n.parts = append(n.parts, "SELECT ", distinct, "* FROM ", from, where)
	if g.open == 0 {
		g.window(n, ordinalsOf(cols), nil, cols)
	}
	return cols
}

// partialQuery makes a query whose evaluation fails for some rows.
func (g *generator) partialQuery() *node {
	// Of a view PostgreSQL might evaluate what no row needs, if it turned out to be a constant.
	t := pick(g.rnd, slices.DeleteFunc(slices.Clone(g.tables), func(t *testTable) bool { return t.query != nil }))
	if g.chance(10) { // fails if there are several rows
		c := pick(g.rnd, t.columns)
		return &node{kind: "query", parts: []any{"SELECT (SELECT " + c.name + " FROM " + t.name + " AS x", optional(" WHERE " + c.name + " IS NOT NULL"), ") AS c1"}}
	}
	g.plain++
	defer func() { g.plain-- }()
	alias := g.name("r")
	s := named(alias, t.columns)
	k := g.among(slices.Sorted(maps.Keys(partials)), s)
	for len(partials[k]) == 0 {
		k = pick(g.rnd, classes["any"])
	}
	e := g.write(g.production(partials[k], s), s, 0, map[string]*node{})
	if !g.reads(e, s) {
		return g.partialQuery()
	}
	from := text(" FROM " + t.name + " AS " + alias)
	where := optional(" WHERE ", g.expr("bool", s, 1))
	rest := &node{list: true, parts: []any{text(e, " AS c1"), text(g.expr(g.among(classes["any"], s), s, 1), " AS c2")}}
	switch {
	case k == "bool" && g.chance(2):
		return &node{kind: "query", parts: []any{"SELECT ", rest.parts[1], from, " WHERE ", e}}
	case slices.Contains(classes["mm"], k) && g.chance(3):
		return &node{kind: "query", parts: []any{"SELECT max(", e, ") AS c1", from, where}}
	}
	return &node{kind: "query", parts: []any{"SELECT ", rest, from, where}}
}

// reads tells whether an expression reads anything, and is not a constant.
func (g *generator) reads(e *node, s scope) bool {
	return slices.ContainsFunc(e.all(), func(n *node) bool {
		return slices.ContainsFunc(s, func(r readable) bool { return r.node == n })
	})
}

// group makes GROUP BY and HAVING and returns what can be read above them: keys and aggregates.
func (g *generator) group(tail *node, inner scope, want []kind, depth int) scope {
	var out scope
	keys := &node{list: true}
	for range min(g.rnd.IntN(3), len(inner)) {
		k := pick(g.rnd, inner)
		key := &node{kind: k.kind, parts: []any{k.node}}
		if lines := productions[k.kind]; len(lines) > 0 && g.chance(3) {
			g.plain++
			e := g.write(g.production(lines, inner), inner, 0, map[string]*node{})
			g.plain--
			if g.reads(e, inner) { // constants are not keys worth having, and numbers would be positions
				key = &node{kind: k.kind, parts: []any{e}}
				if k.kind == "bool" { // within another AND, PostgreSQL knows one no more
					key.parts = []any{"(", e, " IS TRUE)"}
				}
			}
		}
		keys.parts = append(keys.parts, key)
		out = append(out, readable{key, k.kind})
	}
	for _, k := range want {
		if a := g.aggregate(k, inner, depth); a != nil {
			out = append(out, readable{a, k})
		}
	}
	if len(keys.parts) > 0 {
		tail.parts = append(tail.parts, " GROUP BY ", keys)
	}
	count := g.aggregate("int8s", inner, depth)
	out = append(out, readable{count, "int8s"})
	if g.chance(6) {
		tail.parts = append(tail.parts, optional(" HAVING ", g.expr("bool", out, 1)))
	} else if len(keys.parts) == 0 {
		tail.parts = append(tail.parts, " HAVING true") // a query of groups, though no item has an aggregate
	}
	return out
}

// distinctOn makes SELECT DISTINCT ON. Which row of a group stays depends on the order, and then on the whole row.
func (g *generator) distinctOn(n, distinct, items *node, s scope, cols []testColumn) {
	var keys []string
	for i := range cols {
		if len(keys) == 0 || g.chance(2) {
			keys = append(keys, strconv.Itoa(i+1))
		}
	}
	if hasIntervals(cols) {
		return
	}
	distinct.parts = []any{"DISTINCT ON (" + strings.Join(keys, ", ") + ") "}
	n.parts = append(n.parts, " ORDER BY "+strings.Join(keys, ", "))
	if rest := pick(g.rnd, cols); g.chance(2) {
		n.parts = append(n.parts, optional(", "+rest.name+pick(g.rnd, []string{"", " DESC", " NULLS FIRST", " DESC NULLS LAST"})))
	}
	n.parts = append(n.parts, ordinals{items})
}

// hasIntervals tells whether the rows have another order in PostgreSQL.
func hasIntervals(cols []testColumn) bool {
	return slices.ContainsFunc(cols, func(c testColumn) bool { return c.kind.base() == "interval" })
}

// window makes ORDER BY, LIMIT and OFFSET, of the columns of the output and, where there is a scope, of expressions too.
func (g *generator) window(n, items *node, s scope, cols []testColumn) {
	if !g.chance(6) {
		return
	}
	if hasIntervals(cols) {
		return
	}
	order := &node{list: true}
	for range 1 + g.rnd.IntN(2) {
		c := g.rnd.IntN(len(cols))
		e := text(pick(g.rnd, []string{cols[c].name, strconv.Itoa(c + 1)}))
		if s != nil && g.chance(3) {
			if r := pick(g.rnd, s); r.kind.base() != "interval" {
				e = r.node
			}
		}
		order.parts = append(order.parts, text(e, pick(g.rnd, []string{"", " DESC", " NULLS FIRST", " DESC NULLS LAST"})))
	}
	n.parts = append(n.parts, " ORDER BY ", order, ordinals{items})
	if !g.chance(4) {
		n.parts = append(n.parts, optional(fmt.Sprintf(" LIMIT %d", g.rnd.IntN(8))))
	}
	if g.chance(3) {
		n.parts = append(n.parts, optional(fmt.Sprintf(" OFFSET %d", g.rnd.IntN(4))))
	}
}
