package node_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"keyroll/internal/listen"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/policy"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// Every connection that the node accepts is held by a caller that has sent half a
// request: no other caller is served, and the node can still access its own vaults.
func TestOwnVaultsAreReachedWhileCallersHoldEveryConnection(t *testing.T) {
	t.Parallel()
	const connections = 4
	for name, database := range map[string]func(t *testing.T) string{
		"sqlite":   func(*testing.T) string { return "" },
		"postgres": func(t *testing.T) string { return storetest.PostgresURL(t) },
	} {
		t.Run(name, func(t *testing.T) {
			w := nodetest.Start(t, node.Options{Data: nodetest.Folder(t), Database: database(t), Limits: listen.Limits{Connections: connections, PerSource: connections}})
			w.StageSites()
			var pol policy.Policy
			err := w.Node.DB.ViewOnce(t.Context(), func(tx *store.Tx) (err error) {
				pol, err = w.Node.Policies.Find(t.Context(), tx, w.Node.Tenant.ID, "Sites")
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			server, err := url.Parse(w.Info.URL)
			if err != nil {
				t.Fatal(err)
			}
			pem, err := os.ReadFile(w.Info.CAFile)
			if err != nil {
				t.Fatal(err)
			}
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(pem)
			// Idle connections are closed, active ones are not.
			for range connections {
				conn, err := tls.Dial("tcp", server.Host, &tls.Config{RootCAs: roots})
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				fmt.Fprintf(conn, "POST /v1/sites HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n", server.Host, w.Token)
				if line, err := bufio.NewReader(conn).ReadString('\n'); !strings.Contains(line, "100 Continue") {
					t.Fatalf("%q, %v", line, err)
				}
			}
			if conn, err := tls.Dial("tcp", server.Host, &tls.Config{RootCAs: roots}); err == nil {
				conn.Close()
				t.Fatal("there is a connection left")
			}
			probes, err := w.Node.Policies.Test(t.Context(), pol)
			if err != nil || len(probes) == 0 {
				t.Fatal(probes, err)
			}
			for _, p := range probes {
				if !p.Wraps || !p.Unwraps {
					t.Errorf("%+v", p)
				}
			}
		})
	}
}
