package engine_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mzdio/mzd/engine"
)

// TestReplay changes tables and a file at random and holds streams of all forms against each other and against SELECTs.
func TestReplay(t *testing.T) {
	for seed := range seeds() {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { replay(t, rand.New(rand.NewPCG(seed, 11))) })
		})
	}
}

// replayed are views on a table of items and a file of names; of total and parts, whatever changes one changes the other.
const replayed = `CREATE TABLE items (id int, owner text, price int);
	CREATE SOURCE names FROM FILE 'in' WITH (tail = true) FORMAT TEXT;
	CREATE MATERIALIZED VIEW owners AS SELECT owner, count(*) AS n, sum(price) AS price FROM items GROUP BY owner;
	CREATE MATERIALIZED VIEW parts AS SELECT text AS owner, count(*) AS n FROM names GROUP BY text;
	CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n FROM (SELECT 1 FROM items UNION ALL SELECT 1 FROM names) AS x;
	CREATE MATERIALIZED VIEW both AS SELECT o.owner, o.n, p.n AS m FROM owners o LEFT JOIN parts p ON o.owner = p.owner;`

// keys of the views that have one.
var keys = map[string]string{"owners": "owner", "parts": "owner", "both": "owner"}

func replay(t *testing.T, rnd *rand.Rand) {
	// With the shortest interval ticks come faster than the milliseconds, at times without gaps.
	interval := []time.Duration{time.Nanosecond, 10 * time.Millisecond}[rnd.IntN(2)]
	w := newWorld(t, engine.Options{TickEvents: 1 + rnd.IntN(20), TickInterval: interval, Shuffle: rnd.Shuffle})
	w.write("in", "a\n")
	w.exec(replayed)
	views := []string{"owners", "parts", "total", "both", "items", "names", "(SELECT owner FROM items EXCEPT ALL SELECT text FROM names)"}
	streams := map[string]*engine.Result{}
	for _, v := range views {
		streams[v] = w.stream("SUBSCRIBE TO " + v + " WITH (PROGRESS)")
	}
	all := map[string][]logged{}
	begin := map[string]int64{}
	var start int64 // from here on all are known
	for _, v := range views {
		begin[v] = read(w, streams[v])[0][0].Int()
		start = max(start, begin[v])
	}
	churn(w, rnd)
	settle()
	upper := int64(0)
	for _, v := range views {
		rows, to := follow(w, streams[v], time.Now().UnixMilli()-500)
		if all[v] = rows; upper == 0 || to < upper {
			upper = to
		}
	}
	same(w, all, start, upper)
	for range 6 {
		v := views[rnd.IntN(len(views))]
		resumed(w, rnd, v, all[v], begin[v], upper)
		upTo(w, rnd, v, all[v], begin[v], upper)
		if keys[v] != "" {
			upserted(w, v, all[v], start, upper)
		}
		selected(w, v, all[v], start+rnd.Int64N(upper-start))
	}
	w.stop()
}

// churn changes everything for some seconds.
func churn(w *world, rnd *rand.Rand) {
	owner := func() string { return string(rune('a' + rnd.IntN(5))) }
	for range 40 {
		switch rnd.IntN(6) {
		case 0:
			w.exec(fmt.Sprintf("DELETE FROM items WHERE id %% %d = 0", 2+rnd.IntN(5)))
		case 1:
			w.exec(fmt.Sprintf("UPDATE items SET owner = '%s', price = price + 1 WHERE id < %d", owner(), rnd.IntN(40)))
		case 2:
			w.exec(fmt.Sprintf("BEGIN; INSERT INTO items VALUES (%d, '%s', 1); INSERT INTO items VALUES (%d, '%s', NULL); COMMIT",
				rnd.IntN(40), owner(), rnd.IntN(40), owner()))
		case 3, 4:
			for range rnd.IntN(20) {
				w.write("in", owner()+"\n")
			}
		default:
			w.exec(fmt.Sprintf("INSERT INTO items VALUES (%d, '%s', %d)", rnd.IntN(40), owner(), rnd.IntN(10)))
		}
		if rnd.IntN(3) > 0 {
			time.Sleep(time.Duration(rnd.IntN(100)) * time.Millisecond)
		}
	}
}

// same checks that views agree at every time: the total is the sum of what it is made of.
func same(w *world, all map[string][]logged, start, upper int64) {
	w.Helper()
	times := map[int64]bool{}
	for _, rows := range all {
		for _, l := range rows {
			times[l.time] = l.time >= start && l.time < upper
		}
	}
	for at, whole := range times {
		if !whole {
			continue
		}
		got := sum(all["total"], at+1)
		want := fmt.Sprint(len(sum(all["items"], at+1)) + len(sum(all["names"], at+1)))
		if len(got) != 1 || got[0] != want {
			w.Errorf("at %d total is %q, and the rows are %s", at, got, want)
		}
	}
}

