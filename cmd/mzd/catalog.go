package main

import (
	"cmp"
	"context"
	"flag"
	"maps"
	"slices"
	"sync"

	"github.com/mzdio/mzd/config"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/sources"
	"github.com/mzdio/mzd/schema"
)

// catalogued is a plugin as people get to see it.
type catalogued struct {
	Kind   string // "source" or "sink"; empty: a binary that has not said it
	Name   string // as users write it after "plugin:"
	Binary *config.Binary
	Info   plugins.Info
	Err    error // why nothing is known of a binary
}

// builtins returns what is built in, ordered by name.
func builtins() []catalogued {
	var all []catalogued
	add := func(kind, name, doc string, settings *schema.Schema) {
		all = append(all, catalogued{Kind: kind, Name: name, Info: plugins.Info{
			Kind: plugins.Kind(kind), Name: name, Doc: doc, Settings: settings,
		}})
	}
	for _, s := range sources.Builtin() {
		add("source", s.Name, s.Doc, s.Settings)
	}
	for _, s := range builtinSinks() {
		add("sink", s.Name, s.Doc, s.Settings)
	}
	slices.SortStableFunc(all, func(a, b catalogued) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// known returns the builtins that a configuration may name.
func known() config.Known { return knownOf(builtins()) }

// knownOf returns those of the plugins that a configuration may name. Of two
// with one name it is the first.
func knownOf(all []catalogued) config.Known {
	k := config.Known{Sources: map[string]*schema.Schema{}, Sinks: map[string]*schema.Schema{}}
	for _, p := range all {
		of := k.Sinks
		if p.Kind == "source" {
			of = k.Sources
		}
		if _, taken := of[p.Name]; !taken && p.Err == nil {
			of[p.Name] = p.Info.Settings
		}
	}
	return k
}

// shelf are the flags that say where binaries are looked for.
type shelf struct{ dir, config *string }

func shelfFlags(flags *flag.FlagSet) shelf {
	return shelf{
		dir:    flags.String("dir", "", "look for binaries in the directory `DIR`"),
		config: flags.String("config", "", "look for binaries in the plugin_dir of the configuration `FILE`, and for those that it names"),
	}
}

// all returns the builtins, and then the binaries on the shelf, which it asks.
func (s shelf) all(ctx context.Context) ([]catalogued, error) {
	binaries, err := s.binaries()
	if err != nil {
		return nil, err
	}
	var asking sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i := range binaries {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			binaries[i].ask(ctx)
		})
	}
	asking.Wait()
	return append(builtins(), binaries...), ctx.Err()
}

// ask asks a binary what it is.
func (p *catalogued) ask(ctx context.Context) {
	p.Info, p.Err = describe(ctx, *p.Binary)
	p.Kind = cmp.Or(p.Kind, string(p.Info.Kind))
}

// binaries returns the binaries on the shelf: those in the directory, and then
// those that the configuration names by their paths.
func (s shelf) binaries() ([]catalogued, error) {
	var all []catalogued
	dir, cfg := *s.dir, &config.Config{}
	if *s.config != "" {
		var err error
		if cfg, err = loadConfig(*s.config, known()); err != nil {
			return nil, err
		}
		dir = cmp.Or(dir, cfg.PluginDir)
	}
	found, err := config.FindBinaries(dir)
	if err != nil {
		return nil, environment(err)
	}
	for _, f := range found {
		all = append(all, catalogued{Kind: f.Kind, Name: f.Name, Binary: unlocked(f.Kind, f.Path)})
	}
	add := func(p config.Plug) {
		if p.Binary == nil {
			return
		}
		i := slices.IndexFunc(all, func(c catalogued) bool { return c.Kind == p.Binary.Kind && c.Name == p.Plugin })
		switch {
		case i < 0:
			all = append(all, catalogued{Kind: p.Binary.Kind, Name: p.Plugin, Binary: p.Binary})
		case all[i].Binary.Path == p.Binary.Path:
			all[i].Binary = p.Binary // which says more about how to start it
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Sources)) {
		add(cfg.Sources[name].Plug)
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Sinks)) {
		add(cfg.Sinks[name].Plug)
	}
	return all, nil
}

// unlocked returns a binary of which nothing but its path is known. It is asked
// without certificates, which not all can use: there is nothing to hide yet.
func unlocked(kind, path string, args ...string) *config.Binary {
	return &config.Binary{Kind: kind, Path: path, Args: args, TLS: "off"}
}
