// Command mzd carries the views of a streaming database to browsers and
// anything else. "mzd help" says how.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/mzdio/mzd/config"
	"github.com/mzdio/mzd/plugins"
)

func main() {
	ctx, hangups := catchSignals()
	code := run(ctx, os.Args[1:], env{
		stdout:   os.Stdout,
		stderr:   os.Stderr,
		terminal: isTerminal(os.Stderr),
		hangups:  hangups,
	})
	os.Exit(code)
}

// env is what the command has from the process.
type env struct {
	stdout, stderr io.Writer
	terminal       bool             // stderr is one
	hangups        <-chan os.Signal // that ask for another configuration; nil: none can come
}

// run runs a command line and returns the exit code.
func run(ctx context.Context, args []string, e env) int {
	err := dispatch(ctx, args, e)
	code := exitCode(ctx, err)
	if code != exitOK {
		fmt.Fprintln(e.stderr, explain(err))
	}
	return code
}

// The exit codes.
const (
	exitOK          = 0
	exitFailed      = 1 // while running
	exitUsage       = 2 // bad usage or configuration
	exitEnvironment = 3 // port taken, directory locked or not writable
)

// exitError is an error that decides the exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usage marks an error as one of the command line or the configuration.
func usage(err error) error { return &exitError{exitUsage, err} }

// environment marks an error as one of the machine that mzd runs on.
func environment(err error) error { return &exitError{exitEnvironment, err} }

func exitCode(ctx context.Context, err error) int {
	var exit *exitError
	var problems config.Problems
	var settings *plugins.SettingsError
	switch {
	case err == nil:
		return exitOK
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitOK // somebody stopped it
	case errors.As(err, &problems), errors.As(err, &settings):
		return exitUsage
	case errors.As(err, &exit):
		return exit.code
	}
	return exitFailed
}

// explain is what an error looks like on the terminal.
func explain(err error) string {
	var problems config.Problems
	if errors.As(err, &problems) {
		return problems.Error() // which begins with the name of the file
	}
	return "mzd: " + err.Error()
}
