package websocket_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// document returns docs/protocol.md.
func document(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// An example is a request of the document and what it answers.
type example struct {
	transport, path string
	header          []string
	want            []string // lines
}

// examplesOf reads the blocks of the document: commands of curl with what they
// print, and the messages of a websocket.
func examplesOf(t *testing.T, text string) []example {
	var list []example
	for _, block := range regexp.MustCompile("(?ms)^```(\\w+)( GET \\S+)?\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		lines := strings.Split(strings.TrimSuffix(block[3], "\n"), "\n")
		if block[1] == "json" {
			list = append(list, example{transport: "websocket", path: strings.TrimPrefix(block[2], " GET "), want: lines})
			continue
		}
		if block[1] != "console" {
			t.Fatalf("a block of %q is not checked", block[1])
		}
		for _, line := range lines {
			if command, ok := strings.CutPrefix(line, "$ curl "); ok {
				list = append(list, curl(t, command))
				continue
			}
			if len(list) == 0 {
				t.Fatalf("what prints %s?", line)
			}
			last := &list[len(list)-1]
			last.want = append(last.want, line)
		}
	}
	return list
}

// curl reads a command.
func curl(t *testing.T, command string) (e example) {
	for _, word := range regexp.MustCompile(`'[^']*'|\S+`).FindAllString(command, -1) {
		word = strings.Trim(word, "'")
		key, value, isHeader := strings.Cut(word, ": ")
		path, isURL := strings.CutPrefix(word, "http://127.0.0.1:8875")
		switch {
		case word == "-N":
			e.transport = "ndjson"
		case word == "-H":
		case isURL:
			e.path = path
		case isHeader:
			e.header = append(e.header, key, value)
		default:
			t.Fatalf("curl %s: what is %s?", command, word)
		}
	}
	return e
}

// TestExamplesOfTheDocument makes the requests of the document, and compares
// every byte of the answers but the names of histories.
func TestExamplesOfTheDocument(t *testing.T) {
	examples := examplesOf(t, document(t))
	if len(examples) < 5 {
		t.Fatalf("found %d examples", len(examples))
	}
	for _, e := range examples {
		t.Run(e.transport+strings.ReplaceAll(e.path, "/", "_"), func(t *testing.T) {
			const begin = core.Time(1721310000000)
			counter, top10 := newFeed(t, "counter", core.Column{Name: "n", Type: "int8"}), newFeed(t, "top10")
			counter.view.Key = nil
			counter.reset(begin, `[15]`)
			top10.reset(begin, `["Ada",12]`, `["Bob",3]`)
			steps := []func(){
				func() {
					counter.append(begin+1000, change{-1, `[15]`}, change{1, `[16]`})
					top10.append(begin+1000, change{-1, `["Ada",12]`}, change{1, `["Ada",13]`})
				},
				func() { counter.append(begin + 2000); top10.append(begin + 2000) },
			}
			named := strings.NewReplacer(string(counter.token().Generation), "x2ab", string(top10.token().Generation), "k3f9")
			s := serve(t, websocket.Settings{}, counter, top10)
			var got []string
			if e.transport == "" {
				steps[0]() // snapshots are of this time
				_, body := s.get(t, e.path, e.header...)
				got = strings.Split(strings.TrimSuffix(named.Replace(body), "\n"), "\n")
			} else {
				c := open(t, s, e.transport, e.path, "")
				for i := range e.want {
					text, err := c.next()
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, named.Replace(text))
					if i < len(steps) {
						steps[i]()
					}
				}
			}
			if got, want := strings.Join(got, "\n"), strings.Join(e.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestHashesOfTheDocument checks the hashes that the document gives of rows.
func TestHashesOfTheDocument(t *testing.T) {
	found := regexp.MustCompile("`(\\[[^`]+\\])`\\s+has(?:\\s+the\\s+hash)?\\s+`([0-9a-f]{16})`").FindAllStringSubmatch(document(t), -1)
	if len(found) < 2 {
		t.Fatalf("found %d hashes", len(found))
	}
	for _, m := range found {
		if got := fmt.Sprintf("%016x", core.Row(m[1]).Hash()); got != m[2] {
			t.Errorf("%s: the document says %s, want %s", m[1], m[2], got)
		}
	}
}
