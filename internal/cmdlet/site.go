package cmdlet

import (
	"context"
	"net/url"
	"slices"
	"strings"

	"keyroll/api"
	"keyroll/internal/fail"
)

// geoIdentity selects the geo of a site policy.
var geoIdentity = Param{Name: "Identity", Type: String, Position: 1, PipedText: true,
	Help: "Geo: its name, or the URL of its admin site or of one of its sites, such as https://contoso-admin.sharepoint.com (default: the default geo)."}

var siteIdentity = Param{Name: "Identity", Aliases: []string{"Url"}, Type: String, Position: 1, Mandatory: true, Piped: true, PipedText: true,
	Help: "URL of a site."}

// byName and byURI are parameters that name a key of a site policy by its parts or as a whole.
func byName(name string, t Type, help string) Param {
	return Param{Name: name, Type: t, Mandatory: true, Sets: []string{byParts}, Help: help}
}

func byURI(name string) Param {
	return Param{Name: name, Type: String, Mandatory: true, Sets: []string{byURIs}, Help: "URI of the key with its version."}
}

var (
	vaultType = Param{Name: "KeyVaultType", Type: String, Values: []string{"KeyVault", "ManagedHSM"}, Sets: []string{byParts},
		Help: "Type of the vaults (default: KeyVault). Premium vaults of this server can be used as managed HSMs; a managed HSM in Azure is named by its URI."}
	bothKeys = []Param{geoIdentity,
		byName("PrimaryKeyVaultName", String, "Vault of the primary key."),
		byName("PrimaryKeyName", String, "Name of the primary key."),
		byName("PrimaryKeyVersion", Version, "Version of the primary key."),
		byName("SecondaryKeyVaultName", String, "Vault of the secondary key."),
		byName("SecondaryKeyName", String, "Name of the secondary key."),
		byName("SecondaryKeyVersion", Version, "Version of the secondary key."),
		byURI("PrimaryKeyVaultUri"), byURI("SecondaryKeyVaultUri"), vaultType}
)

func siteCmdlets() []*Cmdlet {
	status := sitePolicyObject(api.Geo{}, api.Policy{}).names()
	return []*Cmdlet{
		{
			Name: "New-SPOSite", Run: newSite, Emits: siteObject(api.Site{}).names(), Changes: true,
			Synopsis: "Creates a site.",
			Example:  "New-SPOSite -Url https://contoso.sharepoint.com/sites/finance",
			Params:   []Param{{Name: "Url", Type: String, Position: 1, Mandatory: true, PipedText: true, Help: "URL of the site."}},
		},
		{
			Name: "Get-SPOSite", Run: getSite, Emits: siteObject(api.Site{}).names(),
			Synopsis: "Shows one site, or all.",
			Example:  "Get-SPOSite -Identity https://contoso.sharepoint.com/sites/finance",
			Params:   []Param{optional(siteIdentity)},
		},
		{
			Name: "Register-SPODataEncryptionPolicy", Run: registerSites, Emits: status, Changes: true,
			Synopsis: "Registers the policy of all sites of a geo with two customer keys in two vaults, and starts to move the sites under it.",
			Example:  "Register-SPODataEncryptionPolicy -PrimaryKeyVaultName stageRG3vault -PrimaryKeyName SPKey3 -PrimaryKeyVersion f635a23bd4a44b9996ff6aadd88d42ba -SecondaryKeyVaultName stageRG5vault -SecondaryKeyName SPKey5 -SecondaryKeyVersion 2b3e8f1d754f438dacdec1f0945f251a",
			Sets:     []string{byParts, byURIs},
			Params:   bothKeys,
		},
		{
			Name: "Update-SPODataEncryptionPolicy", Run: updateSites, Emits: status, Changes: true,
			Synopsis: "Replaces the primary or the secondary key of a site policy by another version or another key, and rolls the sites.",
			Example:  "Update-SPODataEncryptionPolicy -Identity https://contoso-admin.sharepoint.com -KeyVaultName stageRG3vault -KeyName SPKey3 -KeyVersion f635a23bd4a44b9996ff6aadd88d42ba -KeyType Primary",
			Sets:     []string{byParts, byURIs},
			Params: []Param{geoIdentity,
				byName("KeyVaultName", String, "Vault of the key."),
				byName("KeyName", String, "Name of the key."),
				byName("KeyVersion", Version, "Version of the key."),
				byURI("KeyVaultUri"),
				{Name: "KeyType", Type: String, Mandatory: true, Values: []string{"Primary", "Secondary", "Availability"},
					Help: "Key to replace. Availability is refused: only the service can roll the availability key."},
				{Name: "Depth", Type: String, Values: depths, Help: depthHelp + " Container and Content also accept the key version that the policy already names."},
				vaultType},
		},
		{
			Name: "Restore-SPODataEncryptionPolicy", Run: restoreSites, Emits: status, Changes: true,
			Synopsis: "Gives a site policy in recovery mode, whose customer keys are lost, two new customer keys.",
			Example:  "Restore-SPODataEncryptionPolicy -PrimaryKeyVaultName stageRG3vault -PrimaryKeyName SPKey3 -PrimaryKeyVersion f635a23bd4a44b9996ff6aadd88d42ba -SecondaryKeyVaultName stageRG5vault -SecondaryKeyName SPKey5 -SecondaryKeyVersion 2b3e8f1d754f438dacdec1f0945f251a",
			Sets:     []string{byParts, byURIs},
			Params:   bothKeys,
		},
		{
			Name: "Get-SPODataEncryptionPolicy", Run: getSitePolicy, Emits: status,
			Synopsis: "Shows the site policy of a geo, its state (Unregistered, Registering, Registered, Rolling or Recovery) and its progress.",
			Example:  "Get-SPODataEncryptionPolicy -Identity https://contoso-admin.sharepoint.com",
			Params:   []Param{geoIdentity},
		},
		{
			Name: "Get-SPOSiteDataEncryptionPolicy", Run: getSiteProtection, Emits: protectionObject(api.Site{}, api.Policy{}).names(),
			Synopsis: "Shows the state of one site: Registered once its key is under the newest key of the site policy. Without a site policy it is an error.",
			Example:  "Get-SPOSiteDataEncryptionPolicy -Identity https://contoso.sharepoint.com/sites/finance",
			Params:   []Param{siteIdentity},
		},
	}
}

