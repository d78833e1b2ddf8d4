package policy_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/rootkey"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// hostile is a vault that gives wrong answers.
type hostile struct {
	name      string
	published *rsa.PublicKey
	wrap      func(plain []byte) []byte
	unwrap    func(wrapped []byte) []byte // nil: it is refused
	answer    func(rw http.ResponseWriter, operation string) bool
	timeout   time.Duration // of a call; 0: more than any answer takes
	code      api.Code
	says      string
}

const hostileVersion = "0123456789abcdef0123456789abcdef"

func (h *hostile) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") == "" {
		rw.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer authorization="https://login.example/%s", resource="https://%s"`, tenantGUID, azureDomain))
		rw.WriteHeader(http.StatusUnauthorized)
		return
	}
	operation := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	if r.Method == http.MethodGet {
		operation = "read"
	}
	if h.answer != nil && h.answer(rw, operation) {
		return
	}
	kid := "https://" + r.Host + "/keys/k/" + hostileVersion
	if r.Method == http.MethodGet {
		answerJSON(rw, http.StatusOK, map[string]any{
			"attributes": map[string]any{"enabled": true, "recoveryLevel": "Recoverable"},
			"key": map[string]any{"kid": kid, "kty": "RSA", "key_ops": []string{"wrapKey", "unwrapKey"},
				"n": base64.RawURLEncoding.EncodeToString(h.published.N.Bytes()), "e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(h.published.E)).Bytes())},
		})
		return
	}
	var in struct{ Value string }
	json.NewDecoder(r.Body).Decode(&in)
	value, _ := base64.RawURLEncoding.DecodeString(in.Value)
	act := h.wrap
	if operation == "unwrapkey" {
		act = h.unwrap
	}
	out := act(value)
	if out == nil {
		answerJSON(rw, http.StatusBadRequest, map[string]any{"error": map[string]any{"code": "BadParameter", "message": "no"}})
		return
	}
	answerJSON(rw, http.StatusOK, map[string]any{"kid": kid, "value": base64.RawURLEncoding.EncodeToString(out)})
}

// hostileKeys are two keys; a ciphertext of the second is a number below the
// modulus of the first, too.
var hostileKeys = sync.OnceValue(func() (keys [2]*rsa.PrivateKey) {
	for i := range keys {
		keys[i], _ = rsa.GenerateKey(rand.Reader, 2048)
	}
	if keys[0].N.Cmp(keys[1].N) < 0 {
		keys[0], keys[1] = keys[1], keys[0]
	}
	return keys
})

func encrypt(key *rsa.PublicKey) func([]byte) []byte {
	return func(plain []byte) []byte {
		out, _ := rsa.EncryptOAEP(sha256.New(), rand.Reader, key, plain, nil)
		return out
	}
}

func decrypt(key *rsa.PrivateKey) func([]byte) []byte {
	return func(wrapped []byte) []byte {
		out, _ := rsa.DecryptOAEP(sha256.New(), nil, key, wrapped, nil)
		return out
	}
}

func identity(b []byte) []byte { return bytes.Clone(b) }

// xored is the plaintext under a pad that never changes, of the length of a wrap.
func xored(b []byte) []byte {
	out := append([]byte{0}, bytes.Repeat([]byte{0x5a}, 255)...)
	for i := range min(len(b), 255) {
		out[1+i] ^= b[i]
	}
	return out
}

func hostiles(ended <-chan struct{}) []*hostile {
	key, other := hostileKeys()[0], hostileKeys()[1]
	honest := hostile{published: &key.PublicKey, wrap: encrypt(&key.PublicKey), unwrap: decrypt(key)}
	vault := func(name string, code api.Code, says string, change func(*hostile)) *hostile {
		h := honest
		h.name, h.code, h.says = name, code, says
		change(&h)
		return &h
	}
	// either unwraps what it should, and what the vault made of a plaintext.
	either := func(undo func([]byte) []byte) func([]byte) []byte {
		return func(b []byte) []byte {
			if plain := decrypt(key)(b); plain != nil {
				return plain
			}
			return undo(b)
		}
	}
	const wrongKey = "does not decrypt what was encrypted to the public key that the vault publishes for it"
	text := func(operation string, status int, body string) func(http.ResponseWriter, string) bool {
		return func(rw http.ResponseWriter, asked string) bool {
			if asked != operation {
				return false
			}
			rw.Header().Set("Content-Type", "application/json")
			rw.WriteHeader(status)
			io.WriteString(rw, body)
			return true
		}
	}
	// endless begins an answer and goes on with it for ever, or stops in its middle.
	endless := func(more bool) func(http.ResponseWriter, string) bool {
		return func(rw http.ResponseWriter, asked string) bool {
			if asked != "unwrapkey" {
				return false
			}
			rw.Header().Set("Content-Type", "application/json")
			chunk := `{"value":"`
			for {
				_, err := io.WriteString(rw, chunk)
				if flushed := http.NewResponseController(rw).Flush(); err != nil || flushed != nil {
					return true
				}
				if chunk = strings.Repeat("A", 1<<16); !more {
					<-ended
					return true
				}
			}
		}
	}
	return []*hostile{
		vault("plaintext as wrap", api.KeyUnusable, "returned the plaintext as its wrap", func(h *hostile) { h.wrap, h.unwrap = identity, identity }),
		vault("plaintext as wrap, and a true unwrap", api.KeyUnusable, "returned the plaintext as its wrap", func(h *hostile) { h.wrap, h.unwrap = identity, either(identity) }),
		vault("padded plaintext", api.KeyUnusable, "contains the plaintext", func(h *hostile) {
			h.wrap = func(b []byte) []byte { return append(bytes.Clone(b), make([]byte, 256-len(b))...) }
			h.unwrap = either(func(b []byte) []byte { return bytes.TrimRight(b, "\x00") })
		}),
		vault("short XOR", api.KeyUnusable, "is not an RSA ciphertext", func(h *hostile) {
			h.wrap = func(b []byte) []byte { return xored(b)[1 : 1+len(b)] }
			h.unwrap = either(func(b []byte) []byte { return xored(b) })
		}),
		vault("XOR of the length of a wrap", api.KeyUnusable, wrongKey, func(h *hostile) { h.wrap, h.unwrap = xored, xored }),
		vault("a number above the modulus", api.KeyUnusable, "is not an RSA ciphertext", func(h *hostile) { h.wrap = func([]byte) []byte { return bytes.Repeat([]byte{0xff}, 256) } }),
		vault("publishes one key and uses another", api.KeyUnusable, wrongKey, func(h *hostile) { h.wrap, h.unwrap = encrypt(&other.PublicKey), decrypt(other) }),
		vault("unwraps to other bytes", api.KeyUnusable, wrongKey, func(h *hostile) { h.unwrap = func(b []byte) []byte { return make([]byte, 64) } }),
		vault("unwraps to more bytes", api.KeyUnusable, wrongKey, func(h *hostile) { h.unwrap = func(b []byte) []byte { return append(decrypt(key)(b), 0) } }),
		vault("small exponent", api.KeyUnusable, "has a public exponent that is not", func(h *hostile) { h.published = &rsa.PublicKey{N: key.N, E: 3} }),
		vault("even modulus", api.KeyUnusable, "has an even modulus", func(h *hostile) { h.published = &rsa.PublicKey{N: new(big.Int).Sub(key.N, big.NewInt(1)), E: key.E} }),
		vault("large modulus", api.KeyUnusable, "not 2048 to 4096 bits", func(h *hostile) { h.published = &rsa.PublicKey{N: new(big.Int).Lsh(key.N, 6144), E: key.E} }),
		vault("endless answer", api.VaultUnavailable, "the vault's answer is too large", func(h *hostile) { h.answer = endless(true) }),
		vault("an answer that stops", api.VaultUnavailable, "the vault did not answer in time", func(h *hostile) { h.answer, h.timeout = endless(false), time.Second }),
		vault("no JSON", api.VaultUnavailable, "an unusable answer", func(h *hostile) { h.answer = text("unwrapkey", 200, "<html>") }),
		vault("no value", api.VaultUnavailable, "an unusable answer", func(h *hostile) { h.answer = text("wrapkey", 200, "{}") }),
		vault("another version's answer", api.VaultUnavailable, "an unusable answer", func(h *hostile) {
			h.answer = text("unwrapkey", 200, `{"kid":"https://b.vault.azure.net/keys/k/ffffffffffffffffffffffffffffffff","value":"AAAA"}`)
		}),
		vault("a key that is none", api.VaultUnavailable, "an unusable answer", func(h *hostile) { h.answer = text("read", 200, `{"key":{"kty":"RSA"},"attributes":{"enabled":true}}`) }),
	}
}

