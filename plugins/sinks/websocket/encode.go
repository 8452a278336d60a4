package websocket

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/mzdio/mzd/core"
)

// encoding is how a stream wants its messages. Streams of one encoding at one
// position share the bytes.
type encoding struct {
	v1            bool // the messages of 2020 (see messageV1)
	numbersString bool // ?numbers=string
}

// message is one message of a stream: JSON text that every transport frames in
// its way. It is immutable and shared.
type message struct {
	kind string // the label of the metric: base, delta, progress, error
	data []byte
	// token is the position after the message, what a client resumes with. It is
	// empty in all but the last part of a message in parts, because a client that
	// has seen only some of them has seen nothing.
	token string
	// unfinished: data is not the whole message, the next value goes on with it.
	// Only version 1 has such messages, as it has no parts.
	unfinished bool
	retry      time.Duration // when to come back; 0: nothing is said
}

const (
	// maxMessageBytes is the size above which a message comes in parts.
	maxMessageBytes = 1 << 20
	// pieceBytes is the size above which a message of version 1 is sent in
	// pieces.
	pieceBytes = 32 << 10
)

// An encoder is a cut on its way to being messages: a cursor over its rows.
type encoder interface {
	// part encodes the next message, or piece of one, and reports whether there
	// are more.
	part() (m message, more bool)
	// begins reports whether the next part begins a message.
	begins() bool
	// clone returns an encoder that goes on from here by itself.
	clone() encoder
}

// encoder returns the encoder of a cut; nil if there is nothing to say.
func (e encoding) encoder(cut []core.Batch) encoder {
	if !e.v1 {
		return newCutEncoder(e, cut)
	}
	if kindOf(cut) == kindProgress {
		return nil
	}
	return &encoderV1{batch: cut[0]}
}

// size estimates how many bytes the messages of a cut have in all.
func (e encoding) size(cut []core.Batch) int {
	const envelope, perValue = 544, 2
	total := 0.0
	for _, b := range cut {
		total += envelope
		for u := range b.Updates.All() {
			row := float64(len(u.Row) + 1 + perValue*len(b.View.Columns))
			total += row * max(float64(u.Diff), -float64(u.Diff))
		}
	}
	return int(min(total, 1<<40))
}

const (
	kindBase     = "base"
	kindDelta    = "delta"
	kindProgress = "progress"
	kindError    = "error"
)

func kindOf(cut []core.Batch) string {
	kind := kindProgress
	for _, b := range cut {
		if b.IsBase() {
			return kindBase
		}
		if b.Updates.Len() > 0 {
			kind = kindDelta
		}
	}
	return kind
}

// A cutEncoder encodes a cut into parts. It is a cursor over all rows of the
// cut in the order of the message: view by view, the inserted rows and then the
// deleted ones.
type cutEncoder struct {
	cut     []core.Batch
	kind    string
	token   string
	head    []byte   // up to where the views begin
	shapes  [][]byte // per view: what a base says about it beside its rows, in the first part
	wide    [][]bool // per view: columns whose numbers become strings
	view    int      // the cursor: the view,
	deleted bool     // the list in it,
	update  int      // the update,
	copies  core.Diff
	rows    int   // rows in the part so far
	rest    int   // bytes of the part that are not rows and not written yet, at most
	ends    []int // per view: where in the part its fields end
}

func newCutEncoder(e encoding, cut []core.Batch) *cutEncoder {
	enc := &cutEncoder{
		cut:   cut,
		kind:  kindOf(cut),
		token: upperOf(cut).String(),
		wide:  make([][]bool, len(cut)),
	}
	head := append([]byte(`{"type":"`), enc.kind...)
	head = append(head, '"')
	if len(cut) == 1 {
		head = appendField(head, "view", cut[0].View.Name)
	}
	if enc.kind == kindDelta {
		head = appendField(head, "from", lowerOf(cut).String())
	}
	head = appendField(head, "timestamp", cut[0].Upper.Time.String())
	enc.head = appendField(head, "token", enc.token)
	for i, b := range cut {
		if enc.kind == kindBase {
			enc.shapes = append(enc.shapes, appendShape(nil, b.View))
		}
		if e.numbersString {
			enc.wide[i] = wideColumns(b.View.Columns)
		}
	}
	return enc
}

func (enc *cutEncoder) begins() bool { return true }

func (enc *cutEncoder) clone() encoder {
	c := *enc
	return &c
}

// part encodes the next part and reports whether there are more.
func (enc *cutEncoder) part() (m message, more bool) {
	buf := append([]byte(nil), enc.head...)
	enc.rows, enc.rest, enc.ends = 0, enc.fixedBytes(), nil
	if len(enc.cut) == 1 {
		buf = enc.appendView(append(buf, ','), 0)
	} else {
		buf = append(buf, `,"views":{`...)
		for i, b := range enc.cut {
			if i > 0 {
				buf = append(buf, ',')
			}
			buf = append(appendString(buf, b.View.Name), ":{"...)
			buf = append(enc.appendView(buf, i), '}')
		}
		buf = append(buf, '}')
	}
	enc.shapes = nil
	if enc.view < len(enc.cut) {
		return message{kind: enc.kind, data: append(buf, `,"more":true}`...)}, true
	}
	return message{kind: enc.kind, data: append(enc.withChecksums(buf), '}'), token: enc.token}, false
}

// fixedBytes is what a part has beside its head and its rows, at most.
func (enc *cutEncoder) fixedBytes() int {
	n := len(`,"views":{},"more":true}`)
	for i, b := range enc.cut {
		n += len(`,"":{"inserted":[],"deleted":[],"checksum":"0123456789abcdef"}`) + 6*len(b.View.Name) // escaped
		if enc.shapes != nil {
			n += len(enc.shapes[i])
		}
	}
	return n
}

