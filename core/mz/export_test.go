package mz

import "slices"

// Encode encodes one value as a row of one column of the type, for tests.
func Encode(oid uint32, text []byte) (string, error) {
	b, err := rowEncoder{typeOf(oid).encode}.append(nil, [][]byte{text})
	return string(b), err
}

// TypeName returns the name by which columns of the type are known.
func TypeName(oid uint32) string { return typeOf(oid).name }

// KnownTypes returns the OIDs of all types that are not merely passed on.
func KnownTypes() []uint32 {
	var oids []uint32
	for oid := range scalars {
		oids = append(oids, oid)
	}
	for oid := range arrays {
		oids = append(oids, oid)
	}
	slices.Sort(oids)
	return oids
}

// SplitStatements returns the texts of the statements of a text.
func SplitStatements(text string) []string {
	var out []string
	for _, s := range splitStatements(text) {
		out = append(out, text[s.from:s.to])
	}
	return out
}

// ParseName exposes parseName.
var ParseName = parseName

// NamesIn exposes namesIn.
var NamesIn = namesIn
