package plugins

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/mzdio/mzd/plugins/internal/proc"
)

// handshake is what mzd and a plugin know each other by.
var handshake = goplugin.HandshakeConfig{
	MagicCookieKey:   "MZD_PLUGIN",
	MagicCookieValue: "the last mile of a streaming database",
}

// protocolVersion is the version of the protocol, and the only one there is.
const protocolVersion = 1

// limits are how long things may take.
type limits struct {
	start time.Duration // until the handshake
	call  time.Duration // for an answer that takes no work
	shut  time.Duration // for a sink to close
	every time.Duration // from one health check to the next
	check time.Duration // for its answer
}

// defaultLimits are those of a Command that has no others; tests have less
// patience.
var defaultLimits = limits{start: 30 * time.Second, call: 30 * time.Second, shut: 10 * time.Second, every: 5 * time.Second, check: 15 * time.Second}

func (c Command) limit() limits {
	if c.limits != (limits{}) {
		return c.limits
	}
	return defaultLimits
}

const (
	stopPatience = 2 * time.Second // from SIGTERM to SIGKILL
	// A broken connection and the end of its process are noticed apart.
	endTimeout = time.Second
)

// transportBytes is the window of a connection: a few pieces.
const transportBytes = 4 << 20

// process is a plugin that runs, or has ended.
type process struct {
	path   string
	client *goplugin.Client
	child  *child
	conn   *grpc.ClientConn
	output *io.PipeWriter // what it prints through the connection
	done   chan struct{}  // closed when somebody has ended it, or it has ended itself
	once   sync.Once

	mu    sync.Mutex
	cause error // why it was ended
}

// launch starts a process and shakes hands with it. What it says is logged.
func (c Command) launch(ctx context.Context, log *slog.Logger) (*process, error) {
	if err := c.checkBinary(); err != nil {
		return nil, err
	}
	said := logLines(log)
	read, write := io.Pipe()
	go proc.Log(read, func(line string) { log.Info(line, "from", "stdout") })
	kid := &child{command: c, log: said}
	client := goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  handshake,
		VersionedPlugins: map[int]goplugin.PluginSet{protocolVersion: {pluginKey: connection{}}},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, dir string) (runner.Runner, error) {
			kid.env, kid.dir = cmd.Env, dir
			return kid, nil
		},
		Logger:       hclog.NewNullLogger(), // we say ourselves what happens
		SkipHostEnv:  true,
		AutoMTLS:     c.TLS != "off",
		StartTimeout: c.limit().start,
		SyncStdout:   write,
		SyncStderr:   write,
		GRPCDialOptions: []grpc.DialOption{
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
			grpc.WithMaxHeaderListSize(64 << 10),
			grpc.WithInitialWindowSize(transportBytes),
			grpc.WithInitialConnWindowSize(transportBytes),
			grpc.WithReadBufferSize(bufferBytes),
			grpc.WithWriteBufferSize(bufferBytes),
		},
	})
	p := &process{path: c.Path, client: client, child: kid, output: write, done: make(chan struct{})}
	stop := context.AfterFunc(ctx, kid.abort)
	conn, err := connect(client)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		p.kill()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, kid.explain(err)
	}
	p.conn = conn
	go p.watch()
	return p, nil
}

// bufferBytes is how much is written to the socket at a time.
const bufferBytes = 256 << 10

func connect(client *goplugin.Client) (*grpc.ClientConn, error) {
	protocol, err := client.Client()
	if err != nil {
		return nil, err
	}
	conn, err := protocol.Dispense(pluginKey)
	if err != nil {
		return nil, err
	}
	return conn.(*grpc.ClientConn), nil
}

// watch ends the process when it does not answer any more.
func (p *process) watch() {
	limit := p.child.command.limit()
	health := grpc_health_v1.NewHealthClient(p.conn)
	tick := time.NewTicker(limit.every)
	defer tick.Stop()
	answered := time.Now()
	for {
		select {
		case <-p.child.process.Ended():
			p.fail(nil)
			return
		case <-p.done:
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(context.Background(), limit.check)
		_, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: goplugin.GRPCServiceName})
		cancel()
		switch code := status.Code(err); {
		case code == codes.Unavailable && time.Since(answered) < limit.check: // it may be about to end
		case code == codes.Unavailable, code == codes.DeadlineExceeded, code == codes.Unimplemented:
			p.fail(fmt.Errorf("%s hangs: it did not answer the health check within %v, and was ended", p.path, limit.check))
			return
		default:
			answered = time.Now()
		}
	}
}

// fail ends the process at once, for a reason; nil: it has ended itself.
func (p *process) fail(cause error) {
	p.mu.Lock()
	if p.cause == nil {
		p.cause = cause
	}
	p.mu.Unlock()
	p.kill()
}

// kill ends the process at once and releases everything.
func (p *process) kill() {
	p.once.Do(func() {
		close(p.done)
		p.child.abort()
		p.client.Kill() // closes the connection, since there is no process
		p.output.Close()
		p.child.release()
	})
}

