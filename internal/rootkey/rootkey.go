// Package rootkey is the service's client of a customer's key vault: it reads a key,
// wraps under an exact version of it, and unwraps.
//
// Every call returns within ten seconds, and a failure says whether the customer
// refused the service (fail code VaultDenied), the vault was unavailable
// (VaultUnavailable), or keyroll itself has a problem (any other code); Classify has
// the table. keyroll's own vaults and real Azure vaults are reached by the same
// official client.
//
// It never lists keys, because the service has only the permissions get, wrapKey and
// unwrapKey; it never caches key material; and it sends the secret of a service
// principal only to keyroll's own listener.
//
// Start reading at Client.call; uri.go has the rules for vault and key names,
// failure.go the meaning of answers, rule.go the order in which two keys are used.
package rootkey

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyroll/internal/envelope"
)

// callTimeout bounds one call, token request and retries included.
const callTimeout = 10 * time.Second

// Identity names the service principal that logs in to a vault.
type Identity string

const (
	// Exchange wraps and unwraps for mailbox policies.
	Exchange Identity = "exchange"
	// SharePoint wraps and unwraps for site policies.
	SharePoint Identity = "sharepoint"
	// DataAtRestEncryption wraps and unwraps for multi-workload policies.
	DataAtRestEncryption Identity = "data-at-rest-encryption"
)

// Config has the addresses of keyroll's own vaults and the credentials for them.
type Config struct {
	// VaultDomain is the domain of keyroll's own vaults, such as vault.localhost.
	VaultDomain string
	// Port is that of keyroll's own vaults for other clients; it is part of their
	// URLs.
	Port string
	// Dial connects to keyroll's own listener. All requests to own vaults and for
	// their tokens use it, whatever the host:port of their URLs is. Its failure is
	// an *OwnListenerError.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// RootCAs is keyroll's CA, trusted only for its own hosts.
	RootCAs *x509.CertPool
	// Authority is the https base URL of keyroll's own token endpoint.
	Authority string
	// Tenant returns the GUID of a tenant, as used in its tokens.
	Tenant func(ctx context.Context, tenant int64) (guid string, err error)
	// Secret returns the credentials of a tenant's service principal.
	Secret func(ctx context.Context, tenant int64, id Identity) (clientID, clientSecret string, err error)
	// MayUse refuses an external vault that a tenant may not use, by the vault's URL
	// and the Entra directory that issues its tokens; nil: all may be used.
	MayUse func(ctx context.Context, tenant int64, vault, directory string) error
	// Logger gets panics of the Azure client.
	Logger *slog.Logger

	// External, unless nil, replaces how external vaults are reached.
	External *External
	// CallTimeout bounds one call; default: ten seconds. Within it a failed request
	// is tried again unless NoRetry is set.
	CallTimeout time.Duration
	NoRetry     bool
}

// External says how external vaults are reached if not by the system's resolver, the
// system's roots and the machine's own identity.
type External struct {
	Dial       func(ctx context.Context, network, address string) (net.Conn, error)
	RootCAs    *x509.CertPool
	Credential azcore.TokenCredential
}

// Client reaches vaults. It is safe for concurrent use.
type Client struct {
	config   Config
	timeout  time.Duration
	own      transport
	external transport
	pool     *pool
}

// New returns a client. It connects to nothing before the first call.
func New(config Config) *Client {
	config.VaultDomain = strings.ToLower(config.VaultDomain)
	return &Client{
		config:   config,
		timeout:  cmp.Or(config.CallTimeout, callTimeout),
		own:      newOwnTransport(config),
		external: newExternalTransport(config),
		pool:     &pool{connections: map[connectionID]*connection{}},
	}
}

// Close ends idle connections. Calls under way are ended by their contexts.
func (c *Client) Close() {
	c.own.CloseIdleConnections()
	c.external.CloseIdleConnections()
}

// Key reads a key's public part and attributes; an empty version means the
// newest one, usable or not. The result names the exact version.
func (c *Client) Key(ctx context.Context, tenant int64, id Identity, kv envelope.KeyVersion) (KeyInfo, error) {
	to, err := c.target(kv)
	if err != nil {
		return KeyInfo{}, err
	}
	var info KeyInfo
	err = c.call(ctx, caller{tenant, id}, "read", to, func(ctx context.Context, vault *azkeys.Client) error {
		answer, err := vault.GetKey(ctx, to.Key, to.Version, nil)
		if err != nil {
			return err
		}
		info, err = keyInfo(to.KeyVersion, answer.KeyBundle)
		return err
	})
	return info, err
}

