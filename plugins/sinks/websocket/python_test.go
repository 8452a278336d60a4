package websocket_test

import (
	"bufio"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// TestPythonClient follows views with a client that was written from
// docs/protocol.md and shares no code with mzd. It leaves and comes back all the
// time, verifies checksums by itself, and prints what it holds.
func TestPythonClient(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("python3 is not installed")
		}
		t.Skip("python3 is not installed")
	}
	for _, arguments := range []string{"", "--sse", "--numbers", "--sse --numbers"} {
		t.Run(arguments, func(t *testing.T) {
			const seed = 1
			rng := rand.New(rand.NewPCG(seed, seed))
			columns := []core.Column{{Name: "name", Type: "text"}, {Name: "n", Type: "int8"}, {Name: "d", Type: "numeric"}, {Name: "j", Type: "jsonb"}}
			a, b := newFeed(t, "a", columns...), newFeed(t, "inserted", core.Column{Name: "x", Type: "float8"})
			b.view.Key = nil
			s := serve(t, websocket.Settings{}, a, b)
			at := core.Time(1000)
			a.reset(at, `["Ä \"q\" \\ 𝄞 ]",9007199254740993,1.50,{"a":[1,{"b":null}]}]`, `["12",-1,"NaN",null]`)
			b.reset(at, `[1e-07]`)

			args := append([]string{"testdata/client.py", s.url, "a", "inserted", "--leave-after", "7", "--until", `["end"`}, strings.Fields(arguments)...)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // or a client that never agrees would start over for ever
			defer cancel()
			cmd := exec.CommandContext(ctx, python, args...)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			var complaints strings.Builder
			cmd.Stderr = &complaints
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			bases, lines := 0, 0
			for scanner := bufio.NewScanner(out); scanner.Scan(); lines++ {
				var state struct {
					Type, Timestamp string
					Views           map[string][]core.Row
				}
				if err := json.Unmarshal(scanner.Bytes(), &state); err != nil {
					t.Fatal(err)
				}
				if state.Type == "base" {
					bases++
				}
				for _, f := range []*feed{a, b} {
					got := contents{}
					for _, r := range state.Views[f.view.Name] {
						got[core.Row(unquoted(r, f.view.Columns))]++
					}
					if want, known := f.was(state.Timestamp); !known || got.String() != want {
						t.Errorf("seed %d: %s at %s is %s, want %s", seed, f.view.Name, state.Timestamp, got, want)
					}
				}
				for range 1 + rng.IntN(3) {
					at++
					switch {
					case lines == 30:
						b.reset(at, `[0.5]`) // both begin anew
						a.append(at)
					case lines == 60:
						a.append(at, change{1, `["end",0,0,0]`})
						b.append(at)
					default:
						a.append(at, change{core.Diff(rng.IntN(3) + 1), row(`["r%d",%d,%d.25,"x"]`, rng.IntN(5), at, rng.IntN(3))})
						b.append(at, change{1, row(`[%d]`, rng.IntN(9))})
					}
				}
			}
			if err := cmd.Wait(); err != nil || complaints.Len() > 0 {
				t.Errorf("%v\n%s", err, &complaints)
			}
			if bases < 2 || bases > 4 || lines < 60 {
				t.Errorf("%d bases and %d messages, want a base for each history", bases, lines)
			}
		})
	}
}