// stop asks the process to end, and kills it if it does not.
func (p *process) stop() {
	if c := p.child.process; c != nil {
		c.Terminate()
		c.Stop(stopPatience)
	}
	p.kill()
}

// alive reports whether the process runs, and nobody has ended it.
func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	case <-p.child.process.Ended():
		return false
	default:
		return true
	}
}

// call makes a call that takes no longer than that: a process that takes longer is
// ended. what says what it was to do.
func (p *process) call(ctx context.Context, patience time.Duration, what string, f func(context.Context) error) error {
	// Without a deadline: the plugin would be told, and might end the call a moment
	// before we do.
	calling, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	late := time.AfterFunc(patience, cancel)
	err := f(calling)
	inTime := late.Stop()
	if err == nil {
		return nil
	}
	if !inTime && ctx.Err() == nil {
		p.fail(fmt.Errorf("%s hangs: it did not %s within %v, and was ended", p.path, what, patience))
	}
	return p.explain(ctx, err)
}

// explain returns why a call failed: what the plugin said, or how it ended.
func (p *process) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if code := status.Code(err); code == codes.Unavailable || code == codes.Canceled {
		end := time.NewTimer(endTimeout)
		defer end.Stop()
		select {
		case <-p.child.process.Ended():
		case <-p.done:
		case <-end.C:
		}
	}
	if ended := p.ended(); ended != nil {
		return ended
	}
	if _, ok := status.FromError(err); !ok {
		return err // it is ours
	}
	return fromStatus(p.path, err)
}

// ended returns why the process has ended, nil if it has not.
func (p *process) ended() error {
	p.mu.Lock()
	cause := p.cause
	p.mu.Unlock()
	if cause != nil {
		return cause
	}
	select {
	case <-p.child.process.Ended():
		return fmt.Errorf("%s ended: %w", p.path, p.child.how())
	default:
		return nil
	}
}

// checkBinary returns why the binary cannot be run.
func (c Command) checkBinary() error {
	info, err := os.Stat(c.Path)
	switch {
	case err != nil:
		return fmt.Errorf("plugin: %w", err)
	case info.IsDir():
		return fmt.Errorf("plugin %s is a directory", c.Path)
	case c.SHA256 == "":
		return nil
	}
	file, err := os.Open(c.Path)
	if err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != strings.ToLower(c.SHA256) {
		return &PinError{Plugin: c.Path, Got: got, Want: c.SHA256}
	}
	return nil
}

// child is the process as go-plugin sees it: of its standard output only the
// handshake, if it is one, and nothing of its standard error.
type child struct {
	command Command
	env     []string // go-plugin's
	dir     string   // of its socket
	log     func(line string) string

	mu      sync.Mutex // guards aborted
	aborted bool

	process   *proc.Process // nil: it could not be started
	handshake chan string   // has the line, or is closed without
	refused   error         // why the line is none; written before handshake is closed
}

var _ runner.Runner = (*child)(nil)

// Start starts the process.
func (c *child) Start(context.Context) error {
	cmd := &exec.Cmd{Path: c.command.Path, Args: append([]string{c.command.Path}, c.command.Args...)}
	cmd.Env = append(proc.Env(c.command.Env), c.env...)
	c.handshake = make(chan string, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted {
		return context.Canceled
	}
	p, err := proc.StartLines(cmd, c.log)
	if err != nil {
		return explainStart(c.command.Path, err)
	}
	c.process = p
	go c.read()
	return nil
}

func explainStart(path string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("plugin %s is no program of this machine: it was built for another system, or is a script without #! in its first line", path)
	case errors.Is(err, os.ErrNotExist): // and yet it was there a moment ago
		return fmt.Errorf("plugin %s cannot be run: the interpreter that its first line names, or the loader that it is linked for, is not on this machine", path)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("plugin %s may not be executed; chmod +x %s", path, path)
	}
	return fmt.Errorf("plugin: %w", err)
}

// maxHandshake bounds the line of the handshake.
const maxHandshake = 16 << 10

// read takes the handshake from the standard output, and logs what comes after it.
func (c *child) read() {
	out := bufio.NewReaderSize(c.process.Stdout, maxHandshake)
	line, err := out.ReadSlice('\n')
	if err == nil || len(line) > 0 {
		if c.refused = c.checkHandshake(string(bytes.TrimSpace(line))); c.refused == nil {
			c.handshake <- string(line)
		}
	}
	close(c.handshake)
	proc.Log(out, func(line string) { c.log("[stdout] " + line) })
}

