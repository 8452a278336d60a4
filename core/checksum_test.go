package core_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mzdio/mzd/core"
)

// The vectors are of the reference implementation (xxhsum -H0). Those of a
// number of bytes are over its test data.
func TestHash(t *testing.T) {
	data := testData(222)
	for _, tt := range []struct {
		row          string
		seed0, seed1 uint32
	}{
		{"", 0x02cc5d05, 0x0b2cb792},
		{"a", 0x550d7456, 0xf514706f},
		{"abc", 0x32d153ff, 0xaa3da8ff},
		{"Nobody inspects the spammish repetition", 0xe2293b2f, 0x534469ea},
		{data[:1], 0xcf65b03e, 0x02db596b},
		{data[:4], 0xa9de7ce9, 0xd23687a5},
		{data[:14], 0x1208e7e2, 0x74c839ad},
		{data[:15], 0x6b859e14, 0xc5afa599},
		{data[:16], 0x93ba3759, 0x075b0c92},
		{data[:17], 0x89fdc23e, 0x439e93c5},
		{data[:31], 0x5f40e562, 0xca989f43},
		{data[:32], 0xd89829ec, 0x77486e9b},
		{data[:63], 0xf1d48fdb, 0xd8296436},
		{data, 0x5bd11dbd, 0xc6d6b34d},
	} {
		want := uint64(tt.seed0) | uint64(tt.seed1)<<32
		if got := core.Row(tt.row).Hash(); got != want {
			t.Errorf("%d bytes %.20q: got %016x, want %016x", len(tt.row), tt.row, got, want)
		}
	}
}

// testData is that of the sanity check of xxhsum.
func testData(n int) string {
	var s strings.Builder
	for g := uint64(2654435761); s.Len() < n; g *= 11400714785074694797 {
		s.WriteByte(byte(g >> 56))
	}
	return s.String()
}

// What a hash is wrong for that adds up, but does not mix: exchanging parts of
// rows, or counting up here and down there, leaves its sum as it was.
func TestChecksumTellsStatesApart(t *testing.T) {
	row := func(a, b int) core.Row { return core.Row(fmt.Sprintf(`["user %d",%d]`, a, b)) }
	seen := make(map[uint64]string)
	for a := range 100 {
		for b := range 100 {
			state := []core.Update{{Diff: 1, Row: row(a, b)}, {Diff: 1, Row: row(a+1, 100-b)}}
			sum := core.ChecksumOf(state)
			if other, ok := seen[sum]; ok {
				t.Fatalf("%v and %s have the checksum %016x", state, other, sum)
			}
			seen[sum] = fmt.Sprint(state)
		}
	}
}

func TestChecksumAddsUp(t *testing.T) {
	base := []core.Update{{Diff: 2, Row: `["a"]`}, {Diff: 1, Row: `["b"]`}}
	delta := []core.Update{{Diff: -2, Row: `["a"]`}, {Diff: 1, Row: `["c"]`}}
	want := core.ChecksumOf([]core.Update{{Diff: 1, Row: `["b"]`}, {Diff: 1, Row: `["c"]`}})
	if got := core.ChecksumOf(base) + core.ChecksumOf(delta); got != want {
		t.Errorf("got %016x, want %016x", got, want)
	}
	if got := core.Checksum(slices.Values(base)) + core.Checksum(core.NetUpdates(7, delta).All()); got != want {
		t.Errorf("in pieces: got %016x, want %016x", got, want)
	}
	if got := core.ChecksumOf(nil); got != 0 {
		t.Errorf("of nothing: got %016x, want 0", got)
	}
}

func BenchmarkHash(b *testing.B) {
	for _, n := range []int{12, 30, 100, 1000} {
		row := core.Row(strings.Repeat("x", n))
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(n))
			var sum uint64
			for b.Loop() {
				sum += row.Hash()
			}
			_ = sum
		})
	}
}
