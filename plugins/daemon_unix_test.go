//go:build unix

package plugins_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// testDaemon is a process that runs a plugin.
type testDaemon struct {
	cmd    *exec.Cmd
	plugin int // its number
}

// startDaemon runs the test binary as a daemon, whose plugin has a child that
// writes its number to a file.
func startDaemon(t *testing.T, file string) *testDaemon {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := &testDaemon{cmd: exec.Command(exe)}
	d.cmd.Env = append(os.Environ(), actAs+"=daemon", "CHILD="+file)
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if _, scanErr := fmt.Sscanf(line, "plugin %d", &d.plugin); scanErr != nil {
		t.Fatalf("the daemon said %q, %v", line, err)
	}
	return d
}

func (d *testDaemon) kill() {
	d.cmd.Process.Kill()
	d.cmd.Wait()
}

// alive reports whether there is a process that has not ended. One that has and
// was not waited for is there, and is none.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || !strings.Contains(string(stat), ") Z ")
}

func readInts(t *testing.T, file string) []int {
	t.Helper()
	text, _ := os.ReadFile(file)
	var all []int
	for field := range strings.FieldsSeq(string(text)) {
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, n)
	}
	return all
}
