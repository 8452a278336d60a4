package pgwire

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/mzdio/mzd/engine"
	"github.com/mzdio/mzd/engine/flow"
)

// Bounds on what the extended protocol lets a client leave in the server.
const (
	maxStatements = 1000 // prepared statements of a connection
	maxTexts      = 8    // total text of these, as a multiple of MaxMessageBytes
	maxPortals    = 64   // each may hold a stream
)

// prepared is a prepared statement.
type prepared struct {
	statement engine.Statement // empty: the client prepared an empty text
	fields    []engine.Field   // nil: returns no rows
	bytes     int              // of its text
}

// portal is a statement that was given what it needs to run, and then its
// result, as far as it has been read.
type portal struct {
	*prepared
	bound   engine.Statement // the statement with its parameters
	formats []int16
	result  *engine.Result // nil: not executed yet
	rows    []flow.Row     // of the last chunk, not yet sent
	done    bool           // the result has been read to its end, or failed
}

func (p *portal) close() {
	if p.result != nil && p.result.Close != nil {
		p.result.Close()
	}
	p.result, p.rows, p.done = nil, nil, true
}

// query answers a simple query: any number of statements, of which an error
// ends the rest. A text that does not parse runs nothing at all.
func (c *conn) query(ctx context.Context, text string) (err error) {
	c.closePortal("")
	c.closeStatement("")
	statements, err := c.session.Parse(text)
	if err != nil {
		return err
	}
	statements = slices.DeleteFunc(statements, engine.Statement.IsEmpty)
	if len(statements) == 0 {
		c.out.send(&pgproto3.EmptyQueryResponse{})
		return nil
	}
	if len(statements) > 1 {
		c.session.Batch()
		defer func() {
			if e := c.session.EndBatch(ctx, err != nil); err == nil {
				err = e
			}
		}()
	}
	for _, st := range statements {
		if err := c.queryOne(ctx, st); err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) queryOne(ctx context.Context, st engine.Statement) error {
	p := &portal{prepared: &prepared{statement: st}, bound: st}
	defer p.close()
	if err := c.start(ctx, p); err != nil {
		return err
	}
	if p.result.Next != nil && p.result.Copy == "" {
		c.out.send(rowDescription(p.result.Fields, nil))
	}
	return c.sendRows(ctx, p, 0)
}

// extended answers a message of the extended protocol other than Sync.
func (c *conn) extended(ctx context.Context, msg any) error {
	switch m := msg.(type) {
	case pgproto3.Parse:
		return c.parse(m)
	case bind:
		return c.bind(m)
	case pgproto3.Describe:
		return c.describe(m)
	case pgproto3.Execute:
		return c.execute(ctx, m)
	case pgproto3.Close:
		if m.ObjectType == 'S' {
			c.closeStatement(m.Name)
		} else {
			c.closePortal(m.Name)
		}
		c.out.send(&pgproto3.CloseComplete{})
		return nil
	default: // Flush
		return c.out.flush()
	}
}

func (c *conn) parse(m pgproto3.Parse) error {
	types, err := parameterTypes(m.ParameterOIDs)
	if err != nil {
		return err
	}
	if m.Name == "" {
		c.closeStatement("")
	} else if c.statements[m.Name] != nil {
		return errorf("42P05", "prepared statement %q already exists", m.Name)
	}
	if len(c.statements) >= maxStatements || c.text+len(m.Query) > maxTexts*c.server.opts.MaxMessageBytes {
		return errorf("53400", "too many prepared statements; close some")
	}
	statements, err := c.session.Parse(m.Query)
	if err != nil {
		return err
	}
	ps := &prepared{bytes: len(m.Query)}
	for _, st := range statements {
		if st.IsEmpty() {
			continue
		}
		if !ps.statement.IsEmpty() {
			return errorf("42601", "cannot insert multiple commands into a prepared statement")
		}
		ps.statement = st
	}
	if !ps.statement.IsEmpty() {
		if ps.statement, ps.fields, err = c.session.Prepare(ps.statement, types); err != nil {
			return err
		}
	}
	c.statements[m.Name] = ps
	c.text += ps.bytes
	c.out.send(&pgproto3.ParseComplete{})
	return nil
}

func (c *conn) bind(m bind) error {
	ps := c.statements[m.statement]
	switch {
	case ps == nil:
		return errorf("26000", "prepared statement %q does not exist", m.statement)
	case m.portal != "" && c.portals[m.portal] != nil:
		return errorf("42P03", "portal %q already exists", m.portal)
	case len(c.portals) >= maxPortals:
		return errorf("53400", "too many portals; close some")
	}
	if n := len(m.formats); n > 1 && n != len(ps.fields) {
		return errorf("08P01", "bind message has %d result formats but query has %d columns", n, len(ps.fields))
	}
	for _, f := range m.formats {
		if f != pgproto3.TextFormat && f != pgproto3.BinaryFormat {
			return errorf("22023", "unsupported format code: %d", f)
		}
	}
	bound, err := withParameters(ps.statement, m)
	if err != nil {
		return err
	}
	c.closePortal(m.portal)
	c.portals[m.portal] = &portal{prepared: ps, bound: bound, formats: m.formats}
	c.out.send(&pgproto3.BindComplete{})
	return nil
}

func (c *conn) describe(m pgproto3.Describe) error {
	var fields []engine.Field
	var formats []int16
	if m.ObjectType == 'S' {
		ps := c.statements[m.Name]
		if ps == nil {
			return errorf("26000", "prepared statement %q does not exist", m.Name)
		}
		c.out.send(parameterDescription(ps.statement))
		fields = ps.fields
	} else if p := c.portals[m.Name]; p != nil {
		fields, formats = p.fields, p.formats
	} else if fields = c.session.Cursor(m.Name); fields == nil { // which DECLARE has made
		return errorf("34000", "portal %q does not exist", m.Name)
	}
	if fields == nil {
		c.out.send(&pgproto3.NoData{})
	} else {
		c.out.send(rowDescription(fields, formats))
	}
	return nil
}

func (c *conn) execute(ctx context.Context, m pgproto3.Execute) error {
	p := c.portals[m.Portal]
	switch {
	case p == nil:
		return errorf("34000", "portal %q does not exist", m.Portal)
	case p.statement.IsEmpty():
		c.out.send(&pgproto3.EmptyQueryResponse{})
		return nil
	case p.done:
		return errorf("55000", "portal %q cannot be run anymore", m.Portal)
	}
	if p.result == nil {
		c.session.Batch() // until Sync
		if err := c.start(ctx, p); err != nil {
			p.done = true
			return err
		}
	}
	err := c.sendRows(ctx, p, m.MaxRows)
	if err != nil {
		p.close()
	}
	return err
}

// start runs the statement of p and sends its notices.
func (c *conn) start(ctx context.Context, p *portal) error {
	result, err := c.session.Execute(ctx, p.bound)
	if err != nil {
		return err
	}
	p.result = result
	if p.fields != nil && !slices.Equal(p.fields, result.Fields) {
		p.close() // the view is not what it was when the statement was prepared
		return errorf("0A000", "cached plan must not change result type")
	}
	return nil
}

// sendRows sends the rows of a result until its end, or until limit rows have
// been sent if limit is not 0: then the portal is suspended, to be executed
// again. Each chunk of the engine is one flush, so that a stream's reader has
// the rows of a tick as soon as they exist.
func (c *conn) sendRows(ctx context.Context, p *portal, limit uint32) error {
	r := p.result
	for _, n := range r.Notices {
		c.out.send(noticeResponse(n))
	}
	r.Notices = nil // once, though the portal may be resumed
	if r.CopyIn != nil {
		return c.copyIn(ctx, p)
	}
	var out *copyOut
	if r.Copy != "" {
		limit = 0 // COPY is never suspended
		out = &copyOut{w: &c.out, format: r.Copy}
		out.begin(len(r.Fields))
	}
	for sent := uint32(0); r.Next != nil; {
		for ; len(p.rows) > 0 && (limit == 0 || sent < limit); sent++ {
			if out != nil {
				out.row(p.rows[0])
			} else {
				c.out.dataRow(p.rows[0], p.formats)
			}
			p.rows = p.rows[1:]
			if c.out.full() {
				if err := c.out.flush(); err != nil {
					return err
				}
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
			}
		}
		if limit > 0 && sent == limit {
			c.out.send(&pgproto3.PortalSuspended{})
			return nil
		}
		if err := c.out.flush(); err != nil {
			return err
		}
		rows, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		p.rows = rows
	}
	if out != nil {
		out.end()
	}
	c.out.send(&pgproto3.CommandComplete{CommandTag: []byte(r.Tag())})
	p.close()
	return nil
}

func (c *conn) closePortal(name string) {
	if p := c.portals[name]; p != nil {
		p.close()
		delete(c.portals, name)
	}
}

func (c *conn) closeStatement(name string) {
	if ps := c.statements[name]; ps != nil {
		c.text -= ps.bytes
		delete(c.statements, name)
	}
}
