//go:build unix

package proc

import (
	"os"
	"os/exec"
	"syscall"
)

// lead makes a command start in the group with that ID; 0: as the leader of one.
func lead(cmd *exec.Cmd, group int) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pgid = true, group
}

// A group that is gone cannot be signalled, and need not be.

func terminate(leader *os.Process) { syscall.Kill(-leader.Pid, syscall.SIGTERM) }

func kill(leader *os.Process) { syscall.Kill(-leader.Pid, syscall.SIGKILL) }
