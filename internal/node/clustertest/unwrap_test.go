package clustertest_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyroll/internal/node/clustertest"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store/storetest"
)

const (
	unwraps       = 400 // of a round
	unwrapClients = 4   // connections, each with one request at a time
)

// BenchmarkUnwrapAgainstBareRSA compares the processor time of an RSA-2048 unwrap by
// this process with that of the server's whole process for an unwrapkey request over
// TLS (HTTP/1.1), with a token of the token endpoint. Clients keep their connections. The
// two are measured one after the other in each round, each on all processors.
func BenchmarkUnwrapAgainstBareRSA(b *testing.B) {
	for name, database := range map[string]func() string{
		"sqlite":   func() string { return "sqlite://" + filepath.Join(b.TempDir(), "keyroll.db") },
		"postgres": func() string { return storetest.PostgresURL(b) },
	} {
		b.Run(name, func(b *testing.B) {
			c := clustertest.Start(b, clustertest.Options{Nodes: 1, Database: database()})
			u := newUnwrapper(b, c.Nodes[0])
			u.unwrap(unwraps)
			var ratios, bare, server []float64
			for b.Loop() {
				for range *benchRounds {
					alone := u.bare(unwraps)
					before := c.Nodes[0].CPU()
					u.unwrap(unwraps)
					whole := (c.Nodes[0].CPU() - before).Seconds() / unwraps
					ratios, bare, server = append(ratios, alone/whole), append(bare, 1e6*alone), append(server, 1e6*whole)
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(ratios), "bare/server")
			b.ReportMetric(median(bare), "µs-bare")
			b.ReportMetric(median(server), "µs-server")
			b.Logf("bare RSA / server %.2f (%.2f to %.2f); bare %.0f µs (%.0f to %.0f), server %.0f µs (%.0f to %.0f)",
				median(ratios), slices.Min(ratios), slices.Max(ratios), median(bare), slices.Min(bare), slices.Max(bare),
				median(server), slices.Min(server), slices.Max(server))
		})
	}
}

// unwrapper sends unwrapkey requests for one key.
type unwrapper struct {
	b       *testing.B
	http    *http.Client
	url     string // of the request
	token   string
	body    string
	private *rsa.PrivateKey
	wrapped []byte
}

// newUnwrapper makes a vault with a key, and a token that may use it.
func newUnwrapper(b *testing.B, n *clustertest.Node) *unwrapper {
	w := n.World()
	server, err := url.Parse(w.Info.URL)
	if err != nil {
		b.Fatal(err)
	}
	u := &unwrapper{b: b, http: connect(b, w, server.Host), token: w.Token}
	w.Script("New-AzKeyVault -VaultName "+nodetest.VaultA1+" -ResourceGroupName bench -Location eastus",
		"Add-AzKeyVaultKey -VaultName "+nodetest.VaultA1+" -Name bench -Destination Software -Size 2048")
	domain := w.Info.VaultDomain + ":" + server.Port()
	u.logIn(w, "https://"+domain+"/.default")

	var key struct{ Key struct{ KID string } }
	u.call("GET", "https://"+nodetest.VaultA1+"."+domain+"/keys/bench?api-version=7.4", "", &key)
	plain := make([]byte, 64)
	rand.Read(plain)
	var wrapped struct{ Value string }
	u.call("POST", key.Key.KID+"/wrapkey?api-version=7.4", `{"alg":"RSA-OAEP-256","value":"`+base64.RawURLEncoding.EncodeToString(plain)+`"}`, &wrapped)
	u.url, u.body = key.Key.KID+"/unwrapkey?api-version=7.4", `{"alg":"RSA-OAEP-256","value":"`+wrapped.Value+`"}`

	if u.private, err = rsa.GenerateKey(rand.Reader, 2048); err == nil {
		u.wrapped, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, &u.private.PublicKey, plain, nil)
	}
	if err != nil {
		b.Fatal(err)
	}
	return u
}

// connect returns a client that connects to the node whatever the host, because names of
// vaults are not in the DNS.
func connect(b *testing.B, w *nodetest.World, address string) *http.Client {
	ca, err := os.ReadFile(w.Info.CAFile)
	if err != nil {
		b.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{
		MaxIdleConnsPerHost: unwrapClients, TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}
	b.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// logIn replaces the admin's token by one of the token endpoint.
func (u *unwrapper) logIn(w *nodetest.World, scope string) {
	var subscriptions struct{ Value []struct{ ID string } }
	u.call("GET", w.Info.URL+"/subscriptions?api-version=2022-12-01", "", &subscriptions)
	var vaults struct {
		Value []struct {
			Properties struct {
				AccessPolicies []struct{ ObjectID string }
			}
		}
	}
	u.call("GET", w.Info.URL+subscriptions.Value[0].ID+"/providers/Microsoft.KeyVault/vaults?api-version=2024-11-01", "", &vaults)
	admin := vaults.Value[0].Properties.AccessPolicies[0].ObjectID
	answer, err := u.http.PostForm(w.Info.URL+"/"+w.Info.TenantID+"/oauth2/v2.0/token",
		url.Values{"grant_type": {"client_credentials"}, "client_id": {admin}, "client_secret": {w.Token}, "scope": {scope}})
	if err != nil {
		u.b.Fatal(err)
	}
	defer answer.Body.Close()
	var issued struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&issued); err != nil || issued.Token == "" {
		u.b.Fatalf("token: %d %v", answer.StatusCode, err)
	}
	u.token = issued.Token
}

func (u *unwrapper) call(method, url, body string, into any) {
	r, err := http.NewRequestWithContext(u.b.Context(), method, url, strings.NewReader(body))
	if err != nil {
		u.b.Error(err)
		return
	}
	r.Header.Set("Authorization", "Bearer "+u.token)
	answer, err := u.http.Do(r)
	if err != nil {
		u.b.Error(err)
		return
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d %s", answer.StatusCode, bytes.TrimSpace(text))
	}
	if err == nil && into != nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		u.b.Errorf("%s %s: %v", method, url, err)
	}
}

// unwrap sends n requests.
func (u *unwrapper) unwrap(n int) {
	var clients sync.WaitGroup
	for range unwrapClients {
		clients.Go(func() {
			for range n / unwrapClients {
				u.call("POST", u.url, u.body, nil)
			}
		})
	}
	clients.Wait()
}

// bare decrypts n times, on all processors, and returns the processor time of one in
// seconds.
func (u *unwrapper) bare(n int) float64 {
	before := ownTime(u.b)
	var threads sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		threads.Go(func() {
			for range n / runtime.GOMAXPROCS(0) {
				if _, err := rsa.DecryptOAEP(sha256.New(), nil, u.private, u.wrapped, nil); err != nil {
					u.b.Error(err)
				}
			}
		})
	}
	threads.Wait()
	return (ownTime(u.b) - before).Seconds() / float64(n)
}

// ownTime returns the processor time that this process has used.
func ownTime(b *testing.B) time.Duration {
	var used unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Nano())
}
