package cmdlet

import "context"

// connectionCmdlets are those with which PowerShell connects to a service. The
// shell has its one server already: they change nothing and ask for no password.
func connectionCmdlets() []*Cmdlet {
	credential := Param{Name: "Credential", Type: Any, Help: "Taken, and not looked at."}
	said := func(name, help string, t Type, aliases ...string) Param {
		return Param{Name: name, Type: t, Aliases: aliases, Help: help + " Taken, and not looked at."}
	}
	connect := func(name string, aliases []string, params ...Param) *Cmdlet {
		return &Cmdlet{Name: name, Aliases: aliases, Run: connected, Params: params,
			Synopsis: "Changes nothing: the shell is connected to its server already.",
			Example:  name}
	}
	first := func(p Param) Param { p.Position = 1; return p }
	return []*Cmdlet{
		{
			Name: "Get-Credential", Run: getCredential, Emits: []string{"UserName"},
			Synopsis: "Asks for nothing: the shell is connected to its server already.",
			Example:  "$UserCredential = Get-Credential",
			Params:   []Param{first(said("UserName", "A name.", String, "Credential")), said("Message", "A text.", String)},
		},
		{
			Name: "New-PSSession", Run: newSessionObject, Emits: []string{"Name", "State"},
			Synopsis: "Makes nothing: the shell is connected to its server already.",
			Example:  "$UserCredential = Get-Credential; $Session = New-PSSession -ConfigurationName Microsoft.Exchange -ConnectionUri https://outlook.office365.com/powershell-liveid/ -Credential $UserCredential -Authentication Basic -AllowRedirection",
			Params: []Param{said("ConfigurationName", "A configuration.", String), said("ConnectionUri", "An address.", String), credential,
				said("Authentication", "A mechanism.", String), said("AllowRedirection", "A switch.", Switch)},
		},
		connect("Import-PSSession", nil, first(said("Session", "A session.", Any)), said("DisableNameChecking", "A switch.", Switch), said("AllowClobber", "A switch.", Switch)),
		connect("Connect-ExchangeOnline", nil, said("UserPrincipalName", "A person.", String), said("Organization", "An organisation.", String), said("ShowBanner", "A switch.", Switch), credential),
		connect("Connect-IPPSSession", nil, said("UserPrincipalName", "A person.", String), credential),
		connect("Connect-SPOService", nil, first(said("Url", "An address.", String)), credential),
		connect("Import-Module", nil, first(said("Name", "A module.", Strings))),
		connect("Install-Module", nil, first(said("Name", "A module.", Strings)), said("Scope", "A scope.", String), said("Force", "A switch.", Switch), said("AllowClobber", "A switch.", Switch)),
	}
}

func connected(_ context.Context, c *Call) error {
	c.warn("the shell is connected already: %s changes nothing", c.cmdlet.Name)
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