// Wrap encrypts plaintext under one exact key version with RSA-OAEP-256
// (RFC 8017 section 7.1, SHA-256 for both hashes, no label). A 2048-bit key
// wraps at most 190 bytes.
func (c *Client) Wrap(ctx context.Context, tenant int64, id Identity, kv envelope.KeyVersion, plaintext []byte) ([]byte, error) {
	to, err := c.exactTarget(kv)
	if err != nil {
		return nil, err
	}
	var wrapped []byte
	err = c.call(ctx, caller{tenant, id}, "wrap with", to, func(ctx context.Context, vault *azkeys.Client) error {
		answer, err := vault.WrapKey(ctx, to.Key, to.Version, oaep256(plaintext), nil)
		if err != nil {
			return err
		}
		wrapped, err = resultOf(answer.KeyOperationResult, to.Version)
		return err
	})
	return wrapped, err
}

// Unwrap decrypts what Wrap made under the same key version.
func (c *Client) Unwrap(ctx context.Context, tenant int64, id Identity, kv envelope.KeyVersion, wrapped []byte) ([]byte, error) {
	to, err := c.exactTarget(kv)
	if err != nil {
		return nil, err
	}
	var plaintext []byte
	err = c.call(ctx, caller{tenant, id}, "unwrap with", to, func(ctx context.Context, vault *azkeys.Client) error {
		answer, err := vault.UnwrapKey(ctx, to.Key, to.Version, oaep256(wrapped), nil)
		if err != nil {
			return err
		}
		plaintext, err = resultOf(answer.KeyOperationResult, to.Version)
		return err
	})
	return plaintext, err
}

func oaep256(value []byte) azkeys.KeyOperationParameters {
	algorithm := azkeys.EncryptionAlgorithmRSAOAEP256
	return azkeys.KeyOperationParameters{Algorithm: &algorithm, Value: value}
}

// resultOf returns the bytes of an answer after it has checked that the answer is for
// the requested version.
func resultOf(answer azkeys.KeyOperationResult, version string) ([]byte, error) {
	if len(answer.Result) == 0 {
		return nil, errors.New("the answer holds no value")
	}
	if answer.KID == nil || lastVersion(string(*answer.KID)) != version {
		return nil, errors.New("the answer names another key version")
	}
	return answer.Result, nil
}

// caller is the tenant for which a vault is called, and the identity by which.
type caller struct {
	tenant   int64
	identity Identity
}

// call runs one request of the official client under the call timeout. It catches its
// panics, and turns its failures into errors that name operation, key, vault and
// reason. A cancelled ctx is not a failure of the vault: call returns
// context.Canceled.
func (c *Client) call(ctx context.Context, by caller, operation string, to target, request func(context.Context, *azkeys.Client) error) error {
	what := operation + " " + describe(to.KeyVersion)
	conn, err := c.connect(ctx, by, to)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := c.checkMayUse(ctx, conn); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	err = c.catchPanic(func() error { return request(bounded, conn.vault) })
	if err == nil {
		return nil
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
	if refused := conn.refused.Swap(nil); refused != nil {
		return fmt.Errorf("%s: %w", what, *refused)
	}
	if late := bounded.Err(); late != nil {
		err = fmt.Errorf("%w: %w", late, err) // the Azure client drops the cause of a failed token request
	}
	failure := Classify(err)
	if failure == malformedChallenge || failure == noToken {
		c.pool.forget(conn) // it may hold a broken lock, or an outdated secret
	}
	switch {
	case to.own:
		failure = failure.ofEmbedded()
	case failure == damagedKey: // only an embedded vault can report that
		failure = VaultError
	}
	return failure.error(what, to.KeyVersion, conn.clientID, err)
}

// catchPanic turns a panic of the Azure client into an error. azkeys v1.5.0 indexes
// past the end of a challenge such as authorization="https://host", and any server
// that answers under the vault's name can send such a challenge.
func (c *Client) catchPanic(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &panicError{value: r}
			if c.config.Logger != nil {
				c.config.Logger.Error("the Azure client panicked", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			}
		}
	}()
	return f()
}

// describe names a key version as all errors of this package do.
func describe(kv envelope.KeyVersion) string {
	if kv.Version == "" {
		return fmt.Sprintf("key %q in vault %q", kv.Key, kv.Vault)
	}
	return fmt.Sprintf("key %q version %s in vault %q", kv.Key, kv.Version, kv.Vault)
}
