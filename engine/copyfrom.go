package engine

import (
	"context"
	"fmt"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
	"github.com/mzdio/mzd/engine/sql"
)

// CopyIn takes the data of a COPY ... FROM STDIN. It belongs to the session's goroutine.
type CopyIn struct {
	Columns int  // of each row
	Binary  bool // and not text

	s       *Session
	st      Statement
	table   *object
	plan    *plan.Write
	columns []int // of the table, that a row gives
	types   []flow.Type
	casts   []flow.Expr // from text, of each of these
	format  copyFormat
	header  bool // the next record is one

	rest   []byte // of the data: a record that is cut off
	ended  bool   // there was a mark of the end; what follows means nothing
	number int    // of records
	rows   []flow.Update
	bytes  int
	c      flow.Context
}

// copyFormat cuts data into records and these into values.
type copyFormat interface {
	// record returns the first record of data and how much of data it takes; 0 if it is cut off. The next call is with what
	// follows, or with the same and more.
	record(data []byte) (record []byte, n int, err error)
	// last makes a record of what is left at the end of the data.
	last(data []byte) ([]byte, error)
	// isEnd tells whether a record is the mark of the end.
	isEnd(record []byte) bool
	// values splits a record; nil is NULL.
	values(record []byte) ([][]byte, error)
}

// maxRecord is the size of the largest row that COPY takes.
const maxRecord = 16 << 20

// copyFrom is COPY ... FROM STDIN.
func (s *Session) copyFrom(st Statement, n *sql.CopyFrom) (*Result, error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	cat := s.e.catalog()
	w, columns, err := plan.Copy(cat.env(plan.Params{}), n)
	if err != nil {
		return nil, err
	}
	in := &CopyIn{Columns: len(columns), Binary: n.Format == "binary", s: s, st: st, table: cat.objects[w.Table.Name], plan: w, columns: columns, header: n.Header}
	in.format = newCopyFormat(n)
	for _, c := range columns {
		t := w.Table.Columns[c].Type
		cast, ok := flow.CastTo(&flow.Col{T: flow.Text}, t)
		if !ok {
			return nil, errorf("0A000", "COPY of type %s is not supported", t.SQL())
		}
		in.types, in.casts = append(in.types, t), append(in.casts, cast)
	}
	r := done("COPY")
	r.CopyIn = in
	return r, nil
}

// Write takes a piece of the data. After an error the statement has failed, and nothing else may be called.
func (in *CopyIn) Write(data []byte) error { return in.failed(in.write(data)) }

// End is called after all data. The rows are written when it returns the command tag.
func (in *CopyIn) End(ctx context.Context) (tag string, err error) {
	tag, err = in.end(ctx)
	return tag, in.failed(err)
}

// Fail ends the statement because the client gives it up; it returns the statement's error.
func (in *CopyIn) Fail(reason string) error {
	return in.failed(errorf("57014", "COPY from stdin failed: %s", reason))
}

func (in *CopyIn) failed(err error) error { return in.s.failed(located(err, in.st.query)) }

func (in *CopyIn) write(data []byte) error {
	in.rest = append(in.rest, data...)
	rest := in.rest
	for !in.ended {
		record, n, err := in.format.record(rest)
		if err != nil {
			return in.at(err, -1)
		}
		if n == 0 {
			break
		}
		rest = rest[n:]
		if err := in.record(record); err != nil {
			return err
		}
	}
	if in.ended {
		rest = nil
	}
	if len(rest) > maxRecord {
		return in.at(errorf("54000", "row longer than %d MiB", maxRecord>>20), -1)
	}
	in.rest = in.rest[:copy(in.rest, rest)]
	return nil
}

func (in *CopyIn) end(ctx context.Context) (string, error) {
	if len(in.rest) > 0 {
		record, err := in.format.last(in.rest)
		if err != nil {
			return "", in.at(err, -1)
		}
		if err := in.record(record); err != nil {
			return "", err
		}
	}
	r, err := in.s.insert(ctx, in.table, in.rows, func(n int) string { return fmt.Sprintf("COPY %d", n) })
	if err != nil {
		return "", err
	}
	return r.Tag(), nil
}

// record takes a whole record.
func (in *CopyIn) record(record []byte) error {
	in.number++
	switch {
	case in.format.isEnd(record):
		in.ended = true
		return nil
	case in.header:
		in.header = false
		return nil
	}
	values, err := in.format.values(record)
	switch {
	case err != nil:
		return in.at(err, -1)
	case len(values) < in.Columns:
		return in.at(errorf("22P04", "missing data for column %s", in.name(len(values))), -1)
	case len(values) > in.Columns:
		return in.at(errorf("22P04", "extra data after last expected column"), -1)
	}
	row := make(flow.Row, len(in.plan.New))
	given := make([]bool, len(row))
	for i, v := range values {
		given[in.columns[i]] = true
		if v == nil {
			continue
		}
		if row[in.columns[i]], err = in.value(i, v); err != nil {
			return in.at(err, i)
		}
	}
	for i, e := range in.plan.New {
		if given[i] {
			continue
		}
		if row[i], err = e.Eval(&in.c, nil); err != nil {
			return in.at(err, -1)
		}
	}
	if err := in.plan.Fit(&in.c, row); err != nil {
		return in.at(err, -1)
	}
	if in.bytes += row.Size(); in.bytes > maxTransaction {
		return in.at(errTooMuch(), -1)
	}
	in.rows = append(in.rows, flow.Update{Row: row, Diff: 1})
	return nil
}

func (in *CopyIn) value(i int, v []byte) (flow.Datum, error) {
	if in.Binary {
		return flow.FromBinary(in.types[i], v)
	}
	text := string(v)
	if err := flow.CheckText(text); err != nil {
		return flow.Null, err
	}
	return in.casts[i].Eval(&in.c, flow.Row{flow.NewText(text)})
}

func (in *CopyIn) name(column int) string {
	return sql.Ident(in.plan.Table.Columns[in.columns[column]].Name)
}

// at says where in the data an error is.
func (in *CopyIn) at(err error, column int) error {
	e := *asError(err)
	e.Detail = fmt.Sprintf("COPY %s, row %d", sql.Ident(in.table.Name), max(in.number, 1))
	if column >= 0 {
		e.Detail += ", column " + in.name(column)
	}
	return &e
}
