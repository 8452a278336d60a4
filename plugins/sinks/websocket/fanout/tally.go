//go:build linux

package main

import (
	"bytes"
	"fmt"
	"slices"
)

// A tally follows what many clients have received. It looks only at where frames
// begin and what timestamps they say.
type tally struct {
	conns   []*client // some may be nil
	n       int
	open    int    // have had their first message
	goal    uint64 // a timestamp
	reached int    // how many clients are there

	bytes  int64
	frames int64         // with text in them
	tap    *bytes.Buffer // gets all bytes; nil: nobody
}

// client is one of them.
type client struct {
	request []byte // still to be sent
	upgrade bool   // the answer to it is still to come
	begun   bool   // a message has come
	time    uint64 // of the last complete message
	next    uint64 // of the one that is coming
	rest    int    // bytes of its frame to come
	last    bool   // it is the last frame of the message
	head    []byte // the beginning of a frame or an answer, too little to understand
}

// aim sets the timestamp that the clients are to reach.
func (t *tally) aim(goal uint64) {
	t.goal, t.reached = goal, 0
	for _, c := range t.conns {
		if c != nil && c.time >= goal {
			t.reached++
		}
	}
}

// atGoal reports whether all have reached it.
func (t *tally) atGoal() bool { return t.reached == t.n }

// late says what is missing when err has ended the waiting.
func (t *tally) late(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%d of %d clients are at %d: %w", t.reached, t.n, t.goal, err)
}

func (t *tally) counted() (bytes, frames int64) { return t.bytes, t.frames }

// receive takes bytes that have come for a client.
func (t *tally) receive(c *client, p []byte) error {
	t.bytes += int64(len(p))
	if t.tap != nil {
		t.tap.Write(p)
	}
	if len(c.head) > 0 {
		p = append(c.head, p...)
		c.head = nil
	}
	if c.upgrade {
		answer, frames, complete := bytes.Cut(p, []byte("\r\n\r\n"))
		if !complete {
			c.head = slices.Clone(p)
			return nil
		}
		if !bytes.HasPrefix(answer, []byte("HTTP/1.1 101 ")) {
			return fmt.Errorf("the answer is %.300q", p)
		}
		c.upgrade, p = false, frames
	}
	for len(p) > 0 {
		if c.rest == 0 {
			h, ok := parseFrame(p)
			if !ok {
				c.head = slices.Clone(p)
				return nil
			}
			c.rest, c.last = h.size, h.final
			if h.text {
				t.frames++
			}
			if h.time != 0 {
				c.next = h.time
			}
		}
		n := min(c.rest, len(p))
		p = p[n:]
		if c.rest -= n; c.rest == 0 && c.last {
			t.arrived(c)
		}
	}
	return nil
}

// arrived notes that a client has a whole message.
func (t *tally) arrived(c *client) {
	if !c.begun && c.next != 0 {
		c.begun = true
		t.open++
	}
	if c.time < t.goal && c.next >= t.goal {
		t.reached++
	}
	c.time = c.next
}
