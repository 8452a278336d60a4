package core

import (
	"iter"
	"math/bits"
)

// Hash returns the hash of the row that checksums of views add up: 64 bits, of
// which the lower half is the XXH32 of the row's bytes with seed 0 and the upper
// half the one with seed 1.
//
// Whoever holds the rows of a view can verify it, so the hash is chosen for the
// poorest of them. A browser multiplies 32-bit numbers natively and nothing
// larger, which is all that XXH32 takes; one of 32 bits would let one wrong
// state in four thousand million pass, so there are two. They are added up,
// which is only as good as the hash mixes: with a weak one, as CRC or FNV, rows
// that are alike have hashes that differ alike, and two wrong rows cancel out.
func (r Row) Hash() uint64 {
	a, b := xxh32(string(r))
	return uint64(a) | uint64(b)<<32
}

// Checksum returns the sum of diff times hash over updates, modulo 2^64. That of
// all updates below a time is the checksum of the view at that time, and so
// checksums add up as batches do. It proves nothing against somebody who makes
// rows up to deceive it.
func Checksum(updates iter.Seq[Update]) uint64 {
	var sum uint64
	for u := range updates {
		sum += u.checksum()
	}
	return sum
}

// ChecksumOf is [Checksum] of a slice.
func ChecksumOf(updates []Update) uint64 {
	var sum uint64
	for i := range updates {
		sum += updates[i].checksum()
	}
	return sum
}

func (u *Update) checksum() uint64 { return uint64(u.Diff) * u.Row.Hash() }

// The primes of XXH32.
const (
	xxh1 uint32 = 2654435761
	xxh2 uint32 = 2246822519
	xxh3 uint32 = 3266489917
	xxh4 uint32 = 668265263
	xxh5 uint32 = 374761393
)

// xxh32 returns the XXH32 of s with the seeds 0 and 1
// (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md). Both take
// the same steps over the same bytes, so that one pass costs little more than
// either alone.
func xxh32(s string) (a, b uint32) {
	n := uint32(len(s)) // the length that is hashed is modulo 2^32
	a, b = xxh5, xxh5+1
	if len(s) >= 16 {
		a, b, s = stripes(s)
	}
	a, b = a+n, b+n
	for ; len(s) >= 4; s = s[4:] {
		w := word(s) * xxh3
		a = bits.RotateLeft32(a+w, 17) * xxh4
		b = bits.RotateLeft32(b+w, 17) * xxh4
	}
	for i := range len(s) {
		w := uint32(s[i]) * xxh5
		a = bits.RotateLeft32(a+w, 11) * xxh1
		b = bits.RotateLeft32(b+w, 11) * xxh1
	}
	return avalanche(a), avalanche(b)
}

// stripes takes 16 bytes at a time and returns what is left.
func stripes(s string) (a, b uint32, rest string) {
	a1, a2, a3, a4 := lanes(0)
	b1, b2, b3, b4 := lanes(1)
	for ; len(s) >= 16; s = s[16:] {
		w1, w2, w3, w4 := word(s)*xxh2, word(s[4:])*xxh2, word(s[8:])*xxh2, word(s[12:])*xxh2
		a1, b1 = bits.RotateLeft32(a1+w1, 13)*xxh1, bits.RotateLeft32(b1+w1, 13)*xxh1
		a2, b2 = bits.RotateLeft32(a2+w2, 13)*xxh1, bits.RotateLeft32(b2+w2, 13)*xxh1
		a3, b3 = bits.RotateLeft32(a3+w3, 13)*xxh1, bits.RotateLeft32(b3+w3, 13)*xxh1
		a4, b4 = bits.RotateLeft32(a4+w4, 13)*xxh1, bits.RotateLeft32(b4+w4, 13)*xxh1
	}
	return join(a1, a2, a3, a4), join(b1, b2, b3, b4), s
}

// lanes returns where the lanes of a seed begin. The sums overflow.
func lanes(seed uint32) (h1, h2, h3, h4 uint32) {
	return seed + xxh1 + xxh2, seed + xxh2, seed, seed - xxh1
}

func join(h1, h2, h3, h4 uint32) uint32 {
	return bits.RotateLeft32(h1, 1) + bits.RotateLeft32(h2, 7) + bits.RotateLeft32(h3, 12) + bits.RotateLeft32(h4, 18)
}

func avalanche(h uint32) uint32 {
	h = (h ^ h>>15) * xxh2
	h = (h ^ h>>13) * xxh3
	return h ^ h>>16
}

// word returns the first four bytes of s, little endian.
func word(s string) uint32 {
	_ = s[3]
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}
