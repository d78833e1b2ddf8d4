package policytest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/policy"
	"keyroll/internal/rootkey"
)

var _ policy.Roots = (*FakeVaults)(nil)

// Call is one request to a vault.
type Call struct {
	Op       string // read, wrap, unwrap
	Identity rootkey.Identity
	envelope.KeyVersion
}

// FakeVaults is a fake of the vaults of customers: RSA keys in memory, with OAEP as in a
// vault. It records each call, and fails as Fail sets it.
type FakeVaults struct {
	mu       sync.Mutex
	versions map[string][]*version // by vault and key
	calls    []Call
	failing  map[string]error // by vault
	keys     int              // made so far
	// Before, if set, is called before each call that does not fail.
	Before func(ctx context.Context, c Call) error
	// Takes, when set, changes what a vault wraps.
	Takes func(c Call, plaintext []byte) []byte
	// Gives, when set, changes what a vault unwraps.
	Gives func(c Call, plaintext []byte) []byte
	// TellsOfKey and TellsOfVault, if set, change the description of a key and of a
	// vault.
	TellsOfKey   func(*rootkey.KeyInfo)
	TellsOfVault func(vault string, v *rootkey.VaultInfo) error
}

type version struct {
	envelope.KeyVersion
	disabled bool
	number   int // of its RSA key
}

var rsaKeys struct {
	sync.Mutex
	made []*rsa.PrivateKey
}

// rsaKey returns the n-th RSA key of the process. All have the same primes and different
// exponents, because the search for primes takes most of the time.
func rsaKey(n int) *rsa.PrivateKey {
	rsaKeys.Lock()
	defer rsaKeys.Unlock()
	for len(rsaKeys.made) <= n {
		rsaKeys.made = append(rsaKeys.made, nextRSAKey(rsaKeys.made))
	}
	return rsaKeys.made[n]
}

func nextRSAKey(made []*rsa.PrivateKey) *rsa.PrivateKey {
	if len(made) == 0 {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		return key
	}
	last, one := made[len(made)-1], big.NewInt(1)
	p, q := last.Primes[0], last.Primes[1]
	order := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	for e := last.E + 2; ; e += 2 {
		if d := new(big.Int).ModInverse(big.NewInt(int64(e)), order); d != nil {
			key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: last.N, E: e}, D: d, Primes: []*big.Int{p, q}}
			key.Precompute()
			return key
		}
	}
}

func newFakeVaults() *FakeVaults {
	return &FakeVaults{versions: map[string][]*version{}, failing: map[string]error{}}
}

func place(kv envelope.KeyVersion) string { return strings.ToLower(kv.Vault + "/" + kv.Key) }

// Add makes a version of a key, the first or one more, and returns it.
func (f *FakeVaults) Add(vault, key string) envelope.KeyVersion {
	f.mu.Lock()
	defer f.mu.Unlock()
	kv := envelope.KeyVersion{Vault: vault, Key: key}
	at := place(kv)
	kv.Version = fmt.Sprintf("%032x", len(f.versions[at])+1)
	f.versions[at] = append(f.versions[at], &version{KeyVersion: kv, number: f.keys})
	f.keys++
	return kv
}

// Newest returns the newest version of a key.
func (f *FakeVaults) Newest(vault, key string) envelope.KeyVersion {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.find(envelope.KeyVersion{Vault: vault, Key: key}).KeyVersion
}

// Disable disables one version, Enable ends that.
func (f *FakeVaults) Disable(kv envelope.KeyVersion) { f.setDisabled(kv, true) }
func (f *FakeVaults) Enable(kv envelope.KeyVersion)  { f.setDisabled(kv, false) }

func (f *FakeVaults) setDisabled(kv envelope.KeyVersion, disabled bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.find(kv).disabled = disabled
}

// Fail makes every call to a vault fail; a nil error ends that.
func (f *FakeVaults) Fail(vault string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failing[strings.ToLower(vault)] = err
}

// Away and Denied are failures of a vault.
func Away() error   { return fail.New(api.VaultUnavailable, "the vault did not answer in time") }
func Denied() error { return fail.New(api.VaultDenied, "the vault refused the service") }

// Calls returns the calls so far, and forgets them.
func (f *FakeVaults) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

// Count counts calls by what they do.
func Count(calls []Call) map[string]int {
	n := map[string]int{}
	for _, c := range calls {
		n[c.Op]++
	}
	return n
}

// begin records a call and returns its failure, if any.
func (f *FakeVaults) begin(ctx context.Context, op string, id rootkey.Identity, kv envelope.KeyVersion) error {
	f.mu.Lock()
	c := Call{op, id, kv}
	f.calls = append(f.calls, c)
	err, before := f.failing[strings.ToLower(kv.Vault)], f.Before
	f.mu.Unlock()
	if err == nil && before != nil {
		err = before(ctx, c)
	}
	return err
}

