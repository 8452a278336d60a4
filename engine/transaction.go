package engine

import (
	"context"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/sql"
)

// sessionTx is what a session's transaction has done. As in Materialize, one transaction reads, or it writes: what it writes must not
// depend on anything but what the client sends, so that it need not be isolated from others.
type sessionTx struct {
	*transaction // what has been written; nil: nothing
	hasRead      bool
	selects      bool   // it has read once
	time         uint64 // at which it reads, once it has
	streams      bool   // it has begun a stream
	readOnly     bool
	local        map[string]string // parameters until it ends
	batch        bool              // there is no transaction block, but the statements of a batch share a transaction
}

// guarded executes a statement in the transaction that the session is in.
func (s *Session) guarded(ctx context.Context, st Statement) (*Result, error) {
	var err error
	switch n := st.node.(type) {
	case *sql.CreateSource, *sql.CreateTable, *sql.CreateView, *sql.Drop:
		if err = s.single("CREATE and DROP"); err == nil {
			err = s.flush(ctx)
		}
	case *sql.Subscribe, *sql.Declare:
		err = s.reads(ctx)
	case *sql.Copy:
		if _, ok := n.Of.(*sql.Subscribe); ok {
			err = s.reads(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	return s.execute(ctx, st)
}

// single refuses what a transaction block cannot undo.
func (s *Session) single(what string) error {
	if s.status == 'T' {
		return errorf("25001", "%s cannot be run inside a transaction block", what)
	}
	return nil
}

// reads notes that the transaction reads. In a batch what has been written so far is committed, so that it is seen.
func (s *Session) reads(ctx context.Context) error {
	if s.status != 'T' {
		return s.flush(ctx)
	}
	if s.tx.transaction != nil {
		return &Error{Code: "25000", Message: "transaction in write-only mode", Hint: "COMMIT before reading."}
	}
	s.tx.hasRead = true
	return nil
}

// selectsOnce notes that the transaction reads something once.
func (s *Session) selectsOnce(ctx context.Context) error {
	if err := s.reads(ctx); err != nil || s.status != 'T' {
		return err
	}
	if s.tx.streams {
		return errOnlyStream
	}
	s.tx.selects = true
	return nil
}

// errOnlyStream is Materialize's error for a transaction that streams at a time of its own and reads something else, at another.
var errOnlyStream = &Error{Code: "25000", Message: "SUBSCRIBE in transactions must be the only read statement", Hint: "Give the SUBSCRIBE an AS OF."}

// begins notes that the transaction begins a stream. With an AS OF it is at the time that the client wants, whatever else is read.
func (s *Session) begins(n *sql.Subscribe) error {
	switch {
	case s.status != 'T' || n.AsOf != nil:
		return nil
	case s.tx.streams:
		return errOnlyStream
	case s.tx.selects:
		return errorf("25006", "transaction in read-only mode")
	}
	s.tx.streams = true
	return nil
}

// insert writes rows: now, or when the transaction or the batch ends.
func (s *Session) insert(ctx context.Context, table *object, rows []flow.Update, tag func(n int) string) (*Result, error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	if s.tx.transaction == nil {
		s.tx.transaction = &transaction{}
	}
	if err := s.tx.add(table, rows); err != nil {
		s.tx.transaction = nil
		return nil, err
	}
	if s.status == 'I' && !s.tx.batch {
		if err := s.flush(ctx); err != nil {
			return nil, err
		}
	}
	return done(tag(len(rows))), nil
}

// writable refuses to write in a transaction that reads.
func (s *Session) writable() error {
	if s.tx.hasRead || s.tx.readOnly {
		return errorf("25006", "transaction in read-only mode")
	}
	return nil
}

// flush commits what has been written.
func (s *Session) flush(ctx context.Context) error {
	t := s.tx.transaction
	s.tx.transaction = nil
	if t == nil || t.bytes == 0 {
		return nil
	}
	return s.e.commit(ctx, t)
}

// Batch says that statements follow which share a transaction as long as they only insert, until [Session.EndBatch]: those of one
// message, or those before a Sync. In a transaction block it means nothing.
func (s *Session) Batch() { s.tx.batch = true }

// EndBatch commits what the batch has written, or forgets it if one of its statements has failed. Outside a batch, and in a transaction
// block, it does nothing.
func (s *Session) EndBatch(ctx context.Context, failed bool) error {
	batch := s.tx.batch
	s.tx.batch = false
	switch {
	case !batch || s.status != 'I':
		return nil
	case failed:
		s.tx.transaction = nil
		return nil
	}
	return located(s.flush(ctx), "")
}

// transaction moves between the states of a transaction block.
func (s *Session) transaction(ctx context.Context, n *sql.Transaction) (*Result, error) {
	verb := n.Verb
	switch {
	case verb == "BEGIN" && s.status != 'I':
		if s.status == 'E' {
			return nil, errorf("25P02", "current transaction is aborted, commands ignored until end of transaction block")
		}
		return done("BEGIN", Notice{"WARNING", "25001", "there is already a transaction in progress"}), nil
	case verb == "BEGIN":
		s.status = 'T'
		s.tx.readOnly = n.ReadOnly
		return done("BEGIN"), nil
	case s.status == 'I':
		return done(verb, Notice{"WARNING", "25P01", "there is no transaction in progress"}), nil
	}
	if s.status == 'E' {
		verb = "ROLLBACK"
	}
	written := s.tx.transaction
	s.status, s.tx = 'I', sessionTx{transaction: written, batch: s.tx.batch}
	s.closeCursors()
	if verb == "ROLLBACK" {
		s.tx.transaction = nil
		return done(verb), nil
	}
	if err := s.flush(ctx); err != nil {
		return nil, err
	}
	return done(verb), nil
}
