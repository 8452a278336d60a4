package stdout

import "io"

// InColour returns a sink that takes w for a terminal.
func InColour(w io.Writer) *Sink {
	s := To(w, Settings{Format: "text"})
	s.format = text{colour: true}.append
	return s
}
