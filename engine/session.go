package engine

import (
	"context"
	"fmt"
	"io"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
	"github.com/mzdio/mzd/engine/sql"
)

// Session executes the statements of one connection. It is used by one goroutine at a time.
type Session struct {
	e       *Engine
	status  byte // I idle, T in a transaction, E in one that has failed
	cursors map[string]*cursor
	params  map[string]string
	startup map[string]string // parameters that the client gave when it connected
	tx      sessionTx
}

// NewSession begins a session; its owner closes it.
func (e *Engine) NewSession() *Session {
	return &Session{e: e, status: 'I', cursors: map[string]*cursor{}, params: map[string]string{}, startup: map[string]string{}}
}

// Statement is a parsed statement.
type Statement struct {
	node  sql.Statement
	text  string
	query string // the text it is part of, in which its positions count

	count  int         // of its parameters, as far as its text says
	params plan.Params // once it has been prepared
}

// String is the statement's text.
func (s Statement) String() string { return s.text }

// IsEmpty tells that there is nothing to execute.
func (s Statement) IsEmpty() bool {
	_, ok := s.node.(*sql.Empty)
	return ok || s.node == nil
}

// Field is a column of a result.
type Field struct {
	Name string
	Type flow.Type
}

// Result is what executing a statement gives. Its functions are called by the session's goroutine, before the next statement or, for
// cursors, while the transaction lasts.
type Result struct {
	Fields  []Field  // nil: no rows
	Copy    string   // COPY ... TO STDOUT: the rows go in copy messages, in this format: text, csv or binary
	Notices []Notice // to be sent before the rows
	CopyIn  *CopyIn  // COPY ... FROM STDIN: takes the data, and gives the tag
	// Next returns the rows that are to be sent together, and io.EOF at the end. It blocks until there is something or the context
	// ends; a call that the context has ended may be followed by another, and nothing is lost. It is nil if there are no rows.
	Next func(ctx context.Context) ([]flow.Row, error)
	// Tag is the command tag, once Next has returned io.EOF.
	Tag func() string
	// Close releases what the result holds, also before its end. It may be called twice.
	Close func()
}

// Parse splits and parses a query text. The error is an [*Error] with a position.
func (s *Session) Parse(query string) ([]Statement, error) {
	parsed, err := sql.Parse(query)
	if err != nil {
		return nil, located(err, query)
	}
	out := make([]Statement, len(parsed))
	for i, p := range parsed {
		out[i] = Statement{node: p.Statement, text: query[p.Pos:p.End], query: query, count: p.Params}
	}
	return out, nil
}

// TxStatus is the transaction status that a ReadyForQuery message tells: 'I', 'T' or 'E'.
func (s *Session) TxStatus() byte { return s.status }

// Close ends the session's cursors and streams. What it has written and not committed is forgotten.
func (s *Session) Close() {
	s.tx = sessionTx{}
	s.closeCursors()
}

// Prepare finds out the types of a statement's parameters, of which the client may know the first ones, and the columns of its
// result, nil if it has no rows. It returns the statement that [Statement.With] can be asked of.
func (s *Session) Prepare(st Statement, types []flow.Type) (Statement, []Field, error) {
	st.params = plan.NewParams(st.count, types)
	f, err := s.describe(st.node, st.params)
	for i, t := range st.params.Types {
		if t == flow.Unknown {
			st.params.Types[i] = flow.Text
		}
	}
	return st, f, s.failed(located(err, st.query))
}

// Params are the types of the parameters of a statement that has been prepared.
func (s Statement) Params() []flow.Type { return s.params.Types[min(1, len(s.params.Types)):] }

// With is a prepared statement with values for its parameters, one for each and of its type, or NULL.
func (s Statement) With(values []flow.Datum) Statement {
	s.params.Values = append([]flow.Datum{flow.Null}, values...)
	return s
}

func (s *Session) describe(node sql.Statement, params plan.Params) ([]Field, error) {
	switch n := node.(type) {
	case *sql.Insert, *sql.Update, *sql.Delete:
		_, err := s.e.planned(n, params)
		return nil, err
	case *sql.Query:
		p, err := plan.Query(s.e.catalog().env(params), n)
		if err != nil {
			return nil, err
		}
		return fields(p.Columns), s.e.describeTimes(params, n.AsOf, nil)
	case *sql.Subscribe:
		t, err := s.e.newStream(n, params)
		if err != nil {
			return nil, err
		}
		return t.fields(), s.e.describeTimes(params, n.AsOf, n.UpTo)
	case *sql.Copy:
		_, err := s.describe(n.Of, params)
		return nil, err
	case *sql.Declare:
		_, err := s.describe(n.Of, params)
		return nil, err
	case *sql.Fetch:
		c := s.cursors[n.Cursor]
		if c == nil {
			return nil, errorf("34000", "cursor %s does not exist", sql.Ident(n.Cursor))
		}
		return c.fields, nil
	case *sql.Show:
		return showFields(n), nil
	case *sql.Explain:
		return []Field{{"Physical Plan", flow.Text}}, nil
	}
	return nil, nil
}

func fields(cols []plan.Column) []Field {
	out := make([]Field, len(cols))
	for i, c := range cols {
		out[i] = Field(c)
	}
	return out
}