// resumed cuts a stream at a row, as a lost connection does, and resumes it from the last progress: no gap and no repeat.
func resumed(w *world, rnd *rand.Rand, view string, all []logged, begin, upper int64) {
	w.Helper()
	r := w.stream("SUBSCRIBE TO " + view + fmt.Sprintf(" WITH (PROGRESS) AS OF %d", begin))
	var kept, pending []logged
	progress := int64(0)
	for left := rnd.IntN(len(all) + 1); left > 0; {
		for _, row := range read(w, r) {
			if left--; left < 0 {
				break
			}
			if row[1].Bool() {
				progress = row[0].Int()
				kept, pending = append(kept, pending...), nil
			} else {
				pending = append(pending, logged{row[0].Int(), row[2].Int(), rowText(row[3:])})
			}
		}
	}
	r.Close()
	if progress <= begin { // the snapshot was not complete
		kept, progress = nil, 0
	}
	text := "SUBSCRIBE TO " + view + " WITH (PROGRESS, SNAPSHOT = false)" + fmt.Sprintf(" AS OF %d", progress-1)
	if progress == 0 {
		text = "SUBSCRIBE TO " + view + " WITH (PROGRESS)" + fmt.Sprintf(" AS OF %d", begin)
	}
	rest, _ := follow(w, w.stream(text), upper)
	compare(w, text, slices.Concat(kept, rest), all, upper)
}

// upTo reads a stream that ends by itself: with all rows before the bound and none at it.
func upTo(w *world, rnd *rand.Rand, view string, all []logged, begin, upper int64) {
	w.Helper()
	bound := begin + 1 + rnd.Int64N(upper-begin)
	if len(all) > 0 && rnd.IntN(2) == 0 { // where something happens
		bound = min(max(all[rnd.IntN(len(all))].time, begin), upper)
	}
	text := fmt.Sprintf("SUBSCRIBE TO %s AS OF %d UP TO %d", view, begin, bound)
	r := w.stream(text)
	var got []logged
	for {
		rows, err := r.Next(w.Context())
		if err == io.EOF {
			break
		}
		if err != nil {
			w.Fatalf("%s: %v", text, err)
		}
		for _, row := range rows {
			got = append(got, logged{row[0].Int(), row[1].Int(), rowText(row[2:])})
		}
	}
	if tag := r.Tag(); tag != fmt.Sprintf("SELECT %d", len(got)) {
		w.Errorf("%s: tag %s for %d rows", text, tag, len(got))
	}
	for _, l := range got {
		if l.time >= bound {
			w.Errorf("%s: a row at %d", text, l.time)
		}
	}
	compare(w, text, got, all, bound)
}

// upserted replays ENVELOPE UPSERT into a map, which must be the view.
func upserted(w *world, view string, all []logged, start, upper int64) {
	w.Helper()
	text := fmt.Sprintf("SUBSCRIBE TO %s ENVELOPE UPSERT (KEY (%s)) AS OF %d UP TO %d", view, keys[view], start, upper)
	state := map[string]string{}
	for _, row := range query(w, w.s, text) {
		switch key := rowText(row[2:3]); row[1].Str() {
		case "upsert":
			state[key] = rowText(row[2:])
		case "delete":
			delete(state, key)
		default:
			w.Errorf("%s: %s", text, rowText(row))
		}
	}
	var got []string
	for _, row := range state {
		got = append(got, row)
	}
	slices.Sort(got)
	if want := sum(all, upper); !slices.Equal(got, want) {
		w.Errorf("%s\ngot  %q\nwant %q", text, got, want)
	}
}

// selected holds a SELECT at a time against the sum of the stream.
func selected(w *world, view string, all []logged, at int64) {
	w.Helper()
	from := view
	if from[0] == '(' {
		from += " AS q"
	}
	got := w.rows(fmt.Sprintf("SELECT * FROM %s AS OF %d", from, at))
	slices.Sort(got)
	if want := sum(all, at+1); !slices.Equal(got, want) {
		w.Errorf("%s at %d\nSELECT %q\nstream %q", view, at, got, want)
	}
}

// compare holds the rows of a stream before a time against those of another.
func compare(w *world, text string, got, want []logged, before int64) {
	w.Helper()
	prepare := func(list []logged) []logged {
		list = slices.DeleteFunc(slices.Clone(list), func(l logged) bool { return l.time >= before })
		slices.SortFunc(list, func(a, b logged) int {
			if a.time != b.time {
				return int(a.time - b.time)
			}
			return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
		})
		return list
	}
	if got, want := prepare(got), prepare(want); !slices.Equal(got, want) {
		w.Fatalf("%s, before %d\ngot  %v\nwant %v", text, before, got, want)
	}
}
