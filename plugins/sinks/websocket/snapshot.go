package websocket

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/mzdio/mzd/core"
)

const (
	// firstWait is how long a snapshot waits for a view that has nothing yet.
	firstWait = 2 * time.Second
	// timestampWait is how long it waits for its min_timestamp.
	timestampWait = 30 * time.Second
)

// serveViews lists the views.
func (s *server) serveViews(w http.ResponseWriter, r *http.Request) {
	type view struct {
		Name      string          `json:"name"`
		Columns   json.RawMessage `json:"columns"`
		Key       json.RawMessage `json:"key"`
		Timestamp *string         `json:"timestamp"` // null while there is none
	}
	list := struct {
		Notice string `json:"notice"`
		Views  []view `json:"views"`
	}{s.settings.Notice, []view{}}
	for _, reader := range s.views {
		v := reader.View()
		out := view{Name: v.Name, Columns: columnsJSON(v), Key: keyJSON(v)}
		if upper, _ := reader.Frontier(); !upper.IsZero() {
			t := upper.Time.String()
			out.Timestamp = &t
		}
		list.Views = append(list.Views, out)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(append(marshal(list), '\n'))
}

// serveSnapshot sends a view as it is now.
func (s *server) serveSnapshot(w http.ResponseWriter, r *http.Request) {
	sn, problem := s.snapshotOf(r)
	if problem != nil {
		writeError(w, *problem)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), sn.patience())
	defer cancel()
	upper, problem := sn.wait(ctx)
	if problem != nil {
		writeError(w, *problem)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Add("Vary", "Accept")
	tag := etag(upper, sn.format)
	if accepts(r.Header, "If-None-Match", tag) || accepts(r.Header, "If-None-Match", "W/"+tag) || accepts(r.Header, "If-None-Match", "*") {
		h.Set("ETag", tag)
		w.WriteHeader(http.StatusNotModified)
		return
	}
	batch, problem := sn.read(ctx)
	if problem != nil {
		writeError(w, *problem)
		return
	}
	h.Set("ETag", etag(batch.Upper, sn.format))
	if sn.format == "csv" {
		sn.media += "; charset=utf-8; header=present"
	}
	h.Set("Content-Type", sn.media)
	if r.Method == http.MethodHead {
		return
	}
	out := bufio.NewWriterSize(w, pieceBytes)
	switch sn.format {
	case "json":
		sn.writeJSON(out, batch)
	case "ndjson":
		sn.writeLines(out, batch)
	case "csv":
		sn.writeCSV(out, batch)
	}
	out.Flush() // an error is the client's, who has left
}

// A snapshot is a request for a view as it is now.
type snapshot struct {
	reader        core.CutReader
	format, media string
	numbersString bool
	min           core.Time
}

func (s *server) snapshotOf(r *http.Request) (snapshot, *apiError) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return snapshot{}, badRequest("bad_request", "query: %v", err)
	}
	readers, problem := s.readers([]string{r.PathValue("view")})
	if problem != nil {
		return snapshot{}, problem
	}
	sn := snapshot{reader: readers[0]}
	if sn.format, sn.media, problem = formatOf(r, query); problem != nil {
		return snapshot{}, problem
	}
	if sn.numbersString, problem = numbersOf(query); problem != nil {
		return snapshot{}, problem
	}
	sn.min, problem = minTimestampOf(query)
	return sn, problem
}

func (sn snapshot) patience() time.Duration {
	if sn.min > 0 {
		return timestampWait
	}
	return firstWait
}

// wait returns the frontier of the view as soon as it is where it was asked to
// be.
func (sn snapshot) wait(ctx context.Context) (core.Token, *apiError) {
	for {
		upper, moved := sn.reader.Frontier()
		if !upper.IsZero() && upper.Time >= sn.min {
			return upper, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return core.Token{}, sn.notYet(ctx, upper)
		}
	}
}

// read returns the view at its frontier, once that is where it was asked to be.
// Between a look at the frontier and reading the view may begin a new history,
// at an earlier time.
func (sn snapshot) read(ctx context.Context) (core.Batch, *apiError) {
	for {
		if _, problem := sn.wait(ctx); problem != nil {
			return core.Batch{}, problem
		}
		for batch, err := range sn.reader.Follow(ctx, core.Token{}) {
			if err != nil {
				return core.Batch{}, sn.notYet(ctx, core.Token{})
			}
			if batch.Upper.Time >= sn.min {
				return batch, nil
			}
			break
		}
	}
}

