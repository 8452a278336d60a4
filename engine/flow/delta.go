package flow

// Update is a change of a Z-set: the row comes Diff more times, or fewer if Diff is negative.
type Update struct {
	Row  Row
	Diff int64
}

// ErrorUpdate is a change of the Z-set of errors beside a collection.
type ErrorUpdate struct {
	Message string
	Diff    int64
}

// Delta is the change of a collection in one step: of its rows, and of the errors that computing it met. It is immutable once
// it has been returned, but an operator may reuse the slices (not the rows) in its next step.
type Delta struct {
	Rows   []Update
	Errors []ErrorUpdate
}

// Empty tells whether nothing changed.
func (d Delta) Empty() bool { return len(d.Rows) == 0 && len(d.Errors) == 0 }

// Append adds the changes of another delta.
func (d *Delta) Append(o Delta) {
	d.Rows = append(d.Rows, o.Rows...)
	d.Errors = append(d.Errors, o.Errors...)
}

func (d *Delta) add(r Row, diff int64) { d.Rows = append(d.Rows, Update{r, diff}) }

func (d *Delta) fail(message string, diff int64) {
	d.Errors = append(d.Errors, ErrorUpdate{message, diff})
}

func (d *Delta) reset() { d.Rows, d.Errors = d.Rows[:0], d.Errors[:0] }

// Keyed is an update with the key of its row.
type Keyed struct {
	Key string
	Update
}

// Consolidator sums the updates of equal rows. It belongs to one goroutine; its memory is reused.
type Consolidator struct {
	index map[string]int
	buf   []byte
}

// Rows returns the net changes, each row once and none with a count of zero, in the order of first appearance.
func (c *Consolidator) Rows(updates []Update) []Keyed {
	if len(updates) == 0 {
		return nil
	}
	out := make([]Keyed, 0, len(updates))
	if len(updates) == 1 {
		c.buf = updates[0].Row.AppendKey(c.buf[:0])
		return append(out, Keyed{string(c.buf), updates[0]})
	}
	if c.index == nil {
		c.index = make(map[string]int)
	}
	zeros := 0
	for _, u := range updates {
		c.buf = u.Row.AppendKey(c.buf[:0])
		i, ok := c.index[string(c.buf)]
		if !ok {
			key := string(c.buf)
			c.index[key] = len(out)
			out = append(out, Keyed{key, u})
			continue
		}
		if out[i].Diff == 0 {
			zeros--
		}
		if out[i].Diff += u.Diff; out[i].Diff == 0 {
			zeros++
		}
	}
	if len(c.index) > 1<<16 {
		c.index = nil
	} else {
		clear(c.index)
	}
	if zeros == 0 {
		return out
	}
	kept := out[:0]
	for _, k := range out {
		if k.Diff != 0 {
			kept = append(kept, k)
		}
	}
	return kept
}
