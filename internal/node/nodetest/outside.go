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

// StartOutside starts a keyroll whose vaults play the role of a customer's vaults in
// Azure. Unlike embedded vaults they can have an outage: the keyroll can be stopped,
// and o can make its vaults fail.
func StartOutside(t testing.TB, o node.Options) *World {
	t.Helper()
	o.VaultDomain = "vault.azure.net"
	if o.Data == "" {
		o.Data = Folder(t)
	}
	return Start(t, o)
}

// StartUsing starts a node whose customers have their vaults outside. Its shell uses
// those vaults, where every identity of the node is the same principal.
func StartUsing(t testing.TB, o node.Options, outside *World) *World {
	t.Helper()
	o.External = outside.external()
	w := start(t, o, outside)
	w.registerOutside(outside.Info.TenantID)
	return w
}

// registerOutside lets the first tenant use the vaults of a directory.
func (w *World) registerOutside(directory string) {
	w.t.Helper()
	in := api.SetTenantInput{TenantInput: api.TenantInput{Tenant: w.Info.TenantID}}
	in.Body.Add.Directories = []string{directory}
	_, err := w.Client.SetTenant(context.Background(), in)
	w.must(err)
}

// external returns how to access the vaults of this keyroll at its present address.
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
		if names := w.unresolved.Load(); names != nil && slices.ContainsFunc(*names, func(name string) bool { return strings.EqualFold(name, vault) }) {
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

// Unresolve makes the names of these vaults, and of no others, fail to resolve, as those
// of purged vaults in Azure. Open connections stay open.
func (w *World) Unresolve(vaults ...string) { w.unresolved.Store(&vaults) }

// Principal returns the principal of a service of the node in the customers' vaults.
func (w *World) Principal(service string) string {
	if w.outside != nil {
		return exchange
	}
	return service
}

// VaultURL returns the URL of a customer's vault, without a port.
func (w *World) VaultURL(name string) string {
	domain := w.Info.VaultDomain
	if w.outside != nil {
		domain = w.outside.Info.VaultDomain
	}
	return "https://" + name + "." + domain
}

// VaultName returns the name of a customer's vault in the service; for one outside it is
// the URL.
func (w *World) VaultName(name string) string {
	if w.outside != nil {
		return strings.ToLower(w.VaultURL(name))
	}
	return name
}
