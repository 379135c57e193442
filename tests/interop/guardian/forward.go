package main

import (
	"io"
	"net"
	"sync"

	"github.com/hashicorp/yamux"
)

// forwardAll makes each connection to the listener a raw stream.
func (a *agent) forwardAll(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			say("closed %v", err)
			return
		}
		go func() {
			stream, err := a.open()
			if err != nil {
				say("unforwarded %v", err)
				conn.Close()
				return
			}
			a.locals.add(conn)
			defer a.locals.remove(conn)
			forward(conn, &counted{Stream: stream, left: func() { a.up.remove(stream) }})
		}()
	}
}

// open opens a stream towards the management cluster.
func (a *agent) open() (*yamux.Stream, error) {
	session, err := a.current()
	if err != nil {
		return nil, err
	}
	stream, err := session.mux.OpenStream()
	if err != nil {
		return nil, err
	}
	a.up.add(stream)
	return stream, nil
}

// forward copies both ways, and closes both sides as soon as one way has ended: nothing is half-closed here.
func forward(one, other net.Conn) {
	var both sync.WaitGroup
	copyAndClose := func(to, from net.Conn) {
		defer both.Done()
		io.Copy(to, from)
		to.Close()
		from.Close()
	}
	both.Add(2)
	go copyAndClose(one, other)
	go copyAndClose(other, one)
	both.Wait()
}

// locals are the connections to the listener that are open now.
type locals struct {
	mutex sync.Mutex
	open  map[net.Conn]bool
}

func (l *locals) add(conn net.Conn) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.open == nil {
		l.open = map[net.Conn]bool{}
	}
	l.open[conn] = true
}

func (l *locals) remove(conn net.Conn) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	delete(l.open, conn)
}

func (l *locals) closeAll() int {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for conn := range l.open {
		conn.Close()
	}
	return len(l.open)
}
