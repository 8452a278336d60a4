//go:build linux

package main

import (
	"fmt"
	"time"
)

// A scenario is a load that all kinds of servers are measured under.
type scenario struct {
	clients int
	size    int     // bytes of a message that is alone; 0: nothing is sent after the base
	burst   int     // messages at one time
	rate    float64 // messages a second; 0: the next burst comes when the last has arrived
	rows    int     // of the view before anything happens
	tls     bool    // of the sink; what it is held against writes plain bytes
	target  float64 // what the sink may cost, in times of what it is held against; 0: not said
}

var scenarios = []scenario{
	{clients: 1_000, size: 200, burst: 1, target: 1.2},
	{clients: 1_000, size: 2_000, burst: 1, target: 1.2},
	{clients: 1_000, size: 200, burst: 16, target: 1.3},
	{clients: 1_000, size: 2_000, burst: 16, target: 1.3},
	{clients: 1_000, size: 200, burst: 1, rate: 20, target: 1.2},
	{clients: 10_000, size: 200, burst: 1, target: 1.2},
	{clients: 10_000, size: 2_000, burst: 1, target: 1.2},
	{clients: 10_000, size: 200, burst: 16, target: 1.3},
	{clients: 10_000, size: 2_000, burst: 16, target: 1.3},
	{clients: 10_000, size: 200, burst: 1, rate: 2, target: 1.2},
	{clients: 10_000, rows: 10_000, target: 1.3},
	{clients: 1_000, size: 200, burst: 1, tls: true},
	{clients: 1_000, size: 2_000, burst: 16, tls: true},
}

// pacedFor is how long a paced load lasts.
const pacedFor = 5 * time.Second

func (s scenario) String() string {
	if s.tls {
		s.tls = false
		return s.String() + ", TLS"
	}
	switch {
	case s.size == 0:
		return fmt.Sprintf("%d clients, connect storm on %d rows", s.clients, s.rows)
	case s.rate > 0:
		return fmt.Sprintf("%d clients, %d B, %g messages/s", s.clients, s.size, s.rate)
	case s.burst > 1:
		return fmt.Sprintf("%d clients, %d B, bursts of %d", s.clients, s.size, s.burst)
	}
	return fmt.Sprintf("%d clients, %d B, one at a time", s.clients, s.size)
}

// kinds are the servers of the scenario. The last of the bare ones is what the
// sink is held against.
func (s scenario) kinds() []string {
	switch {
	case s.burst > 1:
		return []string{kindEach, kindJoined, kindSink}
	case s.size == 0:
		return []string{kindBounded, kindEach, kindSink}
	}
	return []string{kindEach, kindSink}
}

// bursts is how many bursts make the number of deliveries, an even number.
func (s scenario) bursts(deliveries int) int {
	n := deliveries / s.clients / max(s.burst, 1)
	if s.rate > 0 {
		n = int(s.rate * pacedFor.Seconds())
	}
	return max(2, n/2*2)
}
