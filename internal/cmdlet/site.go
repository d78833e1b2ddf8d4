package cmdlet

import (
	"context"
	"net/url"
	"strings"

	"keyroll/api"
	"keyroll/internal/fail"
)

// geoIdentity names the geo whose site policy is meant.
var geoIdentity = Param{Name: "Identity", Type: String, Position: 1, PipedText: true,
	Help: "URL of a site or of the administration, such as https://contoso-admin.sharepoint.com; it stands for the tenant's geo."}

var siteIdentity = Param{Name: "Identity", Aliases: []string{"Url"}, Type: String, Position: 1, Mandatory: true, Piped: true, PipedText: true,
	Help: "URL of a site."}

func siteCmdlets() []*Cmdlet {
	status := sitePolicyObject(api.Policy{}).names()
	byName := func(name string, t Type, help string) Param {
		return Param{Name: name, Type: t, Mandatory: true, Sets: []string{"ByName"}, Help: help}
	}
	byURI := func(name string) Param {
		return Param{Name: name, Type: String, Mandatory: true, Sets: []string{"ByUri"}, Help: "Key URI with the version."}
	}
	return []*Cmdlet{
		{
			Name: "New-SPOSite", Run: newSite, Emits: siteObject(api.Site{}).names(),
			Synopsis: "Makes a site.",
			Example:  "New-SPOSite -Url https://contoso.sharepoint.com/sites/finance",
			Params:   []Param{{Name: "Url", Type: String, Position: 1, Mandatory: true, PipedText: true, Help: "URL of the site."}, confirmParam},
		},
		{
			Name: "Get-SPOSite", Run: getSite, Emits: siteObject(api.Site{}).names(),
			Synopsis: "Shows one site, or all.",
			Example:  "Get-SPOSite -Identity https://contoso.sharepoint.com/sites/finance",
			Params:   []Param{optional(siteIdentity)},
		},
		{
			Name: "Register-SPODataEncryptionPolicy", Run: registerSites, Emits: status,
			Synopsis: "Registers the policy of all sites of a geo with two customer keys in two vaults, and begins to bring the sites under it.",
			Example:  "Register-SPODataEncryptionPolicy -PrimaryKeyVaultName stageRG3vault -PrimaryKeyName SPKey3 -PrimaryKeyVersion f635a23bd4a44b9996ff6aadd88d42ba -SecondaryKeyVaultName stageRG5vault -SecondaryKeyName SPKey5 -SecondaryKeyVersion 2b3e8f1d754f438dacdec1f0945f251a",
			Sets:     []string{"ByName", "ByUri"},
			Params: []Param{geoIdentity,
				byName("PrimaryKeyVaultName", String, "Vault of the primary key."),
				byName("PrimaryKeyName", String, "Name of the primary key."),
				byName("PrimaryKeyVersion", Version, "Version of the primary key."),
				byName("SecondaryKeyVaultName", String, "Vault of the secondary key."),
				byName("SecondaryKeyName", String, "Name of the secondary key."),
				byName("SecondaryKeyVersion", Version, "Version of the secondary key."),
				byURI("PrimaryKeyVaultUri"), byURI("SecondaryKeyVaultUri"), confirmParam},
		},
		{
			Name: "Update-SPODataEncryptionPolicy", Run: updateSites, Emits: status,
			Synopsis: "Puts the site policy on another version or another key, the primary or the secondary, and rolls the sites.",
			Example:  "Update-SPODataEncryptionPolicy -Identity https://contoso-admin.sharepoint.com -KeyVaultName stageRG3vault -KeyName SPKey3 -KeyVersion f635a23bd4a44b9996ff6aadd88d42ba -KeyType Primary",
			Sets:     []string{"ByName", "ByUri"},
			Params: []Param{geoIdentity,
				byName("KeyVaultName", String, "Vault of the key."),
				byName("KeyName", String, "Name of the key."),
				byName("KeyVersion", Version, "Version of the key."),
				byURI("KeyVaultUri"),
				{Name: "KeyType", Type: String, Mandatory: true, Values: []string{"Primary", "Secondary"}, Help: "Which of the two keys is replaced."},
				confirmParam},
		},
		{
			Name: "Get-SPODataEncryptionPolicy", Run: getSitePolicy, Emits: status,
			Synopsis: "Shows the site policy of a geo: Unregistered, Registering, Registered or Rolling, and how much is done.",
			Example:  "Get-SPODataEncryptionPolicy -Identity https://contoso-admin.sharepoint.com",
			Params:   []Param{geoIdentity},
		},
		{
			Name: "Get-SPOSiteDataEncryptionPolicy", Run: getSiteProtection, Emits: protectionObject(api.Site{}, api.Policy{}).names(),
			Synopsis: "Shows where one site stands: Registered once it has the newest key of the site policy.",
			Example:  "Get-SPOSiteDataEncryptionPolicy -Identity https://contoso.sharepoint.com/sites/finance",
			Params:   []Param{siteIdentity},
		},
	}
}

var siteView = &View{Columns: []Column{{"Url", "Url"}, {"ItemCount", "ItemCount"}, {"StorageUsage", "StorageUsage"}, {"DataEncryptionPolicyID", "DataEncryptionPolicyID"}}}

func siteObject(s api.Site) *Object {
	return &Object{View: siteView, Properties: []Property{
		{"Url", s.URL}, {"ItemCount", s.Items}, {"StorageUsage", ByteSize(s.Bytes)}, {"WhenCreated", moment(&s.Created)},
		{"IsEncrypted", s.Protection.IsEncrypted}, {"DataEncryptionPolicyID", s.Protection.DataEncryptionPolicyID},
	}}
}

