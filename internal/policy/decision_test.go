package policy_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azpolicy "github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"keyroll/api"
	"keyroll/internal/audit"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/rootkey"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// outcome is a kind of answer of a vault, or of its failure to answer.
type outcome struct {
	name    string
	failure rootkey.Failure
	// status and code are those of the answer, 0 where there is none.
	status int
	code   string
}

var outcomes = []outcome{
	{name: "ok", failure: rootkey.Failure{Class: opened}},
	{"403", rootkey.AccessRemoved, http.StatusForbidden, "AccessDenied"},
	{"disabled key", rootkey.KeyDisabled, http.StatusForbidden, "KeyDisabled"},
	{"deleted key", rootkey.KeyDeleted, http.StatusNotFound, "KeyNotFound"},
	{"deleted vault", rootkey.VaultDeleted, http.StatusNotFound, "VaultNotFound"},
	{"429", rootkey.Throttled, http.StatusTooManyRequests, "Throttled"},
	{"500", rootkey.VaultError, http.StatusInternalServerError, "InternalError"},
	{"time-out", rootkey.TimedOut, 0, ""},
	{"connection refused", rootkey.NotReached, 0, ""},
	{"DNS failure", rootkey.NameNotFound, 0, ""},
	{"bad certificate", rootkey.NotTrusted, 0, ""},
	{"no descriptors", rootkey.Exhausted, 0, ""},
}

// opened is the class of a vault that succeeds.
const opened rootkey.Class = -1

// With a destroyed availability key one outcome of each class is enough.
var ofEachClass = map[string]bool{"ok": true, "403": true, "connection refused": true, "no descriptors": true}

// callTimeout bounds one call in a test in which a vault does not answer, and is far
// above the time of an answer on a busy machine. Other calls may take very long.
const (
	callTimeout = 4 * time.Second
	noTimeout   = 5 * time.Minute
)

