package websocket

// The calls themselves, which package syscall makes through socketcall there. They
// are in the kernel since 4.3.
const (
	sysRecvfrom = 371
	sysSendto   = 369
)