// Parameter sets that name keys, as the documentation names them.
const (
	byParts = "BYOK_MultipleParameters"
	byURIs  = "BYOK_Uri"
)

var siteView = &View{Columns: []Column{{"Url", "Url"}, {"ItemCount", "ItemCount"}, {"StorageUsage", "StorageUsage"}, {"DataEncryptionPolicyID", "DataEncryptionPolicyID"}}}

func siteObject(s api.Site) *Object {
	return &Object{View: siteView, Properties: []Property{
		{"Url", s.URL}, {"Geo", s.Geo}, {"ItemCount", s.Items}, {"StorageUsage", ByteSize(s.Bytes)}, {"WhenCreated", optionalTime(&s.Created)},
		{"IsEncrypted", s.Protection.IsEncrypted}, {"DataEncryptionPolicyID", s.Protection.DataEncryptionPolicyID},
	}}
}

func sitePolicyObject(g api.Geo, p api.Policy) *Object {
	return &Object{Properties: []Property{
		{"Geo", g.Name}, {"State", string(p.State)}, {"PercentComplete", asInteger(p.PercentComplete)},
		{"PrimaryKeyUri", keyURI(p.Primary)}, {"SecondaryKeyUri", keyURI(p.Secondary)},
		{"PrimaryKeyHealth", keyHealth(p.PrimaryHealth)}, {"SecondaryKeyHealth", keyHealth(p.SecondaryHealth)}, {"Name", p.Name},
		{"Guid", p.ID}, {"DataEncryptionPolicyID", p.Revision},
	}}
}

// protectionObject shows one site. Until it has been moved, its DataEncryptionPolicyID
// shows the policy key that it is under, and the key URIs are empty.
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

// selectGeo returns the geo that -Identity selects: the one with the host of the URL or of
// its admin site, or else the tenant's default one.
func (c *Call) selectGeo(ctx context.Context) (api.Geo, error) {
	host := ""
	if c.has("Identity") {
		identity := c.text("Identity")
		u, err := url.Parse(identity)
		switch {
		case err == nil && u.Scheme == "https" && u.Hostname() != "":
			host = strings.ToLower(u.Hostname())
		case strings.ContainsAny(identity, ":/."):
			return api.Geo{}, invalid("%.200q is not a valid URL of a site", identity).WithHint("write it as https://contoso-admin.sharepoint.com")
		}
	}
	all, err := c.Service.ListGeos(ctx, api.ListInput{})
	if err != nil {
		return api.Geo{}, err
	}
	for _, g := range all.Items {
		if host != "" && slices.ContainsFunc(g.Hosts, func(h string) bool { return host == h || host == adminHost(h) }) ||
			host == "" && c.has("Identity") && strings.EqualFold(g.Name, c.text("Identity")) {
			return g, nil
		}
	}
	if host == "" && c.has("Identity") {
		return api.Geo{}, fail.New(api.NotFound, "geo %.200q does not exist", c.text("Identity")).WithHint("keyroll geo list shows the geos")
	}
	for _, g := range all.Items {
		if g.Default {
			return g, nil
		}
	}
	return api.Geo{}, fail.New(api.NotFound, "the tenant has no geo")
}

// adminHost returns the host of the admin site for a host of sites.
func adminHost(host string) string {
	name, domain, _ := strings.Cut(host, ".")
	return name + "-admin." + domain
}

