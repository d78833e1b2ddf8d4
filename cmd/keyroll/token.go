package main

import (
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/terminal"
	"keyroll/internal/tokenfile"
)

type tokenCommand struct {
	Create tokenCreate `cmd:"" help:"Create a token with a name and roles."`
	List   tokenList   `cmd:"" help:"List tokens, their roles and when they were last used."`
	Rotate tokenRotate `cmd:"" help:"Replace a token by a new one, at once."`
	Revoke tokenRevoke `cmd:"" help:"Revoke a token."`
}

// newToken is where a new token goes, and how long it is valid.
type newToken struct {
	Expires      lifetime `placeholder:"TIME" help:"How long the token is valid, such as 90d or 12h, or when it expires, such as 2027-01-31 (default: for ever)."`
	NewTokenFile string   `name:"new-token-file" type:"path" placeholder:"FILE" help:"File that the token is written to, readable only by you (default: it is printed, once)."`
}

// lifetime is when a token expires, as a duration from now or a date.
type lifetime struct{ at time.Time }

var days = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9]{1,5}d$`) })

// UnmarshalText reads a duration, with d for days, or a date.
func (l *lifetime) UnmarshalText(text []byte) error {
	s := string(text)
	if days().MatchString(s) {
		n, err := strconv.Atoi(strings.TrimSuffix(s, "d"))
		l.at = time.Now().AddDate(0, 0, n)
		return err
	}
	if d, err := time.ParseDuration(s); err == nil {
		l.at = time.Now().Add(d)
		return nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, s); err == nil {
			l.at = at
			return nil
		}
	}
	return fmt.Errorf("%q is neither a time like 90d or 12h nor a date like 2027-01-31", s)
}

// store requests a token and writes it to the file, or returns it to be printed.
func (n newToken) store(request func() (secret string, err error)) (printed string, err error) {
	if n.NewTokenFile == "" {
		return request()
	}
	return "", tokenfile.Store(n.NewTokenFile, request)
}

// shownToken is a new token: in a file, or printed.
type shownToken struct {
	api.Token
	File   string `json:"tokenFile,omitempty"`
	Secret string `json:"token,omitempty"`
}

func (e *env) printToken(t shownToken) error {
	return e.Object(t, func(w io.Writer) {
		pairs := []any{"name", t.Name, "roles", api.JoinRoles(t.Roles, ","), "id", t.ID, "expires", formatOptionalTime(t.Expires)}
		if t.File != "" {
			pairs = append(pairs, "token file", t.File)
		} else {
			pairs = append(pairs, "token", t.Secret)
		}
		terminal.Fields(w, pairs...)
	})
}

type tokenCreate struct {
	connection
	Name string     `required:"" help:"Name of the token, of a person or a program."`
	Role []api.Role `required:"" placeholder:"ROLE" help:"Roles, separated by commas: global, compliance, exchange, sharepoint, vault, auditor; the operator grants operator."`
	newToken
}

func (c *tokenCreate) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		var in api.CreateTokenInput
		in.Body.Name, in.Body.Roles, in.Body.Expires = c.Name, c.Role, c.Expires.at
		var made api.CreatedToken
		secret, err := c.store(func() (_ string, err error) {
			made, err = k.CreateToken(e, in)
			return made.Secret, err
		})
		if err != nil {
			return err
		}
		return e.printToken(shownToken{made.Token, c.NewTokenFile, secret})
	})
}

type tokenList struct{ connection }

func (c *tokenList) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		l, err := k.ListTokens(e, api.None{})
		if err != nil {
			return err
		}
		return list(e, l.Items, "name roles issuer created expires last-used", func(t api.Token) []any {
			return []any{t.Name, api.JoinRoles(t.Roles, ","), t.Issuer, terminal.Time(t.Created), formatOptionalTime(t.Expires), formatOptionalTime(t.LastUsed)}
		})
	})
}

type tokenRotate struct {
	connection
	Name string `arg:"" help:"Name of the token, or GUID of its principal."`
	newToken
}

func (c *tokenRotate) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		in := api.RotateTokenInput{TokenInput: api.TokenInput{Token: c.Name}}
		in.Body.Expires = c.Expires.at
		var made api.CreatedToken
		secret, err := c.store(func() (_ string, err error) {
			made, err = k.RotateToken(e, in)
			return made.Secret, err
		})
		if err != nil {
			return err
		}
		return e.printToken(shownToken{made.Token, c.NewTokenFile, secret})
	})
}

type tokenRevoke struct {
	connection
	Name string `arg:"" help:"Name of the token, or GUID of its principal."`
}

func (c *tokenRevoke) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		_, err := k.RevokeToken(e, api.TokenInput{Token: c.Name})
		return err
	})
}

type whoAmICommand struct{ connection }

func (c *whoAmICommand) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		who, err := k.WhoAmI(e, api.None{})
		if err != nil {
			return err
		}
		return e.Object(who, func(w io.Writer) {
			terminal.Fields(w, "name", who.Name, "id", who.ID, "tenant", who.Tenant, "tenant id", who.TenantID, "roles", api.JoinRoles(who.Roles, ","), "expires", formatOptionalTime(who.Expires))
		})
	})
}

func (*tokenCreate) Help() string {
	return terminal.Help("A role permits some operations in the tenant; docs/access.md has the table. Only a hash of the token is stored.",
		"keyroll token create --name carol --role compliance,auditor --expires 90d --new-token-file carol.token")
}

func (*tokenList) Help() string { return terminal.Help("", "keyroll token list") }

func (*tokenRotate) Help() string {
	return terminal.Help("The old token is refused from then on.", "keyroll token rotate carol --expires 90d --new-token-file carol.token")
}

func (*tokenRevoke) Help() string { return terminal.Help("", "keyroll token revoke carol") }

func (*whoAmICommand) Help() string { return terminal.Help("", "keyroll whoami") }
