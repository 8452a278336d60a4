package pgwire

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/mzdio/mzd/engine"
)

// Causes of the end of a connection's or a statement's context.
var (
	// errGone: the client left. There is nobody to tell.
	errGone = errors.New("the client closed the connection")

	// errCanceled: another connection asked to cancel the statement.
	errCanceled = &engine.Error{Code: "57014", Message: "canceling statement due to user request"}
)

// fatalError is an error that ends the connection after the client was told.
type fatalError struct{ err *engine.Error }

func (e *fatalError) Error() string { return e.err.Message }

func fatalf(code, format string, args ...any) *fatalError {
	return &fatalError{errorf(code, format, args...)}
}

func errorf(code, format string, args ...any) *engine.Error {
	return &engine.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// shutdown is what clients are told when the server or the engine stops.
const shutdownCode = "57P01"

func errShutdown() *fatalError {
	return fatalf(shutdownCode, "terminating connection due to administrator command")
}

// ended translates the cause of the end of a connection's context into what the
// client is told: nothing (errGone) or a *fatalError.
func ended(cause error) error {
	if fatal, ok := errors.AsType[*fatalError](cause); ok {
		return fatal
	}
	if errors.Is(cause, errGone) {
		return errGone
	}
	return errShutdown()
}

// explain translates an error of a statement that ran under ctx, a child of
// conn's context, into one of: errGone, a *fatalError, or an *engine.Error,
// after which the connection goes on. internal is set when the error is none
// that a client could have caused.
func explain(conn, ctx context.Context, err error) (explained error, internal bool) {
	if conn.Err() != nil {
		return ended(context.Cause(conn)), false
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if fatal, ok := errors.AsType[*fatalError](err); ok {
		return fatal, false
	}
	if e, ok := errors.AsType[*engine.Error](err); ok {
		if e.Code == shutdownCode {
			return &fatalError{e}, false
		}
		return e, false
	}
	if errors.Is(err, errGone) {
		return errGone, false
	}
	return errorf("XX000", "internal error: %v", err), true
}

func errorResponse(severity string, e *engine.Error) *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{
		Severity:            severity,
		SeverityUnlocalized: severity,
		Code:                e.Code,
		Message:             e.Message,
		Detail:              e.Detail,
		Hint:                e.Hint,
		Position:            int32(e.Position),
	}
}

func noticeResponse(n engine.Notice) *pgproto3.NoticeResponse {
	return &pgproto3.NoticeResponse{
		Severity:            n.Severity,
		SeverityUnlocalized: n.Severity,
		Code:                n.Code,
		Message:             n.Message,
	}
}
