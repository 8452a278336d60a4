package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mzdio/mzd/schema"
)

// CheckCommand returns what is wrong with the settings "command" and "env" of a
// plugin, see [Command]: also that there is no such command on this machine.
func CheckCommand(command []string, env map[string]string) error {
	var errs []error
	switch {
	case len(command) == 0 || command[0] == "":
		errs = append(errs, schema.Errorf("command", "names no command, such as [sh, -c, ...]"))
	case !strings.ContainsRune(command[0], 0):
		if _, err := lookUp(command[0]); err != nil {
			errs = append(errs, schema.Errorf(schema.Path("command").Index(0), "%s", err))
		}
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
	path, err := lookUp(command[0])
	if err != nil {
		return nil, err
	}
	return &exec.Cmd{Path: path, Args: command, Env: Env(env)}, nil
}

// lookUp returns the path of a command.
func lookUp(name string) (string, error) {
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path, nil
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("there is no command %q in the PATH of mzd", name)
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("there is no file %q (a relative path starts in the working directory)", name)
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("%q is not executable; run chmod +x %s", name, name)
	}
	return "", err
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
