package exec

import "io"

// Lines reads all lines of r, and what is left, with every batch copied.
func Lines(r io.Reader, max int) (all []string, skipped uint64) {
	in := newLines(r, max)
	for {
		batch, err := in.next()
		for _, line := range batch {
			all = append(all, string(line))
		}
		if err != nil {
			if rest := in.rest(); len(rest) > 0 {
				all = append(all, string(rest))
			}
			return all, in.takeSkipped()
		}
	}
}

// At returns what a pointer points at in a document.
func At(path, doc string) (string, error) {
	p, err := parsePointer(path)
	if err != nil {
		return "", err
	}
	v, err := parse([]byte(doc))
	if err != nil {
		return "", err
	}
	return p.in(v), nil
}
