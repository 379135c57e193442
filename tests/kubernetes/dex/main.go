// Dex as an OpenID Connect provider of the tests: people and clients are fixed, nothing is kept on disk, and a restart
// has new signing keys.
//
// It is Dex's own server over HTTPS; only the way to configure it is ours, because Dex's program links SQLite.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/dexidp/dex/connector"
	"github.com/dexidp/dex/server"
	"github.com/dexidp/dex/storage"
	"github.com/dexidp/dex/storage/memory"
)

const directory = "people"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "dex:", err)
		os.Exit(1)
	}
}

func run() error {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen at")
	ready := flag.String("ready", "", "file to write the address to, once listening")
	certificate := flag.String("cert", "", "certificate in PEM")
	key := flag.String("key", "", "its key in PEM")
	everybody := flag.String("people", "", "JSON file of the people")
	rotate := flag.Duration("rotate-keys", 6*time.Hour, "life of a signing key")
	tokens := flag.Duration("id-tokens", time.Hour, "life of an ID token")
	flag.Parse()

	people, err := readPeople(*everybody)
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(*certificate, *key)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	// A refresh token is good for one use, to the moment.
	refresh, err := server.NewRefreshTokenPolicy(logger, false, "", "", "0s")
	if err != nil {
		return err
	}
	server.ConnectorsConfig[directory] = func() server.ConnectorConfig { return people }
	handler, err := server.NewServer(context.Background(), server.Config{
		Issuer:             "https://" + listener.Addr().String() + "/dex",
		Storage:            stored(logger),
		SkipApprovalScreen: true,
		PasswordConnector:  directory,
		RotateKeysAfter:    *rotate,
		IDTokensValidFor:   *tokens,
		RefreshTokenPolicy: refresh,
		Logger:             logger,
	})
	if err != nil {
		return err
	}
	if err := announce(*ready, listener.Addr().String()); err != nil {
		return err
	}
	front := http.Server{Handler: handler, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}}}
	return front.ServeTLS(listener, "", "")
}

func stored(logger *slog.Logger) storage.Storage {
	clients := []storage.Client{
		{ID: "moorline", Name: "Moorline", Public: true},
		{ID: "somebody-else", Name: "Somebody else", Public: true},
	}
	connectors := []storage.Connector{{ID: directory, Type: directory, Name: "People", Config: []byte("{}")}}
	return storage.WithStaticConnectors(storage.WithStaticClients(memory.New(logger), clients), connectors)
}

// announce writes in one step, so that nobody reads half an address.
func announce(path, address string) error {
	if err := os.WriteFile(path+".new", []byte(address), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// A person as the tests write them. Passwords are those of tests only.
type person struct {
	ID       string   `json:"id"`
	Email    string   `json:"email"`
	Password string   `json:"password"`
	Groups   []string `json:"groups"`
}

// people is a connector that knows its users by password.
type people struct {
	byEmail map[string]person
}

func readPeople(path string) (*people, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []person
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	known := &people{byEmail: map[string]person{}}
	for _, one := range list {
		known.byEmail[one.Email] = one
	}
	return known, nil
}

func (p *people) UnmarshalJSON([]byte) error { return nil }

func (p *people) Open(string, *slog.Logger) (connector.Connector, error) { return p, nil }

func (p *people) Prompt() string { return "" }

func (p *people) Login(_ context.Context, _ connector.Scopes, email, password string) (connector.Identity, bool, error) {
	one, known := p.byEmail[email]
	if !known || one.Password != password {
		return connector.Identity{}, false, nil
	}
	return identity(one), true, nil
}

// Refresh is asked for every new token: who was there may be gone.
func (p *people) Refresh(_ context.Context, _ connector.Scopes, before connector.Identity) (connector.Identity, error) {
	one, known := p.byEmail[before.Email]
	if !known {
		return connector.Identity{}, fmt.Errorf("nobody has that address")
	}
	return identity(one), nil
}

func identity(one person) connector.Identity {
	return connector.Identity{
		UserID:        one.ID,
		Username:      one.ID,
		Email:         one.Email,
		EmailVerified: true,
		Groups:        one.Groups,
	}
}
