//go:build unix

// Package pgtest runs a real PostgreSQL for tests: the oracle of the engine's SQL and of the encoding of rows.
package pgtest

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// Start runs a PostgreSQL of the test's own on a unix socket, until the test ends, and returns how to connect to it. The database
// has the encoding UTF8, compares texts byte by byte, and forgets everything if it crashes. Without a PostgreSQL in the place
// where Debian has it the test is skipped, or fails in CI.
func Start(tb testing.TB) (dsn string) {
	tb.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		absent(tb, "no PostgreSQL in /usr/lib/postgresql (Debian package postgresql)")
	}
	bin := filepath.Dir(found[len(found)-1])
	dir, err := os.MkdirTemp("", "mzdpg") // a short path: the name of a socket is limited
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	var as *syscall.Credential
	if os.Getuid() == 0 { // PostgreSQL refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			absent(tb, err.Error())
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			tb.Fatal(err)
		}
	}
	command := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
		return cmd
	}
	data := filepath.Join(dir, "data")
	if out, err := command("initdb", "-D", data, "-U", "mzd", "-A", "trust", "-E", "UTF8", "--locale=C", "--lc-ctype=C.UTF-8", "--no-sync").CombinedOutput(); err != nil {
		tb.Fatalf("initdb: %v\n%s", err, out)
	}
	// pg_ctl waits until the server takes connections, and until it has ended.
	ctl := func(args ...string) error {
		return command("pg_ctl", append([]string{"-D", data, "-w", "-l", filepath.Join(dir, "log")}, args...)...).Run()
	}
	settings := "-k " + dir + " -c listen_addresses='' -c fsync=off -c synchronous_commit=off -c autovacuum=off -c jit=off -c timezone=UTC"
	if err := ctl("start", "-o", settings); err != nil {
		text, _ := os.ReadFile(filepath.Join(dir, "log"))
		tb.Fatalf("start PostgreSQL: %v\n%s", err, text)
	}
	tb.Cleanup(func() {
		if err := ctl("stop", "-m", "immediate"); err != nil {
			tb.Errorf("stop PostgreSQL: %v", err)
		}
	})
	return "host=" + dir + " user=mzd dbname=postgres sslmode=disable"
}

// absent skips a test that lacks something, except in CI, which has everything.
func absent(tb testing.TB, what string) {
	tb.Helper()
	if os.Getenv("CI") == "true" {
		tb.Fatal(what)
	}
	tb.Skip(what)
}
