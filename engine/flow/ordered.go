package flow

import (
	"slices"
	"unsafe"

	"github.com/tidwall/btree"
	"github.com/valyala/fastjson"
)

// orderedAcc keeps the arguments of an ordered aggregate as a sorted multiset. Ties of the order, and all of it where none is asked for,
// are broken by the arguments themselves: so the result is a function of what is there.
type orderedAcc struct {
	tree     *btree.BTreeG[Update]
	fold     func(a *orderedAcc, values func(func(Row) bool)) (Datum, error)
	in       Type
	distinct bool
	bytes    int64 // of the rows in the tree
}

func newOrderedAcc(a *Aggregate) *orderedAcc {
	less := func(x, y Update) bool { return CompareSorted(a.Order, x.Row, y.Row) < 0 }
	folds := map[AggregateFunc]func(*orderedAcc, func(func(Row) bool)) (Datum, error){
		StringAgg: foldString, ArrayAgg: foldArray, JsonbAgg: foldJSON, JsonbObjectAgg: foldObject,
	}
	tree := btree.NewBTreeGOptions(less, btree.Options{NoLocks: true, Degree: 8})
	return &orderedAcc{tree: tree, fold: folds[a.Func], in: a.In, distinct: a.Distinct}
}

func (a *orderedAcc) size() int { return treeBase + int(a.bytes) }

func (a *orderedAcc) add(args Row, diff int64) {
	old, found := a.tree.Get(Update{Row: args})
	bytes := updateBytes(args) + int64(unsafe.Sizeof(Update{}))*(treeSlack-1)
	if old.Diff += diff; old.Diff == 0 {
		a.tree.Delete(old)
		a.bytes -= bytes
		return
	}
	if !found {
		old.Row = slices.Clone(args) // which may be a part of a wider row
		a.bytes += bytes
	}
	a.tree.Set(old)
}

// result computes the aggregate anew, at the cost of its length.
func (a *orderedAcc) result() (Datum, error) {
	if a.tree.Len() == 0 {
		return Null, nil
	}
	return a.fold(a, func(yield func(Row) bool) {
		a.tree.Scan(func(u Update) bool {
			n := u.Diff
			if a.distinct {
				n = min(n, 1)
			}
			for ; n > 0; n-- {
				if !yield(u.Row) {
					return false
				}
			}
			return true
		})
	})
}

func foldString(a *orderedAcc, values func(func(Row) bool)) (Datum, error) {
	var b []byte
	first := true
	for r := range values {
		if !first {
			b = append(b, r[1].s...)
		}
		first = false
		if b = append(b, r[0].s...); len(b) > maxTextBytes {
			return Null, errTextTooLong
		}
	}
	return Datum{s: string(b), t: a.in}, nil
}

func foldArray(a *orderedAcc, values func(func(Row) bool)) (Datum, error) {
	var b []byte
	for r := range values {
		if b = appendElement(b, r[0]); len(b) > maxTextBytes {
			return Null, errTextTooLong
		}
	}
	return Datum{s: string(b), t: ArrayOf(a.in)}, nil
}

func foldJSON(_ *orderedAcc, values func(func(Row) bool)) (Datum, error) {
	b := []byte{'['}
	for r := range values {
		if len(b) > 1 {
			b = append(b, ", "...)
		}
		if b = appendToJSON(b, r[0]); len(b) > maxTextBytes {
			return Null, errTextTooLong
		}
	}
	return newJSON(string(append(b, ']'))), nil
}

// foldObject makes an object; of equal keys the last one stays.
func foldObject(_ *orderedAcc, values func(func(Row) bool)) (Datum, error) {
	b := []byte{'{'}
	for r := range values {
		if r[0].IsNull() {
			return Null, &EvalError{Code: "22023", Message: "field name must not be null"}
		}
		key, err := jsonKey(r[0])
		if err != nil {
			return Null, err
		}
		if len(b) > 1 {
			b = append(b, ", "...)
		}
		b = append(appendJSONString(b, key), ": "...)
		if b = appendToJSON(b, r[1]); len(b) > maxTextBytes {
			return Null, errTextTooLong
		}
	}
	v, err := parseJSON(&fastjson.Parser{}, string(append(b, '}')))
	if err != nil {
		return Null, err
	}
	b, err = appendJSON(b[:0], v)
	return newJSON(string(b)), err
}
