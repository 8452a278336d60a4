package main

import (
	"cmp"
	"slices"

	"github.com/mzdio/mzd/config"
	"github.com/mzdio/mzd/plugins/sources"
	"github.com/mzdio/mzd/schema"
)

// catalogued is a plugin as people get to see it.
type catalogued struct {
	Kind, Name string // as the configuration calls it
	Path       string // of a binary; empty: it is built in
	Version    string
	Protocol   int
	Doc        string
	Settings   *schema.Schema
	Err        error // why nothing is known of a binary
}

// builtins returns what is built in, ordered by name.
func builtins() []catalogued {
	var all []catalogued
	for _, s := range sources.Builtin() {
		all = append(all, catalogued{Kind: "source", Name: s.Name, Version: version().Version, Doc: s.Doc, Settings: s.Settings})
	}
	for _, s := range builtinSinks() {
		all = append(all, catalogued{Kind: "sink", Name: s.Name, Version: version().Version, Doc: s.Doc, Settings: s.Settings})
	}
	slices.SortStableFunc(all, func(a, b catalogued) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// knownOf returns the plugins of a list that a configuration may name.
func knownOf(all []catalogued) config.Known {
	k := config.Known{Sources: map[string]*schema.Schema{}, Sinks: map[string]*schema.Schema{}}
	for _, p := range all {
		switch {
		case p.Err != nil:
		case p.Kind == "source":
			k.Sources[p.Name] = p.Settings
		default:
			k.Sinks[p.Name] = p.Settings
		}
	}
	return k
}

// known returns the builtins that a configuration may name.
func known() config.Known { return knownOf(builtins()) }
