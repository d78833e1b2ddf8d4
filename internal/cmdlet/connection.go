package cmdlet

import "context"

// connectionCmdlets are the cmdlets with which PowerShell connects to a service. The
// shell is connected already: they do nothing and ask for no password.
func connectionCmdlets() []*Cmdlet {
	credential := Param{Name: "Credential", Type: Any, Help: "Accepted and ignored."}
	ignored := func(name, help string, t Type, aliases ...string) Param {
		return Param{Name: name, Type: t, Aliases: aliases, Help: help + " Accepted and ignored."}
	}
	connect := func(name string, aliases []string, params ...Param) *Cmdlet {
		return &Cmdlet{Name: name, Aliases: aliases, Run: connected, Params: params,
			Synopsis: "Does nothing: the shell is connected to its server already.",
			Example:  name}
	}
	first := func(p Param) Param { p.Position = 1; return p }
	return []*Cmdlet{
		{
			Name: "Get-Credential", Run: getCredential, Emits: []string{"UserName"},
			Synopsis: "Returns a placeholder without asking: the shell is connected to its server already.",
			Example:  "$UserCredential = Get-Credential",
			Params:   []Param{first(ignored("UserName", "A name.", String, "Credential")), ignored("Message", "A text.", String)},
		},
		{
			Name: "New-PSSession", Run: newSessionObject, Emits: []string{"Name", "State"},
			Synopsis: "Returns a placeholder: the shell is connected to its server already.",
			Example:  "$UserCredential = Get-Credential; $Session = New-PSSession -ConfigurationName Microsoft.Exchange -ConnectionUri https://outlook.office365.com/powershell-liveid/ -Credential $UserCredential -Authentication Basic -AllowRedirection",
			Params: []Param{ignored("ConfigurationName", "A configuration.", String), ignored("ConnectionUri", "An address.", String), credential,
				ignored("Authentication", "A mechanism.", String), ignored("AllowRedirection", "A switch.", Switch)},
		},
		connect("Import-PSSession", nil, first(ignored("Session", "A session.", Any)), ignored("DisableNameChecking", "A switch.", Switch), ignored("AllowClobber", "A switch.", Switch)),
		connect("Connect-ExchangeOnline", nil, ignored("UserPrincipalName", "A person.", String), ignored("Organization", "An organisation.", String), ignored("ShowBanner", "A switch.", Switch), credential),
		connect("Connect-IPPSSession", nil, ignored("UserPrincipalName", "A person.", String), credential),
		connect("Connect-SPOService", nil, first(ignored("Url", "An address.", String)), credential),
		connect("Import-Module", nil, first(ignored("Name", "A module.", Strings))),
		connect("Install-Module", nil, first(ignored("Name", "A module.", Strings)), ignored("Scope", "A scope.", String), ignored("Force", "A switch.", Switch), ignored("AllowClobber", "A switch.", Switch)),
	}
}

func connected(_ context.Context, c *Call) error {
	c.warn("the shell is connected already: %s does nothing", c.cmdlet.Name)
	return nil
}

func getCredential(ctx context.Context, c *Call) error {
	if err := connected(ctx, c); err != nil {
		return err
	}
	return c.emit(&Object{Properties: []Property{{"UserName", c.text("UserName")}}})
}

func newSessionObject(ctx context.Context, c *Call) error {
	if err := connected(ctx, c); err != nil {
		return err
	}
	return c.emit(&Object{Properties: []Property{{"Name", "keyroll"}, {"State", "Opened"}}})
}
