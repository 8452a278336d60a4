package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mzdio/mzd/config"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/schema"
)

// describePatience is how long a binary may take to say what it is.
const describePatience = 10 * time.Second

// command returns how to run a binary.
func command(b config.Binary) plugins.Command {
	return plugins.Command{Path: b.Path, Args: b.Args, Env: b.Env, SHA256: b.SHA256, TLS: b.TLS, AckTimeout: b.AckTimeout}
}

// describe asks a binary what it is. One whose Kind is empty may be either.
func describe(ctx context.Context, b config.Binary) (plugins.Info, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, describePatience, fmt.Errorf("%s did not say what it is within %v", b.Path, describePatience))
	defer cancel()
	info, err := command(b).Describe(ctx)
	switch {
	case ctx.Err() != nil:
		return plugins.Info{}, context.Cause(ctx)
	case err != nil:
		return plugins.Info{}, err
	case b.Kind != "" && b.Kind != string(info.Kind):
		return plugins.Info{}, fmt.Errorf("%s is a %s, not a %s", b.Path, info.Kind, b.Kind)
	}
	return info, nil
}

// catalog is what is known of the binaries of a configuration. The zero catalog
// knows of none.
type catalog struct {
	mu      sync.Mutex // guards entries
	entries []entry
}

type entry struct {
	binary config.Binary
	info   plugins.Info
}

// describe returns what a binary is; it asks those that have not said so yet.
func (c *catalog) describe(ctx context.Context, b config.Binary) (plugins.Info, error) {
	if info, ok := c.lookup(b); ok {
		return info, nil
	}
	info, err := describe(ctx, b)
	if err != nil {
		return plugins.Info{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries = append(c.entries, entry{b, info})
	return info, nil
}

// lookup returns what a binary has said that it is.
func (c *catalog) lookup(b config.Binary) (plugins.Info, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := find(c.entries, func(e entry) bool { return e.binary.Same(b) })
	return e.info, ok
}

// known returns what a configuration may name: builtins, and binaries, which are
// started and asked.
func (c *catalog) known(ctx context.Context) config.Known {
	k := known()
	k.Describe = func(b config.Binary) (*schema.Schema, error) {
		info, err := c.describe(ctx, b)
		if pin, ok := errors.AsType[*plugins.PinError](err); ok {
			err = schema.Errorf("sha256", "%s", pin)
		}
		return info.Settings, err
	}
	return k
}

// willing returns the same for a process that has other things to do as well: a
// binary that does not say what it is may do so later.
func (c *catalog) willing(ctx context.Context) config.Known {
	k := c.known(ctx)
	ask := k.Describe
	k.Describe = func(b config.Binary) (*schema.Schema, error) {
		s, err := ask(b)
		if err != nil && ctx.Err() == nil {
			return nil, nil // it is tried again, and then the reason is told
		}
		return s, err
	}
	return k
}
