package sql

import (
	"strconv"
	"strings"
)

// reserved words cannot name a column, table or alias without quotes. The dialect reserves little: user, type, timestamp and
// comment are plain names.
var reserved = words(`all and any as asc between by case cast collate create cross current_date current_role current_time
	current_timestamp current_user default desc distinct else end except exists false fetch filter for from full group having ilike in
	inner intersect into is join lateral left like limit localtime localtimestamp natural not null nulls of offset on or order outer over
	returning right select session_user similar some subscribe tail then true union using values when where window with`)

// typePhrases are the types whose names are more than one word.
var typePhrases = map[string]bool{"double precision": true}

// valueFunctions are called without parentheses.
var valueFunctions = words(`current_date current_role current_time current_timestamp current_user localtime localtimestamp session_user`)

func words(list string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(list) {
		m[w] = true
	}
	return m
}

// Ident writes a name, in quotes where it needs them.
func Ident(s string) string {
	plain := s != "" && !reserved[s]
	for i, c := range s {
		if !isIdentStart(c) && !(i > 0 && c < 0x80 && (isDigit(byte(c)) || c == '$')) {
			plain = false
		}
	}
	if plain && strings.ToLower(s) == s {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}

func idents(names []string) string {
	parts := make([]string, len(names))
	for i, n := range names {
		parts[i] = Ident(n)
	}
	return strings.Join(parts, ", ")
}

// Quote writes a string literal.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func (n Name) String() string {
	parts := make([]string, len(n.Parts))
	for i, p := range n.Parts {
		parts[i] = Ident(p)
	}
	return strings.Join(parts, ".")
}

func (t TypeName) String() string {
	s := t.Name
	if !typePhrases[s] {
		s = Ident(s)
	}
	for i, m := range t.Mods {
		s += []string{",", "("}[first(i)] + strconv.FormatInt(m, 10)
	}
	if t.Mods != nil {
		s += ")"
	}
	if t.Field != "" {
		s += " " + t.Field
	}
	if t.Array {
		s += "[]"
	}
	return s
}

func join[T interface{ String() string }](list []T) string {
	parts := make([]string, len(list))
	for i, e := range list {
		parts[i] = e.String()
	}
	return strings.Join(parts, ", ")
}

// operand writes an expression that stands beside an operator.
func operand(e Expr) string {
	switch e.(type) {
	case *Column, *Literal, *Param, *Call, *Star, *Cast, *Subquery, *Exists:
		return e.String()
	}
	return "(" + e.String() + ")"
}

func not(b bool) string {
	if b {
		return " NOT"
	}
	return ""
}

func (e *Column) String() string { return Name{Parts: e.Parts}.String() }

func (e *Literal) String() string {
	switch e.Kind {
	case String:
		return Quote(e.Text)
	case Number:
		return e.Text
	}
	return strings.ToUpper(e.Text)
}

func (e *Param) String() string   { return "$" + strconv.Itoa(e.N) }
func (e *Default) String() string { return "DEFAULT" }

func (e *Star) String() string {
	if e.Table != "" {
		return Ident(e.Table) + ".*"
	}
	return "*"
}

func (e *Unary) String() string {
	if e.Op == "NOT" {
		return "NOT " + operand(e.X)
	}
	return e.Op + " " + operand(e.X)
}

func (e *Binary) String() string {
	rest := " " + e.Op + " " + operand(e.R)
	if l, ok := e.L.(*Binary); ok && chained(l.Op, e.Op) {
		return l.String() + rest
	}
	return operand(e.L) + rest
}

// chained tells whether operators that follow each other are read from left to right, so that a chain of them needs no parentheses. A
// long one would be nested too deep with them.
func chained(op, next string) bool { return chain(op) != 0 && chain(op) == chain(next) }

// chain is the binding power of an operator that may follow itself.
func chain(op string) int {
	switch op {
	case "OR":
		return bindOr
	case "AND":
		return bindAnd
	}
	if b := binary[op]; b != bindCompare {
		return b
	}
	return 0
}
func (e *Cast) String() string { return operand(e.X) + "::" + e.Type.String() }

