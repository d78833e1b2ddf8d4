package rootkey_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/rootkey"
)

// TestClassificationOfDeliberateRefusals repeats design section 6: access removed, key or version
// disabled, deleted, not yet valid or expired. Only these are deliberate acts.
func TestClassificationOfDeliberateRefusals(t *testing.T) {
	deliberate := []rootkey.Failure{rootkey.AccessRemoved, rootkey.OperationOff, rootkey.KeyDisabled, rootkey.KeyExpired, rootkey.NotYetValid, rootkey.KeyDeleted, rootkey.VaultDeleted}
	other := []rootkey.Failure{rootkey.Throttled, rootkey.VaultError, rootkey.Rejected, rootkey.Unauthenticated, rootkey.NoToken, rootkey.TimedOut, rootkey.NameNotFound,
		rootkey.NotTrusted, rootkey.NotReached, rootkey.TooLargeAnswer, rootkey.MalformedChallenge, rootkey.MalformedAnswer}
	for _, f := range deliberate {
		if f.Class != rootkey.Refusal {
			t.Errorf("%s: not deliberate", f.Reason)
		}
	}
	for _, f := range other {
		if f.Class != rootkey.Outage {
			t.Errorf("%s: deliberate", f.Reason)
		}
	}
	for _, row := range rootkey.Answers() {
		if row.Failure.Class == rootkey.Refusal && !slices.Contains(deliberate, row.Failure) {
			t.Errorf("%d %s is %s", row.Status, row.Code, row.Failure.Reason)
		}
	}
	for _, f := range rootkey.Causes() {
		if f.Class == rootkey.Refusal {
			t.Errorf("%s happens before the vault has answered", f.Reason)
		}
	}
}

// TestEveryAnswerIsClassifiedAsInTheTable makes a vault send each answer over the network, with its
// code as the inner and as the outer one.
func TestEveryAnswerIsClassifiedAsInTheTable(t *testing.T) {
	rows := append(rootkey.Answers(),
		rootkey.AnswerRow{Status: 403, Code: "ForbiddenByFirewall", Failure: rootkey.AccessRemoved},
		rootkey.AnswerRow{Status: 403, Code: "AccessDenied", Failure: rootkey.AccessRemoved},
		rootkey.AnswerRow{Status: 404, Code: "SomethingElse", Failure: rootkey.MalformedAnswer},
		rootkey.AnswerRow{Status: 404, Failure: rootkey.MalformedAnswer},
		rootkey.AnswerRow{Status: 400, Code: "BadParameter", Failure: rootkey.Rejected},
		rootkey.AnswerRow{Status: 418, Failure: rootkey.MalformedAnswer},
	)
	for _, row := range rows {
		t.Run(fmt.Sprint(row.Status, row.Code), func(t *testing.T) {
			t.Parallel()
			w := newFakeVault(t)
			c := w.client(t)
			bodies := []http.HandlerFunc{
				func(rw http.ResponseWriter, _ *http.Request) { answerError(rw, row.Status, row.Code, "", "words") },
				func(rw http.ResponseWriter, _ *http.Request) {
					answerError(rw, row.Status, "Forbidden", row.Code, "words")
				},
			}
			if row.Code == "" {
				bodies = append(bodies, func(rw http.ResponseWriter, _ *http.Request) {
					rw.WriteHeader(row.Status)
					io.WriteString(rw, "<html>no Azure error</html>")
				})
			}
			for _, body := range bodies {
				w.set(func(w *fakeVault) { w.vault = body })
				_, err := c.Unwrap(t.Context(), 1, rootkey.Exchange, k1(version1), []byte{1})
				checkFailure(t, err, row.Failure)
			}
		})
	}
}

// checkFailure checks an error of one of keyroll's own vaults: every failure that is not
// a refusal is a local problem.
func checkFailure(t *testing.T, err error, want rootkey.Failure) {
	t.Helper()
	code := api.Unavailable
	switch {
	case want == rootkey.DamagedKey:
		code = api.Damaged
	case want.Class == rootkey.Refusal:
		code = api.VaultDenied
	}
	checkCode(t, err, want, code)
}

func checkCode(t *testing.T, err error, want rootkey.Failure, code api.Code) {
	t.Helper()
	if got := rootkey.Classify(err); got != want {
		t.Errorf("classified as %q, want %q: %v", got.Reason, want.Reason, err)
	}
	if !fail.Is(err, code) {
		t.Errorf("code %s, want %s", fail.CodeOf(err), code)
	}
	if err != nil && !strings.Contains(err.Error(), want.Reason) {
		t.Errorf("%q does not say %q", err, want.Reason)
	}
}

