package pgwire

import (
	"errors"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/mzdio/mzd/engine"
	"github.com/mzdio/mzd/engine/flow"
)

// parameterOIDs are the types that a client may give its parameters: those of
// the engine, and the names that drivers have for text.
var parameterOIDs = func() map[uint32]flow.Type {
	m := map[uint32]flow.Type{
		0: flow.Unknown, 705: flow.Unknown, // unspecified, unknown
		19: flow.Text, 1042: flow.Text, 1043: flow.Text, // name, bpchar, varchar
		114: flow.Jsonb, // json
	}
	for _, t := range flow.Scalars() {
		m[t.OID()] = t
		m[flow.ArrayOf(t).OID()] = flow.ArrayOf(t)
	}
	return m
}()

// parameterTypes are the types that a Parse message asks for; the engine finds
// out those that are unknown.
func parameterTypes(oids []uint32) ([]flow.Type, error) {
	types := make([]flow.Type, len(oids))
	for i, oid := range oids {
		t, ok := parameterOIDs[oid]
		if !ok {
			return nil, errorf("0A000", "parameter $%d has a type that the embedded engine does not know (OID %d)", i+1, oid)
		}
		types[i] = t
	}
	return types, nil
}

func parameterDescription(st engine.Statement) *pgproto3.ParameterDescription {
	d := &pgproto3.ParameterDescription{}
	for _, t := range st.Params() {
		d.ParameterOIDs = append(d.ParameterOIDs, t.OID())
	}
	return d
}

// withParameters gives a prepared statement the values of a Bind message.
func withParameters(st engine.Statement, m bind) (engine.Statement, error) {
	types := st.Params()
	if len(m.parameters) != len(types) {
		return st, errorf("08P01", "bind message supplies %d parameters, but prepared statement %q requires %d", len(m.parameters), m.statement, len(types))
	}
	if n := len(m.parameterFormats); n > 1 && n != len(types) {
		return st, errorf("08P01", "bind message has %d parameter formats but %d parameters", n, len(types))
	}
	values := make([]flow.Datum, len(types))
	for i, p := range m.parameters {
		if p == nil {
			continue
		}
		var err error
		switch f := resultFormat(m.parameterFormats, i); f {
		case pgproto3.TextFormat:
			values[i], err = flow.FromText(types[i], string(p))
		case pgproto3.BinaryFormat:
			values[i], err = flow.FromBinary(types[i], p)
		default:
			err = &flow.EvalError{Code: "22023", Message: "unsupported format code"}
		}
		if e, ok := errors.AsType[*flow.EvalError](err); ok {
			return st, errorf(e.Code, "parameter $%d: %s", i+1, e.Message)
		} else if err != nil {
			return st, err
		}
	}
	return st.With(values), nil
}
