package mz

import (
	"context"
	"slices"

	"github.com/mzdio/mzd/core"
)

// Object is something of the upstream that has rows.
type Object struct {
	Name    string // as it is written in SQL, quoted where it must be
	Kind    string // "materialized view", "view", "table" or "source"
	Columns []core.Column
}

// Objects lists what there is to follow, and what feeds it, in the schemas that
// names are looked up in: materialized views first, then views, tables and
// sources, each by name. Errors are of type [*Error].
func (c *Client) Objects(ctx context.Context) ([]Object, error) {
	w, err := c.connect(ctx)
	if err != nil {
		return nil, explain(err)
	}
	defer w.close()
	var objects []Object
	listed := make(map[string]bool)
	for _, kind := range []struct{ name, show string }{
		{"materialized view", "SHOW MATERIALIZED VIEWS"},
		{"view", "SHOW VIEWS"}, // which lists materialized ones too, in some releases
		{"table", "SHOW TABLES"},
		{"source", "SHOW SOURCES"},
	} {
		names, err := w.column(ctx, kind.show, 0)
		if err != nil {
			return nil, explain(err)
		}
		slices.Sort(names)
		for _, name := range names {
			if listed[name] {
				continue
			}
			listed[name] = true
			o := Object{Name: quoteName(name), Kind: kind.name}
			if o.Columns, err = w.columnsOf(ctx, o.Name); err != nil {
				return nil, explain(err)
			}
			objects = append(objects, o)
		}
	}
	return objects, nil
}

// column returns one column of a query's answer; nothing if the server refuses
// the query, as a release does that does not have what it asks for.
func (w *wire) column(ctx context.Context, sql string, i int) ([]string, error) {
	var values []string
	err := w.query(ctx, sql, func(row [][]byte) error {
		if i < len(row) {
			values = append(values, string(row[i]))
		}
		return nil
	})
	if fromServer(err) {
		return nil, nil
	}
	return values, err
}

// columnsOf describes an object: SHOW COLUMNS has had the name, whether it may
// be null, and the type, under changing titles, in every release.
func (w *wire) columnsOf(ctx context.Context, name string) ([]core.Column, error) {
	var columns []core.Column
	err := w.query(ctx, "SHOW COLUMNS FROM "+name, func(row [][]byte) error {
		if len(row) >= 3 {
			columns = append(columns, core.Column{Name: string(row[0]), Type: string(row[2])})
		}
		return nil
	})
	if fromServer(err) {
		return nil, nil // it was dropped meanwhile
	}
	return columns, err
}

// quoteName writes a name as [Request.Name] takes it, with quotes only where it
// would be another name without them.
func quoteName(name string) string {
	if parts, err := parseName(name); err == nil && len(parts) == 1 && parts[0] == name {
		return name
	}
	return quoteIdentifier(name)
}