// TestEveryCauseIsClassifiedAsInTheTable uses real listeners for each failure without an answer.
func TestEveryCauseIsClassifiedAsInTheTable(t *testing.T) {
	challenge := func(format string) func(*testing.T, *fakeVault, *rootkey.Config) {
		return func(_ *testing.T, w *fakeVault, _ *rootkey.Config) {
			w.challenge = strings.NewReplacer("AUTHORITY", w.URL, "GUID", tenantGUID, "RESOURCE", "https://"+domain+":"+w.port()).Replace(format)
		}
	}
	vault := func(f http.HandlerFunc) func(*testing.T, *fakeVault, *rootkey.Config) {
		return func(_ *testing.T, w *fakeVault, _ *rootkey.Config) { w.vault = f }
	}
	authority := func(f http.HandlerFunc) func(*testing.T, *fakeVault, *rootkey.Config) {
		return func(_ *testing.T, w *fakeVault, _ *rootkey.Config) { w.authority = f }
	}
	listener := func(serve func(net.Conn)) func(*testing.T, *fakeVault, *rootkey.Config) {
		return func(t *testing.T, _ *fakeVault, config *rootkey.Config) { config.Dial = dialTo(listen(t, serve)) }
	}
	says := func(status int, body string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(status)
			io.WriteString(rw, body)
		}
	}
	hang := func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // else the server does not notice that the client has gone
		<-r.Context().Done()
	}
	value := func(kid string) http.HandlerFunc {
		return says(200, `{"kid":"https://contoso-a.vault.localhost/keys/k1/`+kid+`","value":"AAAA"}`)
	}
	tests := []struct {
		name string
		set  func(*testing.T, *fakeVault, *rootkey.Config)
		want rootkey.Failure
	}{
		{"challenge without a tenant", challenge(`Bearer authorization="https://host", resource="RESOURCE"`), rootkey.MalformedChallenge},
		{"no challenge", challenge(" "), rootkey.Unauthenticated},
		{"challenge without a resource", challenge(`Bearer authorization="AUTHORITY/GUID"`), rootkey.MalformedAnswer},
		{"challenge for another domain", challenge(`Bearer authorization="AUTHORITY/GUID", resource="https://vault.example"`), rootkey.MalformedAnswer},
		{"challenge for a domain that only looks alike", challenge(`Bearer authorization="AUTHORITY/GUID", resource="https://localhost.example"`), rootkey.MalformedAnswer},
		{"challenge for another tenant", challenge(`Bearer authorization="AUTHORITY/99999999-2222-3333-4444-555555555555", resource="RESOURCE"`), rootkey.NoToken},
		{"authority refuses with 403", authority(says(403, `{"error":{"code":"Forbidden"}}`)), rootkey.NoToken},
		{"authority says 404 KeyNotFound", authority(says(404, `{"error":{"code":"KeyNotFound"}}`)), rootkey.NoToken},
		{"authority talks nonsense", authority(says(200, `nonsense`)), rootkey.NoToken},
		{"authority hangs", authority(hang), rootkey.TimedOut},
		{"vault hangs", vault(hang), rootkey.TimedOut},
		{"listener never answers", listener(func(conn net.Conn) { io.Copy(io.Discard, conn) }), rootkey.TimedOut},
		{"connection refused", func(t *testing.T, _ *fakeVault, config *rootkey.Config) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
			config.Dial = dialTo(l.Addr().String)
		}, rootkey.NotReached},
		{"connection dropped", listener(func(net.Conn) {}), rootkey.NotReached},
		{"answer dropped", vault(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), rootkey.NotReached},
		{"no TLS", listener(func(conn net.Conn) { io.WriteString(conn, "220 mail.example ESMTP\r\n") }), rootkey.NotTrusted},
		{"certificate of another CA", func(t *testing.T, _ *fakeVault, config *rootkey.Config) {
			_, config.RootCAs = certificate(t, "*."+domain)
		}, rootkey.NotTrusted},
		{"certificate for another name", func(t *testing.T, _ *fakeVault, config *rootkey.Config) {
			config.VaultDomain = "vault.example"
		}, rootkey.NotTrusted},
		{"garbage", vault(says(200, `garbage`)), rootkey.MalformedAnswer},
		{"empty answer", vault(says(200, ``)), rootkey.MalformedAnswer},
		{"answer without a value", vault(says(200, `{"kid":"https://contoso-a.vault.localhost/keys/k1/`+version1+`"}`)), rootkey.MalformedAnswer},
		{"answer about another version", vault(value(version2)), rootkey.MalformedAnswer},
		{"answer about no version", vault(value("")), rootkey.MalformedAnswer},
		{"too large an answer", vault(says(200, strings.Repeat(" ", rootkey.MaxAnswer+1))), rootkey.TooLargeAnswer},
		{"too large a refusal", vault(says(403, strings.Repeat(" ", rootkey.MaxAnswer+1))), rootkey.TooLargeAnswer},
	}
	seen := map[rootkey.Failure]bool{rootkey.NameNotFound: true, rootkey.Exhausted: true} // below: own vaults need neither DNS nor descriptors
	for _, test := range tests {
		seen[test.want] = true
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newFakeVault(t)
			config := w.config()
			test.set(t, w, &config)
			c := newClient(t, config)
			if test.want == rootkey.TimedOut {
				c.SetTimeout(200 * time.Millisecond)
			}
			_, err := c.Unwrap(t.Context(), 1, rootkey.Exchange, k1(version1), []byte{1})
			checkFailure(t, err, test.want)
		})
	}
	for _, failure := range rootkey.Causes() {
		if !seen[failure] {
			t.Errorf("no test for %q", failure.Reason)
		}
	}
}

