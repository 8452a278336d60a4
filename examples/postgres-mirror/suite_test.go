package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/pgtest"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/plugintest"
)

// TestSuite holds the sink against everything that mzd expects of one.
func TestSuite(t *testing.T) {
	dsn := pgtest.Start(t)
	db, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(context.Background()) })
	settings, err := json.Marshal(Settings{URL: dsn, Schema: "suite"})
	if err != nil {
		t.Fatal(err)
	}
	rename := func(ctx context.Context, from, to string) error {
		_, err := db.Exec(ctx, `ALTER SCHEMA `+from+` RENAME TO `+to)
		return err
	}
	plugintest.TestSink(t, plugintest.Sink{
		Plugin:   plugins.NewSink("postgres-mirror", "mirrors views", open),
		Settings: settings,
		Observe: func(ctx context.Context, v *core.View) ([]json.RawMessage, error) {
			var columns []string
			for _, c := range v.Columns {
				columns = append(columns, pgx.Identifier{c.Name}.Sanitize())
			}
			rows, err := db.Query(ctx, `SELECT to_json(t)::text FROM (SELECT `+strings.Join(columns, ", ")+`
				FROM `+pgx.Identifier{"suite", v.Name}.Sanitize()+`) t`)
			if err != nil {
				return nil, err
			}
			return pgx.CollectRows(rows, pgx.RowTo[json.RawMessage])
		},
		Outage: func(ctx context.Context) (end func(), err error) {
			if err := rename(ctx, "suite", "away"); err != nil {
				return nil, err
			}
			return func() {
				if err := rename(context.WithoutCancel(ctx), "away", "suite"); err != nil {
					t.Error(err)
				}
			}, nil
		},
		Refused: []json.RawMessage{json.RawMessage(`{"url": "host=a port=b"}`), json.RawMessage(`{"url": "postgres://a:secret@b/c"}`)},
		Exempt: map[string]string{
			"permanent-error": "a PostgreSQL that is gone may come back",
		},
	})
}
