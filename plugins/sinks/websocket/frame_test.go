package websocket_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// FuzzFrames checks that what is made of frames does not depend on the pieces
// in which they come.
func FuzzFrames(f *testing.F) {
	for _, tt := range strangeFrames {
		f.Add([]byte(tt.send), false, uint64(1))
	}
	f.Add([]byte(frame(textFrame|0x40, "x")), true, uint64(2))
	f.Fuzz(func(t *testing.T, data []byte, compressed bool, seed uint64) {
		bytewise := websocket.HearFrames(slices.Collect(slices.Chunk(data, 1)), compressed)
		rng := rand.New(rand.NewPCG(seed, 0))
		var pieces [][]byte
		for rest := data; len(rest) > 0; {
			n := 1 + rng.IntN(len(rest))
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		for _, pieces := range [][][]byte{{data}, pieces} {
			got := websocket.HearFrames(pieces, compressed)
			if got.Code != bytewise.Code {
				t.Errorf("code %d, byte by byte %d", got.Code, bytewise.Code)
			}
			// Of the pings in one piece only the last is answered.
			last := func(pings []string) string {
				if len(pings) == 0 {
					return ""
				}
				return "ping " + pings[len(pings)-1]
			}
			if last(got.Pings) != last(bytewise.Pings) {
				t.Errorf("pings %q, byte by byte %q", got.Pings, bytewise.Pings)
			}
		}
		switch bytewise.Code {
		case 0, 1002, 1005, 1007, 1009:
		default:
			if code := uint16(bytewise.Code); !bytes.Contains(unmasked(data), []byte{byte(code >> 8), byte(code)}) {
				t.Errorf("code %d, which the client has not sent", code)
			}
		}
	})
}

// unmasked returns what the data may say if it begins with a close frame; the
// fuzzer hardly finds others that do not end before.
func unmasked(data []byte) []byte {
	var all []byte
	for at := range data {
		if len(data)-at < 8 || data[at] != 0x88 {
			continue
		}
		mask, payload := data[at+2:at+6], data[at+6:]
		all = append(all, payload[0]^mask[0], payload[1]^mask[1], 0)
	}
	return all
}

// The rest of a message that is too long comes after its end was decided. It would
// close the connection before the client has heard why.
func TestFramesAfterTheEnd(t *testing.T) {
	for _, tt := range strangeFrames {
		if websocket.EndsAgain([]byte(tt.send), make([]byte, 4096)) {
			t.Errorf("%s: closed twice", tt.name)
		}
	}
}
