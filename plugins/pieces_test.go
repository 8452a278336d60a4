package plugins_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	mzdv1 "github.com/mzdio/mzd/plugins/proto/mzd/v1"
)

// send sends a cut as bytes, and returns what comes out, and the pieces.
func send(t *testing.T, a *plugins.Assembler, cut []core.Batch) ([]core.Batch, []*mzdv1.Piece) {
	t.Helper()
	var views []*core.View
	for _, b := range cut {
		views = append(views, b.View)
	}
	if err := a.Describe(plugins.ToViews(views)); err != nil {
		t.Fatal(err)
	}
	var sent []*mzdv1.Piece
	var got []core.Batch
	for p := range plugins.Pieces(cut) {
		if got != nil {
			t.Fatal("a piece follows the last one")
		}
		data, err := proto.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > plugins.MaxMessageBytes {
			t.Fatalf("a piece of %d bytes", len(data))
		}
		if len(p.Diffs) > 1 && len(p.Rows) > plugins.PieceBytes {
			t.Fatalf("a piece of %d rows and %d bytes", len(p.Diffs), len(p.Rows))
		}
		var received mzdv1.Piece
		if err := proto.Unmarshal(data, &received); err != nil {
			t.Fatal(err)
		}
		sent = append(sent, p)
		if got, err = a.Add(&received); err != nil {
			t.Fatal(err)
		}
		if more := got == nil; more != p.More {
			t.Fatalf("the cut is complete: %v, and the piece says more: %v", !more, p.More)
		}
	}
	return got, sent
}

func equal(t *testing.T, got, want []core.Batch) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d batches, want %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if g.View.Name != w.View.Name || g.Lower != w.Lower || g.Upper != w.Upper || g.Sum != w.Sum || !slices.Equal(g.Updates.Slice(), w.Updates.Slice()) {
			t.Fatalf("got  %.200v\nwant %.200v", g, w)
		}
	}
}

func TestPieces(t *testing.T) {
	const mib = 1 << 20
	for _, sizes := range [][]int{
		{}, {1}, {mib - 1}, {mib}, {mib + 1}, {mib - 1, 1}, {1, mib - 1}, {mib / 2, mib / 2}, {mib/2 - 1, mib / 2},
		{1, mib, 1}, {mib, mib, mib}, {900 << 10, 1100 << 10, 900 << 10}, {31 * mib}, {core.MaxRowBytes, 1, core.MaxRowBytes},
	} {
		t.Run(fmt.Sprint(sizes), func(t *testing.T) {
			var rows []string
			for _, n := range sizes {
				rows = append(rows, strings.Repeat("x", n))
			}
			cut := []core.Batch{base("a", 5), base("b", 5, rows...), delta("c", 3, 5)}
			got, _ := send(t, &plugins.Assembler{}, cut)
			equal(t, got, cut)
		})
	}
	t.Run("many short rows", func(t *testing.T) {
		cut := []core.Batch{base("a", 5, numbers(0, 2e5)...)}
		got, sent := send(t, &plugins.Assembler{}, cut)
		equal(t, got, cut)
		for i, p := range sent {
			if size := proto.Size(p); size > 2*mib {
				t.Errorf("piece %d has %d bytes", i, size)
			}
		}
	})
}

// TestPiecesModel sends random cuts, one after the other.
func TestPiecesModel(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var a plugins.Assembler
		for range 10 {
			upper := core.Time(2 + rnd.Uint64N(math.MaxUint64-2))
			var cut []core.Batch
			for v := range 1 + rnd.IntN(4) {
				b := base(fmt.Sprint("v", v), upper)
				if rnd.IntN(3) > 0 {
					b.Lower = core.Token{Time: core.Time(1 + rnd.Uint64N(uint64(upper)-1)), Generation: "h"}
				}
				b.Sum = rnd.Uint64()
				exact := rnd.IntN(4) == 0
				widest := []int{40, 400, 20 << 10}[rnd.IntN(3)] // of which some fill several pieces
				var updates []core.Update
				for range rnd.IntN(200) {
					u := core.Update{Time: upper - 1, Diff: core.Diff(rnd.Int64N(9) - 4), Row: core.Row(strings.Repeat("r", rnd.IntN(widest)))}
					if exact {
						u.Time = b.Lower.Time + core.Time(rnd.Uint64N(uint64(upper-b.Lower.Time)))
					}
					updates = append(updates, u)
				}
				b.Updates = core.UpdatesOf(updates)
				cut = append(cut, b)
			}
			got, _ := send(t, &a, cut)
			equal(t, got, cut)
		}
	}
}

