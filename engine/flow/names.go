package flow

import (
	"maps"
	"slices"
)

// Functions lists the names of all functions and operators, sorted, for what documents them.
func Functions() []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(builtins)), maps.Keys(polymorphic))
	slices.Sort(names)
	return names
}