// Fail says that the client has been told of an error. Any ends the transaction, also one that the session knows nothing of: a text that does
// not parse, a message that asks for what is not there.
func (s *Session) Fail() {
	if s.status == 'T' {
		s.status = 'E'
		s.tx = sessionTx{}
	}
}

// failed notes that an error ends a transaction.
func (s *Session) failed(err error) error {
	if err != nil {
		s.Fail()
	}
	return err
}

// Execute executes a statement. Errors are an [*Error], or the context's; those that a result's Next returns later are errors of the
// statement too, and end a transaction like them.
func (s *Session) Execute(ctx context.Context, st Statement) (*Result, error) {
	if _, ends := st.node.(*sql.Transaction); s.status == 'E' && !ends {
		return nil, errorf("25P02", "current transaction is aborted, commands ignored until end of transaction block")
	}
	deadline := s.deadline(st.node)
	var r *Result
	err := until(ctx, deadline, func(ctx context.Context) (err error) {
		r, err = s.guarded(ctx, st)
		return err
	})
	if err != nil {
		return nil, s.failed(located(err, st.query))
	}
	r.timed(deadline)
	if r.Close == nil {
		r.Close = func() {}
	}
	if next := r.Next; next != nil {
		r.Next = func(ctx context.Context) ([]flow.Row, error) {
			rows, err := next(ctx)
			if err != nil && err != io.EOF {
				err = s.failed(located(err, st.query))
			}
			return rows, err
		}
	}
	return r, nil
}

func (s *Session) execute(ctx context.Context, st Statement) (*Result, error) {
	switch n := st.node.(type) {
	case *sql.Empty:
		return done(""), nil
	case *sql.Query:
		return s.selectQuery(ctx, n, st.params)
	case *sql.Insert:
		return s.write(ctx, "INSERT", n, st.params)
	case *sql.Update:
		return s.write(ctx, "UPDATE", n, st.params)
	case *sql.Delete:
		return s.write(ctx, "DELETE", n, st.params)
	case *sql.CopyFrom:
		return s.copyFrom(st, n)
	case *sql.Subscribe:
		return s.subscribe(n, st.params)
	case *sql.Copy:
		return s.copyOut(ctx, n, st.params)
	case *sql.CreateSource:
		return s.e.createSource(n)
	case *sql.CreateTable:
		return s.e.createTable(n)
	case *sql.CreateView:
		return s.e.createView(n)
	case *sql.Drop:
		return s.e.drop(n)
	case *sql.Show:
		return s.show(n)
	case *sql.Set:
		return s.set(n)
	case *sql.Transaction:
		return s.transaction(ctx, n)
	case *sql.Discard:
		if n.Deallocate != "" {
			return done("DEALLOCATE"), nil
		}
		s.closeCursors()
		clear(s.params)
		return done("DISCARD ALL"), nil
	case *sql.Declare:
		return s.declare(n, st.params)
	case *sql.Fetch:
		return s.fetch(n)
	case *sql.CloseCursor:
		return s.closeCursor(n)
	case *sql.Explain:
		return s.explain(n)
	}
	return nil, errorf("0A000", "%s is not supported by the embedded engine", st.text)
}

// done is the result of a statement without rows.
func done(tag string, notices ...Notice) *Result {
	return &Result{Tag: func() string { return tag }, Notices: notices}
}

// table is a result whose rows are there already.
func table(fields []Field, rows []flow.Row, verb string) *Result {
	sent := false
	return &Result{
		Fields: fields,
		Next: func(context.Context) ([]flow.Row, error) {
			if sent || len(rows) == 0 {
				return nil, io.EOF
			}
			sent = true
			return rows, nil
		},
		Tag: func() string { return fmt.Sprintf("%s %d", verb, len(rows)) },
	}
}

// selectQuery reads a query's result once, at one time.
func (s *Session) selectQuery(ctx context.Context, q *sql.Query, params plan.Params) (*Result, error) {
	e := s.e
	cat := e.catalog()
	p, err := plan.Query(cat.env(params), q)
	if err != nil {
		return nil, err
	}
	at := uint64(now)
	if q.AsOf != nil {
		if at, err = e.time(q.AsOf.Time, params); err != nil {
			return nil, err
		}
	}
	reading := e.newReading(cat, p)
	if q.AsOf == nil {
		reading.observeNow()
	}
	if len(p.Uses) > 0 {
		if err := s.selectsOnce(ctx); err != nil {
			return nil, err
		}
	}
	var rows []flow.Row
	ready := false
	r := &Result{Fields: fields(p.Columns), Close: reading.release}
	r.Next = func(ctx context.Context) ([]flow.Row, error) {
		if ready {
			return nil, io.EOF
		}
		if q.AsOf == nil && s.tx.time > 0 {
			at = s.tx.time
		}
		if rows, err = reading.rows(ctx, at, q.AsOf != nil && q.AsOf.AtLeast); err != nil {
			return nil, err
		}
		if s.status == 'T' && q.AsOf == nil && reading.streamed() {
			s.tx.time = reading.at
		}
		ready = true
		if len(rows) == 0 {
			return nil, io.EOF
		}
		return rows, nil
	}
	r.Tag = func() string { return fmt.Sprintf("SELECT %d", len(rows)) }
	return r, nil
}