// extracts returns the field of an extract(field FROM x).
func (e *Call) extracts() (field *Literal, ok bool) {
	if e.Name != "extract" || len(e.Args) != 2 {
		return nil, false
	}
	field, ok = e.Args[0].(*Literal)
	return field, ok && field.Kind == String
}

func (e *Call) String() string {
	if field, ok := e.extracts(); ok {
		return "extract(" + field.String() + " FROM " + e.Args[1].String() + ")"
	}
	if valueFunctions[e.Name] {
		return e.Name
	}
	s := e.Name + "("
	if e.Distinct {
		s += "DISTINCT "
	}
	s += join(e.Args) + orderBy(e.OrderBy) + ")"
	if e.Filter != nil {
		s += " FILTER (WHERE " + e.Filter.String() + ")"
	}
	return s
}

func (e *Case) String() string {
	s := "CASE"
	if e.Operand != nil {
		s += " " + e.Operand.String()
	}
	for _, w := range e.When {
		s += " WHEN " + w.Cond.String() + " THEN " + w.Result.String()
	}
	if e.Else != nil {
		s += " ELSE " + e.Else.String()
	}
	return s + " END"
}

func (e *In) String() string { return operand(e.X) + not(e.Not) + " IN (" + join(e.List) + ")" }

func (e *InQuery) String() string {
	return operand(e.X) + not(e.Not) + " IN (" + e.Query.String() + ")"
}

func (e *Subquery) String() string { return "(" + e.Query.String() + ")" }
func (e *Exists) String() string   { return "EXISTS (" + e.Query.String() + ")" }

func (e *Between) String() string {
	return operand(e.X) + not(e.Not) + " BETWEEN " + operand(e.Low) + " AND " + operand(e.High)
}

func (e *Is) String() string {
	return operand(e.X) + " IS" + not(e.Not) + " " + strings.ToUpper(e.What)
}

func (e *DistinctFrom) String() string {
	return operand(e.L) + " IS" + not(e.Not) + " DISTINCT FROM " + operand(e.R)
}

func (q *Query) String() string {
	var b strings.Builder
	for i, c := range q.With {
		b.WriteString([]string{", ", "WITH "}[first(i)])
		b.WriteString(Ident(c.Name))
		if c.Columns != nil {
			b.WriteString(" (" + idents(c.Columns) + ")")
		}
		b.WriteString(" AS (" + c.Query.String() + ")")
	}
	if q.With != nil {
		b.WriteString(" ")
	}
	b.WriteString(setOperand(q.Body))
	b.WriteString(orderBy(q.OrderBy))
	if q.Limit != nil {
		b.WriteString(" LIMIT " + q.Limit.String())
	}
	if q.Offset != nil {
		b.WriteString(" OFFSET " + q.Offset.String())
	}
	b.WriteString(q.AsOf.String())
	return b.String()
}

// orderBy is empty without entries, and begins with a space otherwise.
func orderBy(list []Order) string {
	var b strings.Builder
	for i, o := range list {
		b.WriteString([]string{", ", " ORDER BY "}[first(i)])
		b.WriteString(o.Expr.String())
		if o.Desc {
			b.WriteString(" DESC")
		}
		if o.Nulls != "" {
			b.WriteString(" NULLS " + strings.ToUpper(o.Nulls))
		}
	}
	return b.String()
}

func first(i int) int {
	if i == 0 {
		return 1
	}
	return 0
}

// String is empty without an AS OF, and begins with a space otherwise.
func (a *AsOf) String() string {
	switch {
	case a == nil:
		return ""
	case a.AtLeast:
		return " AS OF AT LEAST " + a.Time.String()
	}
	return " AS OF " + a.Time.String()
}

func setOperand(s SetExpr) string {
	if q, ok := s.(*Query); ok {
		return "(" + q.String() + ")"
	}
	return s.String()
}

func (s *SetOp) String() string {
	op := " " + strings.ToUpper(s.Op) + " "
	if s.All {
		op += "ALL "
	}
	r := setOperand(s.R)
	if _, ok := s.R.(*SetOp); ok {
		r = "(" + r + ")"
	}
	l := setOperand(s.L)
	if o, ok := s.L.(*SetOp); ok && s.Op == "intersect" && o.Op != "intersect" {
		l = "(" + l + ")"
	}
	return l + op + r
}

