package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
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
	Data      string `name:"data" type:"path" default:"${data}" env:"KEYROLL_DATA" placeholder:"DIR" help:"Data folder of a server on this machine (${default})."`
	Server    string `name:"server" env:"KEYROLL_SERVER" placeholder:"URL" help:"URL of a server elsewhere, instead of --data."`
	TokenFile string `name:"token-file" type:"path" env:"KEYROLL_TOKEN_FILE" placeholder:"FILE" help:"File that holds the token for --server."`
	Tenant    string `name:"tenant" env:"KEYROLL_TENANT" placeholder:"TENANT" help:"Name or GUID of the tenant to act in; the first one, or with --server that of the token, unless given."`
	CAFile    string `name:"ca-file" type:"path" env:"KEYROLL_CA_FILE" placeholder:"FILE" help:"Certificate authority that --server is trusted by; the system's unless given."`
}

// target is a server to talk to.
type target struct {
	client client.Options
	node.Info
}

// defaultData is the data folder of who names none.
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
		raw, err := os.ReadFile(filepath.Join(c.Data, node.InfoFile))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return t, fail.New(api.Unavailable, "no server runs with data folder %s", c.Data).
				WithHint("start one with keyroll serve --data DIR, or name another with --data or --server")
		case err != nil:
			return t, err
		}
		if err := json.Unmarshal(raw, &t.Info); err != nil {
			return t, fail.New(api.Damaged, "%s is no description of a server", filepath.Join(c.Data, node.InfoFile)).Because(err)
		}
	}
	if c.Server == "" && c.Tenant != "" {
		guid, err := t.guidOf(c.Tenant)
		if err != nil {
			return t, err
		}
		if guid != t.TenantID {
			t.TenantID, t.AdminTokenFile = guid, c.tokenFileOf(guid)
			if _, err := os.Stat(t.AdminTokenFile); errors.Is(err, fs.ErrNotExist) {
				return t, fail.New(api.InvalidArgument, "data folder %s has no token of tenant %q", c.Data, c.Tenant).
					WithHint("name the server with --server and the tenant's token with --token-file")
			}
		}
	}
	if t.AdminTokenFile == "" {
		return t, fail.New(api.InvalidArgument, "--server needs a token").WithHint("name the file that holds it with --token-file or KEYROLL_TOKEN_FILE")
	}
	found, err := targetOf(t.Info)
	found.client.Tenant = c.Tenant
	return found, err
}

// tenantsFolder is the folder in a data folder that holds the tokens of the
// admins of all tenants but the first.
const tenantsFolder = "tenants"

func (c connection) tokenFileOf(guid string) string {
	return filepath.Join(c.Data, tenantsFolder, guid+".token")
}

// nameTime bounds how long the name of a tenant is looked up.
const nameTime = time.Minute

// guidOf returns the GUID of a tenant of the server; a name is looked up as the
// operator that the first tenant's admin is.
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
	ctx, cancel := context.WithTimeout(context.Background(), nameTime)
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
