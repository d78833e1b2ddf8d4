package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/connect"
	"keyroll/internal/fail"
	"keyroll/internal/files"
	"keyroll/internal/terminal"
	"keyroll/internal/tokenfile"
)

type tenantCommand struct {
	Create tenantCreate `cmd:"" help:"Create a tenant, and write the token of its admin to a file."`
	List   tenantList   `cmd:"" help:"List tenants."`
	Show   tenantShow   `cmd:"" help:"Show a tenant."`
	Set    tenantSet    `cmd:"" help:"Set which vaults outside this keyroll a tenant may use."`
}

type tenantCreate struct {
	connection
	Name         string `arg:"" help:"Name of the tenant."`
	Operator     bool   `help:"Its admin runs the installation too: creates tenants, and registers approvers of all of them. Give it to another person than the admin of the first tenant, so that the two can act as second persons."`
	NewTokenFile string `name:"new-token-file" type:"path" placeholder:"FILE" help:"File that the token of the tenant's admin is written to (default with --data: tenants/GUID.token in the data folder)."`
}

// createdTenant is a tenant and the file with the token of its admin; the token
// itself is never printed.
type createdTenant struct {
	api.Tenant
	TokenFile string `json:"tokenFile"`
}

func (c *tenantCreate) Run(e *env) error {
	return c.withClient(func(k *client.Client) (err error) {
		file, err := c.newTokenFile()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Discard()) }()
		var in api.CreateTenantInput
		in.Body.Name, in.Body.Operator = c.Name, c.Operator
		t, err := k.CreateTenant(e, in)
		if err != nil {
			return err
		}
		name := c.NewTokenFile
		if name == "" {
			name = connect.Selection(c.connection).TokenFileOf(t.ID)
		}
		if err := file.Write(t.AdminToken, name); err != nil {
			return fmt.Errorf("tenant %q was created, but the token of its admin could not be stored and is lost: %w", t.Name, err)
		}
		return e.Object(createdTenant{t.Tenant, name}, func(w io.Writer) {
			terminal.Fields(w, "name", t.Name, "id", t.ID, "token file", name)
		})
	})
}

// newTokenFile creates the file that the token of the tenant's admin is written to.
func (c *tenantCreate) newTokenFile() (tokenfile.File, error) {
	switch {
	case c.NewTokenFile != "":
		return tokenfile.Create(c.NewTokenFile)
	case c.Server != "":
		return tokenfile.File{}, fail.New(api.InvalidArgument, "a file is needed for the token of the tenant's admin").
			WithHint("name one with --new-token-file")
	}
	folder := filepath.Join(c.Data, connect.TenantsFolder)
	if err := files.MkdirAll(files.OS, folder); err != nil {
		return tokenfile.File{}, err
	}
	return tokenfile.CreateIn(folder)
}

type tenantList struct{ connection }

func (c *tenantList) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		return listPages(e, "name created id", func(t api.Tenant) []any { return []any{t.Name, terminal.Time(t.Created), t.ID} }, func(page api.PageInput) (api.List[api.Tenant], error) {
			return k.ListTenants(e, api.ListInput{PageInput: page})
		})
	})
}

type tenantShow struct {
	connection
	Name string `arg:"" help:"Name or GUID of the tenant."`
}

func (c *tenantShow) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		t, err := k.ShowTenant(e, api.TenantInput{Tenant: c.Name})
		if err != nil {
			return err
		}
		return e.printTenant(t)
	})
}

func (e *env) printTenant(t api.Tenant) error {
	return e.Object(t, func(w io.Writer) {
		shown := []any{"name", t.Name, "id", t.ID, "created", terminal.Time(t.Created)}
		if len(t.Directories) > 0 {
			shown = append(shown, "Entra directories", strings.Join(t.Directories, " "))
		}
		if len(t.Vaults) > 0 {
			shown = append(shown, "vaults", strings.Join(t.Vaults, " "))
		}
		terminal.Fields(w, shown...)
	})
}