func (v *Values) String() string {
	rows := make([]string, len(v.Rows))
	for i, r := range v.Rows {
		rows[i] = "(" + join(r) + ")"
	}
	return "VALUES " + strings.Join(rows, ", ")
}

func (i Item) String() string {
	if i.Alias != "" {
		return i.Expr.String() + " AS " + Ident(i.Alias)
	}
	return i.Expr.String()
}

func (s *Select) String() string {
	b := "SELECT "
	if s.DistinctOn != nil {
		b += "DISTINCT ON (" + join(s.DistinctOn) + ") "
	} else if s.Distinct {
		b += "DISTINCT "
	}
	b += join(s.Items)
	if s.From != nil {
		b += " FROM " + join(s.From)
	}
	b += where(s.Where)
	if s.GroupBy != nil {
		b += " GROUP BY " + join(s.GroupBy)
	}
	if s.Having != nil {
		b += " HAVING " + s.Having.String()
	}
	return b
}

func alias(name string, columns []string) string {
	if name == "" {
		return ""
	}
	s := " AS " + Ident(name)
	if columns != nil {
		s += " (" + idents(columns) + ")"
	}
	return s
}

func (t *Table) String() string { return t.Name.String() + alias(t.Alias, t.Columns) }

func (t *TableFunc) String() string {
	return Ident(t.Name) + "(" + join(t.Args) + ")" + alias(t.Alias, t.Columns)
}

func (d *Derived) String() string {
	return opt(d.Lateral, "LATERAL ") + "(" + d.Query.String() + ")" + alias(d.Alias, d.Columns)
}

func (j *Join) String() string {
	r := j.R.String()
	if _, ok := j.R.(*Join); ok {
		r = "(" + r + ")"
	}
	s := j.L.String() + " " + strings.ToUpper(j.Kind) + " JOIN " + r
	if j.On != nil {
		s += " ON " + j.On.String()
	}
	if j.Using != nil {
		s += " USING (" + idents(j.Using) + ")"
	}
	return s
}

func opt(b bool, s string) string {
	if b {
		return s
	}
	return ""
}

func (s *CreateSource) String() string {
	f := strings.ToUpper(s.Format)
	if s.Format == "regex" {
		f += " " + Quote(s.Regex)
	}
	return "CREATE " + opt(s.Materialized, "MATERIALIZED ") + "SOURCE " + opt(s.IfNotExists, "IF NOT EXISTS ") + s.Name.String() +
		" FROM FILE " + Quote(s.Path) + opt(s.Tail, " WITH (tail = true)") + " FORMAT " + f
}

func (s *CreateView) String() string {
	c := ""
	if s.Columns != nil {
		c = " (" + idents(s.Columns) + ")"
	}
	return "CREATE " + opt(s.OrReplace, "OR REPLACE ") + opt(s.Materialized, "MATERIALIZED ") + "VIEW " +
		opt(s.IfNotExists, "IF NOT EXISTS ") + s.Name.String() + c + " AS " + s.Query.String()
}

func (s *CreateTable) String() string {
	return "CREATE TABLE " + opt(s.IfNotExists, "IF NOT EXISTS ") + s.Name.String() + " (" + join(s.Columns) + ")"
}

func (c ColumnDef) String() string {
	s := Ident(c.Name) + " " + c.Type.String() + opt(c.NotNull, " NOT NULL")
	if c.Default != nil {
		s += " DEFAULT " + operand(c.Default)
	}
	return s
}

func (r Ref) String() string { return Ident(r.Name) }

func refs(list []Ref) string {
	if list == nil {
		return ""
	}
	return " (" + join(list) + ")"
}

func (s *Insert) String() string {
	b := "INSERT INTO " + s.Table.String() + refs(s.Columns)
	if s.Query == nil {
		return b + " DEFAULT VALUES"
	}
	return b + " " + s.Query.String()
}

func (s *Update) String() string {
	return "UPDATE " + s.Table.String() + alias(s.Alias, nil) + " SET " + join(s.Set) + where(s.Where)
}

func (a Assignment) String() string { return a.Column.String() + " = " + a.Value.String() }

func (s *Delete) String() string {
	return "DELETE FROM " + s.Table.String() + alias(s.Alias, nil) + where(s.Where)
}

