package main_test

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"
)

// unignored makes sure that processes that are started do not ignore SIGHUP, as
// they do where the tests themselves run under nohup.
func unignored(t *testing.T) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(c) })
}

// TestReload asks a service for another configuration, which it refuses in words
// while everything goes on.
func TestReload(t *testing.T) {
	unignored(t)
	d := newDaemon(t, pipeline{views: `{nothing: {query: "SELECT 1 AS a"}}`})
	d.attr = &syscall.SysProcAttr{Setsid: true} // no terminal
	d.start()
	said := d.log.contains("SIGHUP changes nothing")
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	select {
	case <-said:
	case err := <-d.ended:
		t.Fatalf("mzd ended with %v\n%s", err, d.log)
	}
	d.stop()
}

// TestStopTwice asks for an orderly stop many times in a few milliseconds, as
// timeout(1) does twice, and gets one.
func TestStopTwice(t *testing.T) {
	d := newDaemon(t, pipeline{views: `{nothing: {query: "SELECT 1 AS a"}}`})
	d.start()
	for range 5_000 {
		if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			break // it has ended
		}
	}
	if err := <-d.ended; err != nil {
		t.Fatalf("mzd ended with %v\n%s", err, d.log)
	}
}

// TestTerminalCloses closes the terminal under a demo, which then stops in order:
// its temporary directory is removed.
func TestTerminalCloses(t *testing.T) {
	unignored(t)
	master, slave := openTerminal(t)
	d := &daemon{t: t, dir: t.TempDir(), attr: &syscall.SysProcAttr{Setsid: true, Setctty: true}, stdin: slave}
	t.Setenv("TMPDIR", t.TempDir())
	d.startTo(io.Discard, "demo", "-listen", freePort(t), "-admin", "", "-engine", "")
	slave.Close()
	master.Close()
	if err := <-d.ended; err != nil {
		t.Fatalf("mzd ended with %v\n%s", err, d.log)
	}
	if left, _ := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "mzd-demo-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// openTerminal opens a pseudo-terminal. Closing its master is what closing a
// window does.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		skipUnlessCI(t, fmt.Errorf("no pseudo-terminals here: %w", err))
	}
	t.Cleanup(func() { master.Close() })
	var number uint32
	var locked int32
	for request, arg := range map[uintptr]unsafe.Pointer{
		syscall.TIOCGPTN: unsafe.Pointer(&number), syscall.TIOCSPTLCK: unsafe.Pointer(&locked),
	} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), request, uintptr(arg)); errno != 0 {
			t.Fatal(errno)
		}
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}
