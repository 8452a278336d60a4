//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

// Kinds of servers.
const (
	kindSink    = "sink"
	kindEach    = "each"    // one write a message and socket
	kindJoined  = "joined"  // one write a burst and socket
	kindBounded = "bounded" // each, to sockets for which the kernel may keep as little as for the sink's
)

// A job is what a server's process is told at first.
type job struct {
	Kind  string
	Rows  int // of the view at the start
	Width int // of a row that is added, beside what every row has
	Burst int
	TLS   bool

	// For bare writers, all taken from the sink:
	Hello []byte // what a client is sent when it has asked: answer and base
	One   []byte // what it is sent for a message
	Many  []byte // and for a burst
}

// startTime is the timestamp of every base. Later ones have as many digits.
const startTime = 1_721_310_000_000

// A target serves clients and sends them messages.
type target interface {
	address() string
	// publish sends a burst. The messages have the timestamps after those of the
	// burst before.
	publish(messages int) error
}

// usage is what a server's process has used.
type usage struct {
	CPU       time.Duration // user and system
	Anonymous int64         // bytes of memory after a collection
	Heap      int64         // of it for objects,
	Stacks    int64         // and for stacks of goroutines
}

const serveArgument = "serve"

// serve is the server's process: it reads a job, says its address, and obeys,
// line by line, until the input ends.
func serve(in io.Reader, out io.Writer) error {
	commands, replies := bufio.NewReader(in), json.NewEncoder(out)
	line, err := commands.ReadBytes('\n')
	if err != nil {
		return err
	}
	var j job
	if err := json.Unmarshal(line, &j); err != nil {
		return err
	}
	line = nil // it may be as large as the base
	var t target
	if j.Kind == kindSink {
		t, err = newSink(j)
	} else {
		t, err = newBare(j)
	}
	if err == nil {
		err = replies.Encode(t.address())
	}
	if err != nil {
		return err
	}
	for {
		command, err := commands.ReadString('\n')
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		var burst int
		switch command = strings.TrimSpace(command); command {
		case "cpu":
			err = replies.Encode(usage{CPU: cpu()})
		case "memory":
			var u usage
			if u, err = memory(); err == nil {
				err = replies.Encode(u)
			}
		default:
			if _, err = fmt.Sscanf(command, "publish %d", &burst); err == nil {
				err = t.publish(burst)
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
	}
}

func cpu() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err) // only wrong arguments fail
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func memory() (usage, error) {
	debug.FreeOSMemory() // collects, too
	debug.FreeOSMemory() // what only the first collection let go, as pools do
	rollup, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		return usage{}, err
	}
	kib, err := field(string(rollup), "Anonymous:")
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{Anonymous: kib << 10, Heap: int64(m.HeapAlloc), Stacks: int64(m.StackInuse)}, err
}

// A child is a server's process as its parent sees it.
type child struct {
	kind    string
	process *exec.Cmd
	in      io.WriteCloser
	replies *json.Decoder
	address string
}

// spawn starts a server.
func spawn(j job) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{kind: j.Kind, process: exec.Command(self, serveArgument)}
	c.process.Stderr = os.Stderr
	if c.in, err = c.process.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.replies = json.NewDecoder(out)
	if err := c.process.Start(); err != nil {
		return nil, err
	}
	if err := errors.Join(json.NewEncoder(c.in).Encode(j), c.replies.Decode(&c.address)); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

// stop ends the process and waits for it.
func (c *child) stop() error {
	c.in.Close()
	return c.process.Wait()
}

func (c *child) publish(burst int) error {
	_, err := fmt.Fprintf(c.in, "publish %d\n", burst)
	return err
}

// ask returns the answer to "cpu" or "memory".
func (c *child) ask(command string) (u usage, err error) {
	if _, err = fmt.Fprintln(c.in, command); err == nil {
		err = c.replies.Decode(&u)
	}
	if err != nil {
		err = fmt.Errorf("ask the server for %s: %w", command, err)
	}
	return u, err
}
