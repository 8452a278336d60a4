package websocket

import (
	"bytes"
	"compress/flate"
	"net/http"
	"strings"
	"sync"
)

// deflateFrom is the size below which a message is not worth compressing.
const deflateFrom = 256

// deflaters are writers, which are large, for whoever needs one.
var deflaters = sync.Pool{New: func() any {
	w, err := flate.NewWriter(nil, flate.DefaultCompression)
	if err != nil {
		panic(err) // the level is known to be valid
	}
	return w
}}

// deflate compresses a message for permessage-deflate (RFC 7692, 7.2.1). Each
// message is compressed alone, so that all clients can share the result: one that
// has just come can read it as well as one that has seen the messages before it.
func deflate(data []byte) []byte {
	w := deflaters.Get().(*flate.Writer)
	defer deflaters.Put(w)
	var out bytes.Buffer
	w.Reset(&out)
	w.Write(data) // a buffer takes everything
	w.Flush()
	return bytes.TrimSuffix(out.Bytes(), []byte{0, 0, 0xff, 0xff})
}

// acceptDeflate returns how the server answers the extensions that a client
// offers, and whether messages may be compressed. What the client compresses is
// never decompressed, so that it may do as it likes; but an offer that limits the
// server's window is declined, as package flate has one size only.
func acceptDeflate(h http.Header) (answer string, ok bool) {
	for _, line := range h.Values("Sec-Websocket-Extensions") {
		for offer := range strings.SplitSeq(line, ",") {
			if answer, ok := acceptOffer(offer); ok {
				return answer, true
			}
		}
	}
	return "", false
}

func acceptOffer(offer string) (answer string, ok bool) {
	name, parameters, _ := strings.Cut(offer, ";")
	if !strings.EqualFold(strings.TrimSpace(name), "permessage-deflate") {
		return "", false
	}
	answer = "permessage-deflate; server_no_context_takeover"
	seen := make(map[string]bool)
	for parameter := range strings.SplitSeq(parameters, ";") {
		key, value, hasValue := strings.Cut(strings.TrimSpace(parameter), "=")
		key, value = strings.ToLower(strings.TrimSpace(key)), strings.Trim(strings.TrimSpace(value), `"`)
		switch {
		case key == "" && !hasValue:
			continue
		case seen[key]:
			return "", false
		case key == "server_no_context_takeover" && !hasValue:
		case key == "client_no_context_takeover" && !hasValue:
		case key == "client_max_window_bits" && (!hasValue || isWindow(value)):
		case key == "server_max_window_bits" && value == "15":
			answer += "; server_max_window_bits=15"
		default:
			return "", false
		}
		seen[key] = true
	}
	return answer, true
}

// isWindow reports whether a text is a size of a window: 8 to 15.
func isWindow(s string) bool {
	return s == "8" || s == "9" || len(s) == 2 && s[0] == '1' && s[1] >= '0' && s[1] <= '5'
}
