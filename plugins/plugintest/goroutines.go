package plugintest

import (
	"bytes"
	"fmt"
	"runtime/pprof"
	"strings"
	"time"
)

// goroutines returns the stacks of all goroutines that the calls of the rule
// have started and that still run, but for those of the suite itself.
func (p *probe) goroutines() []string {
	var profile bytes.Buffer
	// Goroutines of one stack and one set of labels are one paragraph, "3 @ 0x1 0x2".
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		return nil
	}
	mine := fmt.Sprintf("%q:%q", label, p.id)
	var all []string
	for paragraph := range strings.SplitSeq(profile.String(), "\n\n") {
		if !strings.Contains(paragraph, mine) || strings.Contains(paragraph, "plugintest.(*probe).goroutines") {
			continue
		}
		if _, rest, ok := strings.Cut(paragraph, "goroutine profile:"); ok { // the heading of the first one
			_, paragraph, _ = strings.Cut(rest, "\n")
		}
		var n int
		fmt.Sscanf(paragraph, "%d @", &n)
		for range n {
			all = append(all, callsOf(paragraph))
		}
	}
	return all
}

// whereCalls says where the calls of the plugin are that have not returned.
func (p *probe) whereCalls() string {
	for _, stack := range p.goroutines() {
		if inside, _, ok := strings.Cut(stack, "    "+startCall); ok {
			return "; it waits in\n" + strings.TrimSuffix(inside, "\n")
		}
	}
	return ""
}

// startCall is the function of the suite that each call of a plugin is made in.
const startCall = "github.com/mzdio/mzd/plugins/plugintest.(*probe).start"

// callsOf returns the functions of a paragraph of a profile, the innermost
// first, each with its place.
func callsOf(paragraph string) string {
	var s strings.Builder
	for line := range strings.Lines(paragraph) {
		// "#	0x4a1f	net.(*conn).Read+0x25	/usr/go/src/net/net.go:196"
		if f := strings.Fields(line); len(f) >= 4 && f[0] == "#" {
			name, _, _ := strings.Cut(f[2], "+0x")
			fmt.Fprintf(&s, "    %s  %s\n", name, f[3])
		}
	}
	return s.String()
}

// frames returns the calls of a stack that led to a panic, without those of the
// runtime and of the suite around them.
func frames(stack []byte) string {
	var s strings.Builder
	lines := strings.Split(string(stack), "\n")
	for i := 1; i+1 < len(lines); i += 2 {
		name, place := lines[i], strings.TrimSpace(lines[i+1])
		if strings.HasPrefix(name, "runtime") || strings.HasPrefix(name, "panic(") || strings.Contains(name, "plugintest.(*probe)") {
			continue
		}
		place, _, _ = strings.Cut(place, " +0x")
		fmt.Fprintf(&s, "    %s  %s\n", name, place)
	}
	return strings.TrimSuffix(s.String(), "\n")
}

// leaks fails if rounds leave more goroutines behind than the first one did:
// what a program starts once and keeps is no leak.
func (p *probe) leaks(external bool, round func()) {
	const rounds = 4
	round()
	first := p.fewest()
	for range rounds - 1 {
		round()
	}
	var left []string
	if !p.eventually(p.patience, func() bool { left = p.goroutines(); return len(left) <= first }) {
		p.fail("no more goroutines than after the first round", "%d more after %d more rounds, among them one that waits in\n%s",
			len(left)-first, rounds-1, strings.TrimSuffix(left[len(left)-1], "\n"))
	}
	if external {
		p.skip("nothing is left in mzd, but what goes on inside of the plugin's process cannot be seen from outside")
	}
}

// fewest returns the number of goroutines that are left when those that are
// about to end have ended.
func (p *probe) fewest() int {
	n := len(p.goroutines())
	for steady := 0; n > 0 && steady < 10 && p.pause(10*time.Millisecond); steady++ {
		if now := len(p.goroutines()); now < n {
			n, steady = now, 0
		}
	}
	return n
}
