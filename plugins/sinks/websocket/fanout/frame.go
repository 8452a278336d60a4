//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"strconv"
)

// A frameHead is what the clients look at of a frame.
type frameHead struct {
	size    int  // of the whole frame,
	payload int  // and of what is in it
	final   bool // of its message
	text    bool
	time    uint64 // the timestamp of the message; 0: this frame does not say
}

// headBytes is within how many bytes a message says its timestamp.
const headBytes = 256

// parseFrame reads the head of the frame that p begins with. It reports whether
// enough of it is there.
func parseFrame(p []byte) (h frameHead, ok bool) {
	if len(p) < 2 {
		return h, false
	}
	head, size := 2, int(p[1]&0x7f)
	switch size {
	case 126:
		if head = 4; len(p) < head {
			return h, false
		}
		size = int(binary.BigEndian.Uint16(p[2:]))
	case 127:
		if head = 10; len(p) < head {
			return h, false
		}
		size = int(binary.BigEndian.Uint64(p[2:]))
	}
	want := head + min(size, headBytes)
	if len(p) < want {
		return h, false
	}
	h = frameHead{size: head + size, payload: size, final: p[0]&0x80 != 0, text: p[0]&0xf <= 1}
	if p[0]&0xf == 1 {
		h.time, _, _ = timestampIn(p[:want])
	}
	return h, true
}

// timestampIn finds the timestamp of a message: the number and its digits.
func timestampIn(p []byte) (t uint64, digits []byte, ok bool) {
	_, rest, ok := bytes.Cut(p, []byte(`"timestamp":"`))
	end := bytes.IndexByte(rest, '"')
	if !ok || end < 0 {
		return 0, nil, false
	}
	digits = rest[:end:end]
	t, err := strconv.ParseUint(string(digits), 10, 64)
	return t, digits, err == nil
}
