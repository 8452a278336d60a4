package webhook

import (
	"bytes"
	"encoding/json"
	"iter"
	"strconv"

	"github.com/mzdio/mzd/core"
)

// message is the body of one request: a cut, or a part of one.
type message struct {
	body []byte
	part int  // from 1
	more bool // there is another part
}

// messages encodes a cut into bodies of at most maxBody, unless a single row is
// larger. They are a pure function of the cut and maxBody.
func messages(cut []core.Batch, maxBody int) iter.Seq[message] {
	return func(yield func(message) bool) {
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
func (p *parts) next(more bool) message {
	p.part++
	m := message{p.encode(p.part, more), p.part, more}
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
	if b.IsBase() {
		buf = append(buf, `{"type":"base"`...)
	} else {
		buf = append(buf, `{"type":"delta"`...)
	}
	if timestamp != "" {
		buf = appendField(buf, "view", b.View.Name)
	}
	if !b.IsBase() {
		buf = appendField(buf, "from", b.Lower.String())
	}
	if timestamp != "" {
		buf = appendField(buf, "timestamp", timestamp)
	}
	buf = appendField(buf, "token", b.Upper.String())
	if b.IsBase() {
		buf = append(append(buf, `,"columns":`...), marshal(append([]core.Column{}, b.View.Columns...))...)
		buf = append(append(buf, `,"key":`...), marshal(append([]string{}, b.View.KeyNames()...))...)
	}
	buf = append(append(buf, `,"inserted":[`...), p.lists[rowList{i, false}]...)
	buf = append(append(buf, `],"deleted":[`...), p.lists[rowList{i, true}]...)
	return append(buf, ']')
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
