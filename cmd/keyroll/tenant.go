package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/fail"
	"keyroll/internal/files"
)

type tenantCommand struct {
	Create tenantCreate `cmd:"" help:"Create a tenant, and write the token of its admin to a file."`
	List   tenantList   `cmd:"" help:"List tenants."`
	Show   tenantShow   `cmd:"" help:"Show a tenant."`
	Set    tenantSet    `cmd:"" help:"Say which vaults outside this keyroll a tenant may use."`
}

type tenantCreate struct {
	connection
	Name         string `arg:"" help:"Name of the tenant."`
	NewTokenFile string `name:"new-token-file" type:"path" placeholder:"FILE" help:"File that the token of the tenant's admin is written to; with --data tenants/GUID.token in the data folder unless given."`
}

// createdTenant is a tenant and where the token of its admin stands, which is
// never printed.
type createdTenant struct {
	api.Tenant
	TokenFile string `json:"tokenFile"`
}

func (c *tenantCreate) Run(e *env) error {
	return c.with(func(k *client.Client) (err error) {
		file, err := c.newTokenFile()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Discard()) }()
		var in api.CreateTenantInput
		in.Body.Name = c.Name
		t, err := k.CreateTenant(e, in)
		if err != nil {
			return err
		}
		name := c.NewTokenFile
		if name == "" {
			name = c.tokenFileOf(t.ID)
		}
		if err := file.write(t.AdminToken, name); err != nil {
			return fmt.Errorf("tenant %q is made, and the token of its admin is lost: %w", t.Name, err)
		}
		return e.object(createdTenant{t.Tenant, name}, func(w io.Writer) {
			fields(w, "name", t.Name, "id", t.ID, "token file", name)
		})
	})
}

// tokenFile is a file that a token is written to: it is made before the token
// is, so that a token is not told to who cannot keep it.
type tokenFile struct{ *files.Draft }

func (c *tenantCreate) newTokenFile() (tokenFile, error) {
	folder := filepath.Join(c.Data, tenantsFolder)
	switch {
	case c.NewTokenFile != "":
		folder = filepath.Dir(c.NewTokenFile)
		if _, err := os.Lstat(c.NewTokenFile); err == nil {
			return tokenFile{}, fail.New(api.InvalidArgument, "%s exists; a token does not replace it", c.NewTokenFile)
		}
	case c.Server != "":
		return tokenFile{}, fail.New(api.InvalidArgument, "the token of the tenant's admin needs a file to go to").
			WithHint("name one with --new-token-file")
	default:
		if err := files.MkdirAll(files.OS, folder); err != nil {
			return tokenFile{}, err
		}
	}
	draft, err := files.NewDraft(files.OS, folder, ".new-")
	if err != nil {
		return tokenFile{}, fail.New(api.InvalidArgument, "the token file cannot be written: %w", err)
	}
	return tokenFile{draft}, nil
}

// write puts the token into the file and gives it its name.
func (f tokenFile) write(token, name string) error {
	if _, err := io.WriteString(f, token+"\n"); err != nil {
		return err
	}
	return f.Replace(name)
}

type tenantList struct{ connection }