// notYet is the answer when waiting has come to its end.
func (sn snapshot) notYet(ctx context.Context, upper core.Token) *apiError {
	if context.Cause(ctx) == errStopped {
		return &errStopping
	}
	view := "view " + strconv.Quote(sn.reader.View().Name)
	message := view + " has no complete state yet; try again in a moment; if that lasts, the log of mzd says why"
	if !upper.IsZero() {
		message = view + " is complete through " + upper.Time.String() + ", not yet " + sn.min.String()
	}
	return &apiError{http.StatusServiceUnavailable, "not_yet", message, time.Second}
}

func (sn snapshot) writeJSON(out *bufio.Writer, b core.Batch) {
	buf := []byte(`{"timestamp":`)
	buf = appendString(buf, b.Upper.Time.String())
	buf = appendField(buf, "token", b.Upper.String())
	buf = appendChecksum(append(buf, ','), b.Sum)
	buf = append(append(buf, `,"columns":`...), columnsJSON(b.View)...)
	out.Write(append(buf, `,"rows":[`...))
	separator := "\n"
	sn.eachRow(out, b, func(row []byte) {
		out.WriteString(separator)
		separator = ",\n"
		out.Write(row)
	})
	out.WriteString("\n]}\n")
}

func (sn snapshot) writeLines(out *bufio.Writer, b core.Batch) {
	sn.eachRow(out, b, func(row []byte) {
		out.Write(row)
		out.WriteByte('\n')
	})
}

// eachRow calls write with each row as a JSON object, n times for n copies.
// Writing ends early when out has failed.
func (sn snapshot) eachRow(out *bufio.Writer, b core.Batch, write func([]byte)) {
	names := make([][]byte, len(b.View.Columns))
	for i, c := range b.View.Columns {
		names[i] = append(marshal(c.Name), ':')
	}
	var wide []bool
	if sn.numbersString {
		wide = wideColumns(b.View.Columns)
	}
	var buf []byte
	for row, copies := range rows(out, b) {
		buf = appendObject(buf[:0], row, names, wide)
		for ; copies > 0 && alive(out); copies-- {
			write(buf)
		}
	}
}

// appendObject appends a row as a JSON object.
func appendObject(buf []byte, row core.Row, names [][]byte, wide []bool) []byte {
	buf = append(buf, '{')
	scanValues(row, func(i int, v string) {
		if i >= len(names) {
			return
		}
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = append(buf, names[i]...)
		if wide != nil && wide[i] && isNumber(v) {
			buf = append(append(append(buf, '"'), v...), '"')
			return
		}
		buf = append(buf, v...)
	})
	return append(buf, '}')
}

// writeCSV writes a header and the rows as RFC 4180 has them, but with plain
// newlines. As in PostgreSQL's COPY, null is nothing and the empty string "".
func (sn snapshot) writeCSV(out *bufio.Writer, b core.Batch) {
	var buf []byte
	for i, c := range b.View.Columns {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = appendCSV(buf, c.Name)
	}
	out.Write(append(buf, '\n'))
	for row, copies := range rows(out, b) {
		buf = buf[:0]
		scanValues(row, func(i int, v string) {
			if i > 0 {
				buf = append(buf, ',')
			}
			buf = appendCSVValue(buf, v)
		})
		buf = append(buf, '\n')
		for ; copies > 0 && alive(out); copies-- {
			out.Write(buf)
		}
	}
}

// appendCSVValue appends a JSON value as a CSV field.
func appendCSVValue(buf []byte, v string) []byte {
	switch v[0] {
	case 'n':
		return buf
	case '"':
		var text string
		if json.Unmarshal([]byte(v), &text) == nil {
			return appendCSV(buf, text)
		}
	}
	return appendCSV(buf, v)
}

func appendCSV(buf []byte, field string) []byte {
	if field != "" && !strings.ContainsAny(field, "\",\r\n") {
		return append(buf, field...)
	}
	buf = append(buf, '"')
	buf = append(buf, strings.ReplaceAll(field, `"`, `""`)...)
	return append(buf, '"')
}

// rows yields the rows of a base with their copies while out works.
func rows(out *bufio.Writer, b core.Batch) func(yield func(core.Row, core.Diff) bool) {
	return func(yield func(core.Row, core.Diff) bool) {
		for u := range b.Updates.All() {
			if !alive(out) || !yield(u.Row, u.Diff) {
				return
			}
		}
	}
}

// alive reports whether the writer has not failed; a failed one fails every
// write.
func alive(out *bufio.Writer) bool {
	_, err := out.Write(nil)
	return err == nil
}
