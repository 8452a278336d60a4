package websocket

import (
	"fmt"
	"strings"

	"github.com/mzdio/mzd/core"
)

// A position is where a stream of one or more views stands: a token for each
// view, in the order in which the views were asked for, all at one time. nil is
// the position before everything. Nothing else is kept for a reader.
type position []core.Token

// maxPositionBytes bounds what is looked at of a position that a stranger
// sends: a timestamp and the generations of as many views as a stream may have.
const maxPositionBytes = 20 + maxViewsPerStream*32

// upperOf returns the position that a cut leads to.
func upperOf(cut []core.Batch) position {
	p := make(position, len(cut))
	for i, b := range cut {
		p[i] = b.Upper
	}
	return p
}

// lowerOf returns the position that a cut continues from; nil if it is a base.
func lowerOf(cut []core.Batch) position {
	p := make(position, len(cut))
	for i, b := range cut {
		if b.IsBase() {
			return nil
		}
		p[i] = b.Lower
	}
	return p
}

// String returns the position as clients see it: for one view its token,
// "1721310001000-k3f9", for several "1721310001000-k3f9.x2ab", the timestamp
// they share and their generations in order.
func (p position) String() string {
	if len(p) == 0 {
		return ""
	}
	var s strings.Builder
	s.WriteString(p[0].String())
	for _, t := range p[1:] {
		s.WriteByte('.')
		s.WriteString(string(t.Generation))
	}
	return s.String()
}

// parsePosition reads what [position.String] writes, for a stream of the given
// number of views. A position that is well formed but names another number of
// views is not of this stream: like every stale position it becomes nil, from
// where a stream starts with a base. The error wraps [core.ErrToken].
func parsePosition(s string, views int) (position, error) {
	if s == "" {
		return nil, nil
	}
	if len(s) > maxPositionBytes {
		return nil, fmt.Errorf("%.40q: %w", s, core.ErrToken)
	}
	timestamp, generations, _ := strings.Cut(s, "-")
	var p position
	for generation := range strings.SplitSeq(generations, ".") {
		t, err := core.ParseToken(timestamp + "-" + generation)
		if err != nil {
			return nil, fmt.Errorf("%.40q: %w", s, core.ErrToken)
		}
		p = append(p, t)
	}
	if len(p) != views {
		return nil, nil
	}
	return p, nil
}
