package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// again is how long after the first signal to stop others like it mean nothing:
// some send it twice, as timeout(1) does, to the process and to its group.
const again = time.Second

// catchSignals returns a context that ends when the process is to stop in order,
// and the signals that ask for another configuration instead.
//
// An interrupt and SIGTERM ask for an orderly stop. After it, they do what they
// always do, so that the next one ends the process at once. SIGHUP asks for it,
// too, where it comes from a terminal that is closed, however often it does. To a
// service, which has no terminal, it means by custom that its configuration has
// changed. Under nohup it is ignored, and stays so.
func catchSignals() (ctx context.Context, hangups <-chan os.Signal) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() { time.AfterFunc(again, stop) })
	// A reader of stdout that goes away is an error of the write, not the end of
	// everything else. (Catching the signal, unlike ignoring it, is not
	// inherited by processes that are started.)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	if signal.Ignored(syscall.SIGHUP) {
		return ctx, nil
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	if !hasTerminal() {
		return ctx, c
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		<-c
		cancel()
	}()
	return ctx, nil
}

// hasTerminal reports whether the process belongs to a terminal, wherever its
// output goes.
func hasTerminal() bool {
	f, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// tellHangups says of each signal that asks for another configuration what to
// do instead, until ctx ends.
func tellHangups(ctx context.Context, hangups <-chan os.Signal, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			log.Warn("SIGHUP changes nothing: what is configured is read at the start; see what mzd check says, " +
				"and restart: clients and sinks go on where they are")
		}
	}
}
