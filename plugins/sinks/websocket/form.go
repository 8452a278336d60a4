package websocket

import (
	"encoding/binary"
	"strconv"
)

// A transport is how the messages of a stream travel.
type transport uint8

const (
	overWebsocket transport = iota
	overSSE
	overNDJSON
)

// String returns the label of the metric.
func (t transport) String() string { return [...]string{"websocket", "sse", "ndjson"}[t] }

// A form is everything that the bytes on the wire depend on beside the message.
// Streams of one form at one position share them.
type form struct {
	encoding
	transport transport
	chunked   bool // HTTP/1.1 bodies, which have no length
	deflate   bool // permessage-deflate was agreed on
}

// The first bytes of the frames that a server sends (RFC 6455, 5.2), which it
// does not mask.
const (
	frameFin      = 0x80
	frameDeflated = 0x40 // RSV1 (RFC 7692, 6)
	frameContinue = 0x0
	frameText     = 0x1
	frameClose    = 0x8
	framePing     = 0x9
	framePong     = 0xa
)

// frame appends a message, or a piece of one, as it goes on the wire. A piece
// that does not begin a message continues the one before it.
func (f form) frame(dst []byte, m message, begins bool) []byte {
	switch f.transport {
	case overWebsocket:
		return f.websocketFrame(dst, m, begins)
	case overSSE:
		var before []byte
		if begins {
			if m.token != "" {
				before = append(append(append(before, "id: "...), m.token...), '\n')
			}
			if m.retry > 0 {
				before = append(strconv.AppendInt(append(before, "retry: "...), m.retry.Milliseconds(), 10), '\n')
			}
			before = append(before, "data: "...)
		}
		return f.chunk(dst, before, m.data, ending(m, "\n\n"))
	default:
		return f.chunk(dst, nil, m.data, ending(m, "\n"))
	}
}

// ending returns what comes after the bytes of a message if they are its last.
func ending(m message, after string) string {
	if m.unfinished {
		return ""
	}
	return after
}

func (f form) websocketFrame(dst []byte, m message, begins bool) []byte {
	first, data := byte(frameContinue), m.data
	if begins {
		first = frameText
		if f.deflate && !m.unfinished && len(data) >= deflateFrom {
			first |= frameDeflated
			data = deflate(data)
		}
	}
	if !m.unfinished {
		first |= frameFin
	}
	return append(appendFrameHeader(dst, first, len(data)), data...)
}

func appendFrameHeader(dst []byte, first byte, length int) []byte {
	switch {
	case length <= maxControlPayload:
		return append(dst, first, byte(length))
	case length < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, first, 126), uint16(length))
	default:
		return binary.BigEndian.AppendUint64(append(dst, first, 127), uint64(length))
	}
}

// chunk appends a piece of the body of a response, as a chunk (RFC 9112, 7.1) if
// it has those.
func (f form) chunk(dst, before, data []byte, after string) []byte {
	if f.chunked {
		dst = strconv.AppendInt(dst, int64(len(before)+len(data)+len(after)), 16)
		dst = append(dst, "\r\n"...)
	}
	dst = append(append(append(dst, before...), data...), after...)
	if f.chunked {
		dst = append(dst, "\r\n"...)
	}
	return dst
}

// idle returns something that is no message, so that whoever is in between
// keeps the connection open; nil if the transport has no such thing.
func (f form) idle() []byte {
	switch f.transport {
	case overWebsocket:
		return controlFrame(framePing, nil)
	case overSSE:
		return f.chunk(nil, nil, []byte(":\n\n"), "")
	default:
		return nil
	}
}

// goodbye returns what ends a stream.
func (f form) goodbye(code closeCode, reason string) []byte {
	switch {
	case f.transport == overWebsocket && code == codeNone:
		return controlFrame(frameClose, nil)
	case f.transport == overWebsocket:
		payload := binary.BigEndian.AppendUint16(nil, uint16(code))
		return controlFrame(frameClose, append(payload, reason...))
	case f.chunked:
		return []byte("0\r\n\r\n")
	default:
		return nil
	}
}

func controlFrame(opcode byte, payload []byte) []byte {
	return append(appendFrameHeader(nil, frameFin|opcode, len(payload)), payload...)
}
