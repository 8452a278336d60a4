package message_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/message"
)

var (
	top10   = &core.View{Name: "top10", Columns: []core.Column{{Name: "user", Type: "text"}}, Key: []int{0}}
	counter = &core.View{Name: `<"counter">`, Columns: []core.Column{{Name: "n", Type: "int8"}}}
)

func batch(v *core.View, lower, upper core.Time, updates ...core.Update) core.Batch {
	b := core.Batch{View: v, Upper: core.Token{Time: upper, Generation: "k3f9"}, Updates: core.UpdatesOf(updates)}
	if lower > 0 {
		b.Lower = core.Token{Time: lower, Generation: "k3f9"}
	}
	return b
}

func row(diff core.Diff, row core.Row) core.Update { return core.Update{Diff: diff, Row: row} }

func encode(cut []core.Batch, maxBody int) (bodies []string) {
	for p := range message.Parts(cut, maxBody) {
		bodies = append(bodies, string(p.Body))
	}
	return bodies
}

func TestParts(t *testing.T) {
	base := batch(top10, 0, 5, row(2, `["Ada"]`))
	delta := batch(top10, 5, 6, row(-1, `["Ada"]`), row(1, `["ü"]`))
	for _, c := range []struct {
		name string
		cut  []core.Batch
		want string
	}{
		{"base", []core.Batch{base}, `{"type":"base","view":"top10","timestamp":"5","token":"5-k3f9","columns":[{"name":"user","type":"text"}],"key":["user"],"inserted":[["Ada"],["Ada"]],"deleted":[]}`},
		{"empty base", []core.Batch{batch(counter, 0, 5)}, `{"type":"base","view":"<\"counter\">","timestamp":"5","token":"5-k3f9","columns":[{"name":"n","type":"int8"}],"key":[],"inserted":[],"deleted":[]}`},
		{"delta", []core.Batch{delta}, `{"type":"delta","view":"top10","from":"5-k3f9","timestamp":"6","token":"6-k3f9","inserted":[["ü"]],"deleted":[["Ada"]]}`},
		{"progress", []core.Batch{batch(top10, 6, 7)}, `{"type":"progress","view":"top10","timestamp":"7","token":"7-k3f9"}`},
		{"cut", []core.Batch{batch(counter, 0, 6), delta}, `{"type":"cut","timestamp":"6","views":{` +
			`"<\"counter\">":{"type":"base","token":"6-k3f9","columns":[{"name":"n","type":"int8"}],"key":[],"inserted":[],"deleted":[]},` +
			`"top10":{"type":"delta","from":"5-k3f9","token":"6-k3f9","inserted":[["ü"]],"deleted":[["Ada"]]}}}`},
		{"progress of several", []core.Batch{batch(counter, 5, 6), batch(top10, 5, 6)}, `{"type":"cut","timestamp":"6","views":{` +
			`"<\"counter\">":{"type":"delta","from":"5-k3f9","token":"6-k3f9","inserted":[],"deleted":[]},` +
			`"top10":{"type":"delta","from":"5-k3f9","token":"6-k3f9","inserted":[],"deleted":[]}}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := strings.Join(encode(c.cut, 1<<20), "\n"); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if got, want := message.IsProgress(c.cut), strings.HasPrefix(c.name, "progress"); got != want {
				t.Errorf("is progress: got %t", got)
			}
		})
	}
}

// TestDocumented checks that the messages of docs/plugins.md are what there is.
func TestDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/plugins.md")
	if err != nil {
		t.Fatal(err)
	}
	v := &core.View{Name: "top10", Columns: []core.Column{{Name: "user", Type: "text"}, {Name: "count", Type: "int8"}}, Key: []int{0}}
	base := batch(v, 0, 1721310000000, row(1, `["Ada",12]`))
	delta := batch(v, 1721310000000, 1721310001000, row(-1, `["Ada",12]`), row(1, `["Ada",13]`))
	for _, b := range []core.Batch{base, delta} {
		if body := encode([]core.Batch{b}, 1<<20)[0]; !strings.Contains(string(doc), "\n"+body+"\n") {
			t.Errorf("not in docs/plugins.md: %s", body)
		}
	}
}

// TestLargeRows checks that a row too large for a part is a part alone, and that
// parts have the rows in order.
func TestLargeRows(t *testing.T) {
	const maxBody = 1000
	large := core.Row(fmt.Sprintf(`[%q]`, strings.Repeat("x", 3*maxBody)))
	small := core.Row(fmt.Sprintf(`[%q]`, strings.Repeat("y", maxBody/3)))
	bodies := encode([]core.Batch{batch(top10, 5, 6, row(2, large), row(2, small), row(-1, small))}, maxBody)
	var got []string
	for i, body := range bodies {
		var m struct {
			Inserted, Deleted []json.RawMessage
			Part              int
			More              bool
		}
		if err := json.Unmarshal([]byte(body), &m); err != nil {
			t.Fatal(err)
		}
		rows := len(m.Inserted) + len(m.Deleted)
		got = append(got, fmt.Sprint(len(m.Inserted), len(m.Deleted), m.More))
		if m.Part != i+1 || len(body) > maxBody && rows != 1 {
			t.Errorf("message %d is part %d, with %d bytes and %d rows", i+1, m.Part, len(body), rows)
		}
	}
	if want := "[1 0 true 1 0 true 2 0 true 0 1 false]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}
