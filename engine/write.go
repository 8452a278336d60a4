package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/viewlog"
	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
	"github.com/mzdio/mzd/engine/sql"
)

// transaction is what a session writes to tables: all of it becomes durable and is published at one time, or nothing of it.
type transaction struct {
	writes []tableWrite
	bytes  int

	rows []core.Update // of the journal; set when it is handed over
	done chan struct{} // closed when it is decided
	err  error         // set before: why nothing of it is there
}

type tableWrite struct {
	table *object
	rows  []flow.Update
}

// maxTransaction bounds the bytes that a transaction holds in memory.
const maxTransaction = 256 << 20

// rowCopies is how often the bytes of a new row count, about: it and its key are in the contents of the table, and in its history.
const rowCopies = 4

func errTooMuch() *Error {
	return &Error{Code: "54000", Message: fmt.Sprintf("transaction writes more than %d MiB", maxTransaction>>20), Hint: "Write in several transactions."}
}

// add writes rows of a table.
func (t *transaction) add(table *object, rows []flow.Update) error {
	for _, u := range rows {
		t.bytes += u.Row.Size()
	}
	if t.bytes > maxTransaction {
		return errTooMuch()
	}
	t.writes = append(t.writes, tableWrite{table, rows})
	return nil
}

// grows tells whether there is more after the transaction.
func (t *transaction) grows() bool {
	n := int64(0)
	for _, w := range t.writes {
		for _, u := range w.rows {
			n += u.Diff * int64(u.Row.Size())
		}
	}
	return n > 0
}

// writers are the transactions that wait to be committed. Guarded by Engine.mu.
type writers struct {
	queue []*transaction
	busy  bool // some have been taken and are not decided yet
	// alone is the transaction of who reads what it writes. While it is there no other is taken.
	alone *transaction
}

// record makes the rows of the journal. One that is longer than a log takes is refused here, where nobody else's transaction fails with it.
func (t *transaction) record() error {
	for _, w := range t.writes {
		for _, u := range w.rows {
			row := journalRow(w.table.ID, u.Row)
			if len(row) > core.MaxRowBytes {
				return errorf("54000", "a row of table %s has %d bytes; a row may have %d", sql.Ident(w.table.Name), len(row), core.MaxRowBytes)
			}
			t.rows = append(t.rows, core.Update{Diff: core.Diff(u.Diff), Row: row})
		}
	}
	return nil
}

// commit waits until a transaction is durable and published. A context that ends before the transaction has been taken withdraws it.
func (e *Engine) commit(ctx context.Context, t *transaction) error {
	if err := t.record(); err != nil {
		return err
	}
	t.done = make(chan struct{})
	e.mu.Lock()
	held := e.total()
	for _, other := range e.writers.queue {
		held += rowCopies * int64(other.bytes)
	}
	room := e.opt.MaxBytes - e.opt.MaxBytes/5 // the rest is for reading, which DELETE needs
	if t.grows() && held+rowCopies*int64(t.bytes) > room {
		e.mu.Unlock()
		return &Error{
			Code:    "53200",
			Message: fmt.Sprintf("out of memory: tables and views of the embedded engine hold %d of %d bytes that may be written, and the transaction writes %d", held, room, t.bytes),
			Hint:    "Delete rows, drop what is not needed, or raise engine.max_memory.",
		}
	}
	e.writers.queue = append(e.writers.queue, t)
	e.mu.Unlock()
	signal(e.wake)
	select {
	case <-t.done:
		return t.err
	case <-e.stopped:
	case <-ctx.Done():
		if e.withdraw(t) {
			return ctx.Err()
		}
		select { // it is being decided
		case <-t.done:
			return t.err
		case <-e.stopped:
		}
	}
	select {
	case <-t.done:
		return t.err
	default:
		return errStopped
	}
}

// withdraw takes a transaction out of the queue, and is false if it is there no more.
func (e *Engine) withdraw(t *transaction) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.Index(e.writers.queue, t)
	if i >= 0 {
		e.writers.queue = slices.Delete(e.writers.queue, i, i+1)
	}
	return i >= 0
}