func where(e Expr) string {
	if e == nil {
		return ""
	}
	return " WHERE " + e.String()
}

func (s *CopyFrom) String() string {
	o := []string{"FORMAT " + s.Format}
	for _, x := range []struct{ name, value string }{{"DELIMITER", s.Delimiter}, {"QUOTE", s.Quote}, {"ESCAPE", s.Escape}} {
		if x.value != "" {
			o = append(o, x.name+" "+Quote(x.value))
		}
	}
	if s.Null != nil {
		o = append(o, "NULL "+Quote(*s.Null))
	}
	if s.Header {
		o = append(o, "HEADER")
	}
	return "COPY " + s.Table.String() + refs(s.Columns) + " FROM STDIN WITH (" + strings.Join(o, ", ") + ")"
}

func (s *Drop) String() string {
	return "DROP " + opt(s.Materialized, "MATERIALIZED ") + strings.ToUpper(s.Kind) + " " + opt(s.IfExists, "IF EXISTS ") +
		join(s.Names) + opt(s.Cascade, " CASCADE")
}

func (s *Subscribe) String() string {
	b := "SUBSCRIBE TO "
	if s.Tail {
		b = "TAIL "
	}
	if s.Name != nil {
		b += s.Name.String()
	} else {
		b += "(" + s.Query.String() + ")"
	}
	if s.Key != nil {
		b += " ENVELOPE UPSERT (KEY (" + join(s.Key) + "))"
	}
	var o []string
	if s.Progress {
		o = append(o, "PROGRESS")
	}
	if !s.Snapshot {
		o = append(o, "SNAPSHOT = false")
	}
	if o != nil {
		b += " WITH (" + strings.Join(o, ", ") + ")"
	}
	b += s.AsOf.String()
	if s.UpTo != nil {
		b += " UP TO " + s.UpTo.String()
	}
	return b
}

func (s *Copy) String() string {
	return "COPY (" + s.Of.String() + ") TO STDOUT" + opt(s.Format != "text", " WITH (FORMAT "+s.Format+")")
}

func (s *Show) String() string {
	b := "SHOW "
	switch {
	case s.Parameter:
		return b + Ident(s.What)
	case s.Name != nil && (s.What == "columns" || s.What == "indexes"):
		return b + strings.ToUpper(s.What) + " FROM " + s.Name.String()
	case s.Name != nil:
		return b + "CREATE " + opt(s.Materialized, "MATERIALIZED ") + strings.ToUpper(s.What[7:]) + " " + s.Name.String()
	}
	return b + opt(s.Materialized, "MATERIALIZED ") + strings.ToUpper(s.What)
}

func (s *Set) String() string {
	if s.Reset {
		return "RESET " + Ident(s.Name)
	}
	v := make([]string, len(s.Values))
	for i, x := range s.Values {
		v[i] = Quote(x)
	}
	return "SET " + opt(s.Local, "LOCAL ") + Ident(s.Name) + " = " + strings.Join(v, ", ")
}

func (s *Transaction) String() string { return s.Verb + opt(s.ReadOnly, " READ ONLY") }

func (s *Discard) String() string {
	if s.Deallocate != "" {
		return "DEALLOCATE " + Ident(s.Deallocate)
	}
	return "DISCARD ALL"
}

func (s *Declare) String() string {
	return "DECLARE " + Ident(s.Cursor) + " CURSOR FOR " + s.Of.String()
}

func (s *Fetch) String() string {
	n := "ALL"
	if s.Count >= 0 {
		n = strconv.FormatInt(s.Count, 10)
	}
	t := ""
	if s.Timeout != "" {
		t = " WITH (timeout = " + Quote(s.Timeout) + ")"
	}
	return "FETCH " + n + " FROM " + Ident(s.Cursor) + t
}

func (s *CloseCursor) String() string {
	if s.Cursor == "" {
		return "CLOSE ALL"
	}
	return "CLOSE " + Ident(s.Cursor)
}

func (s *Explain) String() string {
	if s.View != nil {
		return "EXPLAIN VIEW " + s.View.String()
	}
	return "EXPLAIN " + s.Query.String()
}

func (s *Empty) String() string { return "" }
