// Package message writes cuts as messages of JSON, one object each, for sinks that
// hand them to a receiver which acknowledges every one.
//
// The message of a single view is a base, which is the whole view and replaces
// what the receiver holds, or a delta:
//
//	{"type":"base","view":"top10","timestamp":"1721310000000","token":"1721310000000-k3f9",
//	 "columns":[{"name":"user","type":"text"},{"name":"count","type":"int8"}],"key":["user"],
//	 "inserted":[["Ada",12]],"deleted":[]}
//	{"type":"delta","view":"top10","from":"1721310000000-k3f9","timestamp":"1721310001000","token":"1721310001000-k3f9",
//	 "inserted":[["Ada",13]],"deleted":[["Ada",12]]}
//
// The message completes everything below its timestamp; a row with n copies is
// listed n times. That nothing else has happened is a message too, for receivers
// who want to know:
//
//	{"type":"progress","view":"top10","timestamp":"1721310002000","token":"1721310002000-k3f9"}
//
// Several views move at once, each in the way that its type says:
//
//	{"type":"cut","timestamp":"1721310001000","views":{
//	 "counter":{"type":"delta","from":"1721310000000-x2ab","token":"1721310001000-x2ab","inserted":[[7]],"deleted":[[6]]},
//	 "top10":{"type":"base","token":"1721310001000-k3f9","columns":[...],"key":["user"],"inserted":[["Ada",13]],"deleted":[]}}}
//
// A large message comes in parts, in order: "part" counts them from 1, all but the
// last have "more":true, and they apply together.
package message

import (
	"bytes"
	"encoding/json"
	"iter"
	"slices"
	"strconv"

	"github.com/mzdio/mzd/core"
)

// Part is a message, or a part of one.
type Part struct {
	Body   []byte
	Number int  // from 1
	More   bool // there is another part
}

// Parts encodes a cut into bodies of at most maxBody, unless a single row is
// larger. They are a pure function of the cut and maxBody.
func Parts(cut []core.Batch, maxBody int) iter.Seq[Part] {
	return func(yield func(Part) bool) {
		const envelope = len(`,"part":9223372036854775807,"more":true`)
		p := newParts(cut)
		room := maxBody - len(p.encode(1, false)) - envelope
		for list, row := range rowsOf(cut) {
			if size := len(row) + 1; p.size > 0 && p.size+size > room {
				if !yield(p.next(true)) {
					return
				}
			}
			p.add(list, row)
		}
		yield(p.next(false))
	}
}

// IsProgress reports whether a cut says only that nothing happened.
func IsProgress(cut []core.Batch) bool { return !slices.ContainsFunc(cut, isNews) }

func isNews(b core.Batch) bool { return b.IsBase() || b.Updates.Len() > 0 }

// rowList is one list of rows of a message.
type rowList struct {
	view    int
	deleted bool
}

// rowsOf yields the rows of a cut in the order of its message: view by view, the
// inserted ones and then the deleted ones, each as often as it has copies.
func rowsOf(cut []core.Batch) iter.Seq2[rowList, core.Row] {
	return func(yield func(rowList, core.Row) bool) {
		for i, b := range cut {
			for _, sign := range []core.Diff{1, -1} {
				for u := range b.Updates.All() {
					for n := sign * u.Diff; n > 0; n-- {
						if !yield(rowList{i, sign < 0}, u.Row) {
							return
						}
					}
				}
			}
		}
	}
}

// parts collects the rows of a part.
type parts struct {
	cut   []core.Batch
	lists map[rowList][]byte // the rows, with commas between them
	size  int                // of all lists, with a comma for each row
	part  int                // the number of parts before
}

func newParts(cut []core.Batch) *parts {
	return &parts{cut: cut, lists: make(map[rowList][]byte)}
}

func (p *parts) add(to rowList, row core.Row) {
	list := p.lists[to]
	if len(list) > 0 {
		list = append(list, ',')
	}
	p.lists[to] = append(list, row...)
	p.size += len(row) + 1
}

// next encodes what was collected, and begins another part.
func (p *parts) next(more bool) Part {
	p.part++
	m := Part{p.encode(p.part, more), p.part, more}
	clear(p.lists)
	p.size = 0
	return m
}

func (p *parts) encode(part int, more bool) []byte {
	buf := make([]byte, 0, p.size+1024)
	timestamp := p.cut[0].Upper.Time.String()
	if len(p.cut) == 1 {
		buf = p.appendView(buf, 0, timestamp)
	} else {
		buf = append(buf, `{"type":"cut"`...)
		buf = appendField(buf, "timestamp", timestamp)
		buf = append(buf, `,"views":{`...)
		for i, b := range p.cut {
			if i > 0 {
				buf = append(buf, ',')
			}
			buf = append(appendString(buf, b.View.Name), ':')
			buf = append(p.appendView(buf, i, ""), '}')
		}
		buf = append(buf, '}')
	}
	if part > 1 || more {
		buf = append(buf, `,"part":`...)
		buf = strconv.AppendInt(buf, int64(part), 10)
	}
	if more {
		buf = append(buf, `,"more":true`...)
	}
	return append(buf, '}')
}

// appendView appends the object of a view, without the brace at its end. In a
// cut of several, the timestamp is that of all, and the name is the key; it is
// empty there.
func (p *parts) appendView(buf []byte, i int, timestamp string) []byte {
	b := p.cut[i]
	alone := timestamp != ""
	kind := kindOf(b, alone)
	buf = append(append(append(buf, `{"type":"`...), kind...), '"')
	if alone {
		buf = appendField(buf, "view", b.View.Name)
	}
	if kind == "delta" {
		buf = appendField(buf, "from", b.Lower.String())
	}
	if alone {
		buf = appendField(buf, "timestamp", timestamp)
	}
	buf = appendField(buf, "token", b.Upper.String())
	if kind == "progress" {
		return buf
	}
	if kind == "base" {
		buf = append(append(buf, `,"columns":`...), marshal(append([]core.Column{}, b.View.Columns...))...)
		buf = append(append(buf, `,"key":`...), marshal(append([]string{}, b.View.KeyNames()...))...)
	}
	buf = append(append(buf, `,"inserted":[`...), p.lists[rowList{i, false}]...)
	buf = append(append(buf, `],"deleted":[`...), p.lists[rowList{i, true}]...)
	return append(buf, ']')
}

// kindOf returns the type of the object of a view.
func kindOf(b core.Batch, alone bool) string {
	switch {
	case b.IsBase():
		return "base"
	case alone && !isNews(b):
		return "progress"
	}
	return "delta"
}

// appendField appends a comma, the name and the value as a JSON string.
func appendField(buf []byte, name, value string) []byte {
	buf = append(append(append(buf, `,"`...), name...), `":`...)
	return appendString(buf, value)
}

// appendString appends any text as a JSON string.
func appendString(buf []byte, s string) []byte { return append(buf, marshal(s)...) }

// marshal encodes what cannot fail: strings and structs of strings.
func marshal(v any) []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}
