package cmdlet

import (
	"context"
	"slices"
	"strings"

	"keyroll/api"
	"keyroll/internal/fail"
)

func applicationCmdlets() []*Cmdlet {
	id := Param{Name: "ApplicationId", Aliases: []string{"AppId"}, Type: String, Piped: true, Help: "Application id, a GUID."}
	name := Param{Name: "DisplayName", Type: String, Help: "Name of the application."}
	end := Param{Name: "EndDate", Type: DateTime, Help: "When the secret expires (default: in one year)."}
	key := Param{Name: "KeyId", Type: String, Piped: true, Help: "Id of the secret, a GUID (default: all secrets of the application)."}
	passThru := Param{Name: "PassThru", Type: Switch, Help: "Return $true on success."}
	needed := func(p Param, sets ...string) Param { p.Mandatory, p.Sets = true, sets; return p }
	principal := applicationObject(api.ApplicationInfo{}, "").names()
	credential := credentialObject(api.Credential{}, "").names()
	const app = "55555555-5555-5555-5555-555555555555"
	return []*Cmdlet{
		{
			Name: "New-AzADServicePrincipal", Run: newApplication, Emits: principal, Changes: true,
			Synopsis: "Registers an application, a program that uses vaults, with a first secret: PasswordCredentials.SecretText, which is shown only now. It may use a vault after Set-AzKeyVaultAccessPolicy.",
			Example:  "New-AzADServicePrincipal -DisplayName Payroll -EndDate 2199-01-31",
			Params:   []Param{needed(name), end},
		},
		{
			Name: "Get-AzADServicePrincipal", Run: getApplications, Emits: principal,
			Synopsis: "Shows the applications of the tenant, or those with a name or an id.",
			Example:  "Get-AzADServicePrincipal -DisplayName Payroll",
			Params:   []Param{id, name},
		},
		{
			Name: "Remove-AzADServicePrincipal", Run: removeApplication, Changes: true, Confirms: true,
			Synopsis: "Removes an application with its secrets. Its tokens are refused at once.",
			Example:  "Remove-AzADServicePrincipal -ApplicationId " + app,
			Sets:     []string{"ApplicationIdParameterSet", "DisplayNameParameterSet"},
			Params:   []Param{needed(id, "ApplicationIdParameterSet"), needed(name, "DisplayNameParameterSet"), passThru},
		},
		{
			Name: "New-AzADAppCredential", Run: newCredential, Emits: credential, Changes: true,
			Synopsis: "Adds a secret to an application: SecretText, which is shown only now.",
			Example:  "New-AzADAppCredential -ApplicationId " + app + " -EndDate 2199-01-31",
			Params:   []Param{needed(id), end},
		},
		{
			Name: "Get-AzADAppCredential", Run: getCredentials, Emits: credential,
			Synopsis: "Shows the ids and the expiry of an application's secrets.",
			Example:  "Get-AzADAppCredential -ApplicationId " + app,
			Params:   []Param{needed(id)},
		},
		{
			Name: "Remove-AzADAppCredential", Run: removeCredentials, Changes: true, Confirms: true,
			Synopsis: "Removes one secret of an application, or all. Tokens that were issued for it expire within an hour.",
			Example:  "Remove-AzADAppCredential -ApplicationId " + app + " -KeyId 22222222-2222-2222-2222-222222222222",
			Params:   []Param{needed(id), key, passThru},
		},
	}
}

var (
	applicationView = &View{Columns: []Column{{"DisplayName", "DisplayName"}, {"Id", "Id"}, {"AppId", "AppId"}}}
	credentialView  = &View{Columns: []Column{{"KeyId", "KeyId"}, {"StartDateTime", "StartDateTime"}, {"EndDateTime", "EndDateTime"}, {"SecretText", "SecretText"}}}
)

// applicationObject shows an application; secret, if not empty, is that of its only credential.
func applicationObject(a api.ApplicationInfo, secret string) *Object {
	var credentials []any
	for _, c := range a.Secrets {
		credentials = append(credentials, credentialObject(c, secret))
	}
	return &Object{View: applicationView, Properties: []Property{
		{"DisplayName", a.Name}, {"Id", a.ID}, {"AppId", a.ID}, {"CreatedDateTime", optionalTime(&a.Created)}, {"PasswordCredentials", list(credentials)}}}
}

func credentialObject(c api.Credential, secret string) *Object {
	var text any
	if secret != "" {
		text = secret
	}
	return &Object{View: credentialView, Properties: []Property{
		{"DisplayName", c.Name}, {"KeyId", c.ID}, {"StartDateTime", optionalTime(&c.Created)}, {"EndDateTime", optionalTime(&c.Expires)}, {"SecretText", text}}}
}

