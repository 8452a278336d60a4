package flow

import (
	"maps"
	"slices"
)

// Functions lists the names of all functions and operators, sorted, for what documents them.
func Functions() []string { return slices.Sorted(maps.Keys(builtins)) }
