package mz

// pgType is what is known of a type of the database.
type pgType struct {
	name   string // as in pg_type
	encode encodeFunc
}

// typeOf returns the type of an OID. Values of a type that is not known here
// (composites, ranges, Materialize's lists and maps, what users define) are
// passed on as the text that the server prints.
func typeOf(oid uint32) pgType {
	if t, ok := scalars[oid]; ok {
		return t
	}
	if element, ok := arrays[oid]; ok {
		t := scalars[element]
		return pgType{"_" + t.name, arrayOf(t.encode)}
	}
	return pgType{"unknown", encodeString}
}

// scalars are PostgreSQL's types by their fixed OIDs, and Materialize's own.
var scalars = map[uint32]pgType{
	16:   {"bool", encodeBool},
	17:   {"bytea", encodeString}, // \x0a1b
	18:   {"char", encodeString},
	19:   {"name", encodeString},
	20:   {"int8", encodeInteger},
	21:   {"int2", encodeInteger},
	23:   {"int4", encodeInteger},
	24:   {"regproc", encodeString},
	25:   {"text", encodeString},
	26:   {"oid", encodeString}, // a string for to_jsonb too
	114:  {"json", encodeJSON},
	650:  {"cidr", encodeString},
	700:  {"float4", encodeNumber},
	701:  {"float8", encodeNumber},
	829:  {"macaddr", encodeString},
	869:  {"inet", encodeString},
	1042: {"bpchar", encodeString},
	1043: {"varchar", encodeString},
	1082: {"date", encodeString}, // ISO style is ISO 8601 already
	1083: {"time", encodeString},
	1114: {"timestamp", encodeTimestamp},
	1184: {"timestamptz", encodeTimestamp},
	1186: {"interval", encodeString},
	1266: {"timetz", encodeString},
	1700: {"numeric", encodeNumber},
	2205: {"regclass", encodeString},
	2206: {"regtype", encodeString},
	2950: {"uuid", encodeString},
	3802: {"jsonb", encodeJSON},

	16384: {"list", encodeString},
	16385: {"map", encodeString},
	16438: {"numeric", encodeNumber}, // apd, the first numeric of 2021
	16460: {"uint2", encodeInteger},
	16462: {"uint4", encodeInteger},
	16464: {"uint8", encodeInteger},
	16552: {"mz_timestamp", encodeInteger},
}

// arrays maps array types to the types of their elements.
var arrays = map[uint32]uint32{
	199:  114,
	1000: 16,
	1001: 17,
	1002: 18,
	1003: 19,
	1005: 21,
	1007: 23,
	1008: 24,
	1009: 25,
	1014: 1042,
	1015: 1043,
	1016: 20,
	1021: 700,
	1022: 701,
	1028: 26,
	1040: 829,
	1041: 869,
	651:  650,
	1115: 1114,
	1182: 1082,
	1183: 1083,
	1185: 1184,
	1187: 1186,
	1231: 1700,
	1270: 1266,
	2210: 2205,
	2211: 2206,
	2951: 2950,
	3807: 3802,

	16461: 16460,
	16463: 16462,
	16465: 16464,
	16553: 16552,
}
