package mz

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mzdio/mzd/core"
)

// The reasons of errors: one word each, fit for a metric's label.
const (
	Unreachable    = "unreachable"     // no connection, or it was cut, or the server is starting or stopping
	Auth           = "auth"            // the server does not know the user or the password
	TLS            = "tls"             // client and server do not agree on encryption, or who the server is
	Permission     = "permission"      // the user may not read the view
	NoSuchView     = "no_such_view"    // it does not exist, or the name cannot be one
	Dropped        = "dropped"         // it was dropped while it was followed
	Evaluation     = "evaluation"      // the view cannot be computed, or one of its rows is impossible or too long
	HistoryGone    = "history_gone"    // the upstream has forgotten the time that was asked for
	ColumnsChanged = "columns_changed" // the view has other columns than when it was planned
	SlowReader     = "slow_reader"     // the server gave up on a reader that fell behind
	TooLarge       = "too_large"       // the server refuses to send so much at once
	Ended          = "ended"           // the server ended the stream, for a timeout or without a reason
	Cancelled      = "cancelled"       // somebody cancelled it: the caller, or an operator of the database
	Protocol       = "protocol"        // the server says what this package does not understand
	Other          = "other"
)

// Reasons lists all reasons, for metrics that want every series to exist from
// the start.
func Reasons() []string {
	return []string{
		Unreachable, Auth, TLS, Permission, NoSuchView, Dropped, Evaluation, HistoryGone,
		ColumnsChanged, SlowReader, TooLarge, Ended, Cancelled, Protocol, Other,
	}
}

// Error is what every error of a [Stream] and of [Client.Subscribe] is. Its
// text says what happened and, where somebody can do something, what.
type Error struct {
	reason    string
	message   string
	retryable bool
	err       error
}

func (e *Error) Error() string { return e.message }

// Reason returns one of the reasons above.
func (e *Error) Reason() string { return e.reason }

// Retryable reports whether the same request may succeed soon: without anybody
// changing anything, or because a view that is not there is being replaced, or
// made for the first time. Where it is false a retry helps only after somebody
// has changed something else, so it can be slow.
func (e *Error) Retryable() bool { return e.retryable }

// Away reports whether nobody could be asked: there is no connection. It says nothing
// about the view.
func (e *Error) Away() bool {
	return e.reason == Unreachable || e.reason == Auth || e.reason == TLS
}

// Unwrap returns what lies below: a [*pgconn.PgError] for what the server
// reported, or an error of the network or of the caller's context.
func (e *Error) Unwrap() error { return e.err }

func protocolError(format string, args ...any) *Error {
	return &Error{reason: Protocol, message: fmt.Sprintf(format, args...)}
}

// cancelled is the error of a context that has ended.
func cancelled(ctx context.Context) *Error {
	cause := context.Cause(ctx)
	return &Error{reason: Cancelled, retryable: true, message: cause.Error(), err: cause}
}

// connectError explains why there is no connection.
func connectError(ctx context.Context, err error) *Error {
	if ctx.Err() != nil {
		return cancelled(ctx)
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		e := &Error{reason: Unreachable, retryable: true, message: oneLine(err.Error()), err: err}
		says := func(s string) bool { return strings.Contains(e.message, s) }
		if says("tls: ") || says("x509: ") || says("refused TLS") {
			e.reason, e.retryable = TLS, false
			e.message += "; check sslmode, sslrootcert, sslcert and sslkey of materialize.url"
		}
		return e
	}
	e := &Error{reason: Other, message: "the server refuses the connection: " + serverText(pg), err: err}
	switch {
	case strings.HasPrefix(pg.Code, "28"):
		e.reason = Auth
		e.message += "; check the user and the password of materialize.url"
	case pg.Code == "3D000":
		e.reason = NoSuchView
		e.message += "; check the database of materialize.url"
	case pg.Code == "42501":
		e.reason = Permission
	case pg.Code == "53300", strings.HasPrefix(pg.Code, "57P"):
		e.reason, e.retryable = Unreachable, true
	}
	return e
}

