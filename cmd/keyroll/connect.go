package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
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

// connection finds a running server.
type connection struct {
	Data      string `name:"data" type:"path" default:"${data}" env:"KEYROLL_DATA" placeholder:"DIR" help:"Data folder of a server on this machine (default: ${default})."`
	Server    string `name:"server" env:"KEYROLL_SERVER" placeholder:"URL" help:"URL of a server on another machine, instead of --data."`
	TokenFile string `name:"token-file" type:"path" env:"KEYROLL_TOKEN_FILE" placeholder:"FILE" help:"File that holds the access token; required with --server (default with --data: the token of the tenant's admin in the data folder)."`
	Tenant    string `name:"tenant" env:"KEYROLL_TENANT" placeholder:"TENANT" help:"Name or GUID of the tenant to act in (default: the first tenant; with --server or --token-file, the tenant of the token)."`
	CAFile    string `name:"ca-file" type:"path" env:"KEYROLL_CA_FILE" placeholder:"FILE" help:"PEM file of the certificate authority that the certificate of --server must come from (default: the authorities that the system trusts)."`
}

// target is a server to talk to.
type target struct {
	client client.Options
	node.Info
}

// defaultData is the data folder that is used without --data.
func defaultData() string {
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "keyroll")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "keyroll-data"
	}
	return filepath.Join(home, ".local", "share", "keyroll")
}

// find resolves the flags to a server, its token and its authority.
func (c connection) find() (target, error) {
	t := target{Info: node.Info{URL: c.Server, CAFile: c.CAFile, AdminTokenFile: c.TokenFile}}
	if c.Server == "" {
		var err error
		t.Info, err = readInfo(c.Data)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return t, fail.New(api.Unavailable, "no running server uses data folder %s", c.Data).
				WithHint("start one with keyroll serve --data DIR, or name a running one with --data or --server")
		case err != nil:
			return t, err
		}
		if t.AdminTokenFile, err = c.localToken(t); err != nil {
			return t, err
		}
	}
	if t.AdminTokenFile == "" {
		return t, fail.New(api.InvalidArgument, "--server needs a token").WithHint("name the file that holds it with --token-file or KEYROLL_TOKEN_FILE")
	}
	found, err := targetOf(t.Info)
	found.client.Tenant = c.Tenant
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

// serverOf returns how to reach the server of a data folder, and an HTTP client that
// trusts it, for what is no operation of its API.
func serverOf(data string) (info node.Info, k *http.Client, err error) {
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

// tenantsFolder is the folder in a data folder that holds the tokens of the
// admins of all tenants but the first.
const tenantsFolder = "tenants"

// localToken names the file with the token for a server on this machine: the one
// that was given, or else that of the tenant's admin.
func (c connection) localToken(t target) (file string, err error) {
	switch {
	case c.TokenFile != "":
		return c.TokenFile, nil
	case c.Tenant == "":
		return t.AdminTokenFile, nil
	}
	guid, err := t.guidOf(c.Tenant)
	if err != nil || guid == t.TenantID {
		return t.AdminTokenFile, err
	}
	file = c.tokenFileOf(guid)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return "", fail.New(api.InvalidArgument, "data folder %s has no token of tenant %q", c.Data, c.Tenant).
			WithHint("name the file that holds one with --token-file")
	}
	return file, nil
}

func (c connection) tokenFileOf(guid string) string {
	return filepath.Join(c.Data, tenantsFolder, guid+".token")
}

// tenantLookupTimeout bounds how long the name of a tenant is looked up.
const tenantLookupTimeout = time.Minute

// guidOf returns the GUID of a tenant of the server. A name is looked up with the
// token of the first tenant's admin, who is an operator.
func (t target) guidOf(tenant string) (string, error) {
	if id, err := uuid.Parse(tenant); err == nil {
		return id.String(), nil
	}
	operator, err := targetOf(t.Info)
	if err != nil {
		return "", err
	}
	k, err := client.New(operator.client)
	if err != nil {
		return "", err
	}
	defer k.Close()
	ctx, cancel := context.WithTimeout(context.Background(), tenantLookupTimeout)
	defer cancel()
	found, err := k.ShowTenant(ctx, api.TenantInput{Tenant: tenant})
	return found.ID, err
}

// targetOf reads the files that a description of a server names.
func targetOf(info node.Info) (target, error) {
	t := target{Info: info}
	token, err := os.ReadFile(t.AdminTokenFile)
	if err != nil {
		return t, fail.New(api.InvalidArgument, "the token file cannot be read: %w", err)
	}
	t.client = client.Options{URL: t.URL, Token: strings.TrimSpace(string(token))}
	if t.CAFile != "" {
		if t.client.CA, err = os.ReadFile(t.CAFile); err != nil {
			return t, fail.New(api.InvalidArgument, "the certificate authority's file cannot be read: %w", err)
		}
	}
	return t, nil
}

// connect returns a client of the server.
func (c connection) connect() (*client.Client, error) {
	t, err := c.find()
	if err != nil {
		return nil, err
	}
	return client.New(t.client)
}
