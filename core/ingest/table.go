package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// TableOptions are the options of [OpenTable]. Connect and Table are required.
type TableOptions struct {
	// Connect opens a connection to the database.
	Connect func(context.Context) (*pgconn.PgConn, error)
	// Table is the name of the table, as SQL has it.
	Table string
	// Text makes the column that takes the events one of type text, for events
	// that are not JSON; otherwise it is jsonb.
	Text bool
	// Logger gets warnings; nil: none.
	Logger *slog.Logger
}

// OpenTable opens a landing in a table: each event is a row, in the column data.
// The table is made if it does not exist; it may have more columns, if they have
// defaults. path is that of the cursor file. It connects to nothing.
func OpenTable(path string, o TableOptions) (*Remote, error) {
	return openRemote(path, &table{TableOptions: o}, o.Logger)
}

// table is a target that is written with COPY, which PostgreSQL, the embedded
// engine and Materialize since v0.8.1 have.
type table struct {
	TableOptions
	conn *pgconn.PgConn // nil: none
	buf  []byte
}

// tableTimeout bounds one COPY, the connection included. It is long: a database
// that starts takes writes only when it has caught up.
const tableTimeout = time.Minute

func (t *table) name() string { return "table " + t.Table }

func (t *table) fit(data []byte) string {
	switch {
	case bytes.IndexByte(data, 0) >= 0:
		return RejectedNUL
	case !t.Text:
		return unfitJSON(data)
	}
	return ""
}

func (t *table) write(ctx context.Context, events []item) error {
	ctx, cancel := context.WithTimeoutCause(ctx, tableTimeout, fmt.Errorf("no answer within %s", tableTimeout))
	defer cancel()
	t.buf = t.buf[:0]
	for _, e := range events {
		t.buf = append(appendCopy(t.buf, e.data), '\n')
	}
	err := t.copy(ctx)
	if isUndefinedTable(err) {
		if err := t.exec(ctx, fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s (data %s)", t.Table, t.columnType())); err != nil {
			return fmt.Errorf("create it: %w", err)
		}
		err = t.copy(ctx)
	}
	if cap(t.buf) > maxKeptBuffer {
		t.buf = nil
	}
	switch pg, ok := errors.AsType[*pgconn.PgError](err); {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case ok && strings.HasPrefix(pg.Code, "22"): // data exception
		return &refusedError{RejectedRefused, err}
	}
	return err
}

func (t *table) columnType() string {
	if t.Text {
		return "text"
	}
	return "jsonb"
}

// copy writes the buffer into the table.
func (t *table) copy(ctx context.Context) error {
	conn, err := t.connect(ctx)
	if err != nil {
		return err
	}
	_, err = conn.CopyFrom(ctx, bytes.NewReader(t.buf), fmt.Sprintf("COPY %s (data) FROM STDIN", t.Table))
	return err
}

// exec runs a statement.
func (t *table) exec(ctx context.Context, sql string) error {
	conn, err := t.connect(ctx)
	if err != nil {
		return err
	}
	return conn.Exec(ctx, sql).Close()
}

// connect returns the connection, or another one if it is broken.
func (t *table) connect(ctx context.Context) (*pgconn.PgConn, error) {
	if t.conn != nil && !t.conn.IsClosed() {
		return t.conn, nil
	}
	conn, err := t.Connect(ctx)
	if err != nil {
		return nil, err
	}
	t.conn = conn
	return conn, nil
}

func (t *table) close() {
	if t.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	t.conn.Close(ctx) // says goodbye; the socket is closed either way
}

// isUndefinedTable tells whether there is no such table. Materialize has another
// code than PostgreSQL, and had none before v26.32.
func isUndefinedTable(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == "42P01" || pg.Code == "42704" || strings.Contains(pg.Message, "unknown catalog item"))
}

// appendCopy appends a value in the text format of COPY.
func appendCopy(buf, value []byte) []byte {
	for _, c := range value {
		switch c {
		case '\\':
			buf = append(buf, `\\`...)
		case '\n':
			buf = append(buf, `\n`...)
		case '\r':
			buf = append(buf, `\r`...)
		case '\t':
			buf = append(buf, `\t`...)
		default:
			buf = append(buf, c)
		}
	}
	return buf
}
