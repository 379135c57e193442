// A stand-in for Calico's Guardian, for the interop tests: the same libraries on the wire, and odd endings on command.
//
// It dials the tunnel address with TLS and no ALPN, is a yamux client on that connection, serves HTTP inside TLS on the
// streams that are opened to it, and turns connections to a listener of its own into raw streams the other way. What
// happens is told on stdout, one line for each event; stdin takes commands (see commands.go). It ends when stdin does.
package main

import (
	"bufio"
	"crypto/tls"
	"flag"
	"fmt"
	"log"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"
)

type settings struct {
	address   string
	certs     string
	apiserver string
	token     string
	ca        string
	tls       string
	listen    string
	ping      time.Duration
	retry     time.Duration
	again     time.Duration
	backlog   int
	mortal    bool
}

func main() {
	var s settings
	flag.StringVar(&s.address, "address", "", "host:port of the tunnel")
	flag.StringVar(&s.certs, "certs", "/certs", "directory of management-cluster.crt, managed-cluster.crt and managed-cluster.key")
	flag.StringVar(&s.apiserver, "kube-apiserver", "", "URL of the kube-apiserver")
	flag.StringVar(&s.token, "token", "", "file with the token that is shown to it, read at each request")
	flag.StringVar(&s.ca, "ca", "", "file with the authority of its certificate")
	flag.StringVar(&s.tls, "tls", "", "the only TLS version to speak with the tunnel: 1.2 or 1.3; both when empty")
	flag.StringVar(&s.listen, "listen", "127.0.0.1:0", "where to take connections for raw streams; none when empty")
	flag.DurationVar(&s.ping, "ping", 100*time.Millisecond, "interval of yamux pings")
	flag.DurationVar(&s.retry, "retry", 5*time.Second, "between two dials when one has failed")
	flag.DurationVar(&s.again, "again", 2*time.Second, "from one dial after a session's end to the next, at least")
	flag.IntVar(&s.backlog, "backlog", 1000, "streams that may wait to be accepted")
	flag.BoolVar(&s.mortal, "mortal", false, "end when a session ends by anything but io.EOF, as v3.30 and v3.31 do")
	flag.Parse()
	log.SetOutput(os.Stderr)

	agent, err := newAgent(s)
	if err != nil {
		log.Fatal(err)
	}
	if s.listen != "" {
		listener, err := net.Listen("tcp", s.listen)
		if err != nil {
			log.Fatal(err)
		}
		say("listening %s", listener.Addr())
		go agent.forwardAll(listener)
	}
	go agent.serve()
	go agent.connect()
	obey(agent, bufio.NewScanner(os.Stdin))
}

func newAgent(s settings) (*agent, error) {
	file := func(name string) string { return filepath.Join(s.certs, name) }
	keys, err := tls.LoadX509KeyPair(file("managed-cluster.crt"), file("managed-cluster.key"))
	if err != nil {
		return nil, err
	}
	outer, err := outerTLS(file("management-cluster.crt"), keys, s.tls)
	if err != nil {
		return nil, err
	}
	upstream, err := url.Parse(s.apiserver)
	if err != nil {
		return nil, err
	}
	handler, err := newHandler(upstream, s.token, s.ca)
	if err != nil {
		return nil, err
	}
	return &agent{
		settings: s,
		outer:    outer,
		door:     newDoor(),
		handler:  handler,
		inner:    &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{keys}, NextProtos: []string{"h2"}},
	}, nil
}

var saying sync.Mutex

// say tells the test what happened, in one line.
func say(format string, args ...any) {
	saying.Lock()
	defer saying.Unlock()
	fmt.Printf(format+"\n", args...)
}
