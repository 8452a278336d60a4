// Package plan gives SQL its meaning: it resolves names and types, and builds the dataflow of package flow that keeps a query's
// result up to date.
//
// [Query] plans a syntax tree against a [Catalog]; [Plan.Dataflow] builds operators for it. There is no optimiser. What is done is
// done by construction: columns nobody reads are never computed, and what needs no state (filters, projections, JSON field reads)
// is pushed down into the slots of the dataflow, where a source's decoders run it.
package plan

import (
	"math"
	"slices"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/sql"
)

// Column is a column of a relation.
type Column struct {
	Name string
	Type flow.Type
}

// Object is something in the catalog that has rows.
type Object struct {
	ID      string
	Name    string
	Columns []Column
	// Query is the definition of a view that is not maintained: it is planned in place of its name. Nil for the rest.
	Query *sql.Query
	// Introspection marks a relation of the catalog itself, which has rows to select but no changes to stream.
	Introspection bool
	// Writable says what may be written to each of the Columns; nil for what is no table.
	Writable []Writable
}

// Writable is what a column of a table asks of a value.
type Writable struct {
	NotNull bool
	Default sql.Expr   // nil: NULL
	Fit     *flow.Func // what a modifier of the type makes of a value, as varchar(10); nil: nothing
}

// Catalog finds objects by name.
type Catalog interface {
	// Object returns nil if there is no object of the name.
	Object(sql.Name) *Object
}

// Env is what a query is planned in.
type Env struct {
	Catalog Catalog
	// Constants are functions without arguments whose value the engine knows: mz_version, mz_environment_id, version.
	Constants map[string]string
	// Params are the parameters of the statement.
	Params Params
}

// Params are the parameters $1, $2, ... of a statement, where 0 is nobody's. While a statement is only described there are no
// values, and planning finds out what types the parameters must have that have none yet. The zero value is no parameters.
type Params struct {
	Types  []flow.Type
	Values []flow.Datum // nil: not known yet
}

// Unknown tells that there are parameters, and no values yet.
func (p Params) Unknown() bool { return len(p.Types) > 1 && p.Values == nil }

// NewParams makes room for n parameters, of which the first ones have types already.
func NewParams(n int, types []flow.Type) Params {
	p := Params{Types: make([]flow.Type, max(n, len(types))+1)}
	copy(p.Types[1:], types)
	return p
}

// Plan is a query with its names resolved.
type Plan struct {
	Columns []Column
	// Order, Limit and Offset are what is asked of the result as a whole. A result that is read once is finished by them; in a
	// view that is kept up to date a limit is an operator, and an order without one means nothing.
	Order  []flow.SortKey
	Limit  int64
	Offset int64
	// Uses are the ids of all objects that the query names, views that were planned in place included.
	Uses []string
	// Introspection tells that it reads the catalog itself.
	Introspection bool

	rel rel // its columns are Columns, and then those that only Order needs
}

// Query plans a query. The error is a [*sql.Error] whose position is in the text the query was parsed from.
func Query(env Env, q *sql.Query) (p *Plan, err error) {
	b := &planner{env: env}
	defer recoverError(&err)
	r := b.query(q, around{})
	p = &Plan{
		Columns: r.visible(), Order: r.order, Limit: r.limit, Offset: r.offset, Uses: b.uses, Introspection: b.introspection, rel: r.rel,
	}
	return p, nil
}

// Constant plans and evaluates an expression without columns, as AS OF takes. If it is a parameter that has no type yet, it has this
// one. While there are no values for the parameters it is NULL.
func Constant(env Env, e sql.Expr, param flow.Type) (d flow.Datum, err error) {
	b := &planner{env: env}
	defer recoverError(&err)
	x := b.expr(e, &scope{})
	if p, ok := x.(*flow.Param); ok && p.Type() == flow.Unknown {
		p.Known[p.N] = param
	}
	if env.Params.Unknown() {
		return flow.Null, nil
	}
	v, evalErr := x.Eval(&flow.Context{}, nil)
	if evalErr != nil {
		return flow.Null, sql.Errorf(e.Pos(), "22000", "%s", evalErr.Error())
	}
	return v, nil
}

// recoverError turns the planner's panics into errors; see [planner].
func recoverError(err *error) {
	if r := recover(); r != nil {
		e, ok := r.(*sql.Error)
		if !ok {
			panic(r)
		}
		*err = e
	}
}

// Once builds the dataflow of the query for a result that is read once: its rows are to be sorted, cut and freed of the columns
// behind Columns by the reader.
func (p *Plan) Once() *flow.Dataflow { return build(p.rel, identity(p.rel)) }

// Maintained builds the dataflow of the query for a result that is kept up to date.
func (p *Plan) Maintained() *flow.Dataflow {
	r := p.rel
	if p.Limit != flow.NoLimit || p.Offset > 0 {
		r = &topK{in: r, order: p.Order, limit: p.Limit, offset: p.Offset}
	}
	return build(r, identity(p.rel)[:len(p.Columns)])
}