// The decision table of unwrapping: {vault A} x {vault B} x {user, system,
// recovery} x {availability key present, destroyed}, with keys that were used before.
// Each vault is a listener with its own outcome; it is called by the client that keyroll
// uses.
func TestDecisionTableOfUnwrapping(t *testing.T) {
	storetest.KeepAnswers(t)
	w := policytest.New(t, storetest.One(t))
	v := newVaults(t)
	type combination struct {
		name      string
		a, b      outcome
		operation string
		destroyed bool
		err       error
	}
	// Each policy serves one combination at a time, and both of its keys serve
	// again before the next: the health of a key outlives a combination.
	const atOnce = 16
	policies := map[bool]chan policy.Policy{false: make(chan policy.Policy, atOnce), true: make(chan policy.Policy, atOnce)}
	for i := range atOnce {
		policies[false] <- v.policy(w, fmt.Sprint("there", i))
		destroyed := v.policy(w, fmt.Sprint("destroyed", i))
		w.DestroyAvailabilityKey(destroyed)
		policies[true] <- destroyed
	}
	var all []*combination
	for _, a := range outcomes {
		for _, b := range outcomes {
			for _, operation := range []string{user, system, recovery} {
				for _, gone := range []bool{false, true} {
					if gone && !(ofEachClass[a.name] && ofEachClass[b.name]) {
						continue
					}
					name := fmt.Sprintf("A %s, B %s, %s", a.name, b.name, operation)
					if gone {
						name += ", availability key destroyed"
					}
					all = append(all, &combination{name: name, a: a, b: b, operation: operation, destroyed: gone})
				}
			}
		}
	}
	// They run side by side first, for most of the time goes by in waiting.
	work, running := make(chan *combination), sync.WaitGroup{}
	for range 2 * atOnce {
		running.Go(func() {
			for c := range work {
				pol := <-policies[c.destroyed]
				keys := v.client(map[string]string{"a-" + pol.Name: c.a.name, "b-" + pol.Name: c.b.name})
				config := w.Config
				config.Roots = keys
				node := policy.New(config)
				ctx := audit.WithOrigin(w.Ctx, audit.Origin{Operation: c.operation, Request: c.name})
				var key *envelope.Key
				key, c.err = node.Open(ctx, w.Tenant, pol.Current.ID, initiatorOf(c.operation))
				key.Zero()
				node.Close()
				keys.Close()
				config.Roots = sameKey{w.Vaults, v.key}
				healed := policy.New(config)
				for _, probe := range healed.Probe(w.Ctx, w.Tenant, pol.Current.ID)[:2] {
					if probe.Err != nil {
						t.Error(probe.Err)
					}
				}
				policies[c.destroyed] <- pol
			}
		})
	}
	for _, c := range all {
		work <- c
	}
	close(work)
	running.Wait()
	byRequest := map[string]int{}
	w.View(func(tx *store.Tx) error {
		rows, err := tx.Query(w.Ctx, `SELECT request FROM audit_entry WHERE outcome = 'done' AND detail LIKE '%Fallback to Availability Key%'`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var request string
			if err := rows.Scan(&request); err != nil {
				return err
			}
			byRequest[request]++
		}
		return rows.Err()
	})
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			var want api.Code // none: it opens
			fallbacks := 0
			either := func(class rootkey.Class) bool { return c.a.failure.Class == class || c.b.failure.Class == class }
			code, serves := api.VaultUnavailable, true // of an outage
			switch {
			case either(rootkey.Refusal):
				code, serves = api.VaultDenied, c.operation != user
			case either(rootkey.Local):
				code, serves = api.Unavailable, c.operation == recovery
			}
			switch {
			case either(opened):
			case serves && !c.destroyed:
				fallbacks = 1
			default:
				want = code
			}
			if want == "" && c.err != nil || want != "" && !fail.Is(c.err, want) {
				t.Errorf("error is %v (%s), want %q", c.err, fail.CodeOf(c.err), want)
			}
			if want != "" && !(strings.Contains(fmt.Sprint(c.err), c.a.failure.Reason) && strings.Contains(fmt.Sprint(c.err), c.b.failure.Reason)) {
				t.Errorf("error is %v, which says not both that %s and that %s", c.err, c.a.failure.Reason, c.b.failure.Reason)
			}
			if got := byRequest[c.name]; got != fallbacks {
				t.Errorf("%d fallbacks are in the log, want %d", got, fallbacks)
			}
		})
	}
	if want := 12*12*3 + 4*4*3; len(all) != want {
		t.Errorf("%d combinations, want %d", len(all), want)
	}
}

// vaults are a listener for each outcome.
type vaults struct {
	key       *rsa.PrivateKey
	roots     *x509.CertPool
	addresses map[string]string // of the listeners, by the name of the outcome
	resolver  *net.Resolver     // knows no name
}

const azureDomain, tenantGUID = "vault.azure.net", "11111111-2222-3333-4444-555555555555"

func newVaults(t *testing.T) *vaults {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	v := &vaults{key: key, addresses: map[string]string{}}
	good, trusted := selfSigned(t)
	bad, _ := selfSigned(t)
	v.roots = trusted
	for _, o := range outcomes {
		certificate := good
		switch o.name {
		case "no descriptors":
			continue
		case "time-out":
			v.addresses[o.name] = silentAddress(t)
			continue
		case "connection refused":
			v.addresses[o.name] = closedAddress(t)
			continue
		case "DNS failure":
			v.resolver = emptyResolver(t)
			continue
		case "bad certificate":
			certificate = bad
		}
		v.addresses[o.name] = listen(t, certificate, v.vault(o)).Listener.Addr().String()
	}
	return v
}

// selfSigned returns a certificate for the test's hosts, and who trusts it.
func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"*." + azureDomain}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func listen(t *testing.T, certificate tls.Certificate, h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// silentAddress accepts connections and never answers.
func silentAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(io.Discard, conn); conn.Close() }()
		}
	}()
	return l.Addr().String()
}

