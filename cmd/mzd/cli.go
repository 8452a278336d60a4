package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/mzdio/mzd/schema"
)

// verb is one thing that mzd does.
type verb struct {
	name     string // one word, or two: "log" leads to "log ls"
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
	switch args[0] {
	case "-h", "-help", "--help":
		args = []string{"help"}
	case "-version", "--version":
		args = []string{"version"}
	}
	if strings.HasPrefix(args[0], "-") {
		args = append([]string{"run"}, args...)
	}
	v, rest, err := findVerb(args)
	if err != nil {
		return err
	}
	return v.run(ctx, rest, e)
}

// findVerb finds the verb that a command line begins with, and what follows it.
func findVerb(args []string) (v verb, rest []string, err error) {
	all := verbs()
	for n := min(2, len(args)); n > 0; n-- {
		name := strings.Join(args[:n], " ")
		if i := slices.IndexFunc(all, func(v verb) bool { return v.name == name }); i >= 0 {
			return all[i], args[n:], nil
		}
	}
	return verb{}, nil, noVerb(args[0], "")
}

// verbsOf returns the verbs of two words that begin with the given one, or
// those of one word.
func verbsOf(first string) []verb {
	return slices.DeleteFunc(verbs(), func(v verb) bool {
		before, _, two := strings.Cut(v.name, " ")
		return two != (first != "") || two && before != first
	})
}

// noVerb returns the error that a name is none of the verbs, or of those that
// begin with a word.
func noVerb(name, first string) error {
	var names []string
	for _, v := range verbsOf(first) {
		names = append(names, v.name)
	}
	return usage(fmt.Errorf("there is no %q; %s\nTry: %s", name, schema.Suggest(name, names), strings.TrimSpace("mzd help "+first)))
}

// leadTo is the setup of a verb that leads to others, of two words.
func leadTo(first string) func(*flag.FlagSet) runFunc {
	return func(*flag.FlagSet) runFunc {
		return func(_ context.Context, _ env, operands []string) error {
			if len(operands) == 0 {
				return usage(fmt.Errorf("%s: say what to do\nTry: mzd help %s", first, first))
			}
			return noVerb(first+" "+operands[0], first)
		}
	}
}

// run parses the flags of the verb and runs it.
func (v verb) run(ctx context.Context, args []string, e env) error {
	flags, run := v.flags()
	operands, err := parse(flags, args)
	if errors.Is(err, flag.ErrHelp) {
		v.writeHelp(e.stdout)
		return nil
	}
	if err != nil {
		return v.usage("%s", flagProblem(err, flags))
	}
	if v.operands == "" && len(operands) > 0 {
		hint := ""
		if flags.Lookup("config") != nil && len(operands) == 1 {
			hint = "; name a file with -config " + operands[0]
			if flags.Lookup("data-dir") != nil {
				hint = "; name a directory with -data-dir " + operands[0]
			}
		}
		return v.usage("%q is too much%s", operands[0], hint)
	}
	return run(ctx, e, operands)
}

// parse parses flags wherever they stand, up to "--", and returns what is none.
func parse(flags *flag.FlagSet, args []string) (operands []string, err error) {
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		rest := flags.Args()
		if parsed := len(args) - len(rest); len(rest) == 0 || parsed > 0 && args[parsed-1] == "--" {
			return append(operands, rest...), nil
		}
		operands, args = append(operands, rest[0]), rest[1:]
	}
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

// printFormat is a flag that says how a verb prints rows, as the sink stdout has it.
type printFormat string

// addTo declares the flag.
func (p *printFormat) addTo(flags *flag.FlagSet) {
	*p = "auto"
	flags.Var(p, "format", "print as `FORMAT`: text, json, or auto, which is text on a terminal")
}

// String implements [flag.Value].
func (p *printFormat) String() string { return string(*p) }

// Set implements [flag.Value].
func (p *printFormat) Set(s string) error {
	if !slices.Contains([]string{"auto", "text", "json"}, s) {
		return errors.New("want text, json or auto")
	}
	*p = printFormat(s)
	return nil
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
	writeVerbs(w, verbsOf(""))
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

func writeVerbs(w io.Writer, verbs []verb) {
	width := 0
	for _, v := range verbs {
		width = max(width, len(v.name))
	}
	for _, v := range verbs {
		fmt.Fprintf(w, "  %-*s  %s\n", width, v.name, v.short)
	}
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
	if more := verbsOf(v.name); len(more) > 0 {
		fmt.Fprint(w, "\nVerbs:\n")
		writeVerbs(w, more)
	}
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