// signal puts an element into a channel that has room for one, unless one is there.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// takeWriters takes the transactions of a tick. Whatever happens, refuse or committed is to be called with them.
func (e *Engine) takeWriters() []*transaction {
	e.mu.Lock()
	defer e.mu.Unlock()
	w := &e.writers
	var taken []*transaction
	switch {
	case e.opening: // who writes reads its writes, and nothing can be read yet
	case w.alone == nil:
		taken, w.queue = w.queue, nil
	default:
		if i := slices.Index(w.queue, w.alone); i >= 0 {
			taken = w.queue[i : i+1 : i+1]
			w.queue = append(slices.Clone(w.queue[:i]), w.queue[i+1:]...)
		}
	}
	w.busy = len(taken) > 0
	return taken
}

// refuseWaiting refuses all transactions that wait, because nothing can be committed for some time.
func (e *Engine) refuseWaiting(err error) {
	e.mu.Lock()
	list := e.writers.queue
	e.writers.queue = nil
	e.mu.Unlock()
	e.refuse(list, err)
}

// refuse decides that nothing of the transactions is there.
func (e *Engine) refuse(list []*transaction, err error) {
	if len(list) == 0 {
		return
	}
	for _, t := range list {
		t.err = diskError("the transaction", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.committed(list)
	e.notify()
}

// committed tells who waits that their transactions are decided. The caller holds mu.
func (e *Engine) committed(list []*transaction) {
	for _, t := range list {
		close(t.done)
	}
	e.writers.busy = false
}

// diskError is the error of who cannot write.
func diskError(what string, err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	code := "58030"
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		code = "53100"
	}
	return errorf(code, "%s could not be written: %v", what, err)
}

// harden makes transactions durable, with one sync, and returns those that are; the others have been told. The caller holds graphMu.
func (e *Engine) harden(at uint64, list []*transaction) []*transaction {
	var rows []core.Update
	list = e.refuseDropped(list)
	for _, t := range list {
		rows = append(rows, t.rows...)
	}
	if len(list) == 0 || e.journal == nil {
		return list
	}
	for i := range rows {
		rows[i].Time = core.Time(at)
	}
	e.shrinkJournal()
	err := e.journal.Append(core.Time(at)+1, core.Consolidate(rows))
	if err == nil {
		return list
	}
	if !errors.Is(err, viewlog.ErrInDoubt) {
		e.log.Error("transactions not committed", "transactions", len(list), "error", err)
		e.refuse(list, err)
		return nil
	}
	// No time closes, and nothing more is written, before it is certain that a restart does not find them; see reserve.
	e.log.Error("transactions neither committed nor undone; no time closes until they are undone", "transactions", len(list), "error", err)
	e.refuse(list, &Error{Code: "40003", Message: fmt.Sprintf("it is not known whether the transaction will be committed: %v", err)})
	return nil
}

// refuseDropped refuses the transactions that write to a table that is no more, and returns the others.
func (e *Engine) refuseDropped(list []*transaction) []*transaction {
	e.mu.Lock()
	defer e.mu.Unlock()
	var lost []*transaction
	rest := slices.DeleteFunc(list, func(t *transaction) bool {
		for _, w := range t.writes {
			if w.table.view.dropped {
				t.err = relationDropped(w.table.Name)
				lost = append(lost, t)
				return true
			}
		}
		return false
	})
	busy := len(rest) > 0
	if len(lost) > 0 {
		e.committed(lost)
		e.writers.busy = busy
		e.notify()
	}
	return rest
}

// sumWrites lists what transactions write to each table.
func sumWrites(list []*transaction) map[*view][]flow.Update {
	written := map[*view][]flow.Update{}
	for _, t := range list {
		for _, w := range t.writes {
			written[w.table.view] = append(written[w.table.view], w.rows...)
		}
	}
	return written
}

// alone runs f, which reads and then commits the transaction that it is given, while nobody else commits.
func (e *Engine) alone(ctx context.Context, f func(*transaction) error) error {
	t := &transaction{}
	err := e.await(ctx, func() (bool, error) {
		if e.writers.alone != nil {
			return false, nil
		}
		e.writers.alone = t
		return true, nil
	})
	if err != nil {
		return err
	}
	defer func() {
		e.mu.Lock()
		e.writers.alone = nil
		e.notify()
		e.mu.Unlock()
		signal(e.wake)
	}()
	if err := e.await(ctx, func() (bool, error) { return !e.writers.busy, nil }); err != nil {
		return err
	}
	return f(t)
}

// write is a statement that writes, with the catalog that it was planned in.
type write struct {
	*plan.Write
	table *object
	in    catalog
}

// planned plans a statement that writes.
func (e *Engine) planned(st sql.Statement, params plan.Params) (w write, err error) {
	w.in = e.catalog()
	env := w.in.env(params)
	switch st := st.(type) {
	case *sql.Insert:
		w.Write, err = plan.Insert(env, st)
	case *sql.Update:
		w.Write, err = plan.Update(env, st)
	case *sql.Delete:
		w.Write, err = plan.Delete(env, st)
	}
	if err == nil {
		w.table = w.in.objects[w.Table.Name]
	}
	return w, err
}

// write is INSERT, UPDATE and DELETE.
func (s *Session) write(ctx context.Context, verb string, st sql.Statement, params plan.Params) (*Result, error) {
	w, err := s.e.planned(st, params)
	if err != nil {
		return nil, err
	}
	if w.Read == nil || verb == "INSERT" && len(w.Read.Uses) == 0 {
		var rows []flow.Update
		if w.Read == nil {
			rows, err = given(w.Write)
		} else {
			rows, _, err = s.changes(ctx, w)
		}
		if err != nil {
			return nil, err
		}
		return s.insert(ctx, w.table, rows, func(n int) string { return fmt.Sprintf("INSERT 0 %d", n) })
	}
	what := verb
	if verb == "INSERT" {
		what = "INSERT ... SELECT"
	}
	if err := s.single(what); err != nil {
		return nil, err
	}
	if err := s.flush(ctx); err != nil {
		return nil, err
	}
	count := 0
	err = s.e.alone(ctx, func(t *transaction) error {
		rows, n, err := s.changes(ctx, w)
		if err != nil || n == 0 {
			return err
		}
		count = n
		if err := t.add(w.table, rows); err != nil {
			return err
		}
		return s.e.commit(ctx, t)
	})
	if err != nil {
		return nil, err
	}
	if verb == "INSERT" {
		verb = "INSERT 0"
	}
	return done(fmt.Sprintf("%s %d", verb, count)), nil
}

// given are the rows of VALUES.
func given(w *plan.Write) ([]flow.Update, error) {
	c := &flow.Context{}
	bytes := 0
	rows := make([]flow.Update, 0, len(w.Values))
	for _, exprs := range w.Values {
		r, err := w.Row(c, exprs, nil)
		if err != nil {
			return nil, err
		}
		if bytes += r.Size(); bytes > maxTransaction {
			return nil, errTooMuch()
		}
		rows = append(rows, flow.Update{Row: r, Diff: 1})
	}
	return rows, nil
}

// changes reads what a statement needs, and returns what it changes, and of how many rows.
func (s *Session) changes(ctx context.Context, w write) ([]flow.Update, int, error) {
	reading := s.e.newReading(w.in, w.Read)
	defer reading.release()
	rows, err := reading.rows(ctx, now, false)
	if err != nil {
		return nil, 0, err
	}
	c := &flow.Context{}
	width := len(w.Table.Columns)
	bytes := 0
	var out []flow.Update
	for _, r := range rows {
		if w.Old {
			out = append(out, flow.Update{Row: slices.Clip(r[:width]), Diff: -1})
		}
		if w.New == nil {
			continue
		}
		n, err := w.Row(c, w.New, r)
		if err != nil {
			return nil, 0, err
		}
		if bytes += n.Size(); bytes > maxTransaction {
			return nil, 0, errTooMuch()
		}
		out = append(out, flow.Update{Row: n, Diff: 1})
	}
	return out, len(rows), nil
}
