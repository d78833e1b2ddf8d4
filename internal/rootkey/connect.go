package rootkey

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
)

const (
	maxConnections = 1024      // kept; each is a token and a few pointers
	maxAnswer      = 256 << 10 // bytes of one answer; a key with its tags has a few KiB
)

// retry is short, because another key, or the caller, waits. A request is not retried
// if the answer asks for a longer wait than MaxRetryDelay.
var retry = policy.RetryOptions{MaxRetries: 2, RetryDelay: 100 * time.Millisecond, MaxRetryDelay: time.Second}

// connection is the official client for one vault and one principal. It is kept,
// because the client learns from the vault's first challenge which endpoint issues its
// tokens. Each has a credential of its own, so that a token request that hangs for one
// vault does not block others.
type connection struct {
	connectionID
	vault    *azkeys.Client
	clientID string // empty for an external vault
	// directory is the Entra directory that issues the tokens of an external vault,
	// from its challenge; nil until the first one.
	directory atomic.Pointer[string]
	refused   atomic.Pointer[error] // why its tenant may not use it; the Azure client may drop this error
}

type connectionID struct {
	tenant   int64
	identity Identity
	url      string
}

// connect returns the connection to a vault, made at its first use.
func (c *Client) connect(ctx context.Context, by caller, to target) (*connection, error) {
	id := connectionID{by.tenant, by.identity, to.url}
	if !to.own {
		id.identity = "" // one default credential for all
	}
	if conn := c.pool.get(id); conn != nil {
		return conn, nil
	}
	conn := &connection{connectionID: id}
	var credential azcore.TokenCredential
	var err error
	through := c.own
	if to.own {
		credential, conn.clientID, err = c.principal(ctx, by.tenant, by.identity)
	} else {
		through = c.external
		credential, err = c.external.credential(to.authority)
	}
	if err != nil {
		return nil, err
	}
	if !to.own {
		credential = directedCredential{credential, c, conn}
	}
	conn.vault, err = azkeys.NewClient(to.url, guardedCredential{credential, c}, &azkeys.ClientOptions{ClientOptions: through.options()})
	if err != nil {
		return nil, err
	}
	return c.pool.add(conn), nil
}

// principal returns the credential of a tenant's service principal. It sends requests
// only to keyroll's own authority: its transport dials nothing else, and no challenge
// or redirect changes that.
func (c *Client) principal(ctx context.Context, tenant int64, identity Identity) (azcore.TokenCredential, string, error) {
	guid, err := c.config.Tenant(ctx, tenant)
	if err != nil {
		return nil, "", err
	}
	clientID, secret, err := c.config.Secret(ctx, tenant, identity)
	if err != nil {
		return nil, "", err
	}
	options := c.own.options()
	options.Cloud = cloud.Configuration{ActiveDirectoryAuthorityHost: c.config.Authority}
	credential, err := azidentity.NewClientSecretCredential(guid, clientID, secret, &azidentity.ClientSecretCredentialOptions{
		ClientOptions:            options,
		DisableInstanceDiscovery: true, // which would call Microsoft's public login host
	})
	return credential, clientID, err
}

// guardedCredential marks failed token requests and keeps panics out of the
// Azure client, whose wait for a token would otherwise never end.
type guardedCredential struct {
	azcore.TokenCredential
	client *Client
}

func (g guardedCredential) GetToken(ctx context.Context, options policy.TokenRequestOptions) (token azcore.AccessToken, err error) {
	err = g.client.catchPanic(func() (err error) {
		token, err = g.TokenCredential.GetToken(ctx, options)
		return err
	})
	if err != nil {
		err = &tokenError{err}
	}
	return token, err
}

// directedCredential requests a token only if the tenant may use the vaults of the
// directory that a challenge names. The token is valid only for that directory, so a
// vault that names a wrong one gets a token that it does not accept.
type directedCredential struct {
	azcore.TokenCredential
	client *Client
	conn   *connection
}

func (d directedCredential) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	directory := options.TenantID
	d.conn.directory.Store(&directory)
	if err := d.client.checkMayUse(ctx, d.conn); err != nil {
		d.conn.refused.Store(&err)
		return azcore.AccessToken{}, err
	}
	return d.TokenCredential.GetToken(ctx, options)
}

