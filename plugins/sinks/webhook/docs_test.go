package webhook_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mzdio/mzd/plugins/sinks/webhook"
)

// TestExamples runs the examples of docs/webhook.md, in each language, on
// messages that are good and on some that are not.
func TestExamples(t *testing.T) {
	secret := "whsec_" + base64.StdEncoding.EncodeToString([]byte("a key of twenty-four byte"))
	r := receive(t, nil)
	write(t, open(t, webhook.Settings{URL: r.URL, Secret: secret}), batch(top10, 1, 2, 1, `["Ada ü",1]`))
	good := r.take()[0]
	type example struct {
		Secret, Body string
		Headers      map[string]string
	}
	with := func(change func(*example)) example {
		e := example{secret, good.body, map[string]string{}}
		for _, name := range []string{"webhook-id", "webhook-timestamp", "webhook-signature"} {
			e.Headers[name] = good.header.Get(name)
		}
		change(&e)
		return e
	}
	examples := []example{
		with(func(*example) {}),
		with(func(e *example) { e.Body += " " }),
		with(func(e *example) {
			e.Secret = "whsec_" + base64.StdEncoding.EncodeToString([]byte("another key of 24 bytes."))
		}),
		with(func(e *example) { e.Headers["webhook-id"] += "x" }),
		with(func(e *example) { e.Headers["webhook-timestamp"] = "1" }),
		with(func(e *example) { e.Headers["webhook-signature"] = "" }),
	}
	const want = "true\nfalse\nfalse\nfalse\nfalse\nfalse\n"
	input, err := json.Marshal(examples)
	if err != nil {
		t.Fatal(err)
	}
	for _, lang := range []struct {
		name, file, before, after string
		command                   []string
	}{
		{"go", "main.go", `package main
import ("crypto/hmac"; "crypto/sha256"; "encoding/base64"; "encoding/json"; "fmt"; "net/http"; "os"; "strconv"; "strings"; "time")
`, `
func main() {
	var all []struct { Secret, Body string; Headers map[string]string }
	json.NewDecoder(os.Stdin).Decode(&all)
	for _, e := range all {
		h := http.Header{}
		for k, v := range e.Headers { h.Set(k, v) }
		fmt.Println(verify(e.Secret, h, []byte(e.Body)))
	}
}`, []string{"go", "run", "main.go"}},
		{"python", "main.py", "", `
import json, sys
for e in json.load(sys.stdin):
    print(str(verify(e["Secret"], e["Headers"], e["Body"].encode())).lower())
`, []string{"python3", "main.py"}},
		{"js", "main.js", "", `
for (const e of JSON.parse(require("fs").readFileSync(0)))
  console.log(verify(e.Secret, e.Headers, Buffer.from(e.Body)));
`, []string{"node", "main.js"}},
	} {
		t.Run(lang.name, func(t *testing.T) {
			cmd := documentedExample(t, lang.name, 0, lang.file, lang.before, lang.after, lang.command...)
			cmd.Stdin = bytes.NewReader(input)
			out, err := cmd.CombinedOutput()
			if err != nil || string(out) != want {
				t.Errorf("%v, got\n%s\nwant\n%s", err, out, want)
			}
		})
	}
}

// documentedExample prepares to run the n-th example in a language of docs/webhook.md, with
// something before and after it.
func documentedExample(t *testing.T, lang string, n int, file, before, after string, command ...string) *exec.Cmd {
	t.Helper()
	if _, err := exec.LookPath(command[0]); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	doc, err := os.ReadFile("../../../docs/webhook.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := strings.Split(string(doc), "```"+lang+"\n")
	if len(examples) < n+2 {
		t.Fatalf("%d examples in %s", len(examples)-1, lang)
	}
	code, _, _ := strings.Cut(examples[n+1], "```")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, file), []byte(before+code+after), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = dir
	return cmd
}

// TestDocumentedMessages checks that the messages of the docs are what is posted.
func TestDocumentedMessages(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/webhook.md")
	if err != nil {
		t.Fatal(err)
	}
	r := receive(t, nil)
	sink := open(t, webhook.Settings{URL: r.URL})
	n := *counter
	n.Name = "counter"
	base := batch(top10, 0, 1721310000000, 1, `["Ada",12]`)
	delta := batch(top10, 1721310000000, 1721310001000, -1, `["Ada",12]`, 1, `["Ada",13]`)
	again := batch(top10, 0, 1721310001000, 1, `["Ada",13]`)
	count := batch(&n, 1721310000000, 1721310001000, -1, "[6]", 1, "[7]")
	count.Lower.Generation, count.Upper.Generation = "x2ab", "x2ab"
	write(t, sink, base)
	write(t, sink, delta)
	write(t, sink, count, again)
	for _, req := range r.take() {
		if !strings.Contains(string(doc), fmt.Sprintf("\n%s\n", req.body)) {
			t.Errorf("not in docs/webhook.md: %s", req.body)
		}
	}
}
