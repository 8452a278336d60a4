package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/mzdio/mzd/schema"
)

// verb is one thing that mzd does.
type verb struct {
	name     string
	short    string // one line, for the list of verbs
	long     string // for its own help: what it does, in full sentences
	operands string // what may follow the flags, as the help shows it; empty: nothing
	examples string

	// setup declares the flags and returns what runs the verb once they are
	// parsed.
	setup func(flags *flag.FlagSet) runFunc
}

// runFunc runs a verb; operands is what followed the flags.
type runFunc func(ctx context.Context, e env, operands []string) error

// dispatch finds the verb of a command line and runs it. Flags without a verb
// are those of "mzd run".
func dispatch(ctx context.Context, args []string, e env) error {
	if len(args) == 0 {
		writeOverview(e.stderr)
		return usage(errors.New("say what to do"))
	}
	name, rest := args[0], args[1:]
	switch name {
	case "-h", "-help", "--help":
		name, rest = "help", nil
	case "-version", "--version":
		name, rest = "version", nil
	}
	if strings.HasPrefix(name, "-") {
		name, rest = "run", args
	}
	v, err := findVerb(name)
	if err != nil {
		return err
	}
	return v.run(ctx, rest, e)
}

func findVerb(name string) (verb, error) {
	var names []string
	for _, v := range verbs() {
		if v.name == name {
			return v, nil
		}
		names = append(names, v.name)
	}
	return verb{}, usage(fmt.Errorf("there is no %q; %s\nTry: mzd help", name, schema.Suggest(name, names)))
}

// run parses the flags of the verb and runs it.
func (v verb) run(ctx context.Context, args []string, e env) error {
	flags, run := v.flags()
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		v.writeHelp(e.stdout)
		return nil
	} else if err != nil {
		return v.usage("%s", flagProblem(err, flags))
	}
	if v.operands == "" && flags.NArg() > 0 {
		hint := ""
		if flags.Lookup("config") != nil && flags.NArg() == 1 {
			hint = "; name a file with -config " + flags.Arg(0)
		}
		return v.usage("%q is too much%s", flags.Arg(0), hint)
	}
	return run(ctx, e, flags.Args())
}

// flags returns the flags of the verb and what runs it once they are parsed.
func (v verb) flags() (*flag.FlagSet, runFunc) {
	flags := flag.NewFlagSet(v.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are returned too, and help is ours
	flags.Usage = func() {}
	return flags, v.setup(flags)
}

// usage returns the error that the verb was used in a wrong way.
func (v verb) usage(format string, args ...any) error {
	return usage(fmt.Errorf("%s: %s\nTry: mzd help %s", v.name, fmt.Sprintf(format, args...), v.name))
}

// flagProblem says what is wrong with the flags of a command line.
func flagProblem(err error, flags *flag.FlagSet) string {
	name, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !unknown {
		return err.Error()
	}
	var names []string
	flags.VisitAll(func(f *flag.Flag) { names = append(names, "-"+f.Name) })
	return fmt.Sprintf("there is no flag -%s; %s", name, schema.Suggest("-"+name, names))
}

// writeOverview writes the help of mzd as a whole.
func writeOverview(w io.Writer) {
	fmt.Fprint(w, `mzd carries every change of the views of a streaming database to browsers and
anything else: computed once, delivered to many, never wrong.

Usage:
  mzd VERB [flags]
  mzd -config pipeline.yaml      the same as mzd run

Verbs:
`)
	for _, v := range verbs() {
		fmt.Fprintf(w, "  %-9s %s\n", v.name, v.short)
	}
	fmt.Fprint(w, `
Begin with:
  mzd demo                       a page with live charts, from nothing
  mzd help VERB                  what a verb does, and its flags

Exit codes:
  0  done
  1  failed while running
  2  bad usage or configuration
  3  the environment: a port is taken, a directory locked or not writable
`)
}

// writeHelp writes the help of the verb.
func (v verb) writeHelp(w io.Writer) {
	flags, _ := v.flags()
	hasFlags := false
	flags.VisitAll(func(*flag.Flag) { hasFlags = true })

	line := "mzd " + v.name
	if hasFlags {
		line += " [flags]"
	}
	if v.operands != "" {
		line += " " + v.operands
	}
	fmt.Fprintf(w, "Usage: %s\n\n%s\n", line, strings.TrimSpace(v.long))
	if hasFlags {
		fmt.Fprint(w, "\nFlags:\n")
		flags.VisitAll(func(f *flag.Flag) { writeFlag(w, f) })
	}
	fmt.Fprint(w, "\nExamples:\n")
	for line := range strings.Lines(strings.TrimSpace(v.examples)) {
		fmt.Fprintf(w, "  %s", line)
	}
	fmt.Fprintln(w)
}

func writeFlag(w io.Writer, f *flag.Flag) {
	value, text := flag.UnquoteUsage(f)
	if value != "" {
		value = " " + value
	}
	fmt.Fprintf(w, "  -%-18s %s", f.Name+value, text)
	if f.DefValue != "" && f.DefValue != "0" && f.DefValue != "false" {
		fmt.Fprintf(w, " (default %s)", f.DefValue)
	}
	fmt.Fprintln(w)
}
