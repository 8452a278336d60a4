package mz

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// wire is a connection on which one simple query runs at a time. pgconn
// connects it (hosts, TLS, passwords); from then on the messages are read here,
// one by one as they arrive, so that closing it is closing a socket and leaves
// nothing running. It belongs to one goroutine.
type wire struct {
	conn     net.Conn
	front    *pgproto3.Frontend
	database string
	params   map[string]string // announced at startup
	notice   func(*pgconn.Notice)
	fields   []pgproto3.FieldDescription // columns of the result that is being read; see start
}

// settings pins what changes the text of values, so that a row is the same
// string in every session. Releases that do not know one of them have the value
// anyway.
var settings = []string{
	"SET TimeZone = 'UTC'",
	"SET DateStyle = 'ISO, MDY'",
	"SET IntervalStyle = 'postgres'",
	"SET extra_float_digits = 3",
	"SET bytea_output = 'hex'",
}

// connect opens a connection with pinned settings.
func (c *Client) connect(ctx context.Context) (*wire, error) {
	pg, err := c.Connect(ctx)
	if err != nil {
		return nil, err
	}
	h, err := pg.Hijack()
	if err != nil {
		return nil, err
	}
	w := &wire{conn: h.Conn, front: h.Frontend, database: c.pg.Database, params: h.ParameterStatuses, notice: func(n *pgconn.Notice) {
		c.log.Debug("notice", "code", n.Code, "message", n.Message)
	}}
	for _, set := range settings {
		if err := w.exec(ctx, set); err != nil && !fromServer(err) {
			w.close()
			return nil, err
		}
	}
	return w, nil
}

// close ends the connection, whatever it is doing.
func (w *wire) close() {
	w.conn.SetDeadline(time.Now().Add(10 * time.Millisecond))
	w.front.Send(&pgproto3.Terminate{})
	w.front.Flush() // a courtesy: the server also notices that the socket is closed
	w.conn.Close()
}

// during runs f, which uses the connection, and closes the connection when ctx
// ends first.
func (w *wire) during(ctx context.Context, f func() error) error {
	stop := context.AfterFunc(ctx, func() { w.conn.Close() })
	err := f()
	if !stop() && err != nil {
		return cancelled(ctx)
	}
	return err
}

// exec runs a statement for its effect.
func (w *wire) exec(ctx context.Context, sql string) error {
	return w.query(ctx, sql, func([][]byte) error { return nil })
}

// query runs a statement and calls row with the text of each row's values,
// which are valid during the call only. An error of the server leaves the
// connection usable (see fromServer), any other does not.
func (w *wire) query(ctx context.Context, sql string, row func([][]byte) error) error {
	return w.during(ctx, func() error {
		if err := w.send(sql); err != nil {
			return err
		}
		for {
			msg, err := w.receive()
			if err != nil {
				return err
			}
			switch m := msg.(type) {
			case *pgproto3.DataRow:
				if err := row(m.Values); err != nil {
					return err
				}
			case *pgproto3.CopyInResponse:
				w.front.Send(&pgproto3.CopyFail{Message: "COPY FROM STDIN has no data here"})
				if err := w.front.Flush(); err != nil {
					return err
				}
			case *pgproto3.ReadyForQuery:
				return nil
			}
		}
	})
}

// texts runs a query of one column and returns its values.
func (w *wire) texts(ctx context.Context, sql string) ([]string, error) {
	var out []string
	err := w.query(ctx, sql, func(values [][]byte) error {
		if len(values) != 1 {
			return fmt.Errorf("%d columns instead of one in the answer to %s", len(values), sql)
		}
		out = append(out, string(values[0]))
		return nil
	})
	return out, err
}

// now returns what the server's clock says; that of this machine if the server does
// not tell.
func (w *wire) now(ctx context.Context) (time.Time, error) {
	answer, err := w.first(ctx, "SELECT now()")
	if err != nil {
		return time.Time{}, err
	}
	for _, layout := range []string{"2006-01-02 15:04:05-07", "2006-01-02 15:04:05-07:00"} { // with or without a fraction
		if now, err := time.Parse(layout, strings.Join(answer, "")); err == nil {
			return now, nil
		}
	}
	return time.Now(), nil
}

// start runs a statement up to the description of its rows, which the caller
// then reads with receive.
func (w *wire) start(ctx context.Context, sql string) error {
	return w.during(ctx, func() error {
		if err := w.send(sql); err != nil {
			return err
		}
		for {
			msg, err := w.receive()
			if err != nil {
				return err
			}
			switch m := msg.(type) {
			case *pgproto3.RowDescription:
				w.fields = m.Fields
				return nil
			case *pgproto3.CopyOutResponse, *pgproto3.ReadyForQuery:
				return protocolError("%T instead of rows in the answer to %s", m, sql)
			}
		}
	})
}

func (w *wire) send(sql string) error {
	w.front.SendQuery(&pgproto3.Query{String: sql})
	return w.front.Flush()
}

// receive returns the next message; it is valid until the next call. An error
// that the server reports becomes an error here, after the ReadyForQuery that
// follows one that is not fatal.
func (w *wire) receive() (pgproto3.BackendMessage, error) {
	for {
		msg, err := w.front.Receive()
		if err != nil {
			return nil, err
		}
		switch m := msg.(type) {
		case *pgproto3.ErrorResponse:
			return nil, w.refused(pgconn.ErrorResponseToPgError(m))
		case *pgproto3.NoticeResponse:
			w.notice((*pgconn.Notice)(pgconn.ErrorResponseToPgError((*pgproto3.ErrorResponse)(m))))
		case *pgproto3.ParameterStatus:
		default:
			return msg, nil
		}
	}
}

// refused waits for the end of a statement that failed with e.
func (w *wire) refused(e *pgconn.PgError) error {
	if e.SeverityUnlocalized == "FATAL" || e.Severity == "FATAL" || e.Severity == "PANIC" {
		return e
	}
	for {
		switch msg, err := w.front.Receive(); {
		case err != nil:
			return e // what the server said matters more
		default:
			if _, ready := msg.(*pgproto3.ReadyForQuery); ready {
				return e
			}
		}
	}
}

// fromServer reports whether err is the server's refusal of a statement, after
// which the connection can be used.
func fromServer(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Severity != "FATAL"
}
