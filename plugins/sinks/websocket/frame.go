package websocket

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// A closeCode is why a websocket ended (RFC 6455, 7.4). The other transports
// have no codes on the wire; they are counted under the same ones.
type closeCode uint16

const (
	codeProtocol   closeCode = 1002 // a frame that is not allowed
	codeNone       closeCode = 1005 // counted: a close without a code
	codeGone       closeCode = 1006 // counted: no close at all
	codeNotUTF8    closeCode = 1007
	codeRefused    closeCode = 1008
	codeTooBig     closeCode = 1009
	codeInternal   closeCode = 1011
	codeRestart    closeCode = 1012
	codeBusy       closeCode = 1013
	codeStalled    closeCode = 4000 // counted; the peer, who reads nothing, is not told
	maxSentMessage           = 4 << 10
)

// maxControlPayload is the size of what a control frame may carry.
const maxControlPayload = 125

// A frameParser follows the frames of a client through pieces of any size. What
// the client says means nothing, so that it keeps none of it but the payload of
// a control frame that is not complete.
type frameParser struct {
	header   [14]byte // of the frame, as far as it has come
	have     uint8    // bytes of it
	masked   uint8    // the place in the mask of the next byte of the payload
	carried  uint8    // bytes of a character that goes on in the next piece
	carry    [3]byte
	over     bool  // there was an end: nothing that follows means anything
	deflated bool  // the message is compressed
	message  uint8 // the opcode of the message, 0 between messages
	left     int16 // bytes of the payload to come
	size     int16 // bytes of the message so far
	control  []byte
}

// heard is what a client has said that needs an answer.
type heard struct {
	ping []byte // the payload of the last ping; not nil if there was one
	end  *ended // the client has closed, or has to be closed
}

// An ended stream: the code, and what a websocket is told.
type ended struct {
	code    closeCode
	reason  string
	problem *apiError // said before, as a message; nil: nothing
}

func wrong(code closeCode, reason string) *ended { return &ended{code: code, reason: reason} }

// parse takes the next bytes of the client, which it may change. compressed says
// whether permessage-deflate was agreed on. What comes after an end is ignored: the
// rest of a message that is too long must not keep the client from hearing so.
func (f *frameParser) parse(p []byte, compressed bool) (h heard) {
	if f.over {
		return h
	}
	defer func() { f.over = h.end != nil }()
	for h.end == nil {
		rest, whole := f.readHeader(p)
		if p = rest; !whole {
			return h
		}
		if f.left < 0 { // the header has just become complete
			if h.end = f.begin(compressed); h.end != nil {
				return h
			}
		}
		n := min(len(p), int(f.left))
		f.unmask(p[:n])
		if h.end = f.payload(p[:n]); h.end != nil {
			return h
		}
		p, f.left = p[n:], f.left-int16(n)
		if f.left > 0 {
			return h
		}
		f.finish(&h)
		f.have = 0
		if len(p) == 0 {
			return h
		}
	}
	return h
}