// Each hostile vault is called like a real one, over HTTPS by the official client, and is
// refused with its name; nothing of it is stored.
func TestErrorNamesAHostileVaultAndNothingIsStored(t *testing.T) {
	w := policytest.New(t, storetest.One(t))
	certificate, roots := selfSigned(t)
	key := hostileKeys()[0]
	good := listen(t, certificate, &hostile{published: &key.PublicKey, wrap: encrypt(&key.PublicKey), unwrap: decrypt(key)})
	create := func(bad *hostile) error {
		addresses := map[string]string{"aaa": good.Listener.Addr().String(), "bbb": listen(t, certificate, bad).Listener.Addr().String()}
		timeout := cmp.Or(bad.timeout, time.Minute)
		config := w.Config
		client := externalClient(addresses, timeout, &rootkey.External{RootCAs: roots, Credential: staticCredential{}})
		defer client.Close()
		config.Roots = client
		node := policy.New(config)
		defer node.Close()
		kv := func(name string) envelope.KeyVersion {
			return envelope.KeyVersion{Vault: "https://" + name + "." + azureDomain, Key: "k"}
		}
		_, err := w.CreateOn(node, policy.Definition{Kind: api.MailboxPolicy, Name: bad.name, Primary: kv("aaa"), Secondary: kv("bbb")})
		return err
	}
	before := w.Dump("policy", "policy_key", "revision")
	ended := make(chan struct{})
	defer close(ended) // before the listeners are closed
	for _, h := range hostiles(ended) {
		t.Run(h.name, func(t *testing.T) {
			err := create(h)
			_, detail, _ := fail.Public(err)
			if !fail.Is(err, h.code) || !strings.Contains(detail, h.says) || !strings.Contains(detail, `in vault "https://bbb.`) {
				t.Errorf("%s %q; want %s, %q and the vault's name", fail.CodeOf(err), detail, h.code, h.says)
			}
			if after := w.Dump("policy", "policy_key", "revision"); after != before {
				t.Error("something was stored")
			}
		})
	}
	if err := create(&hostile{name: "honest", published: &key.PublicKey, wrap: encrypt(&key.PublicKey), unwrap: decrypt(key)}); err != nil {
		t.Errorf("an honest vault: %v", err)
	}
}

