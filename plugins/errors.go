package plugins

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mzdio/mzd/core"
)

const (
	// maxMessage bounds what is shown of an error of a plugin.
	maxMessage = 2 << 10
	// maxRetryAfter bounds for how long a plugin may ask to be left alone.
	maxRetryAfter = time.Hour
)

// A PluginError is an error that a plugin has returned. It wraps
// [core.ErrPermanent] if the plugin says that trying again cannot help.
type PluginError struct {
	Plugin    string // its path
	Message   string // what it says
	Permanent bool
	After     time.Duration // how long it wants to be left alone, at most an hour
}

// Error names the plugin and says what it says.
func (e *PluginError) Error() string { return e.Plugin + ": " + e.Message }

// RetryAfter returns how long the plugin wants to be left alone. Whoever waits
// out the failures of sinks and sources looks for it.
func (e *PluginError) RetryAfter() time.Duration { return e.After }

// Unwrap returns [core.ErrPermanent] if it is one.
func (e *PluginError) Unwrap() error {
	if e.Permanent {
		return core.ErrPermanent
	}
	return nil
}

// A ProtocolError means that a plugin does what the protocol forbids. Its
// process is ended, and started again for the next try.
type ProtocolError struct {
	Plugin string // its path
	Rule   string // what it breaks
}

// Error names the plugin and the rule.
func (e *ProtocolError) Error() string {
	return fmt.Sprintf("%s breaks the protocol: %s", e.Plugin, e.Rule)
}

// forGood is an error for which trying again cannot help, which its text need not
// say.
type forGood struct{ error }

// Unwrap returns [core.ErrPermanent].
func (forGood) Unwrap() error { return core.ErrPermanent }

// A PinError means that a binary is not the one that the configuration pins by its
// sha256. It wraps [core.ErrPermanent].
type PinError struct {
	Plugin    string // its path
	Got, Want string // in hex
}

// Error names the plugin and both sums, and says what to do.
func (e *PinError) Error() string {
	return fmt.Sprintf("plugin %s has the sha256 %s, and the configuration pins %s; if it was replaced on purpose, change the configuration", e.Plugin, e.Got, e.Want)
}

// Unwrap returns [core.ErrPermanent].
func (e *PinError) Unwrap() error { return core.ErrPermanent }

// fromStatus reads the error that a call of a plugin ended with.
func fromStatus(plugin string, err error) error {
	s := status.Convert(err)
	e := &PluginError{Plugin: plugin, Message: shorten(s.Message(), maxMessage)}
	switch s.Code() {
	case codes.InvalidArgument, codes.FailedPrecondition:
		e.Permanent = true
	case codes.Unimplemented:
		e.Permanent = true
		e.Message = "does not serve a call of the protocol: " + e.Message
	case codes.ResourceExhausted:
		if strings.Contains(e.Message, "larger than max") { // grpc-go's own words
			return &ProtocolError{plugin, fmt.Sprintf("a message has at most %d MiB (%s)", maxMessageBytes>>20, e.Message)}
		}
	}
	if e.Message == "" {
		e.Message = "failed without a message, with the code " + s.Code().String()
	}
	for _, d := range s.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			e.After = min(max(r.GetRetryDelay().AsDuration(), 0), maxRetryAfter)
		}
	}
	return e
}

// toStatus makes the status that a call ends with of the error of a source or a
// sink.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	code := codes.Unknown
	var refused *SettingsError
	switch {
	case errors.As(err, &refused):
		code = codes.InvalidArgument
	case errors.Is(err, core.ErrPermanent):
		code = codes.FailedPrecondition
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	}
	s := status.New(code, shorten(err.Error(), maxMessage))
	var later interface{ RetryAfter() time.Duration }
	if errors.As(err, &later) && later.RetryAfter() > 0 {
		if detailed, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(later.RetryAfter())}); err == nil {
			s = detailed
		}
	}
	return s.Err()
}

// shorten returns at most n bytes of a text, about, without what would move the
// cursor of a terminal.
func shorten(text string, n int) string {
	if len(text) > n {
		text = text[:n] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}
