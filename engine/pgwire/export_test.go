package pgwire

// Session is what a connection needs of the engine.
type Session = session

// NewFor returns a server of sessions made by open.
func NewFor(open func() Session, o Options) *Server { return newServer(open, o) }

// EscapeCopy escapes a value for COPY's text format.
func EscapeCopy(s string) string { return string(escapeCopy([]byte("x"+s), 1)[1:]) }

// Connections returns the number of established connections.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}
