// A peer that speaks yamux through HashiCorp's implementation, for the interop tests.
//
// It connects to the address given, takes the role given, and serves every stream that is opened to it
// by the command in the stream's first line. It ends when the session does.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

func main() {
	address := flag.String("address", "", "where the other end listens")
	role := flag.String("role", "", "client or server")
	keepAlive := flag.Duration("keepalive", 100*time.Millisecond, "interval of pings")
	flag.Parse()

	conn, err := net.Dial("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	config := yamux.DefaultConfig()
	config.AcceptBacklog = 1000
	config.EnableKeepAlive = true
	config.KeepAliveInterval = *keepAlive
	config.ConnectionWriteTimeout = 10 * time.Second
	config.LogOutput = os.Stderr

	var session *yamux.Session
	switch *role {
	case "client":
		session, err = yamux.Client(conn, config)
	case "server":
		session, err = yamux.Server(conn, config)
	default:
		log.Fatalf("unknown role %q", *role)
	}
	if err != nil {
		log.Fatal(err)
	}
	peer := &peer{session: session}
	for {
		stream, err := session.AcceptStream()
		if err != nil {
			fmt.Println("session ended:", err)
			return
		}
		go peer.serve(stream)
	}
}

type peer struct {
	session *yamux.Session
	mutex   sync.Mutex
	outcome string
}

// note keeps how the last sink or flood ended, for a later "outcome".
func (p *peer) note(format string, args ...any) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.outcome = fmt.Sprintf(format, args...)
}

func (p *peer) serve(stream *yamux.Stream) {
	defer stream.Close()
	reader := bufio.NewReader(stream)
	line, err := reader.ReadString('\n')
	if err != nil {
		return
	}
	fields := strings.Fields(line)
	number := func(at int) int {
		var n int
		if at < len(fields) {
			fmt.Sscan(fields[at], &n)
		}
		return n
	}
	switch fields[0] {
	case "echo":
		io.Copy(stream, reader)
	case "sink":
		sum := crc32.NewIEEE()
		n, err := io.Copy(sum, reader)
		p.note("sink %d %v", n, err)
		fmt.Fprintf(stream, "%d %08x\n", n, sum.Sum32())
	case "source":
		// One call of Write, which makes frames as large as the window.
		stream.Write(pattern(number(1)))
	case "flood":
		chunk := make([]byte, 64<<10)
		for {
			if _, err := stream.Write(chunk); err != nil {
				p.note("flood %v", err)
				return
			}
		}
	case "outcome":
		for i := 0; i < 500; i++ {
			p.mutex.Lock()
			outcome := p.outcome
			p.outcome = ""
			p.mutex.Unlock()
			if outcome != "" {
				fmt.Fprintln(stream, outcome)
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		fmt.Fprintln(stream, "none")
	case "open":
		fmt.Fprintln(stream, p.open(number(1), number(2)))
	case "ping":
		_, err := p.session.Ping()
		fmt.Fprintln(stream, "ping", err)
	case "goaway":
		fmt.Fprintln(stream, "goaway", p.session.GoAway())
		io.Copy(stream, reader)
	}
}

// open opens streams, all at once, and has each echoed.
func (p *peer) open(streams, size int) string {
	sent := pattern(size)
	failures := make(chan error, streams)
	var together sync.WaitGroup
	together.Add(streams)
	for i := 0; i < streams; i++ {
		go func() {
			stream, err := p.session.OpenStream()
			together.Done()
			if err != nil {
				failures <- err
				return
			}
			defer stream.Close()
			// No stream ends before all are open.
			together.Wait()
			go func() {
				stream.Write(sent)
				stream.Close()
			}()
			got, err := io.ReadAll(stream)
			if err == nil && crc32.ChecksumIEEE(got) != crc32.ChecksumIEEE(sent) {
				err = fmt.Errorf("echo of %d bytes differs in %d", len(sent), len(got))
			}
			failures <- err
		}()
	}
	for i := 0; i < streams; i++ {
		if err := <-failures; err != nil {
			return err.Error()
		}
	}
	return "all echoed"
}

func pattern(size int) []byte {
	bytes := make([]byte, size)
	for i := range bytes {
		bytes[i] = byte(i*7 + i>>9)
	}
	return bytes
}
