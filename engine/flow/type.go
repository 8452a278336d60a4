// Package flow is the dataflow of mzd's embedded engine: typed values, rows, scalar expressions, and operators that turn the
// changes of their inputs into the changes of their output without ever looking at what did not change.
//
// Begin with [Dataflow], which package plan builds from SQL and whose Step method is called once per tick. A collection is a
// Z-set: rows with a count, beside a Z-set of the errors that evaluating it met ([Delta]). The package knows neither SQL text
// nor files nor time.
package flow

// Type is the type of a column or value. The zero value, Unknown, is the type of NULL and of a quoted literal nobody has asked
// anything of yet; it is shown to clients as text.
type Type uint8

// The types of the engine.
const (
	Unknown Type = iota
	Bool
	Int2
	Int4
	Int8
	Float4
	Float8
	Numeric
	Text
	Jsonb
	Date
	Timestamp
	Timestamptz
	Interval
	UUID
	Bytea
	// StreamTime is the type of a stream's mz_timestamp column: numeric(39,0). Its values are Numeric.
	StreamTime
)

// isArray is the bit that makes the type of an array of the type of its elements.
const isArray Type = 0x80

var types = [...]struct {
	name, sql  string
	oid, array uint32
	size       int16
}{
	Unknown:     {"text", "unknown", 25, 1009, -1},
	Bool:        {"bool", "boolean", 16, 1000, 1},
	Int2:        {"int2", "smallint", 21, 1005, 2},
	Int4:        {"int4", "integer", 23, 1007, 4},
	Int8:        {"int8", "bigint", 20, 1016, 8},
	Float4:      {"float4", "real", 700, 1021, 4},
	Float8:      {"float8", "double precision", 701, 1022, 8},
	Numeric:     {"numeric", "numeric", 1700, 1231, -1},
	Text:        {"text", "text", 25, 1009, -1},
	Jsonb:       {"jsonb", "jsonb", 3802, 3807, -1},
	Date:        {"date", "date", 1082, 1182, 4},
	Timestamp:   {"timestamp", "timestamp without time zone", 1114, 1115, 8},
	Timestamptz: {"timestamptz", "timestamp with time zone", 1184, 1185, 8},
	Interval:    {"interval", "interval", 1186, 1187, 16},
	UUID:        {"uuid", "uuid", 2950, 2951, 16},
	Bytea:       {"bytea", "bytea", 17, 1001, -1},
	StreamTime:  {"numeric", "numeric", 1700, 1231, -1},
}

// Scalars are the types that a column of a table can have.
func Scalars() []Type {
	var out []Type
	for t := Bool; t < StreamTime; t++ {
		out = append(out, t)
	}
	return out
}

// ArrayOf is the type of the arrays of a scalar type.
func ArrayOf(t Type) Type { return t | isArray }

// IsArray tells whether the type is an array type.
func (t Type) IsArray() bool { return t&isArray != 0 }

// Elem is the type of the elements of an array type.
func (t Type) Elem() Type { return t &^ isArray }

// Name is PostgreSQL's internal name of the type, as in pg_type: int8, text, jsonb, timestamptz, _int8 for an array.
func (t Type) Name() string {
	if t.IsArray() {
		return "_" + types[t.Elem()].name
	}
	return types[t].name
}

// SQL is the name that error messages use: bigint, timestamp with time zone, bigint[].
func (t Type) SQL() string {
	if t.IsArray() {
		return types[t.Elem()].sql + "[]"
	}
	return types[t].sql
}

// OID is PostgreSQL's object identifier of the type.
func (t Type) OID() uint32 {
	if t.IsArray() {
		return types[t.Elem()].array
	}
	return types[t].oid
}

// Size is the length in bytes of a value, or -1 where it varies.
func (t Type) Size() int16 {
	if t.IsArray() {
		return -1
	}
	return types[t].size
}

// Typmod is the type modifier that a RowDescription carries: -1 except for [StreamTime], which is numeric(39,0).
func (t Type) Typmod() int32 {
	if t == StreamTime {
		return 39<<16 + 4
	}
	return -1
}

// IsNumber tells whether arithmetic is defined on the type.
func (t Type) IsNumber() bool { return t >= Int2 && t <= Numeric }

// IsInt tells whether the type is one of the integers.
func (t Type) IsInt() bool { return t >= Int2 && t <= Int8 }

// IsFloat tells whether the type is one of the binary floating point types.
func (t Type) IsFloat() bool { return t == Float4 || t == Float8 }
