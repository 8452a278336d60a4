package stdout

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/mzdio/mzd/core"
)

// appendJSON appends a batch as lines of JSON.
func appendJSON(buf []byte, b core.Batch, progress bool) []byte {
	view := quote(b.View.Name)
	line := func(timestamp core.Time) {
		buf = append(append(buf, `{"view":`...), view...)
		buf = append(append(buf, `,"timestamp":"`...), timestamp.String()...)
		buf = append(buf, '"')
	}
	if b.IsBase() {
		line(b.Upper.Time)
		buf = append(buf, `,"base":true,"rows":`...)
		buf = strconv.AppendInt(buf, rows(b), 10)
		buf = append(buf, "}\n"...)
	}
	names := make([][]byte, len(b.View.Columns))
	for i, c := range b.View.Columns {
		names[i] = quote(c.Name)
	}
	for u := range b.Updates.All() {
		line(u.Time)
		buf = append(buf, `,"diff":`...)
		buf = strconv.AppendInt(buf, int64(u.Diff), 10)
		buf = append(buf, `,"row":{`...)
		for i, v := range values(u.Row, len(names)) {
			if i > 0 {
				buf = append(buf, ',')
			}
			buf = append(append(append(buf, names[i]...), ':'), v...)
		}
		buf = append(buf, "}}\n"...)
	}
	if progress {
		line(b.Upper.Time)
		buf = append(buf, `,"progress":true}`+"\n"...)
	}
	return buf
}

// rows returns the number of rows of a base, copies counted.
func rows(b core.Batch) int64 {
	var n int64
	for u := range b.Updates.All() {
		n += int64(u.Diff)
	}
	return n
}

// values returns the values of a row as JSON, at most n of them.
func values(row core.Row, n int) []json.RawMessage {
	var all []json.RawMessage
	if json.Unmarshal([]byte(row), &all) != nil {
		return nil
	}
	return all[:min(n, len(all))]
}

// quote returns text as a JSON string.
func quote(text string) []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(text); err != nil {
		panic(err) // a string always has JSON
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}
