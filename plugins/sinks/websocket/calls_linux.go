//go:build !386

package websocket

import "syscall"

const (
	sysRecvfrom = syscall.SYS_RECVFROM
	sysSendto   = syscall.SYS_SENDTO
)
