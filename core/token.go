package core

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
)

// Token is a position in the log of one view: everything below Time has been
// seen, in the history that Generation names. The zero Token is the position
// before everything; a batch whose Lower is zero is a base.
//
// Tokens travel: they are in every message to a browser, in SSE ids, in ETags
// and in the positions of sinks, and they come back from strangers. A log
// answers a token with a delta only when it knows the generation and still has
// the time; in every other case the answer is a base. So a token that is stale,
// of another view, from the future or made up costs some bytes and never gives
// a wrong state.
//
// Tokens are comparable.
type Token struct {
	Time       Time
	Generation Generation
}

// Generation names one uninterrupted history of one log. It is random, so that
// no two histories anywhere share one. Each opening of a log begins a new one,
// and so does whatever makes old positions meaningless: another upstream,
// changed columns, times that went backwards.
type Generation string

// generationBytes is the size of a generation before encoding: 50 bits would
// do (a log sees thousands of generations, not billions); 80 bits encode
// without padding.
const generationBytes = 10

var generationEncoding = base32.NewEncoding("abcdefghijkmnpqrstuvwxyz23456789").WithPadding(base32.NoPadding)

// NewGeneration returns a new random generation, 16 characters of a to z and 2
// to 9.
func NewGeneration() Generation {
	var b [generationBytes]byte
	rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return Generation(generationEncoding.EncodeToString(b[:]))
}

// IsZero reports whether k is the position before everything.
func (k Token) IsZero() bool { return k == Token{} }

// String returns the token as clients see it, "1721310001000-k3f9"; for the
// zero Token the empty string.
func (k Token) String() string {
	if k.IsZero() {
		return ""
	}
	return k.Time.String() + "-" + string(k.Generation)
}

// ErrToken is wrapped by the errors of [ParseToken].
var ErrToken = errors.New(`not a token ("timestamp-generation", as in "1721310001000-k3f9")`)

// maxTokenBytes bounds what is looked at of a token that a stranger sends.
const maxTokenBytes = 128

// ParseToken reads what [Token.String] writes. The empty string is the zero
// Token. The error wraps [ErrToken] and quotes the input, shortened.
func ParseToken(s string) (Token, error) {
	if s == "" {
		return Token{}, nil
	}
	digits, gen, found := strings.Cut(s, "-")
	t, err := ParseTime(digits)
	if len(s) > maxTokenBytes || !found || err != nil || !isGeneration(gen) {
		return Token{}, fmt.Errorf("%.40q: %w", s, ErrToken)
	}
	return Token{Time: t, Generation: Generation(gen)}, nil
}

func isGeneration(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}
