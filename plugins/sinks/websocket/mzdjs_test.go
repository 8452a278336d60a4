package websocket_test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// node returns a command that runs Node.
func node(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	return exec.CommandContext(t.Context(), program(t, "node"), append([]string{"--no-warnings"}, args...)...)
}

// program returns the path of a program. It skips the test where there is none,
// and fails it in CI.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		without(t, name+" is not installed")
	}
	return path
}

// without skips a test that needs something, and fails it in CI.
func without(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

func TestClientRules(t *testing.T) {
	if out, err := node(t, "--test", "testdata/mzd.test.mjs").CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}

var clientSeed = flag.Int64("client-seed", 1, "seed of TestClientAgainstTheSink")

// TestClientAgainstTheSink lets the client follow two views over a network
// that is cut, falsified and restarted at random. What it shows at a time is
// what the views were then, always, and at the end it has everything.
func TestClientAgainstTheSink(t *testing.T) {
	for _, mode := range []struct {
		name      string
		arguments []string
	}{
		{"websocket", []string{"--experimental-websocket"}},
		{"events", []string{"--no-experimental-websocket"}},
	} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			testClient(t, mode.arguments)
		})
	}
}

func testClient(t *testing.T, arguments []string) {
	random := rand.New(rand.NewPCG(uint64(*clientSeed), 0))
	a, b := newFeed(t, "a"), newFeed(t, "b", core.Column{Name: "text", Type: "text"}, core.Column{Name: "number", Type: "numeric"})
	a.reset(1000, `["Ada",9007199254740993]`)
	b.reset(1000)
	sink, err := websocket.New(t.Context(), websocket.Settings{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	views := []core.Reader{a, b}
	s := start(t, sink, &http.Transport{}, views)
	network := newNetwork(t, sink.Addr().String())
	c := startClient(t, a, b, append(arguments, "testdata/follow.mjs", network.url()))
	c.seen(a.at)

	steps := 60
	for i := range steps {
		switch random.IntN(12) {
		case 0:
			network.cut()
		case 1:
			network.falsify()
		case 2: // it goes away, things happen, it comes back
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
			appendRandom(random, a, b)
			s = start(t, sink, &http.Transport{}, views)
		case 3: // a new history
			a.reset(a.at+1, row(`["user %d",%d]`, i, i), `["Ada",1]`)
			b.append(a.at)
		}
		for range random.IntN(3) {
			appendRandom(random, a, b)
		}
		appendRandom(random, a, b)
		if random.IntN(3) > 0 {
			c.seen(a.at)
		}
	}
	network.heal()
	appendRandom(random, a, b)
	c.seen(a.at)
	c.close()
	if !c.verified {
		t.Errorf("seed %d: the client has not verified what it holds", *clientSeed)
	}
	if c.bases == 1 || c.deltas < steps/4 {
		t.Errorf("seed %d: %d bases, %d deltas: it did not live through much", *clientSeed, c.bases, c.deltas)
	}
	if network.falsified == 0 || metric(t, s.Sink, "mzd_broadcast_mismatches_total") == 0 {
		t.Errorf("seed %d: %d messages were falsified, of which the sink was told %v times", *clientSeed,
			network.falsified, metric(t, s.Sink, "mzd_broadcast_mismatches_total"))
	}
}

// appendRandom changes views: a has a user once, b has copies.
func appendRandom(random *rand.Rand, a, b *feed) {
	to := a.at + 1 + core.Time(random.IntN(3))
	changes := make(map[core.Row]core.Diff)
	for range random.IntN(4) {
		user := fmt.Sprintf("user %d", random.IntN(20))
		for held := range a.now {
			if strings.HasPrefix(string(held), fmt.Sprintf("[%q,", user)) {
				changes[held] = -1
			}
		}
		if random.IntN(4) > 0 {
			fresh := row(`[%q,%d]`, user, random.Int64()-1<<62)
			if a.now[fresh] == 0 && changes[fresh] == 0 {
				for other := range changes {
					if changes[other] == 1 && strings.HasPrefix(string(other), fmt.Sprintf("[%q,", user)) {
						delete(changes, other)
					}
				}
				changes[fresh] = 1
			}
		}
	}
	a.append(to, listOf(changes)...)

	clear(changes)
	texts := []string{`"\u0007"`, `"\\\""`, `"],["`, `"user 👩‍👩‍👧‍👦"`, `null`, `""`, `"user ` + strings.Repeat("long ", 20) + `"`}
	for range random.IntN(4) {
		r := row(`[%s,%s]`, texts[random.IntN(len(texts))], []string{"1", "-0.10", "12345678901234567890.5", `"NaN"`, "null"}[random.IntN(5)])
		if n := b.now[r]; n > 0 && random.IntN(2) == 0 {
			changes[r] = -core.Diff(1 + random.IntN(int(n)))
		} else {
			changes[r] = core.Diff(1 + random.IntN(3))
		}
	}
	b.append(to, listOf(changes)...)
}

func listOf(changes map[core.Row]core.Diff) []change {
	var list []change
	for r, diff := range changes {
		list = append(list, change{diff, r})
	}
	return list
}

// A jsClient is mzd.js in a Node of its own.
type jsClient struct {
	t             *testing.T
	a, b          *feed
	lines         *bufio.Scanner
	stderr        *strings.Builder
	close         func()
	bases, deltas int
	verified      bool
}

func startClient(t *testing.T, a, b *feed, arguments []string) *jsClient {
	t.Helper()
	c := &jsClient{t: t, a: a, b: b, stderr: new(strings.Builder)}
	cmd := node(t, arguments...)
	cmd.Stderr = c.stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.lines = bufio.NewScanner(stdout)
	c.lines.Buffer(nil, 1<<20)
	t.Cleanup(func() { cmd.Wait() }) // of a test that has failed: its context has killed it
	c.close = func() {
		stdin.Close() // which tells it to close its subscription, after which nothing keeps it
		for c.lines.Scan() {
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, c.stderr)
		}
	}
	return c
}

// seen waits until the client has shown a time, and looks at all it shows.
func (c *jsClient) seen(until core.Time) {
	c.t.Helper()
	for c.lines.Scan() {
		var now struct {
			Type, Timestamp string
			Verified        bool
			Rows            struct{ A, B []core.Row }
			Wrong, States   []string
		}
		if err := json.Unmarshal(c.lines.Bytes(), &now); err != nil {
			c.t.Fatalf("seed %d: %v: %s", *clientSeed, err, c.lines.Text())
		}
		switch now.Type {
		case "base":
			c.bases++
		case "delta":
			c.deltas++
		}
		c.verified = now.Verified
		for _, v := range []struct {
			feed *feed
			rows []core.Row
		}{{c.a, now.Rows.A}, {c.b, now.Rows.B}} {
			got := contents{}
			for _, r := range v.rows {
				got[r]++
			}
			if want, ok := v.feed.was(now.Timestamp); !ok || got.String() != want {
				c.t.Fatalf("seed %d: %s at %s, after %v:\n got %v\nwant %v", *clientSeed, v.feed.view.Name, now.Timestamp, now.States, got, want)
			}
		}
		if len(now.Wrong) > 0 {
			c.t.Fatalf("seed %d: rows under the wrong keys: %q", *clientSeed, now.Wrong)
		}
		if now.Timestamp == until.String() {
			return
		}
	}
	c.t.Fatalf("seed %d: the client ended before %v: %s", *clientSeed, until, c.stderr)
}

func TestClientIsSmall(t *testing.T) {
	s := serve(t, websocket.Settings{})
	_, body := s.get(t, "/mzd.js")
	if got, limit := gzipped(t, body), 5<<10; got > limit {
		t.Errorf("mzd.js has %d bytes compressed, want at most %d", got, limit)
	}
}

// TestClientPackage installs the package as npm would publish it, and looks at
// what TypeScript makes of its types, and Node of its exports.
func TestClientPackage(t *testing.T) {
	t.Parallel()
	const typescript = "typescript@7.0.2" // the compiler that is no JavaScript
	dir := t.TempDir()
	run := func(in, name string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), program(t, name), args...)
		cmd.Dir = in
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
		}
		return string(out), err
	}
	out, err := run("client", "npm", "pack", "--json", "--pack-destination", dir)
	if err != nil {
		t.Fatal(err)
	}
	var packed []struct {
		Filename string
		Files    []struct{ Path string }
	}
	if err := json.Unmarshal([]byte(out), &packed); err != nil || len(packed) != 1 {
		t.Fatalf("npm pack: %v: %s", err, out)
	}
	var files []string
	for _, f := range packed[0].Files {
		files = append(files, f.Path)
	}
	slices.Sort(files)
	if want := []string{"README.md", "mzd.d.ts", "mzd.js", "package.json"}; !slices.Equal(files, want) {
		t.Errorf("the package has %q, want %q", files, want)
	}
	types, err := os.ReadFile("testdata/types.ts")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"package.json": `{"private": true, "type": "module"}`,
		"use.js":       `import * as mzd from "mzd"; console.log(Object.keys(mzd).join());`,
		"types.ts":     string(types),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := run(dir, "npm", "install", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund", "./"+packed[0].Filename, typescript); err != nil {
		without(t, "npm cannot install TypeScript: "+err.Error())
	}
	if _, err := run(dir, "node", filepath.Join("node_modules", "typescript", "bin", "tsc"), "--strict", "--noEmit", "--target", "es2022", "--lib", "es2022,dom",
		"--module", "nodenext", "--noUncheckedIndexedAccess", "--exactOptionalPropertyTypes", "types.ts"); err != nil {
		t.Error(err)
	}
	if out, err := run(dir, "node", "use.js"); err != nil || out != "subscribe\n" {
		t.Errorf("the package exports %q, %v; want subscribe", out, err)
	}
}
