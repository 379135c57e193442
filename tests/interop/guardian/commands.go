package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sort"
	"strings"
	"sync"
	"time"
)

// obey reads commands, one a line, and answers each with one line that begins with "done".
//
//	streams                       how many streams are open, and how many goroutines there are
//	half-close                    say on every stream the server opened that nothing more will come
//	close-streams                 the same for both kinds, forgetting them
//	slam N                        end the next N streams as soon as they are accepted
//	reset                         end the session's TCP connection with a reset
//	hang-up                       end the session politely
//	go-away                       say that no new streams are wanted
//	freeze | thaw                 stop reading the session's socket, and read on
//	hush                          close the listener's connections before their streams
//	open N TEXT                   open N raw streams at once, send TEXT, read each to its end; TEXT is one word
//	shake N NAME SIZE             the same with TLS to NAME inside: SIZE bytes that must come back
//	pings N                       N pings one after the other; how long the longest took
//	exit                          end without closing anything
func obey(a *agent, lines *bufio.Scanner) {
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) == 0 {
			continue
		}
		answer, err := a.command(words[0], words[1:])
		if err != nil {
			answer = "error " + err.Error()
		}
		say("done %s %s", words[0], answer)
	}
}

func (a *agent) command(verb string, words []string) (string, error) {
	number := func(at int) int {
		var n int
		if at < len(words) {
			fmt.Sscan(words[at], &n)
		}
		return n
	}
	word := func(at int) string {
		if at < len(words) {
			return words[at]
		}
		return ""
	}
	switch verb {
	case "streams":
		return fmt.Sprintf("down=%d up=%d goroutines=%d", len(a.down.all()), len(a.up.all()), runtime.NumGoroutine()), nil
	case "half-close":
		all := a.down.all()
		for _, stream := range all {
			stream.Close()
		}
		return fmt.Sprint(len(all)), nil
	case "close-streams":
		all := append(a.down.all(), a.up.all()...)
		for _, stream := range all {
			stream.Close()
			// Whoever reads it is told that it is over.
			stream.SetReadDeadline(time.Now())
		}
		return fmt.Sprint(len(all)), nil
	case "slam":
		a.slam.set(number(0))
		return "", nil
	case "hush":
		return fmt.Sprint(a.locals.closeAll()), nil
	case "exit":
		os.Exit(0)
	}
	session, err := a.current()
	if verb == "thaw" {
		// The session may be over, which thaws as well.
		if err == nil {
			session.raw.freeze(false)
		}
		return "", nil
	}
	if err != nil {
		return "", err
	}
	switch verb {
	case "reset":
		session.raw.Conn.(*net.TCPConn).SetLinger(0)
		return "", session.raw.Conn.Close()
	case "hang-up":
		return "", session.mux.Close()
	case "go-away":
		return "", session.mux.GoAway()
	case "freeze":
		session.raw.freeze(true)
		return "", nil
	case "open":
		return a.many(number(0), func(conn net.Conn) error {
			if _, err := io.WriteString(conn, word(1)); err != nil {
				return err
			}
			got, err := io.ReadAll(conn)
			if err == nil && len(got) > 0 {
				err = fmt.Errorf("answered")
			}
			return err
		}), nil
	case "shake":
		return a.many(number(0), func(conn net.Conn) error { return shake(conn, word(1), number(2)) }), nil
	case "pings":
		var longest time.Duration
		for range number(0) {
			took, err := session.mux.Ping()
			if err != nil {
				return "", err
			}
			longest = max(longest, took)
		}
		return longest.String(), nil
	}
	return "", fmt.Errorf("unknown command")
}

// many opens streams, all before any ends, and counts how they end.
func (a *agent) many(number int, use func(net.Conn) error) string {
	var opened, ended sync.WaitGroup
	var mutex sync.Mutex
	ends := map[string]int{}
	opened.Add(number)
	ended.Add(number)
	for range number {
		go func() {
			defer ended.Done()
			stream, err := a.open()
			opened.Done()
			if err == nil {
				opened.Wait()
				err = use(stream)
				a.up.remove(stream)
				stream.Close()
			}
			mutex.Lock()
			defer mutex.Unlock()
			ends[fmt.Sprint(err)]++
		}()
	}
	ended.Wait()
	var told []string
	for end, times := range ends {
		told = append(told, fmt.Sprintf("%d %s", times, end))
	}
	sort.Strings(told)
	return strings.Join(told, "; ")
}

// shake makes TLS with whoever serves that name behind the tunnel, sends bytes, and wants the same ones back.
func shake(conn net.Conn, name string, size int) error {
	client := tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err := client.Handshake(); err != nil {
		return err
	}
	sent := make([]byte, size)
	for i := range sent {
		sent[i] = byte(i*7 + i>>9)
	}
	go func() {
		client.Write(sent)
		client.CloseWrite()
	}()
	got, err := io.ReadAll(client)
	if err != nil {
		return err
	}
	if string(got) != string(sent) {
		return fmt.Errorf("%d of %d bytes came back, or others", len(got), len(sent))
	}
	return nil
}
