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

// Far is another keyroll, with one vault that plays the role of a vault of the operator:
// its content is on no disk of the keyroll under test.
type Far struct {
	*World
	Vault string // its name
	URL   string // https://VAULT…
}

// StartFar starts another keyroll and sets environment variables so that the machine's
// credentials may do in its vault what a store of availability keys needs.
func StartFar(t testing.TB) *Far {
	t.Helper()
	w := Start(t, node.Options{})
	f := &Far{World: w, Vault: "availability"}
	f.URL = f.AddVault(f.Vault, "")
	t.Setenv("AZURE_TENANT_ID", w.Info.TenantID)
	t.Setenv("AZURE_CLIENT_ID", exchange)
	t.Setenv("AZURE_CLIENT_SECRET", w.exchangeSecret())
	t.Setenv("AZURE_AUTHORITY_HOST", w.Info.URL)
	t.Setenv("SSL_CERT_FILE", w.Info.CAFile)
	return f
}

// AddVault makes a vault of the operator, with further parameters of New-AzKeyVault, and
// returns its URL.
func (f *Far) AddVault(name, parameters string) string {
	f.t.Helper()
	f.Script(
		fmt.Sprintf("New-AzKeyVault -VaultName %s -ResourceGroupName Operator -Location eastus -Sku Premium %s", name, parameters),
		fmt.Sprintf("Set-AzKeyVaultAccessPolicy -VaultName %s -PermissionsToKeys create,get,list,wrapKey,unwrapKey,delete,purge -ServicePrincipalName %s", name, exchange))
	server, err := url.Parse(f.Info.URL)
	f.must(err)
	return "https://" + net.JoinHostPort(name+"."+f.Info.VaultDomain, server.Port())
}

// Away stops the keyroll; Back starts it again at the same address.
func (w *World) Away() { w.t.Helper(); w.Stop() }

// Back starts the keyroll again at its address.
func (w *World) Back() {
	w.t.Helper()
	server, err := url.Parse(w.Info.URL)
	w.must(err)
	w.Restart(func(o *node.Options) { o.Listen = server.Host })
}

// exchangeSecret returns the client secret of the service principal of Exchange.
func (w *World) exchangeSecret() string {
	w.t.Helper()
	ctx := w.t.Context()
	sealer, err := seal.Open(ctx, (&url.URL{Scheme: "file", Path: filepath.Join(w.Data, "seal")}).String())
	w.must(err)
	directory, err := access.Open(ctx, access.Config{DB: w.Node.DB, Seal: sealer, VaultDomain: w.Info.VaultDomain, Now: time.Now, Logger: nil})
	w.must(err)
	secret, err := directory.ClientSecret(ctx, w.Node.Tenant.ID, access.Exchange)
	w.must(err)
	return secret
}
