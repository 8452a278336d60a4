package plan

import "github.com/mzdio/mzd/engine/flow"

// rel is a node of a resolved query: a relation with typed columns.
type rel interface{ columns() []Column }

// get reads an object of the catalog.
type get struct{ object *Object }

// constant is a list of rows.
type constant struct {
	cols []Column
	rows [][]flow.Expr
}

// mapped filters rows and computes columns.
type mapped struct {
	in      rel
	filters []flow.Expr
	exprs   []flow.Expr
	cols    []Column
}

// joined pairs rows: its columns are the left ones and then the right ones. Keys are over the columns of their side.
type joined struct {
	left, right       rel
	leftKey, rightKey []flow.Expr
	outer             bool
	residual          []flow.Expr // the rest of an inner join's condition, until it has become a filter
}

// reduced groups rows: its columns are the keys and then the aggregates.
type reduced struct {
	in   rel
	keys []flow.Expr
	aggs []aggregate
	cols []Column
}

// aggregate is an aggregate over expressions of the input; a nil argument is count(*).
type aggregate struct {
	fn          flow.AggregateFunc
	arg, filter flow.Expr
	distinct    bool
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
func (r *reduced) columns() []Column  { return r.cols }
func (r *topK) columns() []Column     { return r.in.columns() }
func (r *union) columns() []Column    { return r.in[0].columns() }
func (r *setOp) columns() []Column    { return r.in[0].columns() }

func (r *joined) columns() []Column {
	l := r.left.columns()
	return append(l[:len(l):len(l)], r.right.columns()...)
}
