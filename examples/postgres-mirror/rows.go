package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/mzdio/mzd/core"
)

// chunkBytes is how much JSON one statement carries, about: PostgreSQL takes up
// to 1 GB, but nobody wants to hold that.
const chunkBytes = 4 << 20

// change applies the updates of a batch to the table, deletions first, so that
// a unique index that somebody adds is never in the way.
func (m *mirror) change(ctx context.Context, tx pgx.Tx, b core.Batch) error {
	table := m.quoted(b.View.Name)
	gone := deletion{table: table}
	for u := range b.Updates.All() {
		if u.Diff < 0 {
			if err := gone.add(ctx, tx, u); err != nil {
				return err
			}
		}
	}
	if err := gone.flush(ctx, tx); err != nil {
		return err
	}
	fresh := insertion{table: table, names: append(columnNames(b.View), identity)}
	for u := range b.Updates.All() {
		for range u.Diff {
			if err := fresh.add(ctx, tx, u.Row); err != nil {
				return err
			}
		}
	}
	return fresh.flush(ctx, tx)
}

func columnNames(v *core.View) []string {
	var names []string
	for _, c := range v.Columns {
		names = append(names, c.Name)
	}
	return names
}

// identityOf returns what identifies a row: a digest of its bytes, as a UUID.
// Equality of the columns would not do: json has none, and NaN is its own.
func identityOf(row core.Row) [16]byte {
	sum := sha256.Sum256([]byte(row))
	return [16]byte(sum[:16])
}

// deletion deletes copies of rows.
type deletion struct {
	table  string
	rows   [][16]byte
	copies []int64
	total  int64
}

func (d *deletion) add(ctx context.Context, tx pgx.Tx, u core.Update) error {
	d.rows = append(d.rows, identityOf(u.Row))
	d.copies = append(d.copies, int64(-u.Diff))
	d.total -= int64(u.Diff)
	if len(d.rows)*(16+8) < chunkBytes {
		return nil
	}
	return d.flush(ctx, tx)
}

func (d *deletion) flush(ctx context.Context, tx pgx.Tx) error {
	if len(d.rows) == 0 {
		return nil
	}
	// Copies of a row are rows of the table: as many as are to go are numbered.
	tag, err := tx.Exec(ctx, fmt.Sprintf(`
		DELETE FROM %[1]s WHERE ctid = ANY(ARRAY(
			SELECT place FROM (
				SELECT t.ctid AS place, gone.copies, row_number() OVER (PARTITION BY t.%[2]s) AS number
				FROM unnest($1::uuid[], $2::int8[]) AS gone (row, copies) JOIN %[1]s t ON t.%[2]s = gone.row
			) numbered WHERE number <= copies))`, d.table, identity), d.rows, d.copies)
	if err != nil {
		return err
	}
	if n := tag.RowsAffected(); n != d.total {
		return fmt.Errorf("%d of the %d rows to delete are not in the table, which somebody else must have changed; drop it, and restart mzd, to have it made again", d.total-n, d.total)
	}
	d.rows, d.copies, d.total = d.rows[:0], d.copies[:0], 0
	return nil
}

// insertion inserts rows, which travel as JSON objects: PostgreSQL knows best
// how to make its values of what its to_jsonb once made of them.
type insertion struct {
	table string
	names []string // the columns, and last the identity
	text  []byte
}

func (i *insertion) add(ctx context.Context, tx pgx.Tx, row core.Row) error {
	var values []json.RawMessage
	if err := json.Unmarshal([]byte(row), &values); err != nil || len(values) != len(i.names)-1 {
		return fmt.Errorf("row %.100s does not have %d columns", row, len(i.names)-1)
	}
	separator := byte(',')
	if len(i.text) == 0 {
		separator = '['
	}
	i.text = append(i.text, separator)
	separator = '{'
	values = append(values, fmt.Appendf(nil, `"%x"`, identityOf(row)))
	for n, v := range values {
		name, err := json.Marshal(i.names[n])
		if err != nil {
			return err
		}
		i.text = append(append(append(append(i.text, separator), name...), ':'), v...)
		separator = ','
	}
	if i.text = append(i.text, '}'); len(i.text) < chunkBytes {
		return nil
	}
	return i.flush(ctx, tx)
}

func (i *insertion) flush(ctx context.Context, tx pgx.Tx) error {
	if len(i.text) == 0 {
		return nil
	}
	// json and not jsonb, which would change numbers and drop repeated keys.
	_, err := tx.Exec(ctx, fmt.Sprintf(`INSERT INTO %[1]s SELECT * FROM json_populate_recordset(NULL::%[1]s, $1::json)`, i.table), string(append(i.text, ']')))
	i.text = i.text[:0]
	return err
}
