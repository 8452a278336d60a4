//go:build linux

// Fanout measures what the websocket sink costs, beside what the same bytes
// cost when nothing but write(2) is called for them. "make bench-fanout" runs it.
//
// Each figure comes from a process of its own: the sink on a log in memory, or a
// bare writer of frames that were taken from the sink before and of which only
// the timestamp changes. A bare writer sends "each" message by a write to each
// socket, or those of a burst "joined": one write of one net delta. The clients are one
// thread that waits in epoll and looks at nothing but the heads of frames. The
// processes take turns, round after round, so that what else the machine does
// meets all of them; figures are medians of the rounds, with the extremes
// behind.
//
// A message changes one row. A delivery is such a change arriving at one client.
// In a burst the changes are appended one after the other without waiting, so
// that a client gets them in one net delta or in a few; the next burst begins
// when every client has all of it. So the size of a message is that of one that
// is alone, and in bursts there are fewer bytes per delivery.
//
// Server CPU is user and system time of the server's process, and the kernel
// charges most of what receiving over loopback costs to the sender, in all of
// them. Memory is the anonymous memory of the process after a collection, above
// what it was after a rehearsal with a few clients that have left; kernel memory
// is what /proc/net/sockstat says of TCP buffers, of both ends.
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == serveArgument {
		if err := serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "fanout: server:", err)
			os.Exit(1)
		}
		return
	}
	rounds := flag.Int("rounds", 3, "how often each server is measured")
	deliveries := flag.Int("deliveries", 1_000_000, "changes that arrive at clients in a measurement, about; paced ones last 5 s")
	only := flag.String("only", "", "regular `expression` of the scenarios to run")
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	if err == nil {
		err = measureAll(pattern, *rounds, *deliveries)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fanout:", err)
		os.Exit(1)
	}
}
