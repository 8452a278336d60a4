//go:build !unix

package proc

import (
	"os"
	"os/exec"
)

func lead(*exec.Cmd, int) {}

func terminate(leader *os.Process) { leader.Kill() }

func kill(leader *os.Process) { leader.Kill() }
