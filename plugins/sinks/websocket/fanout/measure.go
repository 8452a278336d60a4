//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A result is what one measurement gave.
type result struct {
	cpu        time.Duration // of the server, for the deliveries or, if there are none, for the connections
	took       time.Duration
	deliveries int
	frames     int64
	bytes      int64
	idle, end  costs // of all connections, before and after the load
}

// costs are bytes of memory.
type costs struct{ process, heap, stacks, kernel int64 }

func (c costs) minus(d costs) costs {
	return costs{c.process - d.process, c.heap - d.heap, c.stacks - d.stacks, c.kernel - d.kernel}
}

// measureAll measures the scenarios whose names match, and prints.
func measureAll(only *regexp.Regexp, rounds, deliveries int) error {
	for _, s := range scenarios {
		if !only.MatchString(s.String()) {
			continue
		}
		if err := allowFiles(s.clients + 100); err != nil {
			return err
		}
		j, err := rehearse(s)
		if err != nil {
			return fmt.Errorf("%v: learn what the sink sends: %w", s, err)
		}
		results := make(map[string][]result)
		var loads []string
		for range rounds {
			for _, kind := range s.kinds() {
				j.Kind, j.TLS = kind, s.tls && kind == kindSink
				r, err := measure(s, j, s.bursts(deliveries))
				if err != nil {
					return fmt.Errorf("%v: %s: %w", s, kind, err)
				}
				results[kind] = append(results[kind], r)
				loads = append(loads, machineLoad())
			}
		}
		report(os.Stdout, s, j, results, loads)
	}
	return nil
}

// allowFiles makes sure that a process and its children may have so many
// sockets.
func allowFiles(n int) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur >= uint64(n) {
		return err
	}
	want := syscall.Rlimit{Cur: uint64(n), Max: max(limit.Max, uint64(n))}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &want); err != nil {
		return fmt.Errorf("allow %d open files, of which the hard limit is %d: %w (raise it with ulimit -Hn, or choose fewer clients with -only)", n, limit.Max, err)
	}
	return nil
}

// rehearse lets the sink send one of everything, for the bare writers to repeat,
// and finds the width of rows that makes a message as large as it should be.
func rehearse(s scenario) (job, error) {
	j := job{Kind: kindSink, Rows: s.rows, Burst: max(s.burst, 1)}
	if err := record(&j); err != nil || s.size == 0 {
		return j, err
	}
	h, _ := parseFrame(j.One)
	j.Width = max(0, s.size-h.payload)
	return j, record(&j)
}

// record fills in what the sink sends.
func record(j *job) (err error) {
	server, err := spawn(*j)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	if j.Hello, err = listen(server, streamPath, startTime); err != nil {
		return err
	}
	// From the base on, whatever happens comes as one net delta.
	_, token, _ := bytes.Cut(j.Hello, []byte(`"token":"`))
	token, _, _ = bytes.Cut(token, []byte(`"`))
	path := streamPath + "?since=" + string(token)
	more := func(messages int, at uint64) ([]byte, error) {
		err := server.publish(messages)
		if err == nil {
			_, err = server.ask("cpu") // it has done so when it answers
		}
		if err != nil {
			return nil, err
		}
		all, err := listen(server, path, at)
		_, frame, _ := bytes.Cut(all, []byte("\r\n\r\n"))
		if h, ok := parseFrame(frame); err == nil && (!ok || h.size != len(frame) || h.time != at) {
			return nil, fmt.Errorf("want one frame of the time %d, got %.500q", at, frame)
		}
		return frame, err
	}
	if j.One, err = more(1, startTime+1); err == nil && j.Burst > 1 {
		j.Many, err = more(j.Burst-1, startTime+uint64(j.Burst))
	}
	return err
}

const streamPath = "/api/stream/" + viewName

// listen returns what a client is sent until a time.
func listen(server *child, path string, at uint64) ([]byte, error) {
	cs, err := newClients()
	if err != nil {
		return nil, err
	}
	defer cs.close()
	cs.tap = new(bytes.Buffer)
	err = errors.Join(cs.connect(server.address, path, 1), cs.await(at))
	return cs.tap.Bytes(), err
}