// checkHandshake returns what is wrong with the line. go-plugin would take some of
// it that it should not: a certificate where none was asked for, or an address
// anywhere in the world.
func (c *child) checkHandshake(line string) error {
	parts := strings.Split(line, "|")
	if len(parts) < 5 || parts[0] != strconv.Itoa(goplugin.CoreProtocolVersion) {
		return fmt.Errorf("%s is no plugin of mzd: a plugin prints its address first, and this has printed %q", c.command.Path, shorten(line, 200))
	}
	version, err := strconv.Atoi(parts[1])
	switch {
	case err != nil:
		return fmt.Errorf("%s has printed a handshake that is none: %q", c.command.Path, shorten(line, 200))
	case version > protocolVersion:
		return forGood{fmt.Errorf("%s speaks version %d of the protocol, which is newer than version %d of this mzd; use a newer mzd or an older plugin", c.command.Path, version, protocolVersion)}
	case version < protocolVersion:
		return forGood{fmt.Errorf("%s speaks version %d of the protocol, which is older than version %d of this mzd; build the plugin with a newer SDK, or use an older mzd", c.command.Path, version, protocolVersion)}
	case parts[4] != string(goplugin.ProtocolGRPC):
		return fmt.Errorf("%s serves %q, and plugins of mzd serve grpc", c.command.Path, shorten(parts[4], 40))
	}
	secured := len(parts) > 5 && parts[5] != ""
	if tls := c.command.TLS != "off"; secured != tls {
		if tls {
			return fmt.Errorf("%s has not answered with a certificate: it cannot, or not with that of mzd; write \"tls: off\" beside its name in the configuration if that is how it is meant to be", c.command.Path)
		}
		return fmt.Errorf("%s has answered with a certificate, and the configuration says \"tls: off\"", c.command.Path)
	}
	return c.checkAddress(parts[2], parts[3], secured)
}

// checkAddress refuses addresses that others could listen on or connect to.
func (c *child) checkAddress(network, address string, secured bool) error {
	switch network {
	case "unix":
		if filepath.Dir(filepath.Clean(address)) == filepath.Clean(c.dir) {
			return nil
		}
		return fmt.Errorf("%s listens on %q, which is not in the directory that $%s says", c.command.Path, shorten(address, 200), goplugin.EnvUnixSocketDir)
	case "tcp":
		host, _, err := net.SplitHostPort(address)
		if ip := net.ParseIP(host); err == nil && secured && ip != nil && ip.IsLoopback() {
			return nil
		}
	}
	return fmt.Errorf("%s listens on %s %q; a plugin listens on a unix socket in the directory that $%s says, or with a certificate on a loopback address", c.command.Path, shorten(network, 20), shorten(address, 200), goplugin.EnvUnixSocketDir)
}

// explain returns why there was no handshake.
func (c *child) explain(err error) error {
	if c.process == nil {
		return err
	}
	<-c.handshake // it is closed
	if c.refused != nil {
		return c.refused
	}
	if strings.Contains(err.Error(), "timeout") {
		return fmt.Errorf("%s has started and not said its address within %v; is it a plugin of mzd?", c.command.Path, c.command.limit().start)
	}
	return fmt.Errorf("%s ended before it said its address: %w", c.command.Path, c.how())
}

// how waits for the end of the process and says how it was.
func (c *child) how() error {
	if err := c.process.Err(); err != nil {
		return err
	}
	return errors.New("exit status 0")
}

// abort ends the process at once, and keeps one from starting.
func (c *child) abort() {
	c.mu.Lock()
	c.aborted = true
	p := c.process
	c.mu.Unlock()
	if p != nil {
		p.Kill()
	}
}

func (c *child) release() {
	if c.dir != "" {
		os.RemoveAll(c.dir)
	}
}

// Stdout returns the handshake and nothing else.
func (c *child) Stdout() io.ReadCloser { return &handshakeReader{from: c.handshake} }

// Stderr returns nothing: it is read already, within bounds.
func (c *child) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Wait waits for the end of the process.
func (c *child) Wait(context.Context) error { <-c.process.Ended(); return nil }

// Kill ends the process.
func (c *child) Kill(context.Context) error { c.abort(); return nil }

// Name returns the path of the binary.
func (c *child) Name() string { return c.command.Path }

// ID returns something that is not empty.
func (c *child) ID() string { return c.command.Path }

// Diagnose returns nothing: we say ourselves what has happened.
func (c *child) Diagnose(context.Context) string { return "" }

// PluginToHost returns the address as it is.
func (c *child) PluginToHost(network, address string) (string, string, error) {
	return network, address, nil
}

// HostToPlugin returns the address as it is.
func (c *child) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

// handshakeReader reads a line that is not there yet.
type handshakeReader struct {
	from <-chan string
	rest string
}

func (r *handshakeReader) Read(p []byte) (int, error) {
	if r.rest == "" {
		line, ok := <-r.from
		if !ok {
			return 0, io.EOF
		}
		r.rest = line
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *handshakeReader) Close() error { return nil }

// pluginKey names the one thing that a process serves, to go-plugin alone.
const pluginKey = "mzd"

// connection is the plugin as go-plugin sees it, on mzd's side: a connection.
type connection struct {
	goplugin.NetRPCUnsupportedPlugin
	register func(*grpc.Server) // of the other side
}

var _ goplugin.GRPCPlugin = connection{}

// GRPCServer registers the services of a plugin.
func (c connection) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	c.register(s)
	return nil
}

// GRPCClient returns the connection.
func (connection) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}