// externalClient connects to external vaults at the addresses of their names.
func externalClient(addresses map[string]string, timeout time.Duration, external *rootkey.External) *rootkey.Client {
	external.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		name, _, _ := strings.Cut(address, ".")
		return new(net.Dialer).DialContext(ctx, network, addresses[name])
	}
	return rootkey.New(rootkey.Config{VaultDomain: "vault.localhost", CallTimeout: timeout, NoRetry: true, External: external})
}

// liar is a fake client whose vaults give random wrong answers.
type liar struct {
	*policytest.FakeVaults
	pick func(what string, n int) int
	keys [2]*rsa.PrivateKey
	// pretend makes what the vault returns as its wraps, and undo what it was
	// made of; both nil: it wraps.
	pretend, undo func([]byte) []byte
}

// padded is the plaintext in a block of the length of a wrap.
func padded(b []byte) []byte { return append(make([]byte, 256-len(b)), b...) }

// pretences are ways to wrap without a key, each with its inverse.
var pretences = map[string][2]func([]byte) []byte{
	"none":      {},
	"plaintext": {identity, identity},
	"padded":    {padded, func(b []byte) []byte { return b[max(len(b)-64, 0):] }},
	"XOR":       {xored, func(b []byte) []byte { return xored(b)[2:66] }},
}