// headerLength returns how many bytes the header has, as far as its first two
// tell.
func (f *frameParser) headerLength() int {
	if f.have < 2 {
		return 2
	}
	n := 2
	switch f.header[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if f.header[1]&0x80 != 0 {
		n += 4
	}
	return n
}

// readHeader takes bytes of the header, and reports whether it is whole. When it
// becomes so, left is negative.
func (f *frameParser) readHeader(p []byte) (rest []byte, whole bool) {
	for int(f.have) < f.headerLength() {
		if len(p) == 0 {
			return nil, false
		}
		n := copy(f.header[f.have:f.headerLength()], p)
		f.have += uint8(n)
		f.left = -1
		p = p[n:]
	}
	return p, true
}

func (f *frameParser) opcode() byte    { return f.header[0] & 0xf }
func (f *frameParser) fin() bool       { return f.header[0]&frameFin != 0 }
func (f *frameParser) isControl() bool { return f.opcode() >= 8 }

// begin looks at a header that is complete.
func (f *frameParser) begin(compressed bool) *ended {
	if f.header[1]&0x80 == 0 {
		return wrong(codeProtocol, "a frame that is not masked")
	}
	length, mask := uint64(f.header[1]&0x7f), 2
	switch length {
	case 126:
		length, mask = uint64(binary.BigEndian.Uint16(f.header[2:])), 4
	case 127:
		length, mask = binary.BigEndian.Uint64(f.header[2:]), 10
	}
	copy(f.header[2:], f.header[mask:mask+4]) // where unmask looks
	f.masked = 0
	if end := f.checkKind(compressed); end != nil {
		return end
	}
	switch {
	case mask == 4 && length < 126 || mask == 10 && length < 1<<16 || length >= 1<<63:
		return wrong(codeProtocol, "a length that is not written as it has to be")
	case f.isControl() && length > maxControlPayload:
		return wrong(codeProtocol, "a control frame over 125 bytes")
	case !f.isControl() && length > uint64(maxSentMessage-f.size):
		return wrong(codeTooBig, "messages of clients may have 4096 bytes")
	}
	f.left = int16(length)
	if !f.isControl() {
		f.size += f.left
	}
	return nil
}

// checkKind checks what kind of frame may come where.
func (f *frameParser) checkKind(compressed bool) *ended {
	reserved := f.header[0] & 0x70
	if f.opcode() == frameText || f.opcode() == frameText+1 {
		f.deflated = compressed && reserved == frameDeflated
		if f.deflated {
			reserved = 0
		}
	}
	switch {
	case reserved != 0:
		return wrong(codeProtocol, "a reserved bit is set")
	case f.isControl() && f.opcode() > framePong || !f.isControl() && f.opcode() > 2:
		return wrong(codeProtocol, "a reserved opcode")
	case f.isControl() && !f.fin():
		return wrong(codeProtocol, "a control frame in fragments")
	case f.isControl():
	case f.opcode() == frameContinue && f.message == 0:
		return wrong(codeProtocol, "a continuation of nothing")
	case f.opcode() != frameContinue && f.message != 0:
		return wrong(codeProtocol, "a message within a message")
	case f.opcode() != frameContinue:
		f.message, f.size, f.carried = f.opcode(), 0, 0
	}
	return nil
}

func (f *frameParser) unmask(p []byte) {
	mask := f.header[2:6]
	for i := range p {
		p[i] ^= mask[(int(f.masked)+i)&3]
	}
	f.masked = uint8(int(f.masked)+len(p)) & 3
}

// payload takes bytes of the payload.
func (f *frameParser) payload(p []byte) *ended {
	if f.isControl() {
		f.control = append(f.control, p...)
		return nil
	}
	if f.message != frameText || f.deflated {
		return nil
	}
	last := f.fin() && len(p) == int(f.left)
	if !f.text(p) || last && f.carried > 0 {
		return wrong(codeNotUTF8, "text that is not UTF-8")
	}
	return nil
}

// text reports whether the bytes go on as UTF-8.
func (f *frameParser) text(p []byte) bool {
	for f.carried > 0 && len(p) > 0 {
		var r [4]byte
		n := copy(r[:], f.carry[:f.carried])
		r[n] = p[0]
		p = p[1:]
		if !utf8.FullRune(r[:n+1]) {
			f.carry[n] = r[n]
			f.carried++
			continue
		}
		if !utf8.Valid(r[:n+1]) {
			return false
		}
		f.carried = 0
	}
	for from := max(0, len(p)-utf8.UTFMax+1); from < len(p); from++ {
		if utf8.RuneStart(p[from]) && !utf8.FullRune(p[from:]) {
			f.carried = uint8(copy(f.carry[:], p[from:]))
			p = p[:from]
		}
	}
	return utf8.Valid(p)
}

// finish looks at a frame that is complete.
func (f *frameParser) finish(h *heard) {
	control := f.control
	switch {
	case !f.isControl():
		if f.fin() {
			f.message, f.size = 0, 0
		}
		return
	case f.opcode() == framePing:
		h.ping = append([]byte{}, control...)
	case f.opcode() == frameClose:
		h.end = closedWith(control)
	}
	f.control = nil
}

// closedWith returns how to answer the payload of a close frame.
func closedWith(payload []byte) *ended {
	if len(payload) == 0 {
		return &ended{code: codeNone}
	}
	if len(payload) == 1 {
		return wrong(codeProtocol, "half a close code")
	}
	code := closeCode(binary.BigEndian.Uint16(payload))
	switch {
	case code < 1000, code == 1004, code == codeNone, code == codeGone, code > 1014 && code < 3000, code > 4999:
		return wrong(codeProtocol, "a close code that may not be sent")
	case !utf8.Valid(bytes.Clone(payload[2:])):
		return wrong(codeNotUTF8, "a reason that is not UTF-8")
	}
	return &ended{code: code}
}
