package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

// agent is the whole program: at most one session, one HTTP server over all of them.
type agent struct {
	settings settings
	outer    *tls.Config
	inner    *tls.Config
	door     *door
	handler  http.Handler

	mutex   sync.Mutex
	session *session

	down, up streams
	locals   locals
	slam     slams
}

// session is one connection to the tunnel.
type session struct {
	mux *yamux.Session
	raw *gate
}

// outerTLS is what the tunnel is dialled with. The name to expect is the only one of the first certificate.
func outerTLS(authority string, keys tls.Certificate, version string) (*tls.Config, error) {
	text, err := os.ReadFile(authority)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("no certificate in %s", authority)
	}
	first, _ := pem.Decode(text)
	certificate, err := x509.ParseCertificate(first.Bytes)
	if err != nil {
		return nil, err
	}
	if len(certificate.DNSNames) != 1 {
		return nil, fmt.Errorf("%d DNS names in the first certificate of %s", len(certificate.DNSNames), authority)
	}
	config := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		MaxVersion:   tls.VersionTLS13,
		RootCAs:      roots,
		ServerName:   certificate.DNSNames[0],
		Certificates: []tls.Certificate{keys},
	}
	switch version {
	case "":
	case "1.2":
		config.MaxVersion = tls.VersionTLS12
	case "1.3":
		config.MinVersion = tls.VersionTLS13
	default:
		return nil, fmt.Errorf("unknown TLS version %q", version)
	}
	return config, nil
}

// connect dials for ever, and serves what it gets.
func (a *agent) connect() {
	var last time.Time
	for {
		session, err := a.dial()
		if err != nil {
			say("failed %v", err)
			time.Sleep(a.settings.retry)
			continue
		}
		a.mutex.Lock()
		a.session = session
		a.mutex.Unlock()
		err = a.acceptAll(session)
		a.mutex.Lock()
		a.session = nil
		a.mutex.Unlock()
		session.mux.Close()
		say("ended %v", err)
		if a.settings.mortal && err != io.EOF {
			say("dead")
			os.Exit(3)
		}
		time.Sleep(a.settings.again - time.Since(last))
		last = time.Now()
	}
}

func (a *agent) dial() (*session, error) {
	dialer := net.Dialer{Timeout: 10 * time.Second}
	socket, err := dialer.Dial("tcp", a.settings.address)
	if err != nil {
		return nil, err
	}
	raw := &gate{Conn: socket}
	raw.cond = sync.NewCond(&raw.mutex)
	conn := tls.Client(raw, a.outer)
	socket.SetDeadline(time.Now().Add(10 * time.Second))
	if err := conn.Handshake(); err != nil {
		socket.Close()
		return nil, err
	}
	socket.SetDeadline(time.Time{})
	config := yamux.DefaultConfig()
	config.AcceptBacklog = a.settings.backlog
	config.EnableKeepAlive = true
	config.KeepAliveInterval = a.settings.ping
	config.LogOutput = os.Stderr
	mux, err := yamux.Client(conn, config)
	if err != nil {
		socket.Close()
		return nil, err
	}
	state := conn.ConnectionState()
	say("connected %s alpn=%q name=%s", tls.VersionName(state.Version), state.NegotiatedProtocol, state.ServerName)
	return &session{mux: mux, raw: raw}, nil
}

func (a *agent) acceptAll(session *session) error {
	for {
		stream, err := session.mux.AcceptStream()
		if err != nil {
			return err
		}
		if a.slam.take() {
			stream.Close()
			continue
		}
		a.down.add(stream)
		a.door.enter(&counted{Stream: stream, left: func() { a.down.remove(stream) }})
	}
}

func (a *agent) current() (*session, error) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if a.session == nil {
		return nil, errors.New("no session")
	}
	return a.session, nil
}

// streams are those that are open now.
type streams struct {
	mutex sync.Mutex
	open  map[*yamux.Stream]bool
}

func (s *streams) add(stream *yamux.Stream) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.open == nil {
		s.open = map[*yamux.Stream]bool{}
	}
	s.open[stream] = true
}

func (s *streams) remove(stream *yamux.Stream) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.open, stream)
}

func (s *streams) all() []*yamux.Stream {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	all := make([]*yamux.Stream, 0, len(s.open))
	for stream := range s.open {
		all = append(all, stream)
	}
	return all
}

// counted is a stream that is known to be open until it is closed.
type counted struct {
	*yamux.Stream
	once sync.Once
	left func()
}

func (c *counted) Close() error {
	c.once.Do(c.left)
	return c.Stream.Close()
}

// gate is a socket that can be left unread.
type gate struct {
	net.Conn
	mutex  sync.Mutex
	cond   *sync.Cond
	frozen bool
}

func (g *gate) freeze(frozen bool) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.frozen = frozen
	g.cond.Broadcast()
}

func (g *gate) Read(into []byte) (int, error) {
	g.mutex.Lock()
	for g.frozen {
		g.cond.Wait()
	}
	g.mutex.Unlock()
	return g.Conn.Read(into)
}

// Close lets go whoever waits.
func (g *gate) Close() error {
	g.freeze(false)
	return g.Conn.Close()
}

// slams are streams that are to be ended as soon as they are accepted.
type slams struct {
	mutex sync.Mutex
	left  int
}

func (s *slams) set(number int) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.left = number
}

func (s *slams) take() bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.left == 0 {
		return false
	}
	s.left--
	return true
}