// guid returns the GUID that a parameter has, in lower case.
func (c *Call) guid(name string) (string, error) {
	id := c.text(name)
	if !guidForm().MatchString(id) {
		return "", invalid("-%s needs a GUID, found %.100q", name, id).WithHint("Get-AzADServicePrincipal lists the applications and the ids of their secrets")
	}
	return strings.ToLower(id), nil
}

func newApplication(ctx context.Context, c *Call) error {
	var in api.CreateApplicationInput
	in.Body.Name, in.Body.DryRunOption = c.text("DisplayName"), c.dryRun()
	if end := c.time("EndDate"); end != nil {
		in.Body.Expires = *end
	}
	return c.change(ctx, func() (*Object, error) {
		made, err := c.Service.CreateApplication(ctx, in)
		return applicationObject(made.ApplicationInfo, made.Secret), err
	}, "Register application %s", in.Body.Name)
}

// applications returns the applications that -ApplicationId and -DisplayName select.
func (c *Call) applications(ctx context.Context) ([]api.ApplicationInfo, error) {
	id := ""
	if c.has("ApplicationId") {
		var err error
		if id, err = c.guid("ApplicationId"); err != nil {
			return nil, err
		}
	}
	all, err := c.Service.ListApplications(ctx, api.None{})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all.Items, func(a api.ApplicationInfo) bool {
		return id != "" && a.ID != id || c.has("DisplayName") && !strings.EqualFold(a.Name, c.text("DisplayName"))
	}), nil
}

// application returns the one application that -ApplicationId or -DisplayName names.
func (c *Call) application(ctx context.Context) (api.ApplicationInfo, error) {
	all, err := c.applications(ctx)
	if err != nil {
		return api.ApplicationInfo{}, err
	}
	if len(all) != 1 {
		return api.ApplicationInfo{}, fail.New(api.NotFound, "application %.100q does not exist", c.text("ApplicationId")+c.text("DisplayName")).
			WithHint("Get-AzADServicePrincipal lists the applications")
	}
	return all[0], nil
}

func getApplications(ctx context.Context, c *Call) error {
	all, err := c.applications(ctx)
	if err != nil {
		return err
	}
	return emitAll(c, all, func(a api.ApplicationInfo) *Object { return applicationObject(a, "") })
}

func removeApplication(ctx context.Context, c *Call) error {
	a, err := c.application(ctx)
	if err != nil {
		return err
	}
	in := api.RemoveApplicationInput{ApplicationInput: api.ApplicationInput{Application: a.ID}, DryRun: c.flag("WhatIf")}
	err = c.change(ctx, func() (*Object, error) {
		_, err := c.Service.RemoveApplication(ctx, in)
		return nil, err
	}, "Remove application %s (%s) with its secrets", a.Name, a.ID)
	return c.emitSuccess(err)
}

func newCredential(ctx context.Context, c *Call) error {
	id, err := c.guid("ApplicationId")
	if err != nil {
		return err
	}
	in := api.AddApplicationCredentialInput{ApplicationInput: api.ApplicationInput{Application: id}}
	in.Body.DryRunOption = c.dryRun()
	if end := c.time("EndDate"); end != nil {
		in.Body.Expires = *end
	}
	return c.change(ctx, func() (*Object, error) {
		made, err := c.Service.AddApplicationCredential(ctx, in)
		return credentialObject(made.Credential, made.Secret), err
	}, "Add a secret to application %s", id)
}

func getCredentials(ctx context.Context, c *Call) error {
	a, err := c.application(ctx)
	if err != nil {
		return err
	}
	return emitAll(c, a.Secrets, func(s api.Credential) *Object { return credentialObject(s, "") })
}

func removeCredentials(ctx context.Context, c *Call) error {
	id, err := c.guid("ApplicationId")
	if err != nil {
		return err
	}
	var keys []string
	if c.has("KeyId") {
		key, err := c.guid("KeyId")
		if err != nil {
			return err
		}
		keys = append(keys, key)
	} else {
		a, err := c.application(ctx)
		if err != nil {
			return err
		}
		for _, s := range a.Secrets {
			keys = append(keys, s.ID)
		}
	}
	err = c.change(ctx, func() (*Object, error) {
		for _, key := range keys {
			in := api.RemoveApplicationCredentialInput{ApplicationInput: api.ApplicationInput{Application: id}, Credential: key, DryRun: c.flag("WhatIf")}
			if _, err := c.Service.RemoveApplicationCredential(ctx, in); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}, "Remove the secrets %s of application %s", strings.Join(keys, ", "), id)
	return c.emitSuccess(err)
}
