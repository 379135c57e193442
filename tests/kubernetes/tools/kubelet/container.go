package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// container is the main process of one container with its log and whoever is attached to it.
type container struct {
	pod       types.UID
	spec      *corev1.Container
	directory string
	logPath   string
	command   *exec.Cmd
	terminal  *os.File       // with spec.tty
	stdin     io.WriteCloser // with spec.stdin

	ended chan struct{} // closed after the process ended, when code is set
	code  int

	mutex    sync.Mutex
	log      *os.File
	grown    chan struct{} // closed and replaced whenever the log grows
	attached map[*attachment]struct{}
}

// attachment is one `kubectl attach`: where the output goes.
type attachment struct{ stdout, stderr io.Writer }

func startContainer(directory string, spec *corev1.Container, pod *corev1.Pod) (*container, error) {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	c := &container{
		pod: pod.UID, spec: spec, directory: directory,
		logPath: filepath.Join(directory, "..", spec.Name+"-"+string(pod.UID)+".log"),
		ended:   make(chan struct{}), grown: make(chan struct{}),
		attached: map[*attachment]struct{}{},
	}
	var err error
	if c.log, err = os.OpenFile(c.logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return nil, err
	}
	argv := append(append([]string{}, spec.Command...), spec.Args...)
	if len(argv) == 0 {
		argv = []string{"sleep", "infinity"}
	}
	c.command = c.prepare(context.Background(), argv)
	if spec.TTY {
		if c.terminal, err = startOnTerminal(c.command, nil); err != nil {
			return nil, err
		}
		c.stdin = c.terminal
		go c.waitOnTerminal()
		return c, nil
	}
	c.command.Stdout = output{c, func(a *attachment) io.Writer { return a.stdout }}
	c.command.Stderr = output{c, func(a *attachment) io.Writer { return a.stderr }}
	if spec.Stdin {
		if c.stdin, err = c.command.StdinPipe(); err != nil {
			return nil, err
		}
	}
	if err := c.command.Start(); err != nil {
		return nil, err
	}
	go func() { c.end(c.command.Wait()) }()
	return c, nil
}

// prepare makes a command that lives in the container's directory and dies with this process.
func (c *container) prepare(ctx context.Context, argv []string) *exec.Cmd {
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	command.Dir = c.directory
	command.Env = os.Environ()
	for _, variable := range c.spec.Env {
		command.Env = append(command.Env, variable.Name+"="+variable.Value)
	}
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	// A grandchild that keeps the pipes open must not keep the session open for ever.
	command.WaitDelay = outputDelay
	return command
}

func startOnTerminal(command *exec.Cmd, size *pty.Winsize) (*os.File, error) {
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	return pty.StartWithAttrs(command, size, command.SysProcAttr)
}

func (c *container) waitOnTerminal() {
	writer := output{c, func(a *attachment) io.Writer { return a.stdout }}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		// Reading a terminal whose last process is gone fails with EIO: that is its end of file.
		_, _ = io.Copy(writer, c.terminal)
	}()
	err := c.command.Wait()
	select {
	case <-copied:
	case <-time.After(outputDelay):
	}
	_ = c.terminal.Close()
	c.end(err)
}

func (c *container) end(err error) {
	c.code = exitCode(err)
	c.mutex.Lock()
	_ = c.log.Close()
	c.mutex.Unlock()
	close(c.ended)
}

func (c *container) kill() {
	// Negative: the whole process group, which this process made for it.
	_ = syscall.Kill(-c.command.Process.Pid, syscall.SIGKILL)
}

// output appends to the log and passes on to everyone attached.
type output struct {
	container *container
	pick      func(*attachment) io.Writer
}

func (o output) Write(data []byte) (int, error) {
	c := o.container
	c.mutex.Lock()
	written, err := c.log.Write(data)
	close(c.grown)
	c.grown = make(chan struct{})
	listeners := make([]*attachment, 0, len(c.attached))
	for a := range c.attached {
		listeners = append(listeners, a)
	}
	c.mutex.Unlock()
	for _, a := range listeners {
		if writer := o.pick(a); writer != nil {
			// An attached client that went away must not stop the container.
			_, _ = writer.Write(data)
		}
	}
	return written, err
}

// growth is closed as soon as the log is longer than it was at this call.
func (c *container) growth() <-chan struct{} {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.grown
}

func (c *container) status(started metav1.Time) corev1.ContainerStatus {
	id := fmt.Sprintf("process://%d", c.command.Process.Pid)
	status := corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: c.spec.Image, ContainerID: id,
	}
	yes, no := true, false
	select {
	case <-c.ended:
		reason := "Completed"
		if c.code != 0 {
			reason = "Error"
		}
		status.Started = &no
		status.State.Terminated = &corev1.ContainerStateTerminated{
			ExitCode: int32(c.code), Reason: reason, ContainerID: id,
			StartedAt: started, FinishedAt: metav1.Now(),
		}
	default:
		status.Ready, status.Started = true, &yes
		status.State.Running = &corev1.ContainerStateRunning{StartedAt: started}
	}
	return status
}

// exitCode is what a shell would report: the code, or 128 and the signal.
func exitCode(err error) int {
	var exit *exec.ExitError
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return 0
	}
	if !errors.As(err, &exit) {
		return 127
	}
	if wait, ok := exit.Sys().(syscall.WaitStatus); ok && wait.Signaled() {
		return 128 + int(wait.Signal())
	}
	return exit.ExitCode()
}
