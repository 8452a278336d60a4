package engine

import "github.com/mzdio/mzd/engine/sql"

func (s *Session) copyFrom(n *sql.CopyFrom) (*Result, error) { return nil, errorf("0A000", "COPY") }
