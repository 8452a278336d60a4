package main

import (
	"log/slog"
	"os"

	"github.com/mzdio/mzd/config"
)

// newLogger returns the logger of the process, which writes to stderr. The zero
// Log means level info and the format that suits where stderr goes.
func newLogger(e env, c config.Log) *slog.Logger {
	options := &slog.HandlerOptions{}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err == nil {
		options.Level = level
	}
	if c.Format == "json" || c.Format != "text" && !e.terminal {
		return slog.New(slog.NewJSONHandler(e.stderr, options))
	}
	return slog.New(slog.NewTextHandler(e.stderr, options))
}

// isTerminal reports whether people read what is written to f.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
