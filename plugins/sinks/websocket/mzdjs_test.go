package websocket_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// node returns a command that runs Node, with a global WebSocket also where it
// is still experimental.
func node(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("node")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("Node is not installed")
		}
		t.Skip("Node is not installed")
	}
	return exec.CommandContext(t.Context(), path, append([]string{"--no-warnings", "--experimental-websocket"}, args...)...)
}

func TestClientRules(t *testing.T) {
	if out, err := node(t, "--test", "testdata/mzd.test.mjs").CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}

// The client follows a sink that goes away and comes back.
func TestClientAgainstTheSink(t *testing.T) {
	a, b := newFeed(t, "a"), newFeed(t, "b", core.Column{Name: "text", Type: "text"})
	a.reset(1000, `["Ada",9007199254740993]`)
	b.reset(1000)
	sink, err := websocket.New(t.Context(), websocket.Settings{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	views := []core.Reader{a, b}
	s := start(t, sink, &http.Transport{}, views)

	cmd := node(t, "testdata/follow.mjs", s.url)
	var out strings.Builder
	cmd.Stdout = &out
	progress, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(progress)
	changed := func() {
		if !lines.Scan() || lines.Text() != "changed" {
			t.Fatalf("the client says %q, %v", lines.Text(), lines.Err())
		}
	}
	changed() // the base
	for i := range 20 {
		if i == 10 { // it goes away, things happen, it comes back
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
		}
		a.append(a.at+1, change{1, row(`["user %d",%d]`, i, i)}, change{1, `["👩‍👩‍👧‍👦",1]`})
		b.append(b.at + 1)
		if i == 10 {
			s = start(t, sink, &http.Transport{}, views)
		}
		changed()
	}
	a.append(a.at + 1)
	b.append(b.at+1, change{2, `["done"]`})
	for lines.Scan() {
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Bases, Deltas int
		States        []string
		Rows          map[string][]string
	}
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if got.Bases != 1 || got.Deltas != 21 {
		t.Errorf("%d bases and %d deltas, want 1 and 21: it came back without resuming", got.Bases, got.Deltas)
	}
	if want := []string{"connecting", "live", "reconnecting", "live", "closed"}; !slices.Equal(got.States, want) {
		t.Errorf("states %v, want %v", got.States, want)
	}
	want := []string{`["Ada","9007199254740993"]`}
	for i := range 20 {
		want = append(want, fmt.Sprintf(`["user %d","%d"]`, i, i), `["👩‍👩‍👧‍👦","1"]`)
	}
	slices.Sort(want)
	if !slices.Equal(got.Rows["a"], want) || !slices.Equal(got.Rows["b"], []string{`["done"]`, `["done"]`}) {
		t.Errorf("got  %v\nwant %v", got.Rows, want)
	}
}

func TestClientIsSmall(t *testing.T) {
	s := serve(t, websocket.Settings{})
	_, body := s.get(t, "/mzd.js")
	if got, limit := gzipped(t, body), 5<<10; got > limit {
		t.Errorf("mzd.js has %d bytes compressed, want at most %d", got, limit)
	}
}
