package proc

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mzdio/mzd/schema"
)

// CheckCommand returns what is wrong with the settings "command" and "env" of a
// plugin, see [Command].
func CheckCommand(command []string, env map[string]string) error {
	var errs []error
	if len(command) == 0 || command[0] == "" {
		errs = append(errs, schema.Errorf("command", "names no command, such as [sh, -c, ...]"))
	}
	for i, arg := range command {
		if strings.ContainsRune(arg, 0) {
			errs = append(errs, schema.Errorf(schema.Path("command").Index(i), "has a zero byte"))
		}
	}
	for name, value := range env {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
			errs = append(errs, schema.Errorf(schema.Path("env").Key(name), "is not the name of a variable and its value"))
		}
	}
	return errors.Join(errs...)
}

// Command makes a command of its name or path and its arguments, with the
// environment of [Env]. A name is looked up in this process's PATH. The error is
// that there is no such command now.
func Command(command []string, env map[string]string) (*exec.Cmd, error) {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return nil, err
	}
	return &exec.Cmd{Path: path, Args: command, Env: Env(env)}, nil
}

// Name returns what to call a command in messages.
func Name(command []string) string { return fmt.Sprintf("command %s", filepath.Base(command[0])) }

// Env returns the environment of a command: PATH and HOME of this process, and
// what is listed, which counts where both have a name.
func Env(listed map[string]string) []string {
	env := make(map[string]string)
	for _, name := range []string{"PATH", "HOME"} {
		if value, ok := os.LookupEnv(name); ok {
			env[name] = value
		}
	}
	maps.Copy(env, listed)
	list := []string{} // not nil, which stands for all that we have ourselves
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}
