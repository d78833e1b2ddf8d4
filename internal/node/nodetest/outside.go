package nodetest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"keyroll/api"
	"keyroll/internal/node"
	"keyroll/internal/rootkey"
)

// StartOutside starts a keyroll whose vaults stand for a customer's in Azure. It
// can be stopped, and o can make its vaults fail: an embedded vault has no
// outage, but these have.
func StartOutside(t testing.TB, o node.Options) *World {
	t.Helper()
	o.VaultDomain = "vault.azure.net"
	if o.Data == "" {
		o.Data = Folder(t)
	}
	return Start(t, o)
}

// StartUsing starts a node whose customers have their vaults outside: the shell
// acts on those, and every identity of the node is one principal there.
func StartUsing(t testing.TB, o node.Options, outside *World) *World {
	t.Helper()
	o.External = outside.external()
	w := start(t, o, outside)
	w.RegisterOutside(outside.Info.TenantID)
	return w
}

// RegisterOutside lets the first tenant use the vaults of a directory.
func (w *World) RegisterOutside(directory string) {
	w.t.Helper()
	in := api.SetTenantInput{TenantInput: api.TenantInput{Tenant: w.Info.TenantID}}
	in.Body.Add.Directories = []string{directory}
	_, err := w.Client.SetTenant(context.Background(), in)
	w.must(err)
}

// external says how the vaults of this keyroll are reached at the address that
// it has now.
func (w *World) external() *rootkey.External {
	w.t.Helper()
	server, err := url.Parse(w.Info.URL)
	w.must(err)
	pem, err := os.ReadFile(w.Info.CAFile)
	w.must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		vault, _, _ := strings.Cut(address, ".")
		if gone := w.gone.Load(); gone != nil && slices.ContainsFunc(*gone, func(name string) bool { return strings.EqualFold(name, vault) }) {
			return nil, &net.DNSError{Err: "no such host", Name: address, IsNotFound: true}
		}
		return (&net.Dialer{}).DialContext(ctx, network, server.Host)
	}
	tokens := &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	w.t.Cleanup(tokens.CloseIdleConnections)
	credential, err := azidentity.NewClientSecretCredential(w.Info.TenantID, exchange, w.exchangeSecret(), &azidentity.ClientSecretCredentialOptions{
		ClientOptions: azcore.ClientOptions{
			Transport: &http.Client{Transport: tokens},
			Cloud:     cloud.Configuration{ActiveDirectoryAuthorityHost: w.Info.URL},
		},
		DisableInstanceDiscovery: true, // it would ask Microsoft's public login host
	})
	w.must(err)
	return &rootkey.External{Dial: dial, RootCAs: roots, Credential: credential}
}

// Unresolve makes these vaults, and no others, have names that do not resolve,
// as those of purged vaults in Azure. Connections that are open stay.
func (w *World) Unresolve(vaults ...string) { w.gone.Store(&vaults) }

// Principal is who a service of the node is to the customers' vaults.
func (w *World) Principal(service string) string {
	if w.outside != nil {
		return exchange
	}
	return service
}

// VaultURL is the URL of a customer's vault, without a port.
func (w *World) VaultURL(name string) string {
	domain := w.Info.VaultDomain
	if w.outside != nil {
		domain = w.outside.Info.VaultDomain
	}
	return "https://" + name + "." + domain
}

// VaultName is how the service names a customer's vault: one outside by its URL.
func (w *World) VaultName(name string) string {
	if w.outside != nil {
		return strings.ToLower(w.VaultURL(name))
	}
	return name
}
