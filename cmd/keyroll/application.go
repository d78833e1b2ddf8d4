package main

import (
	"io"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/terminal"
	"keyroll/internal/tokenfile"
)

type applicationCommand struct {
	Create applicationCreate `cmd:"" help:"Register an application, and write its first secret to a file."`
	List   applicationList   `cmd:"" help:"List applications and their secrets."`
	Remove applicationRemove `cmd:"" help:"Remove an application; its tokens are refused at once."`
	Secret secretCommand     `cmd:"" help:"Secrets of an application: add, remove."`
}

type secretCommand struct {
	Add    secretAdd    `cmd:"" help:"Add a secret to an application, and write it to a file."`
	Remove secretRemove `cmd:"" help:"Remove a secret of an application; tokens that were issued for it expire within an hour."`
}

// newSecret is where a new secret goes, and how long it is valid.
type newSecret struct {
	Expires       lifetime `placeholder:"TIME" help:"How long the secret is valid, such as 90d or 12h, or when it expires, such as 2027-01-31 (default: one year)."`
	NewSecretFile string   `name:"new-secret-file" type:"path" required:"" placeholder:"FILE" help:"File that the secret is written to, readable only by you."`
}

// store requests a secret and writes it to the file.
func (n newSecret) store(request func() (secret string, err error)) error {
	return tokenfile.Store(n.NewSecretFile, request)
}

// shownSecret is a new secret, without its text, and the file that has it.
type shownSecret struct {
	api.Credential
	File string `json:"secretFile"`
}

type applicationCreate struct {
	connection
	Name string `arg:"" help:"Name of the application."`
	newSecret
}

func (c *applicationCreate) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		var in api.CreateApplicationInput
		in.Body.Name, in.Body.Expires = c.Name, c.Expires.at
		var made api.CreatedApplication
		err := c.store(func() (_ string, err error) {
			made, err = k.CreateApplication(e, in)
			return made.Secret, err
		})
		if err != nil {
			return err
		}
		return e.Object(made.ApplicationInfo, func(w io.Writer) {
			terminal.Fields(w, "name", made.Name, "id", made.ID, "secret id", made.Secrets[0].ID, "secret expires", terminal.Time(made.Secrets[0].Expires), "secret file", c.NewSecretFile)
		})
	})
}

type applicationList struct{ connection }

func (c *applicationList) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		l, err := k.ListApplications(e, api.None{})
		if err != nil {
			return err
		}
		if e.JSON {
			return list(e, l.Items, "", func(api.ApplicationInfo) []any { return nil })
		}
		type row struct {
			api.ApplicationInfo
			secret *api.Credential
		}
		var rows []row
		for _, a := range l.Items {
			if len(a.Secrets) == 0 {
				rows = append(rows, row{a, nil})
			}
			for i := range a.Secrets {
				rows = append(rows, row{a, &a.Secrets[i]})
			}
		}
		return list(e, rows, "name id created secret secret-name expires", func(r row) []any {
			if r.secret == nil {
				return []any{r.Name, r.ID, terminal.Time(r.Created), "", "", ""}
			}
			return []any{r.Name, r.ID, terminal.Time(r.Created), r.secret.ID, r.secret.Name, terminal.Time(r.secret.Expires)}
		})
	})
}

type applicationRemove struct {
	connection
	Name string `arg:"" help:"Name of the application, or its id."`
}

func (c *applicationRemove) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		_, err := k.RemoveApplication(e, api.RemoveApplicationInput{ApplicationInput: api.ApplicationInput{Application: c.Name}})
		return err
	})
}

type secretAdd struct {
	connection
	Application string `arg:"" help:"Name of the application, or its id."`
	Name        string `help:"Name of the secret, such as that of the machine that has it."`
	newSecret
}

func (c *secretAdd) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		in := api.AddApplicationCredentialInput{ApplicationInput: api.ApplicationInput{Application: c.Application}}
		in.Body.Name, in.Body.Expires = c.Name, c.Expires.at
		var made api.CreatedCredential
		err := c.store(func() (_ string, err error) {
			made, err = k.AddApplicationCredential(e, in)
			return made.Secret, err
		})
		if err != nil {
			return err
		}
		return e.Object(shownSecret{made.Credential, c.NewSecretFile}, func(w io.Writer) {
			terminal.Fields(w, "secret id", made.ID, "expires", terminal.Time(made.Expires), "secret file", c.NewSecretFile)
		})
	})
}

type secretRemove struct {
	connection
	Application string `arg:"" help:"Name of the application, or its id."`
	Secret      string `arg:"" help:"Id of the secret."`
}

func (c *secretRemove) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		_, err := k.RemoveApplicationCredential(e, api.RemoveApplicationCredentialInput{ApplicationInput: api.ApplicationInput{Application: c.Application}, Credential: c.Secret})
		return err
	})
}

func (*applicationCreate) Help() string {
	return terminal.Help("An application is a program that uses vaults. It logs in with its id and a secret, and may do what the access policies of vaults permit it: Set-AzKeyVaultAccessPolicy in keyroll shell. Only a hash of the secret is stored.",
		"keyroll application create payroll --new-secret-file payroll.secret --expires 365d")
}

func (*applicationList) Help() string { return terminal.Help("", "keyroll application list") }

func (*applicationRemove) Help() string {
	return terminal.Help("", "keyroll application remove payroll")
}

func (*secretAdd) Help() string {
	return terminal.Help("An application may have several secrets, so that a new one can be distributed before the old one is removed.",
		"keyroll application secret add payroll --name host1 --new-secret-file new.secret")
}

func (*secretRemove) Help() string {
	return terminal.Help("keyroll application list shows the ids.", "keyroll application secret remove payroll 2f1b7c1e-55aa-4d0f-9d57-1f0a6a3c8e01")
}
