// Package vaults accesses keyroll's own key vaults and their management for the
// shell, with the official Azure clients.
//
// Every request carries the admin's token, so requests go only to the server's own
// address and to hosts directly under its vault domain: names are checked before
// they become part of a host, the transport refuses any other host, and redirects
// are not followed. Start reading at New.
package vaults

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyroll/api"
	"keyroll/internal/cmdlet"
	"keyroll/internal/fail"
)

// Options says where the vaults are, and with which token they are accessed.
type Options struct {
	// URL is the server's address, https://HOST:PORT: the management of the
	// vaults. The vaults themselves answer at the same port.
	URL string
	// Domain is the vault domain.
	Domain string
	// Token is the admin's bearer token.
	Token string
	// HTTP sends the requests. It must trust the server's certificate authority, and
	// connect to the server for hosts under Domain.
	HTTP *http.Client
}

// Client implements cmdlet.Vaults. It is safe for concurrent use.
type Client struct {
	options azcore.ClientOptions
	token   staticToken
	server  string // host[:port] of the management
	suffix  string // .domain[:port] of the vaults

	mu           sync.Mutex
	vaults       map[string]*azkeys.Client // by name in lower case
	subscription *arm.Client
}

var _ cmdlet.Vaults = (*Client)(nil)

// New returns a client. It does not connect yet; an invalid URL or domain is
// InvalidArgument.
func New(o Options) (*Client, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return nil, fail.New(api.InvalidArgument, "server URL %q is not of the form https://HOST:PORT", o.URL)
	}
	if o.Domain == "" || strings.ContainsAny(o.Domain, "/:@?#") {
		return nil, fail.New(api.InvalidArgument, "vault domain %q is not a domain", o.Domain)
	}
	c := &Client{token: func() string { return o.Token }, server: u.Host, suffix: "." + strings.ToLower(o.Domain), vaults: map[string]*azkeys.Client{}}
	if port := u.Port(); port != "" && port != "443" {
		c.suffix += ":" + port
	}
	inside := *o.HTTP
	inside.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.options = azcore.ClientOptions{
		Transport: guarded{&inside, c},
		Retry:     retry,
		Telemetry: policy.TelemetryOptions{Disabled: true},
		Cloud: cloud.Configuration{Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
			cloud.ResourceManager: {Endpoint: "https://" + u.Host, Audience: "https://" + u.Host}}},
	}
	c.subscription, err = arm.NewClient("keyroll", "v1.0.0", c.token, &arm.ClientOptions{ClientOptions: c.options, DisableRPRegistration: true})
	return c, err
}

// retry repeats only requests that a busy server has refused with 429, which it has
// not begun. Any other request is for the user to repeat, so that no key is created
// twice.
var retry = policy.RetryOptions{MaxRetries: 5, RetryDelay: time.Second, MaxRetryDelay: 10 * time.Second,
	ShouldRetry: func(r *http.Response, err error) bool {
		return err == nil && r.StatusCode == http.StatusTooManyRequests
	}}

// staticToken returns the admin's token, the same for every scope; guarded keeps it
// from other hosts. It is a function because that prints as an address.
type staticToken func() string

func (t staticToken) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: t(), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// guarded sends requests only to the server and to vaults under its domain.
type guarded struct {
	http   *http.Client
	client *Client
}

// Do implements policy.Transporter.
func (g guarded) Do(r *http.Request) (*http.Response, error) {
	if !g.client.inside(r.URL) {
		return nil, fmt.Errorf("host %q is neither the server nor one of its vaults", r.URL.Host)
	}
	return g.http.Do(r)
}

func (c *Client) inside(u *url.URL) bool {
	if u.Scheme != "https" {
		return false
	}
	name, isVault := strings.CutSuffix(strings.ToLower(u.Host), c.suffix)
	return u.Host == c.server || isVault && vaultName().MatchString(name)
}

// vaultName matches the label before the vault domain.
var vaultName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z_-]{1,125}[0-9A-Za-z]$`) })

// vault returns the official client of one vault. The client is kept because it
// remembers the vault's first challenge.
func (c *Client) vault(name string) (*azkeys.Client, error) {
	if !vaultName().MatchString(name) {
		return nil, fail.New(api.InvalidArgument, "%.150q is not a valid name of a vault", name).
			WithHint("a vault's name has 3 to 127 letters, digits, hyphens and underscores")
	}
	name = strings.ToLower(name)
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.vaults[name]; known != nil {
		return known, nil
	}
	made, err := azkeys.NewClient("https://"+name+c.suffix, c.token, &azkeys.ClientOptions{ClientOptions: c.options})
	if err == nil {
		c.vaults[name] = made
	}
	return made, err
}

// request makes one request. The official client panics on some malformed challenges;
// request returns an error instead.
func request[T any](ctx context.Context, what string, f func() (T, error)) (out T, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fail.New(api.VaultUnavailable, "%s: the response is not one of a key vault", what).Because(fmt.Errorf("panic: %v", r))
		}
	}()
	out, err = f()
	if err == nil {
		return out, nil
	}
	if ctx.Err() != nil {
		return out, context.Cause(ctx)
	}
	return out, convertError(what, err)
}