// sitePolicy returns a geo's site policy; without one, its State is Unregistered.
func (c *Call) sitePolicy(ctx context.Context, g api.Geo) (api.Policy, error) {
	if g.Policy == "" {
		return api.Policy{State: api.Unregistered}, nil
	}
	return c.Service.ShowPolicy(ctx, api.PolicyInput{Policy: g.Policy})
}

// registeredPolicy returns a geo's site policy, and fails if there is none.
func (c *Call) registeredPolicy(ctx context.Context, g api.Geo) (api.Policy, error) {
	if g.Policy == "" {
		return api.Policy{}, fail.New(api.Conflict, "no site policy is registered").WithHint("Register-SPODataEncryptionPolicy registers one")
	}
	return c.sitePolicy(ctx, g)
}

// siteKey returns the key version that the parameters name, by parts or by URI.
func (c *Call) siteKey(prefix string) api.KeyVersion {
	if uri := c.text(prefix + "KeyVaultUri"); uri != "" {
		return api.KeyVersion{URI: uri}
	}
	return api.KeyVersion{Vault: c.text(prefix + "KeyVaultName"), Key: c.text(prefix + "KeyName"), Version: c.text(prefix + "KeyVersion")}
}

func newSite(ctx context.Context, c *Call) error {
	var in api.CreateSiteInput
	in.Body.URL = c.text("Url")
	in.Body.DryRunOption = c.dryRun()
	return c.change(ctx, func() (*Object, error) {
		s, err := c.Service.CreateSite(ctx, in)
		return siteObject(s), err
	}, "Create site %s", in.Body.URL)
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
	}, -1, func(s api.Site) (bool, error) { return true, c.emit(siteObject(s)) })
}

func registerSites(ctx context.Context, c *Call) error {
	g, err := c.selectGeo(ctx)
	if err != nil {
		return err
	}
	var in api.RegisterSitesInput
	in.Body.Geo, in.Body.Primary, in.Body.Secondary = g.Name, c.siteKey("Primary"), c.siteKey("Secondary")
	in.Body.DryRunOption = c.dryRun()
	return c.change(ctx, func() (*Object, error) {
		p, err := c.Service.RegisterSites(ctx, in)
		c.printWarnings(p.Warnings, "")
		return sitePolicyObject(g, p), err
	}, "Register the site policy of geo %s and move every site under it", g.Name)
}

func updateSites(ctx context.Context, c *Call) error {
	if c.text("KeyType") == "Availability" {
		return invalid("the availability key belongs to the service: a customer cannot replace it").
			WithHint("the service rolls it on a schedule, and an operator with keyroll availability roll; a new policy has a new availability key")
	}
	g, err := c.selectGeo(ctx)
	if err != nil {
		return err
	}
	p, err := c.registeredPolicy(ctx, g)
	if err != nil {
		return err
	}
	in := api.UpdatePolicyInput{PolicyInput: api.PolicyInput{Policy: p.ID}}
	in.Body.KeyType = strings.ToLower(c.text("KeyType"))
	in.Body.Key, in.Body.Depth = c.siteKey(""), api.Depth(strings.ToLower(c.text("Depth")))
	in.Body.DryRunOption = c.dryRun()
	return c.change(ctx, func() (*Object, error) {
		done, err := c.Service.UpdatePolicy(ctx, in)
		c.printWarnings(done.Warnings, done.Limit)
		return sitePolicyObject(g, done.Policy), err
	}, "Replace the %s key of the site policy of geo %s", in.Body.KeyType, g.Name)
}

func restoreSites(ctx context.Context, c *Call) error {
	g, err := c.selectGeo(ctx)
	if err != nil {
		return err
	}
	var in api.RestoreSitesInput
	in.Body.Geo, in.Body.Primary, in.Body.Secondary = g.Name, c.siteKey("Primary"), c.siteKey("Secondary")
	in.Body.DryRunOption = c.dryRun()
	return c.change(ctx, func() (*Object, error) {
		p, err := c.Service.RestoreSites(ctx, in)
		c.printWarnings(p.Warnings, "")
		return sitePolicyObject(g, p), err
	}, "Give the site policy of geo %s two new keys", g.Name)
}

func getSitePolicy(ctx context.Context, c *Call) error {
	g, err := c.selectGeo(ctx)
	if err != nil {
		return err
	}
	p, err := c.sitePolicy(ctx, g)
	if err != nil {
		return err
	}
	return c.emit(sitePolicyObject(g, p))
}

func getSiteProtection(ctx context.Context, c *Call) error {
	s, err := c.Service.ShowSite(ctx, api.SiteInput{Site: c.text("Identity")})
	if err != nil {
		return err
	}
	all, err := c.Service.ListGeos(ctx, api.ListInput{})
	if err != nil {
		return err
	}
	var of api.Geo
	for _, g := range all.Items {
		if g.Name == s.Geo {
			of = g
		}
	}
	p, err := c.registeredPolicy(ctx, of)
	if err != nil {
		return err
	}
	return c.emit(protectionObject(s, p))
}
