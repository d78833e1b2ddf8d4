package rootkey

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
)

// OperatorVault is a vault that the operator of this keyroll configured: in Azure, or
// embedded in another keyroll. It is used with the machine's own identity
// (azidentity.DefaultAzureCredential). Its host may be any, since tenants cannot set
// it. It is safe for concurrent use.
type OperatorVault struct {
	url       string
	client    *Client // used for its catchPanic and its timeout
	transport transport
	through   guardedCredential

	mu    sync.Mutex
	vault *azkeys.Client // nil before the first call, and after an answer that may have broken it
}

// OpenOperatorVault returns the vault at an https URL and does not connect yet. It
// trusts the system's roots and those in the file that SSL_CERT_FILE names.
func OpenOperatorVault(vaultURL string) (*OperatorVault, error) {
	roots, err := operatorRoots()
	if err != nil {
		return nil, err
	}
	client := &Client{timeout: callTimeout}
	v := &OperatorVault{url: vaultURL, client: client, transport: newOperatorTransport(roots)}
	credential, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
		ClientOptions:            v.transport.options(),
		DisableInstanceDiscovery: !microsoftAuthority(os.Getenv("AZURE_AUTHORITY_HOST")),
	})
	if err != nil {
		return nil, fmt.Errorf("find credentials for vault %s: %w", vaultURL, err)
	}
	v.through = guardedCredential{credential, client}
	return v, nil
}

// Call runs one request of the official client as Client.call does: with a timeout,
// and with its panics caught. Its error can be passed to Classify.
func (v *OperatorVault) Call(ctx context.Context, request func(context.Context, *azkeys.Client) error) error {
	vault, err := v.connect()
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, v.client.timeout)
	defer cancel()
	err = v.client.catchPanic(func() error { return request(bounded, vault) })
	if err == nil {
		return nil
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	if late := bounded.Err(); late != nil {
		err = fmt.Errorf("%w: %w", late, err) // the Azure client drops the cause of a failed token request
	}
	if failure := Classify(err); failure == malformedChallenge || failure == noToken {
		v.forget(vault)
	}
	return err
}

// Close ends idle connections.
func (v *OperatorVault) Close() { v.transport.CloseIdleConnections() }

func (v *OperatorVault) connect() (*azkeys.Client, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.vault != nil {
		return v.vault, nil
	}
	vault, err := azkeys.NewClient(v.url, v.through, &azkeys.ClientOptions{ClientOptions: v.transport.options()})
	if err != nil {
		return nil, err
	}
	v.vault = vault
	return vault, nil
}

func (v *OperatorVault) forget(vault *azkeys.Client) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.vault == vault {
		v.vault = nil
	}
}

// operatorRoots returns the system's roots with those of SSL_CERT_FILE, read at each
// call: package crypto/x509 reads that variable once in a process.
func operatorRoots() (*x509.CertPool, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's certificates: %w", err)
	}
	file := os.Getenv("SSL_CERT_FILE")
	if file == "" {
		return roots, nil
	}
	more, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read SSL_CERT_FILE: %w", err)
	}
	roots.AppendCertsFromPEM(more)
	return roots, nil
}

// newOperatorTransport dials names under localhost on this machine without a resolver
// (RFC 6761 section 6.3): they may be the vaults of another keyroll.
func newOperatorTransport(roots *x509.CertPool) transport {
	t := newHTTPTransport()
	t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	t.Proxy = func(r *http.Request) (*url.URL, error) {
		if underLocalhost(r.URL.Hostname()) {
			return nil, nil
		}
		return http.ProxyFromEnvironment(r)
	}
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if host, port, err := net.SplitHostPort(address); err == nil && underLocalhost(host) {
			address = net.JoinHostPort("127.0.0.1", port)
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	return transport{Client: newHTTPClient(t)}
}

func underLocalhost(host string) bool {
	return strings.HasSuffix("."+strings.ToLower(host), ".localhost")
}

// microsoftAuthorities are the hosts that Microsoft's public login host accepts in
// instance discovery; it refuses any other.
var microsoftAuthorities = []string{"login.microsoftonline.com", "login.microsoft.com", "login.windows.net", "login.microsoftonline.us",
	"login.chinacloudapi.cn", "login.partner.microsoftonline.cn"}

// microsoftAuthority reports whether a value of AZURE_AUTHORITY_HOST, empty for
// the default, is one of Microsoft's.
func microsoftAuthority(authority string) bool {
	if authority == "" {
		return true
	}
	u, err := url.Parse(authority)
	if err != nil {
		return false
	}
	for _, host := range microsoftAuthorities {
		if strings.EqualFold(u.Host, host) {
			return true
		}
	}
	return false
}
