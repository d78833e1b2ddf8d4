package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/ca"
	"keyroll/internal/fail"
	"keyroll/internal/files"
	"keyroll/internal/rootkey"
	"keyroll/internal/store"
)

// identity is how a node is reached and whom it knows: its address and certificates, its
// tenants and their principals.
type identity struct {
	db        *store.DB
	directory *access.Directory
	tenant    access.Tenant // the first one
	info      Info
	port      string
	tls       *tls.Config
	roots     *x509.CertPool // of the node's own certificates
}

// openIdentity opens what the database has, or makes it at the first start, and writes
// what clients on this machine need to connect.
func openIdentity(ctx context.Context, f *foundation, address *net.TCPAddr) (*identity, error) {
	o := f.options
	directory, err := access.Open(ctx, access.Config{DB: f.db, Seal: f.sealer, VaultDomain: o.VaultDomain, Now: o.now, Logger: o.Logger})
	if err != nil {
		return nil, err
	}
	i := &identity{db: f.db, directory: directory, info: newInfo(o.Data, o.VaultDomain, address), port: portOf(address), roots: x509.NewCertPool()}
	err = f.db.InTx(ctx, func(tx *store.Tx) error {
		i.tenant, err = directory.FirstTenant(ctx, tx)
		if fail.Is(err, api.NotFound) {
			i.tenant, err = directory.CreateTenant(ctx, tx, defaultTenant, api.Operator)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	i.info.TenantID = i.tenant.GUID.String()
	authority, err := ca.Open(ctx, f.db, f.sealer)
	if err != nil {
		return nil, err
	}
	i.roots.AppendCertsFromPEM(authority.PEM())
	if i.tls, err = serverTLS(authority, o.VaultDomain); err != nil {
		return nil, err
	}
	token, err := directory.AdminToken(ctx, i.tenant.ID)
	if err != nil {
		return nil, err
	}
	return i, errors.Join(files.Replace(files.OS, i.info.AdminTokenFile, []byte(token+"\n")), files.Replace(files.OS, i.info.CAFile, authority.PEM()))
}

// own is the node's own address, for its calls of itself.
func (i *identity) own() string { return "https://" + net.JoinHostPort("127.0.0.1", i.port) }

// tenantGUID returns the GUID of a tenant.
func (i *identity) tenantGUID(ctx context.Context, id int64) (guid uuid.UUID, err error) {
	err = i.db.View(ctx, func(tx *store.Tx) error {
		tenant, err := i.directory.Tenant(ctx, tx, id)
		guid = tenant.GUID
		return err
	})
	return guid, err
}

// secret returns the client id and secret of a service principal of a tenant.
func (i *identity) secret(ctx context.Context, tenant int64, id rootkey.Identity) (client, secret string, err error) {
	principal := identities[id]
	secret, err = i.directory.ClientSecret(ctx, tenant, principal)
	return principal.String(), secret, err
}

// tenants returns every tenant, in the order of their creation.
func (i *identity) tenants(ctx context.Context) (all []access.Tenant, err error) {
	for after := int64(0); ; after = all[len(all)-1].ID {
		var part []access.Tenant
		err := i.db.View(ctx, func(tx *store.Tx) (err error) {
			part, err = i.directory.Tenants(ctx, tx, after, 1000)
			return err
		})
		if err != nil || len(part) == 0 {
			return all, err
		}
		all = append(all, part...)
	}
}

// Tenants returns every tenant with its admin's token, in the order of their creation.
func (n *Node) Tenants(ctx context.Context) (all []access.Tenant, tokens []string, err error) {
	if all, err = n.identity.tenants(ctx); err != nil {
		return nil, nil, err
	}
	for _, t := range all {
		token, err := n.identity.directory.AdminToken(ctx, t.ID)
		if err != nil {
			return nil, nil, err
		}
		tokens = append(tokens, token)
	}
	return all, tokens, nil
}

// serverTLS returns a TLS configuration with certificates for the server and its vaults.
func serverTLS(authority *ca.CA, domain string) (*tls.Config, error) {
	return authority.TLS([]string{"*." + domain, "*." + access.ManagedHSMDomain(domain), "localhost"}, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, time.Now)
}