// explain makes an [*Error] of any error.
func explain(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	e := &Error{err: err}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		e.reason, e.retryable, e.message = classify(pg)
	} else {
		e.reason, e.retryable, e.message = Unreachable, true, "the connection was lost: "+oneLine(err.Error())
	}
	return e
}

// ofView explains the error of a stream, and names the view.
func ofView(err error, view string) *Error {
	e := *explain(err)
	e.message = "view " + view + ": " + e.message
	return &e
}

// classify tells the errors of a running statement apart. Materialize gave most
// of them the SQLSTATE XX000 for years, so that their text has to tell.
func classify(pg *pgconn.PgError) (reason string, retryable bool, message string) {
	text := pg.Message
	says := func(s string) bool { return strings.Contains(text, s) }
	message = serverText(pg)
	switch {
	case isHistoryGone(pg):
		return HistoryGone, true, message
	case says("has been terminated because"), pg.Code == "42704" && says("was dropped"):
		return Dropped, true, message + "; it is followed again when it exists again"
	case strings.HasPrefix(text, "Evaluation error:"):
		return Evaluation, false, message + "; correct the view or the row that it cannot compute"
	case says("fell behind"):
		return SlowReader, true, message + "; mzd needs more CPU, or the view changes faster than it can read"
	case says("exceeds max size of"):
		return TooLarge, false, message + "; raise max_result_size of the server, or narrow the view"
	case pg.Code == "57014":
		return Cancelled, true, message
	case pg.Code == "25P03", pg.Code == "28000" && says("expired"):
		return Ended, true, message
	case strings.HasPrefix(pg.Code, "28"):
		return Auth, false, message + "; check the user and the password of materialize.url"
	case pg.Code == "42501":
		return Permission, false, message + "; grant the user of materialize.url USAGE on its schema and cluster and SELECT on the view"
	case says("unknown cluster"), says("no replicas available"):
		return Other, false, message + "; name a cluster that runs as a parameter of materialize.url: ?cluster=NAME"
	case pg.Code == "42704", pg.Code == "42P01", pg.Code == "3F000", pg.Code == "3D000", says("unknown catalog item"), says("unknown schema"), says("unknown database"):
		return NoSuchView, true, message + "; create it, or correct its name under views"
	case says("cached plan must not change result type"):
		return ColumnsChanged, true, message
	case strings.HasPrefix(pg.Code, "57P"), strings.HasPrefix(pg.Code, "08"):
		return Unreachable, true, message
	case strings.HasPrefix(pg.Code, "42"), strings.HasPrefix(pg.Code, "0A"), strings.HasPrefix(pg.Code, "22"):
		return Other, false, message
	default:
		return Other, true, message
	}
}

// serverText is what the server says, on one line.
func serverText(pg *pgconn.PgError) string {
	s := pg.Message
	if pg.Detail != "" {
		s += " (" + pg.Detail + ")"
	}
	if pg.Hint != "" {
		s += ". " + strings.TrimSuffix(pg.Hint, ".") // a sentence, as PostgreSQL's style has it
	}
	return oneLine(s) + " (SQLSTATE " + pg.Code + ")"
}

// oneLine joins the lines of a text, for logs, each once: what is wrong with and
// without TLS, of which pgx has tried both, is mostly the same.
func oneLine(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		if line = strings.Join(strings.Fields(line), " "); line != "" && !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, " ")
}

// isHistoryGone recognizes that AS OF lies before the history: the first text
// is that of v26.16 and later and of the embedded engine, the second that of
// all releases before.
func isHistoryGone(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (strings.Contains(pg.Message, "could not find a valid timestamp for the query") ||
		strings.Contains(pg.Message, "is not valid for all inputs"))
}

// sincePattern finds the first times that are still known in the older text.
var sincePattern = regexp.MustCompile(`Antichain \{ elements: \[(\d+)\]`)

// sinceOf returns that time. A view of several indexes has one of each, and can be
// read from the last of them on.
func sinceOf(err error) (since core.Time, ok bool) {
	if !isHistoryGone(err) {
		return 0, false
	}
	for _, m := range sincePattern.FindAllStringSubmatch(err.Error(), -1) {
		if t, err := core.ParseTime(m[1]); err == nil {
			since, ok = max(since, t), true
		}
	}
	return since, ok
}
