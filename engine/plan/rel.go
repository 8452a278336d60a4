package plan

import "github.com/mzdio/mzd/engine/flow"

// rel is a node of a resolved query: a relation with typed columns. Relations are immutable once they have been made.
type rel interface{ columns() []Column }

// get reads an object of the catalog.
type get struct{ object *Object }

// constant is a list of rows.
type constant struct {
	cols []Column
	rows [][]flow.Expr
}

// unit is one row without columns: what a SELECT without FROM reads.
var unit = &constant{rows: [][]flow.Expr{{}}}

// mapped filters rows and computes columns.
type mapped struct {
	in      rel
	filters []flow.Expr
	exprs   []flow.Expr
	cols    []Column
}

// filtered is a relation of which only some rows are there.
func filtered(in rel, filters []flow.Expr) rel {
	if len(filters) == 0 {
		return in
	}
	return &mapped{in: in, filters: filters, exprs: identity(in), cols: in.columns()}
}

// joined pairs rows: its columns are the left ones and then the right ones, and the condition is over both. The rows of an outer side
// that have no partner come with NULLs.
type joined struct {
	left, right rel
	on          []flow.Expr
	outer       [2]bool
	cols        []Column
}

func join(left, right rel, on []flow.Expr, outer [2]bool) *joined {
	return &joined{left, right, on, outer, beside(left.columns(), right.columns()...)}
}

// beside is the columns of one relation and then those of another.
func beside(l []Column, r ...Column) []Column { return append(l[:len(l):len(l)], r...) }

// expanded joins rows with what a table function makes of each: its columns are those of its input and then the function's.
type expanded struct {
	in    rel
	fn    *flow.TableFunc
	args  []flow.Expr
	on    []flow.Expr
	outer bool
	cols  []Column
}

// single is the one row of a subquery that is used as a value, and then whether it has more.
type single struct{ in rel }

// reduced groups rows: its columns are the keys and then the aggregates.
type reduced struct {
	in   rel
	keys []flow.Expr
	aggs []aggregate
	cols []Column
}

// aggregate is an aggregate over expressions of the input. It has no arguments for count(*); those of an ordered aggregate are followed by
// what else it is ordered by.
type aggregate struct {
	fn       flow.AggregateFunc
	args     []flow.Expr
	filter   flow.Expr
	distinct bool
	order    []flow.SortKey // over args
}

// topK keeps the first rows of each group.
type topK struct {
	in            rel
	group         []int
	order         []flow.SortKey
	limit, offset int64
}

// union is the sum of relations with the same columns.
type union struct{ in []rel }

// setOp is DISTINCT, EXCEPT or INTERSECT.
type setOp struct {
	kind flow.SetKind
	in   []rel
}

func (r *get) columns() []Column      { return r.object.Columns }
func (r *constant) columns() []Column { return r.cols }
func (r *mapped) columns() []Column   { return r.cols }
func (r *joined) columns() []Column   { return r.cols }
func (r *expanded) columns() []Column { return r.cols }
func (r *single) columns() []Column   { return beside(r.in.columns(), Column{"many", flow.Bool}) }
func (r *reduced) columns() []Column  { return r.cols }
func (r *topK) columns() []Column     { return r.in.columns() }
func (r *union) columns() []Column    { return r.in[0].columns() }
func (r *setOp) columns() []Column    { return r.in[0].columns() }
