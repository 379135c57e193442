package main

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
)

// door hands the streams of whatever session is there to the HTTP server, which outlives them all.
type door struct{ waiting chan net.Conn }

func newDoor() *door { return &door{waiting: make(chan net.Conn)} }

func (d *door) enter(conn net.Conn)       { d.waiting <- conn }
func (d *door) Accept() (net.Conn, error) { return <-d.waiting, nil }
func (d *door) Close() error              { return nil }
func (d *door) Addr() net.Addr            { return &net.TCPAddr{} }

func (a *agent) serve() {
	server := &http.Server{Handler: a.handler}
	say("closed %v", server.Serve(tls.NewListener(a.door, a.inner)))
}

// newHandler proxies the two roots of the Kubernetes API with a token of its own; all else is not found.
func newHandler(upstream *url.URL, token, authority string) (http.Handler, error) {
	trust := &tls.Config{MinVersion: tls.VersionTLS12}
	if authority != "" {
		text, err := os.ReadFile(authority)
		if err != nil {
			return nil, err
		}
		trust.RootCAs = x509.NewCertPool()
		trust.RootCAs.AppendCertsFromPEM(text)
	}
	proxy := httputil.NewSingleHostReverseProxy(upstream)
	proxy.FlushInterval = -1
	proxy.Transport = &http.Transport{TLSClientConfig: trust, ForceAttemptHTTP2: true}
	forward := func(w http.ResponseWriter, r *http.Request) {
		text, err := os.ReadFile(token)
		if err != nil {
			http.Error(w, "no token", http.StatusInternalServerError)
			return
		}
		r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(text)))
		proxy.ServeHTTP(w, r)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/api/", forward)
	mux.HandleFunc("/apis/", forward)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Go's server keeps the name apart from the headers, so this is always empty.
		r.Header.Set("X-Forwarded-Host", r.Header.Get("Host"))
		w.Header().Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
		mux.ServeHTTP(w, r)
	}), nil
}