// find returns a version, by default the newest, or nil.
func (f *FakeVaults) find(kv envelope.KeyVersion) *version {
	all := f.versions[place(kv)]
	if kv.Version == "" && len(all) > 0 {
		return all[len(all)-1]
	}
	i := slices.IndexFunc(all, func(v *version) bool { return v.Version == kv.Version })
	if i < 0 {
		return nil
	}
	return all[i]
}

func (f *FakeVaults) usable(kv envelope.KeyVersion) (version, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.find(kv)
	if v == nil {
		return version{}, fail.New(api.VaultDenied, "key %q in vault %q does not exist", kv.Key, kv.Vault)
	}
	return *v, nil
}

func (f *FakeVaults) Key(ctx context.Context, _ int64, id rootkey.Identity, kv envelope.KeyVersion) (rootkey.KeyInfo, error) {
	if err := f.begin(ctx, "read", id, kv); err != nil {
		return rootkey.KeyInfo{}, err
	}
	v, err := f.usable(kv)
	if err != nil {
		return rootkey.KeyInfo{}, err
	}
	kv.Version = v.Version
	info := rootkey.KeyInfo{KeyVersion: kv, Type: "RSA", Bits: 2048, Public: &rsaKey(v.number).PublicKey, Ops: []string{"wrapKey", "unwrapKey"}, Enabled: !v.disabled, Created: time.Unix(0, 0), RecoveryLevel: "Recoverable+ProtectedSubscription"}
	if f.TellsOfKey != nil {
		f.TellsOfKey(&info)
	}
	return info, nil
}

// Describe describes a vault that gives no cause for a warning. It is not counted as a
// call.
func (f *FakeVaults) Describe(_ context.Context, _ int64, id rootkey.Identity, vault string) (rootkey.VaultInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.failing[strings.ToLower(vault)]; err != nil {
		return rootkey.VaultInfo{}, err
	}
	info := rootkey.VaultInfo{Subscription: "of " + strings.ToLower(vault), ResourceGroup: "rg", Location: "near " + strings.ToLower(vault),
		SoftDelete: true, PurgeProtection: true, Principal: string(id), Permissions: []string{"get", "wrapKey", "unwrapKey"}}
	if f.TellsOfVault != nil {
		if err := f.TellsOfVault(vault, &info); err != nil {
			return rootkey.VaultInfo{}, err
		}
	}
	return info, nil
}

func (f *FakeVaults) Wrap(ctx context.Context, _ int64, id rootkey.Identity, kv envelope.KeyVersion, plaintext []byte) ([]byte, error) {
	if err := f.begin(ctx, "wrap", id, kv); err != nil {
		return nil, err
	}
	if _, err := f.used(kv); err != nil {
		return nil, err
	}
	if f.Takes != nil {
		plaintext = f.Takes(Call{"wrap", id, kv}, plaintext)
	}
	return f.WrapPublic(kv, plaintext)
}

// WrapPublic wraps with only the public key.
func (f *FakeVaults) WrapPublic(kv envelope.KeyVersion, plaintext []byte) ([]byte, error) {
	v, err := f.usable(kv)
	if err != nil {
		return nil, err
	}
	return rsa.EncryptOAEP(sha256.New(), rand.Reader, &rsaKey(v.number).PublicKey, plaintext, nil)
}

func (f *FakeVaults) Unwrap(ctx context.Context, _ int64, id rootkey.Identity, kv envelope.KeyVersion, wrapped []byte) ([]byte, error) {
	if err := f.begin(ctx, "unwrap", id, kv); err != nil {
		return nil, err
	}
	v, err := f.used(kv)
	if err != nil {
		return nil, err
	}
	plaintext, err := rsa.DecryptOAEP(sha256.New(), nil, rsaKey(v.number), wrapped, nil)
	if err != nil {
		return nil, fail.New(api.VaultUnavailable, "the vault rejected the request").Because(err)
	}
	if f.Gives != nil {
		plaintext = f.Gives(Call{"unwrap", id, kv}, plaintext)
	}
	return plaintext, nil
}

func (f *FakeVaults) used(kv envelope.KeyVersion) (version, error) {
	v, err := f.usable(kv)
	if err == nil && (kv.Version == "" || v.disabled) {
		err = fail.New(api.VaultDenied, "key %q version %q in vault %q is disabled", kv.Key, kv.Version, kv.Vault)
	}
	return v, err
}

func (f *FakeVaults) URI(kv envelope.KeyVersion) string {
	return "https://" + kv.Vault + ".vault.localhost/keys/" + strings.TrimSuffix(kv.Key+"/"+kv.Version, "/")
}

// Refuses fails the test unless err carries code.
func Refuses(t testing.TB, err error, code api.Code) {
	t.Helper()
	if !fail.Is(err, code) {
		t.Errorf("error is %v (%s), want %s", err, fail.CodeOf(err), code)
	}
}
