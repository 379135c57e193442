// A kubelet small enough to read: it registers one node, runs the containers of the pods bound to it
// as local processes, and serves logs, exec, attach and port-forward to a real kube-apiserver.
// There are no images, no namespaces and no isolation: a container is a command on this machine.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"flag"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "how to reach the kube-apiserver")
	name := flag.String("node", "node-1", "the name of the node")
	root := flag.String("root", "", "directory for the working directories and logs of containers")
	flag.Parse()
	if err := run(context.Background(), *kubeconfig, *name, *root); err != nil {
		log.Fatalf("kubelet: %v", err)
	}
}

func run(ctx context.Context, kubeconfig, name, root string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 500, 500
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	certificate, err := selfSigned()
	if err != nil {
		return err
	}
	node := &node{name: name, root: root, client: client, containers: map[string]*container{}}
	server := &http.Server{
		Handler:           node.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		// SPDY is an HTTP/1.1 upgrade: never offer HTTP/2 here.
		TLSConfig:    &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	failed := make(chan error, 2)
	go func() { failed <- server.ServeTLS(listener, "", "") }()
	if err := node.register(ctx, listener.Addr().(*net.TCPAddr).Port); err != nil {
		return err
	}
	go func() { failed <- node.watch(ctx) }()
	log.Printf("node %s serves on %s", name, listener.Addr())
	return <-failed
}

// The kube-apiserver is started without a kubelet CA, so it takes any certificate.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "test-kubelet"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("sign the serving certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