func (l liar) Key(ctx context.Context, tenant int64, id rootkey.Identity, kv envelope.KeyVersion) (rootkey.KeyInfo, error) {
	info, err := l.FakeVaults.Key(ctx, tenant, id, kv)
	key := l.keys[0].PublicKey
	switch l.pick("published", 30) {
	case 0:
		key = l.keys[1].PublicKey
	case 1:
		key.E = 3
	case 2:
		key.N = big.NewInt(35)
	}
	info.Public = &key
	return info, err
}

func (l liar) Wrap(_ context.Context, _ int64, _ rootkey.Identity, _ envelope.KeyVersion, plaintext []byte) ([]byte, error) {
	if l.pretend != nil {
		return l.pretend(plaintext), nil
	}
	return encrypt(&l.keys[l.pick("wrapped by", 2)].PublicKey)(plaintext), nil
}

func (l liar) Unwrap(_ context.Context, _ int64, _ rootkey.Identity, _ envelope.KeyVersion, wrapped []byte) ([]byte, error) {
	switch l.pick("unwrap", 20) {
	case 0:
		return identity(wrapped), nil
	case 1:
		return xored(wrapped[:64])[1:65], nil
	case 2:
		return make([]byte, 64), nil
	}
	for _, key := range l.keys {
		if plain := decrypt(key)(wrapped); plain != nil {
			return plain, nil
		}
	}
	if l.undo != nil && len(wrapped) >= 64 {
		return l.undo(wrapped), nil
	}
	return nil, fail.New(api.VaultUnavailable, "the vault rejected the request")
}

// For any answers of vaults, each stored wrap of a customer key is an RSA-OAEP encryption
// of the policy key's bundle.
func TestOnlyWrapsOfTheBundleAreStored(t *testing.T) {
	w := policytest.New(t, storetest.One(t))
	n := 0
	stored := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		config := w.Config
		pretence := pretences[rapid.SampledFrom([]string{"none", "plaintext", "padded", "XOR"}).Draw(rt, "pretence")]
		config.Roots = liar{w.Vaults, func(what string, n int) int {
			return n - 1 - rapid.IntRange(0, n-1).Draw(rt, what) // rapid draws small numbers most: those are honest
		}, hostileKeys(), pretence[0], pretence[1]}
		node := policy.New(config)
		defer node.Close()
		name := fmt.Sprint("p", n)
		a, b := w.Vaults.Add("A-"+name, "k"), w.Vaults.Add("B-"+name, "k")
		a.Version, b.Version = "", ""
		made, err := w.CreateOn(node, policy.Definition{Kind: api.MailboxPolicy, Name: name, Primary: a, Secondary: b})
		if err == nil {
			w.Vaults.Add("A-"+name, "k")
			depth := rapid.SampledFrom([]api.Depth{api.DepthPolicy, api.DepthRoot}).Draw(rt, "depth")
			_, err = w.ChangeOn(node, made.Policy, policy.Request{Depth: depth, AllGenerations: true})
			if err == nil {
				w.Exec(`UPDATE policy SET enabled = 0 WHERE id = ?1`, made.ID) // one tenant has at most so many policies
			}
		}
		for _, wrap := range customerWraps(w) {
			stored++
			bundle := decrypt(hostileKeys()[0])(wrap)
			if bundle == nil {
				bundle = decrypt(hostileKeys()[1])(wrap)
			}
			if len(bundle) != len(envelope.Bundle(envelope.NewKey(), envelope.Binding{})) {
				rt.Fatalf("a stored wrap of %d bytes is not an RSA-OAEP encryption of a bundle", len(wrap))
			}
		}
	})
	if stored == 0 {
		t.Error("nothing was ever stored")
	}
}

// customerWraps returns every stored wrap of a customer key.
func customerWraps(w *policytest.World) (wraps [][]byte) {
	w.Helper()
	w.View(func(tx *store.Tx) error {
		rows, err := tx.Query(w.Ctx, `SELECT wrap_primary, wrap_secondary FROM revision WHERE erased = 0 AND primary_vault <> ''`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var a, b []byte
			if err := rows.Scan(&a, &b); err != nil {
				return err
			}
			wraps = append(wraps, a, b)
		}
		return rows.Err()
	})
	return wraps
}