type tenantSet struct {
	connection
	Name            string   `arg:"" help:"Name or GUID of the tenant."`
	Directory       []string `name:"directory" placeholder:"GUID" help:"Entra directory whose vaults the tenant may use; may be repeated."`
	Vault           []string `name:"vault" placeholder:"URL" help:"Vault that the tenant may use, in a directory that several tenants share; may be repeated."`
	RemoveDirectory []string `name:"remove-directory" placeholder:"GUID" help:"Entra directory whose vaults the tenant may no longer use; may be repeated."`
	RemoveVault     []string `name:"remove-vault" placeholder:"URL" help:"Vault that the tenant may no longer use; may be repeated."`
}

func (c *tenantSet) Run(e *env) error {
	if len(c.Directory)+len(c.Vault)+len(c.RemoveDirectory)+len(c.RemoveVault) == 0 {
		return fail.New(api.InvalidArgument, "no setting is given").WithHint("keyroll tenant set --help lists the settings")
	}
	return c.withClient(func(k *client.Client) error {
		in := api.SetTenantInput{TenantInput: api.TenantInput{Tenant: c.Name}}
		in.Body.Add = api.Outside{Directories: c.Directory, Vaults: c.Vault}
		in.Body.Remove = api.Outside{Directories: c.RemoveDirectory, Vaults: c.RemoveVault}
		t, err := k.SetTenant(e, in)
		if err != nil {
			return err
		}
		return e.printTenant(t)
	})
}

func (*tenantSet) Help() string {
	return terminal.Help("keyroll accesses vaults in Azure with one identity for all tenants, so its operator states which tenant owns them. A directory belongs to one tenant; in "+
		"a directory that tenants share, register each vault for its tenant. Vaults that were in use before keyroll required this are registered at the start of the server, with a warning.",
		"keyroll tenant set contoso --directory 72f988bf-86f1-41af-91ab-2d7cd011db47",
		"keyroll tenant set contoso --vault https://contoso-a1.vault.azure.net --vault https://contoso-a2.vault.azure.net")
}

type geoCommand struct {
	Create geoCreate `cmd:"" help:"Create a geo for the sites of some hosts."`
	List   geoList   `cmd:"" help:"List geos, their hosts and their site policies."`
}

type geoCreate struct {
	connection
	Name  string   `arg:"" help:"Name of the geo, for example EU."`
	Hosts []string `arg:"" help:"Host names of its sites, for example contoso-eu.sharepoint.com."`
}

func (c *geoCreate) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		var in api.CreateGeoInput
		in.Body.Name, in.Body.Hosts = c.Name, c.Hosts
		g, err := k.CreateGeo(e, in)
		if err != nil {
			return err
		}
		return e.Object(g, func(w io.Writer) {
			terminal.Fields(w, "name", g.Name, "hosts", strings.Join(g.Hosts, " "), "created", terminal.Time(g.Created))
		})
	})
}

type geoList struct{ connection }

func (c *geoList) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		return listPages(e, "name sites policy hosts", func(g api.Geo) []any {
			return []any{g.Name, g.Sites, g.Policy, strings.Join(g.Hosts, " ")}
		}, func(page api.PageInput) (api.List[api.Geo], error) {
			return k.ListGeos(e, api.ListInput{PageInput: page})
		})
	})
}

func (*tenantCreate) Help() string {
	return terminal.Help("Only an operator can create tenants. The admin of the first tenant, which the first start of the server created, is an operator. The new token is never printed. "+
		"With --data it is stored in the data folder, where --tenant finds it; with --server, name a file for it.",
		"keyroll tenant create contoso",
		"keyroll tenant create contoso --server https://keyroll.example:8443 --token-file operator.token --new-token-file contoso.token")
}

func (*tenantList) Help() string { return terminal.Help("", "keyroll tenant list -o json") }

func (*tenantShow) Help() string { return terminal.Help("", "keyroll tenant show contoso") }

func (*geoCreate) Help() string {
	return terminal.Help("A site belongs to the geo that had its host when the site was created, or to the default geo. "+
		"Each geo has a site policy of its own. HOST-admin.sharepoint.com is the admin site of the geo that has HOST.sharepoint.com.",
		"keyroll geo create EU contoso-eu.sharepoint.com contoso-eu-my.sharepoint.com",
		"keyroll geo create APC contosoapc.sharepoint.com --tenant contoso")
}

func (*geoList) Help() string { return terminal.Help("", "keyroll geo list") }