// appendView appends the fields of a view, with those of its rows that are at
// the cursor and fit.
func (enc *cutEncoder) appendView(buf []byte, view int) []byte {
	if enc.kind == kindProgress {
		enc.view = view + 1
		enc.ends = append(enc.ends, len(buf))
		return buf
	}
	if enc.shapes != nil {
		buf = append(buf, enc.shapes[view]...)
	}
	buf = append(buf, `"inserted":[`...)
	buf = enc.appendRows(buf, view, false)
	buf = append(buf, `],"deleted":[`...)
	buf = append(enc.appendRows(buf, view, true), ']')
	enc.ends = append(enc.ends, len(buf))
	return buf
}

// withChecksums returns the last part with the checksums: that it is the last
// one is known only when all views are in it.
func (enc *cutEncoder) withChecksums(part []byte) []byte {
	const field = len(`,"checksum":"0123456789abcdef"`)
	buf := make([]byte, 0, len(part)+len(enc.ends)*field+1)
	done := 0
	for i, end := range enc.ends {
		buf = append(buf, part[done:end]...)
		done = end
		if c := buf[len(buf)-1]; c != '{' && c != ',' {
			buf = append(buf, ',')
		}
		buf = appendChecksum(buf, enc.cut[i].Sum)
	}
	return append(buf, part[done:]...)
}

// appendChecksum appends the field of a view's checksum.
func appendChecksum(buf []byte, sum uint64) []byte {
	return fmt.Appendf(buf, `"checksum":"%016x"`, sum)
}

// appendRows appends rows of one list, if the cursor is in it, until they end
// or the part is full. The first row of a part always fits.
func (enc *cutEncoder) appendRows(buf []byte, view int, deleted bool) []byte {
	if enc.view != view || enc.deleted != deleted {
		return buf
	}
	first := true
	for at, u := range enc.cut[view].Updates.From(enc.update) {
		enc.update = at
		n := u.Diff
		if deleted {
			n = -n
		}
		for ; enc.copies < n; enc.copies++ {
			end := len(buf)
			if !first {
				buf = append(buf, ',')
			}
			if wide := enc.wide[view]; wide != nil {
				buf = appendQuotedNumbers(buf, u.Row, wide)
			} else {
				buf = append(buf, u.Row...)
			}
			if enc.rows > 0 && len(buf)+enc.rest > maxMessageBytes {
				return buf[:end]
			}
			first = false
			enc.rows++
		}
		enc.copies = 0
	}
	enc.update = 0
	if enc.deleted = !deleted; deleted {
		enc.view++
	}
	return buf
}

// appendShape appends what a base says about a view beside its rows.
func appendShape(buf []byte, v *core.View) []byte {
	buf = append(append(buf, `"columns":`...), columnsJSON(v)...)
	buf = append(append(buf, `,"key":`...), keyJSON(v)...)
	return append(buf, ',')
}

// columnsJSON returns the columns as a JSON array, never null.
func columnsJSON(v *core.View) json.RawMessage {
	return marshal(append([]core.Column{}, v.Columns...))
}

// keyJSON returns the names of the key columns as a JSON array, empty if the
// view has no key.
func keyJSON(v *core.View) json.RawMessage {
	return marshal(append([]string{}, v.KeyNames()...))
}

// marshal encodes what cannot fail: strings and structs of strings.
func marshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// An encoderV1 encodes the message of /api/v1, in pieces: inserted, deleted and
// timestamp, the values as strings.
type encoderV1 struct {
	batch   core.Batch
	begun   bool
	deleted bool // the cursor: the list,
	rows    int  // rows in it so far,
	update  int  // the update,
	copies  core.Diff
}

func (enc *encoderV1) begins() bool { return !enc.begun }

func (enc *encoderV1) clone() encoder {
	c := *enc
	return &c
}

func (enc *encoderV1) part() (m message, more bool) {
	m.kind = kindOf([]core.Batch{enc.batch})
	if !enc.begun {
		enc.begun = true
		m.data = append(m.data, `{"inserted":[`...)
	}
	for {
		var ended bool
		if m.data, ended = enc.appendRows(m.data); !ended {
			m.unfinished = true
			return m, true
		}
		if enc.deleted {
			m.data = appendField(append(m.data, ']'), "timestamp", enc.batch.Upper.Time.String())
			m.data = append(m.data, '}')
			return m, false
		}
		m.data = append(m.data, `],"deleted":[`...)
		enc.deleted, enc.rows, enc.update = true, 0, 0
	}
}

// appendRows appends rows of the list until it ends, or the piece is full.
func (enc *encoderV1) appendRows(buf []byte) (_ []byte, ended bool) {
	for at, u := range enc.batch.Updates.From(enc.update) {
		enc.update = at
		n := u.Diff
		if enc.deleted {
			n = -n
		}
		for ; enc.copies < n; enc.copies++ {
			if len(buf) >= pieceBytes {
				return buf, false
			}
			if enc.rows++; enc.rows > 1 {
				buf = append(buf, ',')
			}
			buf = appendStrings(buf, u.Row)
		}
		enc.copies = 0
	}
	return buf, true
}

// appendField appends a comma, the name and the value as a JSON string.
func appendField(buf []byte, name, value string) []byte {
	buf = append(append(append(buf, `,"`...), name...), `":`...)
	return appendString(buf, value)
}

// appendString appends any text as a JSON string.
func appendString(buf []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return append(buf, marshal(s)...)
		}
	}
	return strconv.AppendQuote(buf, s)
}