// TestPiecesRefused gives a plugin what mzd does not send.
func TestPiecesRefused(t *testing.T) {
	two := func() *plugins.Assembler {
		a := &plugins.Assembler{}
		if err := a.Describe(plugins.ToViews([]*core.View{{Name: "a"}, {Name: "b"}})); err != nil {
			t.Fatal(err)
		}
		return a
	}
	piece := func(view uint32, from, to string, more bool, rows string, diffs ...int64) *mzdv1.Piece {
		return &mzdv1.Piece{View: view, From: from, To: to, More: more, Rows: []byte(rows), Diffs: diffs}
	}
	for _, tt := range []struct {
		name   string
		pieces []*mzdv1.Piece
		want   string
	}{
		{"no such view", []*mzdv1.Piece{piece(2, "", "5-g", true, "")}, "a piece of view 2 of 2"},
		{"the second view first", []*mzdv1.Piece{piece(1, "", "5-g", true, "")}, "where one of view 0 follows"},
		{"a view again", []*mzdv1.Piece{piece(0, "", "5-g", true, ""), piece(1, "", "5-g", true, ""), piece(0, "", "5-g", true, "")}, "where one of view 2 follows"},
		{"a view is missing", []*mzdv1.Piece{piece(0, "", "5-g", false, "")}, "a cut of 1 views instead of 2"},
		{"two ends", []*mzdv1.Piece{piece(0, "", "5-g", true, ""), piece(1, "", "6-g", false, "")}, "a cut whose batches end at 5-g and 6-g"},
		{"two ends of a batch", []*mzdv1.Piece{piece(0, "", "5-g", true, ""), piece(0, "", "6-g", true, "")}, `pieces of one batch from "" to "5-g" and from "" to "6-g"`},
		{"no end", []*mzdv1.Piece{piece(0, "", "", true, "")}, `a batch from "" to ""`},
		{"backwards", []*mzdv1.Piece{piece(0, "6-g", "5-g", true, "")}, `a batch from "6-g" to "5-g"`},
		{"at no time", []*mzdv1.Piece{piece(0, "", "0-g", true, "")}, `a batch from "" to "0-g"`},
		{"updates between two histories", []*mzdv1.Piece{piece(0, "5-g", "5-h", true, "[1]", 1)}, "which has no time for them"},
		{"no token", []*mzdv1.Piece{piece(0, "x", "5-g", true, "")}, "not a token"},
		{"too few diffs", []*mzdv1.Piece{piece(0, "", "5-g", true, "[1]\n[2]", 1)}, "a piece of 2 rows, 1 diffs and 0 times"},
		{"too many diffs", []*mzdv1.Piece{piece(0, "", "5-g", true, "[1]", 1, 1)}, "a piece of 1 rows, 2 diffs and 0 times"},
		{"too few times", []*mzdv1.Piece{{To: "5-g", Rows: []byte("a\nb"), Diffs: []int64{1, 1}, Times: []uint64{4}}}, "2 diffs and 1 times"},
		{"a time after the end", []*mzdv1.Piece{{To: "5-g", Rows: []byte("a"), Diffs: []int64{1}, Times: []uint64{5}}}, "an update at 5 in a batch"},
		{"a time before the beginning", []*mzdv1.Piece{{From: "3-g", To: "5-g", Rows: []byte("a"), Diffs: []int64{1}, Times: []uint64{2}}}, "an update at 2 in a batch"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := two()
			var err error
			for _, p := range tt.pieces {
				if err != nil {
					t.Fatalf("too early: %v", err)
				}
				_, err = a.Add(p)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant ...%s...", err, tt.want)
			}
		})
	}
	a := two()
	if _, err := a.Add(piece(0, "", "5-g", true, "")); err != nil {
		t.Fatal(err)
	}
	if err := a.Describe(plugins.ToViews([]*core.View{{Name: "a"}})); err == nil {
		t.Error("views in the middle of a cut")
	}
	if err := a.Describe(&mzdv1.Views{Views: []*mzdv1.View{{Key: []uint32{1}}}}); err == nil {
		t.Error("a key column that there is not")
	}
}

// FuzzPieces gives a plugin any messages at all.
func FuzzPieces(f *testing.F) {
	var seed bytes.Buffer
	for p := range plugins.Pieces([]core.Batch{base("a", 5, "[1]", "[2]"), delta("b", 3, 5, "[3]")}) {
		protodelim.MarshalTo(&seed, p)
	}
	f.Add(seed.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		var a plugins.Assembler
		if err := a.Describe(plugins.ToViews([]*core.View{{Name: "a"}, {Name: "b"}})); err != nil {
			t.Fatal(err)
		}
		in := bytes.NewReader(data)
		for {
			var p mzdv1.Piece
			if protodelim.UnmarshalFrom(in, &p) != nil {
				return
			}
			cut, err := a.Add(&p)
			if err != nil {
				return
			}
			for _, b := range cut {
				for u := range b.Updates.All() {
					if u.Time < b.Lower.Time || u.Time >= b.Upper.Time {
						t.Fatalf("an update at %d in a batch from %s to %s", u.Time, b.Lower, b.Upper)
					}
				}
			}
		}
	})
}
