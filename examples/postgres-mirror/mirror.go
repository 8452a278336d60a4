package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/schema"
)

// Settings are the "settings:" of the sink. mzd checks them, and shows them with
// "mzd plugin describe".
type Settings struct {
	URL      string `json:"url" required:"true" doc:"The PostgreSQL, as in postgres://user@host/database."`
	Password string `json:"password" secret:"true" doc:"Password of the user."`
	Schema   string `json:"schema" default:"mzd" doc:"Schema for the tables; it is made if it is missing."`
}

// Validate checks what the tags cannot say.
func (s Settings) Validate() error {
	config, err := pgxpool.ParseConfig(s.URL)
	switch {
	case err != nil:
		return schema.Errorf("url", "is not the address of a PostgreSQL, as in postgres://user@host/database")
	case config.ConnConfig.Password != "":
		return schema.Errorf("url", "holds a password; write password: ${NAME} instead")
	case s.Schema == "" || len(s.Schema) > maxIdentifier:
		return schema.Errorf("schema", "must be a name of at most %d bytes", maxIdentifier)
	}
	return nil
}

const (
	positions     = "mzd_positions" // the table of positions
	identity      = "mzd_row"       // the column that identifies a row
	maxIdentifier = 63              // bytes that PostgreSQL looks at (NAMEDATALEN)
)

// mirror is a sink whose position is in the database that it writes to, in the
// same transaction as the rows: whatever dies and whenever, each change is
// applied exactly once.
type mirror struct {
	pool   *pgxpool.Pool
	schema string
	sink   string // whose positions are meant
}

var _ core.Positioner = (*mirror)(nil)

func open(ctx context.Context, s Settings) (*mirror, error) {
	config, err := pgxpool.ParseConfig(s.URL)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, core.ErrPermanent)
	}
	config.ConnConfig.Password = s.Password
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	env := plugins.EnvOf(ctx)
	m := &mirror{pool: pool, schema: s.Schema, sink: env.Pipeline + "/" + env.Name}
	_, err = pool.Exec(ctx, `
		CREATE SCHEMA IF NOT EXISTS `+m.quoted()+`;
		CREATE TABLE IF NOT EXISTS `+m.quoted(positions)+` (
			sink text, view text, token text NOT NULL, columns text[] NOT NULL, PRIMARY KEY (sink, view)
		)`)
	if err != nil {
		pool.Close()
		return nil, err
	}
	return m, nil
}

// quoted returns a name in the schema as SQL.
func (m *mirror) quoted(name ...string) string {
	return pgx.Identifier(append([]string{m.schema}, name...)).Sanitize()
}

// Close implements [core.Sink].
func (m *mirror) Close() error {
	m.pool.Close()
	return nil
}

// Position implements [core.Positioner]. A table that somebody has dropped is
// made again, from a base.
func (m *mirror) Position(ctx context.Context, v *core.View) (core.Token, error) {
	held, err := m.held(ctx, m.pool, v.Name)
	return held.token, err
}

// A place is what the database says about the table of a view.
type place struct {
	token   core.Token // zero: there is no table that is ours
	columns []string
}

type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func (m *mirror) held(ctx context.Context, q querier, view string) (place, error) {
	var p place
	var token string
	err := q.QueryRow(ctx, `SELECT token, columns FROM `+m.quoted(positions)+`
		WHERE sink = $1 AND view = $2 AND to_regclass($3) IS NOT NULL`, m.sink, view, m.quoted(view)).Scan(&token, &p.columns)
	if errors.Is(err, pgx.ErrNoRows) {
		return place{}, nil
	}
	if err == nil {
		p.token, err = core.ParseToken(token)
	}
	return p, err
}

// Write implements [core.Sink]: all views of the cut and their tokens in one
// transaction.
func (m *mirror) Write(ctx context.Context, cut []core.Batch) error {
	return pgx.BeginFunc(ctx, m.pool, func(tx pgx.Tx) error {
		// One writer at a time: the process before this one may still be alive.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, m.schema+"/"+m.sink); err != nil {
			return err
		}
		for _, b := range cut {
			if err := m.apply(ctx, tx, b); err != nil {
				return fmt.Errorf("%s: %w", m.quoted(b.View.Name), err)
			}
		}
		return nil
	})
}

