package core

import (
	"cmp"
	"encoding/binary"
	"iter"
	"slices"
	"strings"
)

// Consolidate sorts updates by time and row, adds up the diffs of equal ones
// and drops what cancels out. It works in place and returns the shortened
// slice.
func Consolidate(updates []Update) []Update {
	slices.SortFunc(updates, compareUpdates)
	out := updates[:0]
	for _, u := range updates {
		if n := len(out); n > 0 && out[n-1].Time == u.Time && out[n-1].Row == u.Row {
			out[n-1].Diff += u.Diff
			continue
		}
		if n := len(out); n > 0 && out[n-1].Diff == 0 {
			out = out[:n-1]
		}
		out = append(out, u)
	}
	if n := len(out); n > 0 && out[n-1].Diff == 0 {
		out = out[:n-1]
	}
	clear(updates[len(out):]) // do not pin rows that cancelled out
	return out
}

func compareUpdates(a, b Update) int {
	if c := cmp.Compare(a.Time, b.Time); c != 0 {
		return c
	}
	return strings.Compare(string(a.Row), string(b.Row))
}

// Sum yields the sum of updates, whatever their times: ordered by row, each row
// once, with the sum of its diffs, if that is not zero. The times of what it
// yields mean nothing. It is for many updates: it needs a third as much memory
// as they do, and does not move them. They must not change meanwhile.
func Sum(pieces ...[]Update) iter.Seq[Update] {
	return func(yield func(Update) bool) {
		s := newSorter(pieces)
		s.sort(s.list, 0)
		for list := s.list; len(list) > 0; {
			sum, n := *s.update(list[0]), 1
			// Equal rows were sorted together to the end, so that their bytes are equal.
			for ; n < len(list) && list[n].bytes == list[0].bytes && s.update(list[n]).Row == sum.Row; n++ {
				sum.Diff += s.update(list[n]).Diff
			}
			if sum.Diff != 0 && !yield(sum) {
				return
			}
			list = list[n:]
		}
	}
}

// sorter sorts updates by their rows. To compare two strings is to wait for the
// memory of both, and a sort of a million does it twenty million times. So it
// sorts by a few bytes of each row at a time, which it keeps beside the place of
// the update, and digit by digit, without comparing anything. Only what is equal
// in them is sorted further.
type sorter struct {
	pieces  [][]Update
	list    []sortKey
	scratch []sortKey // as long as list
}

// sortKey is the place of an update and some bytes of its row.
type sortKey struct {
	bytes        uint64 // see sortBytes
	piece, index uint32
}

// sortFew is the number of rows that are as well compared.
const sortFew = 256

func newSorter(pieces [][]Update) *sorter {
	n := 0
	for _, p := range pieces {
		n += len(p)
	}
	s := &sorter{pieces: pieces, list: make([]sortKey, 0, n)}
	for i, p := range pieces {
		for k := range p {
			s.list = append(s.list, sortKey{piece: uint32(i), index: uint32(k)})
		}
	}
	if n > sortFew {
		s.scratch = make([]sortKey, n)
	}
	return s
}

func (s *sorter) update(k sortKey) *Update { return &s.pieces[k.piece][k.index] }

// sort sorts rows that are equal in their first bytes.
func (s *sorter) sort(list []sortKey, equal int) {
	if len(list) <= sortFew {
		slices.SortFunc(list, func(a, b sortKey) int {
			return strings.Compare(string(s.update(a).Row), string(s.update(b).Row))
		})
		return
	}
	equal = s.common(list, equal)
	for i, k := range list {
		list[i].bytes = sortBytes(s.update(k).Row[equal:])
	}
	sortDigits(list, s.scratch[:len(list)])
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].bytes == list[0].bytes {
			n++
		}
		if n > 1 && goesOn(list[0].bytes) {
			s.sort(list[:n], equal)
		}
		list = list[n:]
	}
}

// common returns how many of their first bytes rows have in common, which are at
// least equal.
func (s *sorter) common(list []sortKey, equal int) int {
	first := s.update(list[0]).Row
	common := len(first)
	for _, k := range list[1:] {
		row := s.update(k).Row
		common = min(common, len(row))
		for i := equal; i < common; i++ {
			if row[i] != first[i] {
				common = i
			}
		}
		if common == equal {
			break
		}
	}
	return common
}

// sortBytes returns the first seven bytes of a row, and how many bytes there
// are, as far as eight: of two rows that differ in nothing but zero bytes at the
// end the shorter one is the first.
func sortBytes(row Row) uint64 {
	var b [8]byte
	copy(b[:7], row)
	b[7] = byte(min(len(row), 8))
	return binary.BigEndian.Uint64(b[:])
}

// goesOn reports whether rows go on after these bytes; otherwise they end within
// them, and those that have the same are equal.
func goesOn(bytes uint64) bool { return byte(bytes) == 8 }

// sortDigits is a radix sort, from the last digit to the first.
func sortDigits(list, scratch []sortKey) {
	const digits = 8
	var counts [digits][256]int32
	for _, k := range list {
		for d := range digits {
			counts[d][byte(k.bytes>>(8*d))]++
		}
	}
	from, to := list, scratch
	for d := range digits {
		places := &counts[d]
		if places[byte(list[0].bytes>>(8*d))] == int32(len(list)) {
			continue // all have the same
		}
		place := int32(0)
		for i, n := range places {
			places[i], place = place, place+n
		}
		for _, k := range from {
			digit := byte(k.bytes >> (8 * d))
			to[places[digit]] = k
			places[digit]++
		}
		from, to = to, from
	}
	if &from[0] != &list[0] {
		copy(list, from)
	}
}