// measure measures one server.
func measure(s scenario, j job, bursts int) (r result, err error) {
	server, err := spawn(j)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	if s.size == 0 {
		bursts = 0
	}
	at := uint64(startTime)
	// What happens for the first time costs more, and is not the connections'.
	if _, err = run(server, scenario{clients: 16, burst: j.Burst, tls: s.tls}, bursts, &at); err != nil {
		return r, fmt.Errorf("warm up: %w", err)
	}
	return run(server, s, bursts, &at)
}

// An audience is many clients.
type audience interface {
	connect(address, path string, n int) error // returns when all have a base
	await(goal uint64) error                   // until all are at a timestamp
	rest(until time.Time) error
	counted() (bytes, frames int64)
	close()
}

// run connects clients and sends them bursts after a time, which it moves on.
func run(server *child, s scenario, bursts int, at *uint64) (r result, err error) {
	var cs audience
	if s.tls && server.kind == kindSink {
		cs = newTLSClients()
	} else if cs, err = newClients(); err != nil {
		return r, err
	}
	defer cs.close()
	empty, _, err := costsOf(server)
	if err != nil {
		return r, err
	}
	_, before, err := costsOf(server)
	if err != nil {
		return r, err
	}
	begun := time.Now()
	if err := cs.connect(server.address, streamPath, s.clients); err != nil {
		return r, err
	}
	r.took = time.Since(begun)
	after, err := server.ask("cpu")
	if err != nil {
		return r, err
	}
	r.cpu = after.CPU - before
	bytesBefore, framesBefore := cs.counted()
	r.bytes, r.frames = bytesBefore, framesBefore
	idle, before, err := costsOf(server)
	if err != nil {
		return r, err
	}
	r.idle, r.end = idle.minus(empty), idle.minus(empty)
	if bursts == 0 {
		return r, nil
	}

	begun = time.Now()
	for i := range bursts {
		if err := server.publish(s.burst); err != nil {
			return r, err
		}
		*at += uint64(s.burst)
		if s.rate == 0 {
			err = cs.await(*at)
		} else {
			next := begun.Add(time.Duration(float64(i+1) / s.rate * float64(time.Second)))
			err = cs.rest(next)
		}
		if err != nil {
			return r, err
		}
	}
	if err := cs.await(*at); err != nil {
		return r, err
	}
	r.took = time.Since(begun)
	if after, err = server.ask("cpu"); err != nil {
		return r, err
	}
	r.cpu = after.CPU - before
	r.bytes, r.frames = cs.counted()
	r.bytes, r.frames = r.bytes-bytesBefore, r.frames-framesBefore
	r.deliveries = bursts * s.burst * s.clients
	end, _, err := costsOf(server)
	r.end = end.minus(empty)
	return r, err
}

// costsOf returns the memory of a server and of the kernel, and the time that the
// server has used including the collection that this takes.
func costsOf(server *child) (costs, time.Duration, error) {
	u, err := server.ask("memory")
	if err != nil {
		return costs{}, 0, err
	}
	sockets, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return costs{}, 0, err
	}
	_, tcp, _ := strings.Cut(string(sockets), "TCP:")
	pages, err := field(tcp, "mem")
	if err != nil {
		return costs{}, 0, err
	}
	now, err := server.ask("cpu")
	return costs{u.Anonymous, u.Heap, u.Stacks, pages * int64(os.Getpagesize())}, now.CPU, err
}

// field returns the number after a word in a text of the kernel's.
func field(text, word string) (int64, error) {
	_, rest, _ := strings.Cut(text, word)
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0, fmt.Errorf("no %q in what the kernel says", word)
	}
	return strconv.ParseInt(fields[0], 10, 64)
}

// machineLoad is the load of the last minute.
func machineLoad() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	one, _, _ := strings.Cut(string(text), " ")
	return one
}
