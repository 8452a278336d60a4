package sql

// Statement is a parsed statement.
type Statement interface {
	// String is SQL that parses to the same statement.
	String() string
	statement()
}

// Expr is a scalar expression.
type Expr interface {
	String() string
	// Pos is the byte offset of the expression in the text that was parsed.
	Pos() int
}

// At is the position that every node of an expression and every name carries.
type At int

// Pos implements [Expr].
func (a At) Pos() int { return int(a) }

// Name is the possibly qualified name of an object.
type Name struct {
	At
	Parts []string
}

// Base is the last part of a name.
func (n Name) Base() string { return n.Parts[len(n.Parts)-1] }

// TypeName is the name of a type in a cast, in lower case.
type TypeName struct {
	At
	Name  string
	Mods  []int64 // in parentheses, as in varchar(10)
	Field string  // of an interval, the last field that it keeps: year, month, day, hour, minute or second
	Array bool    // name[]
}

// The expressions.
type (
	// Column is a column reference, perhaps qualified.
	Column struct {
		At
		Parts []string
	}
	// Literal is a number, a string, TRUE, FALSE or NULL.
	Literal struct {
		At
		Kind LiteralKind
		Text string
	}
	// Param is $n, a value that comes beside the text.
	Param struct {
		At
		N int
	}
	// Default is DEFAULT in place of a value that is written to a column.
	Default struct{ At }
	// Star is * or t.*, in a select list or in count(*).
	Star struct {
		At
		Table string
	}
	// Unary is -x, +x or NOT x.
	Unary struct {
		At
		Op string
		X  Expr
	}
	// Binary is an operator between two expressions; AND, OR, LIKE and ILIKE too.
	Binary struct {
		At
		Op   string
		L, R Expr
	}
	// Cast is x::t.
	Cast struct {
		At
		X    Expr
		Type TypeName
	}
	// Call is a function or an aggregate. EXTRACT(f FROM x) is a call of extract('f', x).
	Call struct {
		At
		Name     string
		Args     []Expr
		Distinct bool
		OrderBy  []Order
		Filter   Expr
	}
	// Case is CASE [x] WHEN ... THEN ... ELSE ... END.
	Case struct {
		At
		Operand Expr
		When    []When
		Else    Expr
	}
	// In is x [NOT] IN (list).
	In struct {
		At
		X    Expr
		List []Expr
		Not  bool
	}
	// InQuery is x [NOT] IN (query).
	InQuery struct {
		At
		X     Expr
		Query *Query
		Not   bool
	}
	// Subquery is a query in parentheses that stands for its value.
	Subquery struct {
		At
		Query *Query
	}
	// Exists is EXISTS (query).
	Exists struct {
		At
		Query *Query
	}
	// Between is x [NOT] BETWEEN a AND b.
	Between struct {
		At
		X, Low, High Expr
		Not          bool
	}
	// Is is x IS [NOT] NULL, TRUE, FALSE or UNKNOWN.
	Is struct {
		At
		X    Expr
		What string
		Not  bool
	}
	// DistinctFrom is l IS [NOT] DISTINCT FROM r.
	DistinctFrom struct {
		At
		L, R Expr
		Not  bool
	}
)

// When is an arm of a [Case].
type When struct{ Cond, Result Expr }

// LiteralKind tells literals apart.
type LiteralKind uint8

// The kinds of literal.
const (
	Number LiteralKind = iota
	String
	Bool
	Null
)

// Query is a SELECT with what may stand around it.
type Query struct {
	At
	With    []CTE
	Body    SetExpr
	OrderBy []Order
	Limit   Expr
	Offset  Expr
	AsOf    *AsOf
}

// AsOf is AS OF [AT LEAST] t.
type AsOf struct {
	AtLeast bool
	Time    Expr
}

// CTE is a common table expression.
type CTE struct {
	Name    string
	Columns []string
	Query   *Query
}

// SetExpr is what a query takes its rows from: a [Select], a [SetOp], [Values] or a [Query] in parentheses.
type SetExpr interface {
	String() string
	setExpr()
}

// Select is one SELECT.
type Select struct {
	At
	Distinct   bool
	DistinctOn []Expr
	Items      []Item
	From       []TableExpr
	Where      Expr
	GroupBy    []Expr
	Having     Expr
}

// SetOp is UNION, EXCEPT or INTERSECT.
type SetOp struct {
	At
	Op   string
	All  bool
	L, R SetExpr
}

// Values is a list of rows.
type Values struct {
	At
	Rows [][]Expr
}

// Item is an entry of a select list.
type Item struct {
	Expr  Expr
	Alias string
}

// Order is an entry of ORDER BY. Nulls is "", "first" or "last".
type Order struct {
	Expr  Expr
	Desc  bool
	Nulls string
}

// TableExpr is an entry of FROM: a [Table], a [TableFunc], a [Derived] or a [Join].
type TableExpr interface {
	String() string
	tableExpr()
}

// Table names an object.
type Table struct {
	Name    Name
	Alias   string
	Columns []string
}

// TableFunc is a function in FROM. It may refer to what stands before it there.
type TableFunc struct {
	At
	Name    string
	Args    []Expr
	Alias   string
	Columns []string
}