func sitePolicyObject(p api.Policy) *Object {
	return &Object{Properties: []Property{
		{"State", string(p.State)}, {"PercentComplete", whole(p.PercentComplete)},
		{"PrimaryKeyUri", keyURI(p.Primary)}, {"SecondaryKeyUri", keyURI(p.Secondary)},
		{"Guid", p.ID}, {"DataEncryptionPolicyID", p.Revision},
	}}
}

// protectionObject shows one site. What it is under while it has not come over
// is told by its DataEncryptionPolicyID; the keys are those that it has reached.
func protectionObject(s api.Site, p api.Policy) *Object {
	state, percent, primary, secondary := p.State, int64(0), any(nil), any(nil)
	if s.Protection.PolicyID == p.ID && s.Protection.Current {
		state, percent, primary, secondary = api.Registered, 100, keyURI(p.Primary), keyURI(p.Secondary)
	}
	return &Object{Properties: []Property{
		{"Identity", s.URL}, {"State", string(state)}, {"PercentComplete", percent},
		{"PrimaryKeyUri", primary}, {"SecondaryKeyUri", secondary}, {"DataEncryptionPolicyID", s.Protection.DataEncryptionPolicyID},
	}}
}

// checkGeo refuses an identity that is no URL; every host stands for the one geo.
func (c *Call) checkGeo() error {
	if !c.has("Identity") {
		return nil
	}
	u, err := url.Parse(c.text("Identity"))
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return invalid("%.200q is no URL of a site", c.text("Identity")).WithHint("write it as https://contoso-admin.sharepoint.com")
	}
	return nil
}

// sitePolicy returns the site policy, and whether there is one that was not left.
func (c *Call) sitePolicy(ctx context.Context) (api.Policy, bool, error) {
	all, err := c.policies(ctx, api.SitePolicy)
	if err != nil {
		return api.Policy{}, false, err
	}
	for _, p := range all {
		if p.Enabled {
			return p, true, nil
		}
	}
	return api.Policy{}, false, nil
}

func (c *Call) registered(ctx context.Context) (api.Policy, error) {
	p, ok, err := c.sitePolicy(ctx)
	if err == nil && !ok {
		err = fail.New(api.Conflict, "no site policy is registered").WithHint("Register-SPODataEncryptionPolicy registers one")
	}
	return p, err
}

// siteKey is the key version that the parameters name, by parts or by URI.
func (c *Call) siteKey(prefix string) api.KeyVersion {
	if uri := c.text(prefix + "KeyVaultUri"); uri != "" {
		return api.KeyVersion{URI: uri}
	}
	return api.KeyVersion{Vault: c.text(prefix + "KeyVaultName"), Key: c.text(prefix + "KeyName"), Version: c.text(prefix + "KeyVersion")}
}

func newSite(ctx context.Context, c *Call) error {
	var in api.CreateSiteInput
	in.Body.URL = c.text("Url")
	if err := c.confirm(ctx, "Make site %s?", in.Body.URL); err != nil {
		return err
	}
	s, err := c.Service.CreateSite(ctx, in)
	if err != nil {
		return err
	}
	return c.emit(siteObject(s))
}

func getSite(ctx context.Context, c *Call) error {
	if c.has("Identity") {
		s, err := c.Service.ShowSite(ctx, api.SiteInput{Site: c.text("Identity")})
		if err != nil {
			return err
		}
		return c.emit(siteObject(s))
	}
	return everyPage(func(page api.PageInput) (api.List[api.Site], error) {
		return c.Service.ListSites(ctx, api.ListInput{PageInput: page})
	}, -1, func(s api.Site) error { return c.emit(siteObject(s)) })
}

func registerSites(ctx context.Context, c *Call) error {
	if err := c.checkGeo(); err != nil {
		return err
	}
	var in api.RegisterSitesInput
	in.Body.Primary, in.Body.Secondary = c.siteKey("Primary"), c.siteKey("Secondary")
	if err := c.confirm(ctx, "Register the site policy and bring every site under it?"); err != nil {
		return err
	}
	p, err := c.Service.RegisterSites(ctx, in)
	if err != nil {
		return err
	}
	return c.emit(sitePolicyObject(p))
}

func updateSites(ctx context.Context, c *Call) error {
	if err := c.checkGeo(); err != nil {
		return err
	}
	p, err := c.registered(ctx)
	if err != nil {
		return err
	}
	in := api.UpdatePolicyInput{PolicyInput: api.PolicyInput{Policy: p.ID}}
	in.Body.KeyType = strings.ToLower(c.text("KeyType"))
	in.Body.Key = c.siteKey("")
	if err := c.confirm(ctx, "Replace the %s key of the site policy?", in.Body.KeyType); err != nil {
		return err
	}
	done, err := c.Service.UpdatePolicy(ctx, in)
	if err != nil {
		return err
	}
	if done.Limit != "" {
		c.warn("%s", done.Limit)
	}
	return c.emit(sitePolicyObject(done.Policy))
}

func getSitePolicy(ctx context.Context, c *Call) error {
	if err := c.checkGeo(); err != nil {
		return err
	}
	p, ok, err := c.sitePolicy(ctx)
	if err != nil {
		return err
	}
	if !ok {
		p.State = "Unregistered"
	}
	return c.emit(sitePolicyObject(p))
}

func getSiteProtection(ctx context.Context, c *Call) error {
	p, err := c.registered(ctx)
	if err != nil {
		return err
	}
	s, err := c.Service.ShowSite(ctx, api.SiteInput{Site: c.text("Identity")})
	if err != nil {
		return err
	}
	return c.emit(protectionObject(s, p))
}