func identity(r rel) []flow.Expr { return columnRefs(r.columns()) }

func columnRefs(cols []Column) []flow.Expr {
	out := make([]flow.Expr, len(cols))
	for i, c := range cols {
		out[i] = &flow.Col{Index: i, T: c.Type, Name: c.Name}
	}
	return out
}

// The bounds of a query after its views have been planned in place.
const (
	maxRelations = 1000   // relations and operators
	maxViewDepth = 50     // views on views
	maxExprSize  = 5000   // nodes of an expression that is substituted into others
	maxColumns   = 1664   // of a query, those that only its ORDER BY or GROUP BY asks for included, as in PostgreSQL
	maxJoined    = 10_000 // columns of the relations of a FROM together
)

// typeNames are the names of types that a cast may use.
var typeNames = map[string]flow.Type{
	"bool": flow.Bool, "boolean": flow.Bool,
	"int2": flow.Int2, "smallint": flow.Int2,
	"int4": flow.Int4, "int": flow.Int4, "integer": flow.Int4,
	"int8": flow.Int8, "bigint": flow.Int8,
	"float4": flow.Float4, "real": flow.Float4,
	"float8": flow.Float8, "float": flow.Float8, "double": flow.Float8, "double precision": flow.Float8,
	"numeric": flow.Numeric, "decimal": flow.Numeric, "dec": flow.Numeric,
	"text": flow.Text, "varchar": flow.Text, "string": flow.Text,
	"jsonb": flow.Jsonb, "json": flow.Jsonb,
	"date": flow.Date, "timestamp": flow.Timestamp, "timestamptz": flow.Timestamptz, "interval": flow.Interval,
	"uuid": flow.UUID, "bytea": flow.Bytea, "bytes": flow.Bytea,
	"mz_timestamp": flow.Numeric,
}

// typesElsewhere are types that Materialize has and the engine has not.
var typesElsewhere = map[string]bool{
	"char": true, "character": true, "bpchar": true, "name": true, "time": true, "timetz": true, "oid": true, "regclass": true, "regtype": true,
	"regproc": true, "uint2": true, "uint4": true, "uint8": true, "map": true, "list": true, "record": true, "int4range": true, "int8range": true,
	"numrange": true, "daterange": true, "tsrange": true, "tstzrange": true, "mz_aclitem": true, "aclitem": true, "int2vector": true,
}

// lookupType is the type of a name, and the cast from it that its modifiers ask for, or nil.
func lookupType(t sql.TypeName) (flow.Type, *flow.Func) {
	typ, ok := typeNames[t.Name]
	switch {
	case typesElsewhere[t.Name]:
		panic(sql.Unsupported(t.Pos(), "type "+t.Name+" is"))
	case !ok:
		panic(sql.Errorf(t.Pos(), "42704", "type %q does not exist", t.Name))
	case t.Array && t.Mods != nil:
		panic(sql.Unsupported(t.Pos(), "an array of a type with modifiers is"))
	case t.Array:
		return flow.ArrayOf(typ), nil
	case t.Field != "":
		return typ, flow.Restriction(flow.Interval, t.Field)
	case t.Mods == nil:
		return typ, nil
	case t.Name == "float" && len(t.Mods) == 1 && t.Mods[0] >= 1 && t.Mods[0] <= 53:
		if t.Mods[0] <= 24 {
			return flow.Float4, nil
		}
		return flow.Float8, nil
	}
	modifier := flow.Modifier(typ, t.Mods)
	if modifier == nil {
		panic(sql.Errorf(t.Pos(), "22023", "invalid type modifier: %s", t))
	}
	return typ, modifier
}

// unbound tells whether an expression has a parameter whose value is not known yet.
func unbound(e flow.Expr) bool {
	_, param := e.(*flow.Param)
	return param || slices.ContainsFunc(e.Args(), unbound)
}

// count reads a LIMIT or OFFSET.
func (b *planner) count(e sql.Expr, what string) int64 {
	x, ok := flow.CastTo(b.expr(e, &scope{}), flow.Int8)
	if ok && unbound(x) {
		return 0 // whatever it will be
	}
	c, constant := x.(*flow.Const)
	if !ok || !constant {
		b.fail(e.Pos(), "42601", "%s must be a whole number", what)
	}
	if c.D.IsNull() {
		if what == "LIMIT" {
			return flow.NoLimit
		}
		return 0
	}
	if n := c.D.Int(); n >= 0 && n <= math.MaxInt64 {
		return n
	}
	code := map[string]string{"LIMIT": "2201W", "OFFSET": "2201X"}[what]
	b.fail(e.Pos(), code, "%s must not be negative", what)
	return 0
}