// apply applies the batch of one view.
func (m *mirror) apply(ctx context.Context, tx pgx.Tx, b core.Batch) error {
	held, err := m.held(ctx, tx, b.View.Name)
	switch {
	case err != nil:
		return err
	case held.token == b.Upper:
		return nil // applied; the answer to the commit was lost
	case b.IsBase():
		err = m.begin(ctx, tx, b.View, held)
	case held.token != b.Lower:
		err = fmt.Errorf("the table is at %v, where mzd does not know it to be: does another mzd write it?", held.token)
	}
	if err != nil {
		return err
	}
	if err := m.change(ctx, tx, b); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO `+m.quoted(positions)+` VALUES ($1, $2, $3, $4)
		ON CONFLICT (sink, view) DO UPDATE SET token = excluded.token, columns = excluded.columns`,
		m.sink, b.View.Name, b.Upper.String(), describe(b.View))
	return err
}

// describe returns the columns as they are compared.
func describe(v *core.View) []string {
	columns := []string{}
	for _, c := range v.Columns {
		columns = append(columns, c.Name+" "+c.Type)
	}
	return columns
}

// begin makes an empty table of the view. Readers see the old rows until the
// transaction ends, unless the columns have changed.
func (m *mirror) begin(ctx context.Context, tx pgx.Tx, v *core.View, held place) error {
	table := m.quoted(v.Name)
	if !held.token.IsZero() && slices.Equal(held.columns, describe(v)) {
		_, err := tx.Exec(ctx, `DELETE FROM `+table)
		return err
	}
	if !held.token.IsZero() {
		// What depends on it is not dropped with it: that is for its owner.
		if _, err := tx.Exec(ctx, `DROP TABLE `+table); err != nil {
			return err
		}
	}
	if err := usable(v); err != nil {
		return err
	}
	var columns strings.Builder
	for _, c := range v.Columns {
		kind, err := columnType(ctx, tx, c.Type)
		if err != nil {
			return err
		}
		fmt.Fprintf(&columns, "%s %s, ", pgx.Identifier{c.Name}.Sanitize(), kind)
	}
	_, err := tx.Exec(ctx, fmt.Sprintf(`CREATE TABLE %s (%s%s uuid NOT NULL); CREATE INDEX ON %[1]s (%[3]s)`, table, &columns, identity))
	if failed, ok := errors.AsType[*pgconn.PgError](err); ok && failed.Code == duplicateTable {
		return fmt.Errorf("there is a table of that name that this sink has not made; rename it, or set another schema: %w", core.ErrPermanent)
	}
	return err
}

const duplicateTable = "42P07" // PostgreSQL's Appendix A, duplicate_table

// usable reports what keeps PostgreSQL from having such a table.
func usable(v *core.View) error {
	names := []string{identity}
	for _, c := range v.Columns {
		switch {
		case slices.Contains(names, c.Name):
			return fmt.Errorf("a table cannot have two columns %q; rename one of them in the view: %w", c.Name, core.ErrPermanent)
		case c.Name == "" || len(c.Name) > maxIdentifier:
			return fmt.Errorf("a table cannot have a column %q; rename it in the view: %w", c.Name, core.ErrPermanent)
		}
		names = append(names, c.Name)
	}
	if len(v.Name) > maxIdentifier {
		return fmt.Errorf("the name is longer than %d bytes; give the view a shorter one: %w", maxIdentifier, core.ErrPermanent)
	}
	return nil
}

// columnType returns the type of a column, of which the name in pg_type is given.
// Types that only the database of the views has become something that holds
// their values, and so do those whose values mean something only there.
func columnType(ctx context.Context, q querier, name string) (string, error) {
	switch name {
	case "uint2", "uint4", "uint8", "mz_timestamp":
		return "numeric", nil
	case "regclass", "regproc", "regtype":
		return "text", nil
	}
	var known bool
	err := q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_type WHERE typname = $1 AND typnamespace = 'pg_catalog'::regnamespace
		AND typtype <> 'p')`, name).Scan(&known)
	if err != nil || !known || name == "unknown" {
		return "text", err
	}
	return pgx.Identifier{"pg_catalog", name}.Sanitize(), nil
}