func (c *tenantList) Run(e *env) error {
	return c.with(func(k *client.Client) error {
		items, err := all(func(after string) ([]api.Tenant, string, error) {
			l, err := k.ListTenants(e, api.ListInput{PageInput: api.PageInput{After: after, Limit: 1000}})
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return list(e, items, "name created id", func(t api.Tenant) []any { return []any{t.Name, when(t.Created), t.ID} })
	})
}

type tenantShow struct {
	connection
	Name string `arg:"" help:"Name or GUID."`
}

func (c *tenantShow) Run(e *env) error {
	return c.with(func(k *client.Client) error {
		t, err := k.ShowTenant(e, api.TenantInput{Tenant: c.Name})
		if err != nil {
			return err
		}
		return e.tenant(t)
	})
}

func (e *env) tenant(t api.Tenant) error {
	return e.object(t, func(w io.Writer) {
		shown := []any{"name", t.Name, "id", t.ID, "created", when(t.Created)}
		if len(t.Directories) > 0 {
			shown = append(shown, "Entra directories", strings.Join(t.Directories, " "))
		}
		if len(t.Vaults) > 0 {
			shown = append(shown, "vaults", strings.Join(t.Vaults, " "))
		}
		fields(w, shown...)
	})
}

type tenantSet struct {
	connection
	Name            string   `arg:"" help:"Name or GUID."`
	Directory       []string `name:"directory" placeholder:"GUID" help:"Entra directory whose vaults the tenant may use; may be repeated."`
	Vault           []string `name:"vault" placeholder:"URL" help:"Vault that the tenant may use, in a directory that several tenants share; may be repeated."`
	RemoveDirectory []string `name:"remove-directory" placeholder:"GUID" help:"Entra directory whose vaults it may use no more."`
	RemoveVault     []string `name:"remove-vault" placeholder:"URL" help:"Vault that it may use no more."`
}

func (c *tenantSet) Run(e *env) error {
	if len(c.Directory)+len(c.Vault)+len(c.RemoveDirectory)+len(c.RemoveVault) == 0 {
		return fail.New(api.InvalidArgument, "nothing is given to set").WithHint("keyroll tenant set --help shows what there is")
	}
	return c.with(func(k *client.Client) error {
		in := api.SetTenantInput{TenantInput: api.TenantInput{Tenant: c.Name}}
		in.Body.Add = api.Outside{Directories: c.Directory, Vaults: c.Vault}
		in.Body.Remove = api.Outside{Directories: c.RemoveDirectory, Vaults: c.RemoveVault}
		t, err := k.SetTenant(e, in)
		if err != nil {
			return err
		}
		return e.tenant(t)
	})
}

func (*tenantSet) Help() string {
	return help("keyroll reaches vaults in Azure with one identity for all tenants, so its operator says whose they are. A directory is one tenant's; in "+
		"one that tenants share, register each vault for its tenant. What was in use before this was asked is registered at the start, with a warning.",
		"keyroll tenant set contoso --directory 72f988bf-86f1-41af-91ab-2d7cd011db47",
		"keyroll tenant set contoso --vault https://contoso-a1.vault.azure.net --vault https://contoso-a2.vault.azure.net")
}

type geoCommand struct {
	Create geoCreate `cmd:"" help:"Create a geo for the sites of some hosts."`
	List   geoList   `cmd:"" help:"List geos, their hosts and their site policies."`
}

type geoCreate struct {
	connection
	Name  string   `arg:"" help:"Name of the geo, as EU."`
	Hosts []string `arg:"" help:"Host names of its sites, as contoso-eu.sharepoint.com."`
}

func (c *geoCreate) Run(e *env) error {
	return c.with(func(k *client.Client) error {
		var in api.CreateGeoInput
		in.Body.Name, in.Body.Hosts = c.Name, c.Hosts
		g, err := k.CreateGeo(e, in)
		if err != nil {
			return err
		}
		return e.object(g, func(w io.Writer) {
			fields(w, "name", g.Name, "hosts", strings.Join(g.Hosts, " "), "created", when(g.Created))
		})
	})
}

type geoList struct{ connection }

func (c *geoList) Run(e *env) error {
	return c.with(func(k *client.Client) error {
		l, err := k.ListGeos(e, api.None{})
		if err != nil {
			return err
		}
		return list(e, l.Items, "name sites policy hosts", func(g api.Geo) []any {
			return []any{g.Name, g.Sites, g.Policy, strings.Join(g.Hosts, " ")}
		})
	})
}

func (*tenantCreate) Help() string {
	return help("Only a token of an operator makes tenants: that of the first tenant's admin, whom the first start made. The new token is never printed. "+
		"On the server's own machine it is kept in the data folder, where --tenant finds it; with --server name a file for it.",
		"keyroll tenant create contoso",
		"keyroll tenant create contoso --server https://keyroll.example:8443 --token-file operator.token --new-token-file contoso.token")
}

func (*tenantList) Help() string { return help("", "keyroll tenant list -o json") }

func (*tenantShow) Help() string { return help("", "keyroll tenant show contoso") }

func (*geoCreate) Help() string {
	return help("A site stands in the geo whose host its URL had when it was made, and in the default geo on any other host. "+
		"Each geo has a site policy of its own. HOST-admin.sharepoint.com is the admin site of the geo that has HOST.sharepoint.com.",
		"keyroll geo create EU contoso-eu.sharepoint.com contoso-eu-my.sharepoint.com",
		"keyroll geo create APC contosoapc.sharepoint.com --tenant contoso")
}

func (*geoList) Help() string { return help("", "keyroll geo list") }