// checkMayUse refuses an external vault that the tenant of a connection may not use, once
// its directory is known.
func (c *Client) checkMayUse(ctx context.Context, conn *connection) error {
	directory := conn.directory.Load()
	if directory == nil || c.config.MayUse == nil {
		return nil
	}
	return c.config.MayUse(ctx, conn.tenant, conn.url, *directory)
}

// transport sends requests either to keyroll's own listener or to external vaults.
type transport struct {
	*http.Client
	noRetry    bool
	credential func(authority string) (azcore.TokenCredential, error)
}

func (t transport) options() azcore.ClientOptions {
	options := azcore.ClientOptions{Transport: t.Client, Retry: retry}
	if t.noRetry {
		options.Retry.MaxRetries = -1
	}
	return options
}

// OwnListenerError is a failure to connect to keyroll's own listener: a problem of this
// process, never of a vault.
type OwnListenerError struct{ Err error }

func (e *OwnListenerError) Error() string { return e.Err.Error() }
func (e *OwnListenerError) Unwrap() error { return e.Err }

// newOwnTransport connects only to keyroll's own listener.
func newOwnTransport(config Config) transport {
	t := newHTTPTransport()
	t.Proxy = nil
	t.TLSClientConfig = &tls.Config{RootCAs: config.RootCAs, MinVersion: tls.VersionTLS12}
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := config.Dial(ctx, network, address)
		if err != nil {
			return nil, &OwnListenerError{err}
		}
		return conn, nil
	}
	return transport{Client: newHTTPClient(t), noRetry: config.NoRetry}
}

// newExternalTransport connects to Azure with the system's roots and the machine's own
// identity (azidentity.DefaultAzureCredential), which is determined at the first use.
func newExternalTransport(config Config) transport {
	if e := config.External; e != nil {
		through := newHTTPTransport()
		through.Proxy, through.DialContext = nil, e.Dial
		through.TLSClientConfig = &tls.Config{RootCAs: e.RootCAs, MinVersion: tls.VersionTLS12}
		return transport{Client: newHTTPClient(through), noRetry: config.NoRetry,
			credential: func(string) (azcore.TokenCredential, error) { return e.Credential, nil }}
	}
	t := transport{Client: newHTTPClient(newHTTPTransport()), noRetry: config.NoRetry}
	var mu sync.Mutex
	credentials := map[string]azcore.TokenCredential{} // by authority: one for each cloud
	t.credential = func(authority string) (azcore.TokenCredential, error) {
		mu.Lock()
		defer mu.Unlock()
		if credentials[authority] != nil {
			return credentials[authority], nil
		}
		options := t.options()
		if authority != "" {
			options.Cloud = cloud.Configuration{ActiveDirectoryAuthorityHost: authority}
		}
		credential, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: options})
		if err != nil {
			return nil, fmt.Errorf("find credentials for Azure: %w", err)
		}
		credentials[authority] = credential
		return credential, nil
	}
	return t
}

func newHTTPTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    8,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    callTimeout,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// newHTTPClient follows no redirect: the target would not be the vault that was named,
// and a token request must not be forwarded.
func newHTTPClient(t *http.Transport) *http.Client {
	return &http.Client{
		Transport:     boundedAnswers{t},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// boundedAnswers refuses answers of more than maxAnswer bytes.
type boundedAnswers struct{ *http.Transport }

func (b boundedAnswers) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := b.Transport.RoundTrip(request)
	if err == nil {
		response.Body = http.MaxBytesReader(nil, response.Body, maxAnswer)
	}
	return response, err
}

// pool keeps connections. A full pool removes any one of them, which costs a challenge
// and a token request.
type pool struct {
	mu          sync.Mutex
	connections map[connectionID]*connection
}

func (p *pool) get(id connectionID) *connection {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.connections[id]
}

// add keeps conn and returns it, or the one that another caller added meanwhile.
func (p *pool) add(conn *connection) *connection {
	p.mu.Lock()
	defer p.mu.Unlock()
	if other := p.connections[conn.connectionID]; other != nil {
		return other
	}
	if len(p.connections) >= maxConnections {
		for id := range p.connections {
			delete(p.connections, id)
			break
		}
	}
	p.connections[conn.connectionID] = conn
	return conn
}

func (p *pool) forget(conn *connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.connections[conn.connectionID] == conn {
		delete(p.connections, conn.connectionID)
	}
}