// Derived is a query in FROM. A lateral one may refer to what stands before it there.
type Derived struct {
	At
	Lateral bool
	Query   *Query
	Alias   string
	Columns []string
}

// Join is l [LEFT | RIGHT | FULL | CROSS] JOIN r [ON ... | USING (...)].
type Join struct {
	At
	Kind  string // inner, left, right, full or cross
	L, R  TableExpr
	On    Expr
	Using []string
}

// The statements.
type (
	// CreateSource is CREATE [MATERIALIZED] SOURCE ... FROM FILE.
	CreateSource struct {
		Name         Name
		Materialized bool
		IfNotExists  bool
		Path         string
		Tail         bool
		Format       string // text, regex or json
		Regex        string
	}
	// CreateView is CREATE [OR REPLACE] [MATERIALIZED] VIEW.
	CreateView struct {
		Name         Name
		Materialized bool
		OrReplace    bool
		IfNotExists  bool
		Columns      []string
		Query        *Query
	}
	// CreateTable is CREATE TABLE.
	CreateTable struct {
		Name        Name
		IfNotExists bool
		Columns     []ColumnDef
	}
	// Insert is INSERT INTO t [(columns)] and a query, whose VALUES may be DEFAULT. Nil is DEFAULT VALUES.
	Insert struct {
		At
		Table   Name
		Columns []Ref
		Query   *Query
	}
	// Update is UPDATE t SET ... [WHERE ...].
	Update struct {
		At
		Table Name
		Alias string
		Set   []Assignment
		Where Expr
	}
	// Delete is DELETE FROM t [WHERE ...].
	Delete struct {
		At
		Table Name
		Alias string
		Where Expr
	}
	// CopyFrom is COPY t [(columns)] FROM STDIN. What the text does not say is zero.
	CopyFrom struct {
		At
		Table                    Name
		Columns                  []Ref
		Format                   string // text, csv or binary
		Delimiter, Quote, Escape string
		Null                     *string
		Header                   bool
	}
	// Drop is DROP of a kind of objects.
	Drop struct {
		Names        []Name
		Kind         string // table, view or source
		Materialized bool
		IfExists     bool
		Cascade      bool
	}
	// Subscribe is TAIL or SUBSCRIBE of a name or a query. Key is that of ENVELOPE UPSERT.
	Subscribe struct {
		Tail     bool
		Name     *Name
		Query    *Query
		Key      []Name
		Progress bool
		Snapshot bool
		AsOf     *AsOf
		UpTo     Expr
	}
	// Copy is COPY (...) TO STDOUT. Format is text, csv or binary.
	Copy struct {
		Of     Statement
		Format string
	}
	// Show is SHOW in all its forms. What is the plural of a kind of object, columns, create and a kind, or the name of a parameter.
	Show struct {
		What         string
		Materialized bool
		Name         *Name
		Parameter    bool
	}
	// Set is SET name = value, and RESET with no values.
	Set struct {
		Name   string
		Values []string
		Reset  bool
		Local  bool // until the transaction ends
	}
	// Transaction is BEGIN, COMMIT or ROLLBACK.
	Transaction struct {
		Verb     string
		ReadOnly bool
	}
	// Discard is DISCARD ALL or DEALLOCATE.
	Discard struct{ Deallocate string }
	// Declare is DECLARE c CURSOR FOR.
	Declare struct {
		At
		Cursor string
		Of     Statement
	}
	// Fetch is FETCH. Count is -1 for ALL.
	Fetch struct {
		At
		Cursor  string
		Count   int64
		Timeout string
	}
	// CloseCursor is CLOSE; an empty name closes all.
	CloseCursor struct {
		At
		Cursor string
	}
	// Explain is EXPLAIN of a query or of a view.
	Explain struct {
		Query *Query
		View  *Name
	}
	// Empty is a statement of nothing.
	Empty struct{}
)

// ColumnDef defines a column of a table.
type ColumnDef struct {
	At
	Name    string
	Type    TypeName
	NotNull bool
	Default Expr // nil: NULL
}

// Ref names a column that is written to.
type Ref struct {
	At
	Name string
}

// Assignment is an entry of UPDATE's SET.
type Assignment struct {
	Column Ref
	Value  Expr
}

func (*Query) statement()        {}
func (*CreateSource) statement() {}
func (*CreateView) statement()   {}
func (*CreateTable) statement()  {}
func (*Insert) statement()       {}
func (*Update) statement()       {}
func (*Delete) statement()       {}
func (*CopyFrom) statement()     {}
func (*Drop) statement()         {}
func (*Subscribe) statement()    {}
func (*Copy) statement()         {}
func (*Show) statement()         {}
func (*Set) statement()          {}
func (*Transaction) statement()  {}
func (*Discard) statement()      {}
func (*Declare) statement()      {}
func (*Fetch) statement()        {}
func (*CloseCursor) statement()  {}
func (*Explain) statement()      {}
func (*Empty) statement()        {}

func (*Select) setExpr() {}
func (*SetOp) setExpr()  {}
func (*Values) setExpr() {}
func (*Query) setExpr()  {}

func (*Table) tableExpr()     {}
func (*TableFunc) tableExpr() {}
func (*Derived) tableExpr()   {}
func (*Join) tableExpr()      {}
