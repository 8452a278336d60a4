package flow

import "unsafe"

// State is what an operator holds in memory to answer for the next change. Bytes are an estimate.
type State struct {
	Rows  int64 // rows, or groups, that it keeps
	Bytes int64
}

// Add sums up the states of operators.
func (s *State) Add(o State) {
	s.Rows += o.Rows
	s.Bytes += o.Bytes
}

// The estimates of what holding a thing costs beside the thing, with the slack of Go's maps, B-trees and allocator.
const (
	mapSlot   = 48 // a string key and a pointer in a map that is between half full and full
	treeSlack = 2  // an item of a B-tree takes up to so many times its size
	treeBase  = 200
)

// updateBytes is what an update with its row takes up.
func updateBytes(r Row) int64 { return int64(unsafe.Sizeof(Update{})) + int64(r.Size()) }
