package pgwire

import (
	"context"

	"github.com/jackc/pgx/v5/pgproto3"
)

// copyData is a piece of the data of a COPY FROM STDIN.
type copyData []byte

// copyIn asks the client for the data of a COPY FROM STDIN and hands it to the
// statement of p.
func (c *conn) copyIn(ctx context.Context, p *portal) error {
	in := p.result.CopyIn
	response := &pgproto3.CopyInResponse{ColumnFormatCodes: make([]uint16, in.Columns)}
	if in.Binary {
		response.OverallFormat = 1
		for i := range response.ColumnFormatCodes {
			response.ColumnFormatCodes[i] = pgproto3.BinaryFormat
		}
	}
	c.out.send(response)
	if err := c.out.flush(); err != nil {
		return err
	}
	for {
		msg, err := c.in.take(ctx)
		if err != nil {
			return in.Fail("the client has left, or canceled")
		}
		switch m := msg.(type) {
		case copyData:
			if err := in.Write(m); err != nil {
				return err
			}
		case pgproto3.CopyDone:
			tag, err := in.End(ctx)
			if err != nil {
				return err
			}
			c.out.send(&pgproto3.CommandComplete{CommandTag: []byte(tag)})
			p.close()
			return nil
		case pgproto3.CopyFail:
			return in.Fail(m.Message)
		case pgproto3.Flush, pgproto3.Sync: // sent ahead by drivers that do not know that data is asked for
		default:
			return in.Fail("unexpected message during COPY from stdin")
		}
	}
}