// listen serves connections on a listener without TLS and returns its address.
func listen(t *testing.T, serve func(net.Conn)) func() string {
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
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return func() string { return l.Addr().String() }
}

func TestTheCallersDeadlineCountsAsATimeout(t *testing.T) {
	w := newFakeVault(t)
	w.vault = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := w.client(t).Key(ctx, 1, rootkey.Exchange, k1(""))
	checkFailure(t, err, rootkey.TimedOut)
}

// A local problem of an embedded vault is an outage of one in Azure, unless this process
// has run out of a resource.
func TestOutagesAndLocalFailuresOfAnAzureVault(t *testing.T) {
	w := newFakeVault(t)
	w.challenge = `Bearer authorization="https://login.example/` + tenantGUID + `", resource="https://vault.azure.net"`
	check := func(dial func(context.Context, string, string) (net.Conn, error), want rootkey.Failure, code api.Code) {
		t.Helper()
		config := w.config()
		config.NoRetry = true
		config.External = &rootkey.External{Dial: dial, RootCAs: w.ca, Credential: staticCredential{}}
		kv := envelope.KeyVersion{Vault: "https://contoso-a.vault.azure.net", Key: "k1", Version: version1}
		_, err := newClient(t, config).Unwrap(t.Context(), 1, rootkey.Exchange, kv, []byte{1})
		checkCode(t, err, want, code)
	}
	for _, row := range rootkey.Answers() {
		w.set(func(w *fakeVault) {
			w.vault = func(rw http.ResponseWriter, _ *http.Request) { answerError(rw, row.Status, row.Code, "", "words") }
		})
		failure, code := row.Failure, api.VaultUnavailable
		if failure.Class == rootkey.Refusal {
			code = api.VaultDenied
		}
		if failure == rootkey.DamagedKey { // which only an embedded vault can report
			continue
		}
		check(dialTo(w.address), failure, code)
	}
	for _, test := range []struct {
		err  error
		want rootkey.Failure
		code api.Code
	}{
		{&net.DNSError{Err: "no such host", Name: "a.vault.azure.net", IsNotFound: true}, rootkey.NameNotFound, api.VaultUnavailable},
		{os.NewSyscallError("connect", syscall.ECONNREFUSED), rootkey.NotReached, api.VaultUnavailable},
		{os.NewSyscallError("socket", syscall.EMFILE), rootkey.Exhausted, api.Unavailable},
		{&net.DNSError{Err: "dial udp 127.0.0.53:53: socket: too many open files", Name: "a.vault.azure.net"}, rootkey.Exhausted, api.Unavailable},
	} {
		check(func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: test.err}
		}, test.want, test.code)
	}
}

func TestAKeyWithoutItsAttributesIsAMalformedAnswer(t *testing.T) {
	for _, body := range []string{
		`{}`, `{"key":{}}`, `{"attributes":{"enabled":true}}`,
		`{"key":{"kty":"RSA"},"attributes":{"enabled":true}}`,
		`{"key":{"kid":"https://contoso-a.vault.localhost/keys/k1/` + version1 + `","kty":"RSA"},"attributes":{}}`,
		`{"key":{"kid":"nonsense","kty":"RSA"},"attributes":{"enabled":true}}`,
		`{"key":{"kid":"https://contoso-a.vault.localhost/keys/k1/` + version2 + `","kty":"RSA"},"attributes":{"enabled":true}}`,
	} {
		w := newFakeVault(t)
		w.vault = func(rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, body) }
		_, err := w.client(t).Key(t.Context(), 1, rootkey.Exchange, k1(version1))
		checkFailure(t, err, rootkey.MalformedAnswer)
	}
}
