// Package connect finds a running server, by its data folder or its URL, with the token and
// the certificate authority that its client needs. It changes nothing on a server or in a
// data folder. Start reading at Selection.Find.
package connect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/fail"
	"keyroll/internal/node"
)

// Selection says which server is used, and as whom.
type Selection struct {
	Data      string // data folder of a server on this machine
	Server    string // URL of a server on another machine; empty: that of Data
	TokenFile string // empty: the token of the tenant's admin in Data
	Tenant    string // name or GUID; empty: the tenant of the token
	CAFile    string // of the certificate authority of Server; empty: those of the system
}

// Target is a server to talk to.
type Target struct {
	Client client.Options
	node.Info
}

// Find resolves a selection to a server, its token and its authority.
func (s Selection) Find() (Target, error) {
	t := Target{Info: node.Info{URL: s.Server, CAFile: s.CAFile, AdminTokenFile: s.TokenFile}}
	if s.Server == "" {
		var err error
		t.Info, err = readInfo(s.Data)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return t, fail.New(api.Unavailable, "no running server uses data folder %s", s.Data).
				WithHint("start one with keyroll serve --data DIR, or name a running one with --data or --server")
		case err != nil:
			return t, err
		}
		if t.AdminTokenFile, err = s.localToken(t); err != nil {
			return t, err
		}
	}
	if t.AdminTokenFile == "" {
		return t, fail.New(api.InvalidArgument, "--server needs a token").WithHint("name the file that holds it with --token-file or KEYROLL_TOKEN_FILE")
	}
	found, err := TargetOf(t.Info)
	found.Client.Tenant = s.Tenant
	return found, err
}

// readInfo reads how to reach the server of a data folder; fs.ErrNotExist if none has
// started.
func readInfo(data string) (info node.Info, err error) {
	file := filepath.Join(data, node.InfoFile)
	raw, err := os.ReadFile(file)
	if err != nil {
		return info, err
	}
	if err := json.Unmarshal(raw, &info); err != nil {
		return info, fail.New(api.Damaged, "%s does not describe a server", file).Because(err)
	}
	return info, nil
}

// ServerOf returns how to reach the server of a data folder, and an HTTP client that
// trusts it, for what is no operation of its API.
func ServerOf(data string) (info node.Info, k *http.Client, err error) {
	if info, err = readInfo(data); err != nil {
		return info, nil, err
	}
	pem, err := os.ReadFile(info.CAFile)
	if err != nil {
		return info, nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return info, &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}, nil
}

// TenantsFolder is the folder in a data folder that holds the tokens of the
// admins of all tenants but the first.
const TenantsFolder = "tenants"

// localToken names the file with the token for a server on this machine: the one
// that was given, or else that of the tenant's admin.
func (s Selection) localToken(t Target) (file string, err error) {
	switch {
	case s.TokenFile != "":
		return s.TokenFile, nil
	case s.Tenant == "":
		return t.AdminTokenFile, nil
	}
	guid, err := t.guidOf(s.Tenant)
	if err != nil || guid == t.TenantID {
		return t.AdminTokenFile, err
	}
	file = s.TokenFileOf(guid)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return "", fail.New(api.InvalidArgument, "data folder %s has no token of tenant %q", s.Data, s.Tenant).
			WithHint("name the file that holds one with --token-file")
	}
	return file, nil
}

// TokenFileOf names the file in the data folder that holds the token of a tenant's admin.
func (s Selection) TokenFileOf(guid string) string {
	return filepath.Join(s.Data, TenantsFolder, guid+".token")
}

// tenantLookupTimeout bounds how long the name of a tenant is looked up.
const tenantLookupTimeout = time.Minute

// guidOf returns the GUID of a tenant of the server. A name is looked up with the
// token of the first tenant's admin, who is an operator.
func (t Target) guidOf(tenant string) (string, error) {
	if id, err := uuid.Parse(tenant); err == nil {
		return id.String(), nil
	}
	operator, err := TargetOf(t.Info)
	if err != nil {
		return "", err
	}
	k, err := client.New(operator.Client)
	if err != nil {
		return "", err
	}
	defer k.Close()
	ctx, cancel := context.WithTimeout(context.Background(), tenantLookupTimeout)
	defer cancel()
	found, err := k.ShowTenant(ctx, api.TenantInput{Tenant: tenant})
	return found.ID, err
}

// TargetOf reads the files that a description of a server names.
func TargetOf(info node.Info) (Target, error) {
	t := Target{Info: info}
	token, err := os.ReadFile(t.AdminTokenFile)
	if err != nil {
		return t, fail.New(api.InvalidArgument, "the token file cannot be read: %w", err)
	}
	t.Client = client.Options{URL: t.URL, Token: strings.TrimSpace(string(token))}
	if t.CAFile != "" {
		if t.Client.CA, err = os.ReadFile(t.CAFile); err != nil {
			return t, fail.New(api.InvalidArgument, "the certificate authority's file cannot be read: %w", err)
		}
	}
	return t, nil
}

// CheckTenant makes a first request to the service if a tenant was named: vaults do
// not check that the token belongs to that tenant, the service does.
func (t Target) CheckTenant(ctx context.Context) error {
	if t.Client.Tenant == "" {
		return nil
	}
	k, err := client.New(t.Client)
	if err != nil {
		return err
	}
	defer k.Close()
	_, err = k.ListGeos(ctx, api.ListInput{PageInput: api.PageInput{Limit: 1}})
	return err
}

// Transport trusts the server's certificate authority and connects to the server for
// its vaults, so that their names need not be in the DNS.
func (t Target) Transport() (*http.Transport, error) {
	u, err := url.Parse(t.URL)
	if err != nil {
		return nil, fail.New(api.InvalidArgument, "server URL %q is not of the form https://HOST:PORT", t.URL)
	}
	server := u.Host
	if u.Port() == "" {
		server = net.JoinHostPort(u.Hostname(), "443")
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(t.Client.CA) > 0 {
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM(t.Client.CA)
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return &http.Transport{
		TLSClientConfig:   config,
		ForceAttemptHTTP2: true,
		IdleConnTimeout:   time.Minute,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			host, _, _ := net.SplitHostPort(addr)
			if strings.HasSuffix(strings.ToLower(host), "."+t.VaultDomain) {
				addr = server
			}
			return dialer.DialContext(ctx, network, addr)
		},
	}, nil
}
