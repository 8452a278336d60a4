package plugins

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

// maxAttributes bounds what a plugin can add to a record of the log.
const maxAttributes = 32

// The keys of a line of log that is JSON; they are those of hclog, which plugins
// of go-plugin in many languages write.
const (
	keyLevel   = "@level"
	keyMessage = "@message"
	keyTime    = "@timestamp"
	keyModule  = "@module"
)

// logLines returns what makes records of the lines that a plugin writes to its
// standard error, and returns their messages.
func logLines(log *slog.Logger) func(line string) string {
	panics := false // everything after "panic:" is its stack
	return func(line string) string {
		if level, message, attrs, ok := parseLine(line); ok {
			log.Log(context.Background(), level, message, attrs...)
			return message
		}
		panics = panics || strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ")
		level := levelOf(line)
		if panics {
			level = slog.LevelError
		}
		log.Log(context.Background(), level, line)
		return line
	}
}

// parseLine reads a line that is a JSON object with a level and a message.
func parseLine(line string) (level slog.Level, message string, attrs []any, ok bool) {
	if !strings.HasPrefix(line, "{") {
		return 0, "", nil, false
	}
	var fields map[string]any
	if json.Unmarshal([]byte(line), &fields) != nil {
		return 0, "", nil, false
	}
	name, named := fields[keyLevel].(string)
	message, said := fields[keyMessage].(string)
	if !named || !said {
		return 0, "", nil, false
	}
	for _, key := range []string{keyLevel, keyMessage, keyTime, keyModule} {
		delete(fields, key)
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if len(attrs) == 2*maxAttributes {
			break
		}
		attrs = append(attrs, key, fields[key])
	}
	return levelNamed(name), message, attrs, true
}

// levelOf returns the level that a line of text begins with, as in "[WARN] ".
func levelOf(line string) slog.Level {
	if name, _, ok := strings.Cut(strings.TrimPrefix(line, "["), "]"); ok && strings.HasPrefix(line, "[") {
		return levelNamed(name)
	}
	return slog.LevelInfo
}

func levelNamed(name string) slog.Level {
	switch strings.ToLower(name) {
	case "trace", "debug":
		return slog.LevelDebug
	case "warn", "warning":
		return slog.LevelWarn
	case "error", "fatal", "critical":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// replaceKeys writes records of slog as parseLine reads them.
func replaceKeys(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.LevelKey:
		return slog.String(keyLevel, strings.ToLower(a.Value.String()))
	case slog.MessageKey:
		a.Key = keyMessage
	case slog.TimeKey:
		a.Key = keyTime
	}
	return a
}
