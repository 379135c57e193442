package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/creack/pty"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

const (
	streamIdle     = 4 * time.Hour
	streamCreation = 30 * time.Second
	// How long what a program wrote may come after its end: a slow machine loses none of it.
	outputDelay = 30 * time.Second
)

// handler is the part of a kubelet's API that a kube-apiserver calls for its users.
func (n *node) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", n.serveLogs)
	for _, target := range []string{"/{namespace}/{pod}/{container}", "/{namespace}/{pod}/{uid}/{container}"} {
		mux.HandleFunc("/exec"+target, n.serveExec)
		mux.HandleFunc("/attach"+target, n.serveAttach)
	}
	for _, target := range []string{"/{namespace}/{pod}", "/{namespace}/{pod}/{uid}"} {
		mux.HandleFunc("/portForward"+target, n.servePortForward)
	}
	return mux
}

func (n *node) find(w http.ResponseWriter, r *http.Request) *container {
	c := n.container(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container"))
	if c == nil {
		http.Error(w, fmt.Sprintf("container %q of pod %q does not run here", r.PathValue("container"), r.PathValue("pod")), http.StatusNotFound)
	}
	return c
}

func (n *node) serveExec(w http.ResponseWriter, r *http.Request) {
	c := n.find(w, r)
	if c == nil {
		return
	}
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeExec(w, r, executor{c}, r.PathValue("pod"), r.PathValue("uid"), r.PathValue("container"),
		r.URL.Query()["command"], options, streamIdle, streamCreation, remotecommand.SupportedStreamingProtocols)
}

func (n *node) serveAttach(w http.ResponseWriter, r *http.Request) {
	c := n.find(w, r)
	if c == nil {
		return
	}
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeAttach(w, r, executor{c}, r.PathValue("pod"), r.PathValue("uid"), r.PathValue("container"),
		options, streamIdle, streamCreation, remotecommand.SupportedStreamingProtocols)
}

func (n *node) servePortForward(w http.ResponseWriter, r *http.Request) {
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	portforward.ServePortForward(w, r, forwarder{}, r.PathValue("pod"), r.PathValue("uid"), options,
		streamIdle, streamCreation, portforward.SupportedProtocols)
}

// serveLogs writes the log, and with follow goes on until the process or the caller ends.
func (n *node) serveLogs(w http.ResponseWriter, r *http.Request) {
	c := n.find(w, r)
	if c == nil {
		return
	}
	file, err := os.Open(c.logPath)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer file.Close()
	query := r.URL.Query()
	if lines, err := strconv.Atoi(query.Get("tailLines")); err == nil {
		if err := seekTail(file, lines); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	source := io.Reader(file)
	if limit, err := strconv.ParseInt(query.Get("limitBytes"), 10, 64); err == nil {
		source = io.LimitReader(file, limit)
	}
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusOK)
	follow := query.Get("follow") == "true"
	flusher, _ := w.(http.Flusher)
	for {
		// Both asked for before reading, so that nothing written in between is missed.
		growth, over := c.growth(), isClosed(c.ended)
		if _, err := io.Copy(w, source); err != nil {
			return
		}
		if flusher != nil {
			flusher.Flush()
		}
		if !follow || over {
			return
		}
		select {
		case <-growth:
		case <-c.ended:
		case <-r.Context().Done():
			return
		}
	}
}

func isClosed(channel <-chan struct{}) bool {
	select {
	case <-channel:
		return true
	default:
		return false
	}
}

// seekTail moves to the start of the last lines of the file.
func seekTail(file *os.File, lines int) error {
	content, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	start := len(content)
	for index := len(content) - 1; index >= 0; index-- {
		if content[index] == '\n' && index != len(content)-1 {
			lines--
		}
		if lines <= 0 {
			break
		}
		start = index
	}
	_, err = file.Seek(int64(start), io.SeekStart)
	return err
}

// executor runs commands beside, and attaches to, the main process of one container.
type executor struct{ container *container }

func (e executor) ExecInContainer(ctx context.Context, _, _, _ string, argv []string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	if len(argv) == 0 {
		return errors.New("no command")
	}
	command := e.container.prepare(ctx, argv)
	var err error
	if tty {
		err = runOnTerminal(command, in, out, resize)
	} else {
		err = runOnPipes(command, in, out, errOut)
	}
	if err == nil {
		return nil
	}
	return utilexec.CodeExitError{Err: err, Code: exitCode(err)}
}

func runOnPipes(command *exec.Cmd, in io.Reader, out, errOut io.Writer) error {
	if out != nil {
		command.Stdout = out
	}
	if errOut != nil {
		command.Stderr = errOut
	}
	if in == nil {
		return command.Run()
	}
	stdin, err := command.StdinPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	// Not command.Stdin: Wait must not wait for a caller who keeps his end open.
	go func() {
		_, _ = io.Copy(stdin, in)
		_ = stdin.Close()
	}()
	return command.Wait()
}

func runOnTerminal(command *exec.Cmd, in io.Reader, out io.Writer, resize <-chan remotecommand.TerminalSize) error {
	terminal, err := startOnTerminal(command, nil)
	if err != nil {
		return err
	}
	defer terminal.Close()
	go follow(terminal, resize)
	if in != nil {
		go func() { _, _ = io.Copy(terminal, in) }()
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		if out != nil {
			_, _ = io.Copy(out, terminal)
		}
	}()
	err = command.Wait()
	select {
	case <-copied:
	case <-time.After(outputDelay):
	}
	return err
}

func follow(terminal *os.File, resize <-chan remotecommand.TerminalSize) {
	for size := range resize {
		_ = pty.Setsize(terminal, &pty.Winsize{Rows: size.Height, Cols: size.Width})
	}
}

func (e executor) AttachContainer(ctx context.Context, _, _, _ string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	c := e.container
	listener := &attachment{}
	if out != nil {
		listener.stdout = out
	}
	if errOut != nil {
		listener.stderr = errOut
	}
	c.mutex.Lock()
	c.attached[listener] = struct{}{}
	c.mutex.Unlock()
	defer func() {
		c.mutex.Lock()
		delete(c.attached, listener)
		c.mutex.Unlock()
	}()
	if c.terminal != nil {
		go follow(c.terminal, resize)
	}
	if in != nil && c.stdin != nil {
		go func() {
			_, _ = io.Copy(c.stdin, in)
			if c.spec.StdinOnce && c.terminal == nil {
				_ = c.stdin.Close()
			}
		}()
	}
	select {
	case <-c.ended:
	case <-ctx.Done():
	}
	return nil
}

// forwarder connects to a port of this machine: a pod's network is the machine's.
type forwarder struct{}

func (forwarder) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	dialer := net.Dialer{Timeout: 10 * time.Second}
	connection, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	defer connection.Close()
	answered := make(chan error, 1)
	go func() {
		_, err := io.Copy(stream, connection)
		answered <- err
	}()
	go func() {
		_, _ = io.Copy(connection, stream)
		// The caller's end of file goes on as a half-close; the answer may still come.
		_ = connection.(*net.TCPConn).CloseWrite()
	}()
	return <-answered
}
