package nodetest

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"keyroll/internal/access"
	"keyroll/internal/node"
	"keyroll/internal/seal"
)

// Far is another keyroll, with one vault that stands for a vault of the
// operator's own: what lies in it is on no disk of the keyroll under test.
type Far struct {
	*World
	Vault string // its name
	URL   string // https://VAULT…
}

// StartFar starts another keyroll and makes the environment of this process
// lead to it: its vault lets the machine's own credentials do what a store of
// availability keys needs.
func StartFar(t testing.TB) *Far {
	t.Helper()
	w := Start(t, node.Options{})
	f := &Far{World: w, Vault: "availability"}
	f.URL = f.AddVault(f.Vault, "")
	sealer, err := seal.Open(t.Context(), (&url.URL{Scheme: "file", Path: filepath.Join(w.Data, "seal")}).String())
	w.must(err)
	directory, err := access.Open(t.Context(), w.Node.DB, sealer, w.Info.VaultDomain, time.Now, nil)
	w.must(err)
	secret, err := directory.ClientSecret(t.Context(), w.Node.Tenant.ID, access.Exchange)
	w.must(err)
	t.Setenv("AZURE_TENANT_ID", w.Info.TenantID)
	t.Setenv("AZURE_CLIENT_ID", exchange)
	t.Setenv("AZURE_CLIENT_SECRET", secret)
	t.Setenv("AZURE_AUTHORITY_HOST", w.Info.URL)
	t.Setenv("SSL_CERT_FILE", w.Info.CAFile)
	return f
}

// AddVault makes a vault of the operator's, with more parameters if there are
// any, and returns its URL.
func (f *Far) AddVault(name, parameters string) string {
	f.t.Helper()
	f.Script(
		fmt.Sprintf("New-AzKeyVault -VaultName %s -ResourceGroupName Operator -Location eastus -Sku Premium %s", name, parameters),
		fmt.Sprintf("Set-AzKeyVaultAccessPolicy -VaultName %s -PermissionsToKeys create,get,list,wrapKey,unwrapKey,delete,purge -ServicePrincipalName %s", name, exchange))
	server, err := url.Parse(f.Info.URL)
	f.must(err)
	return "https://" + net.JoinHostPort(name+"."+f.Info.VaultDomain, server.Port())
}

// Away stops the far keyroll; Back starts it again where it was.
func (f *Far) Away() { f.t.Helper(); f.Stop() }

// Back starts the far keyroll again at its address.
func (f *Far) Back() {
	f.t.Helper()
	server, err := url.Parse(f.Info.URL)
	f.must(err)
	f.Restart(func(o *node.Options) { o.Listen = server.Host })
}