// closedAddress returns an address without a listener.
func closedAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// emptyResolver returns a resolver whose name server knows no name (RFC 1035,
// section 4.1.1: a response with RCODE 3).
func emptyResolver(t *testing.T) *net.Resolver {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		question := make([]byte, 512)
		for {
			n, from, err := server.ReadFrom(question)
			if err != nil {
				return
			}
			question[2], question[3] = 0x81, 0x83
			server.WriteTo(question[:n], from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

// client returns a node's client for which each vault has an outcome. The vaults are
// external, because an embedded one has no outage.
func (v *vaults) client(of map[string]string) *rootkey.Client {
	timeout := noTimeout
	for _, outcome := range of {
		if outcome == "time-out" {
			timeout = callTimeout
		}
	}
	return rootkey.New(rootkey.Config{
		VaultDomain: "vault.localhost", CallTimeout: timeout, NoRetry: true,
		External: &rootkey.External{RootCAs: v.roots, Credential: staticCredential{}, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			name, _, _ := strings.Cut(address, ".")
			switch of[name] {
			case "DNS failure":
				return (&net.Dialer{Resolver: v.resolver}).DialContext(ctx, network, address)
			case "no descriptors":
				return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("socket", syscall.EMFILE)}
			}
			return new(net.Dialer).DialContext(ctx, network, v.addresses[of[name]])
		}},
	})
}

type staticCredential struct{}

func (staticCredential) GetToken(context.Context, azpolicy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "token", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// policy makes a mailbox policy whose wraps the listeners open.
func (v *vaults) policy(w *policytest.World, name string) policy.Policy {
	w.Helper()
	config := w.Config
	config.Roots = sameKey{w.Vaults, v.key}
	node := policy.New(config)
	defer node.Close()
	a, b := w.Vaults.Add("https://a-"+name+"."+azureDomain, "k"), w.Vaults.Add("https://b-"+name+"."+azureDomain, "k")
	a.Version, b.Version = "", ""
	pol, err := w.CreateOn(node, policy.Definition{Kind: api.MailboxPolicy, Name: name, Primary: a, Secondary: b})
	w.Must(err)
	return pol.Policy
}

// sameKey wraps and unwraps with the same RSA key for every key version.
type sameKey struct {
	*policytest.FakeVaults
	key *rsa.PrivateKey
}

func (s sameKey) Key(ctx context.Context, tenant int64, id rootkey.Identity, kv envelope.KeyVersion) (rootkey.KeyInfo, error) {
	info, err := s.FakeVaults.Key(ctx, tenant, id, kv)
	info.Public = &s.key.PublicKey
	return info, err
}

func (s sameKey) Wrap(_ context.Context, _ int64, _ rootkey.Identity, _ envelope.KeyVersion, plaintext []byte) ([]byte, error) {
	return rsa.EncryptOAEP(sha256.New(), rand.Reader, &s.key.PublicKey, plaintext, nil)
}

func (s sameKey) Unwrap(_ context.Context, _ int64, _ rootkey.Identity, _ envelope.KeyVersion, wrapped []byte) ([]byte, error) {
	return rsa.DecryptOAEP(sha256.New(), nil, s.key, wrapped, nil)
}

// vault serves like a vault: a challenge first, then an outcome.
func (v *vaults) vault(o outcome) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer authorization="https://login.example/%s", resource="https://%s"`, tenantGUID, azureDomain))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if o.status != 0 {
			answerJSON(w, o.status, map[string]any{"error": map[string]any{"code": "Outer", "message": o.name, "innererror": map[string]any{"code": o.code}}})
			return
		}
		var in struct{ Alg, Value string }
		err := json.NewDecoder(r.Body).Decode(&in)
		wrapped, notBase64 := base64.RawURLEncoding.DecodeString(in.Value)
		plaintext, notOpened := rsa.DecryptOAEP(sha256.New(), nil, v.key, wrapped, nil)
		version, unwrap := strings.CutSuffix(r.URL.Path, "/unwrapkey")
		if err != nil || notBase64 != nil || notOpened != nil || !unwrap || in.Alg != "RSA-OAEP-256" {
			answerJSON(w, http.StatusBadRequest, map[string]any{"error": map[string]any{"code": "BadParameter", "message": "it cannot be decrypted"}})
			return
		}
		answerJSON(w, http.StatusOK, map[string]any{"kid": "https://" + r.Host + version, "value": base64.RawURLEncoding.EncodeToString(plaintext)})
	}
}

func answerJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}
