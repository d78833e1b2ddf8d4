package rootkey

import (
	"net/url"
	"regexp"
	"strings"
	"sync"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
)

// azureClouds are the domains of vaults in Azure, with the host that issues tokens for
// them (learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates,
// "Vault/Managed HSM DNS suffix"). An empty authority means public Azure, or the value
// of AZURE_AUTHORITY_HOST. A vault under any other domain is refused, because tenants
// write these names.
var azureClouds = []struct{ domain, authority string }{
	{"vault.azure.net", ""},
	{"managedhsm.azure.net", ""},
	{"vault.azure.cn", "https://login.chinacloudapi.cn/"},
	{"managedhsm.azure.cn", "https://login.chinacloudapi.cn/"},
	{"vault.usgovcloudapi.net", "https://login.microsoftonline.us/"},
	{"managedhsm.usgovcloudapi.net", "https://login.microsoftonline.us/"},
}

// Azure's rules for names, except that a vault's name may be as long as those in the
// Customer Key documentation, and both may contain an underscore as in its examples.
var (
	vaultNames  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z_-]{1,125}[0-9A-Za-z]$`) })
	keyNames    = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9A-Za-z_-]{1,127}$`) })
	versions    = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9a-f]{32}$`) })
	versionGUID = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	})
)

// ParseURI reads https://HOST[:PORT]/keys/KEY[/VERSION]. A host under keyroll's
// own vault domain gives a bare vault name, as written, whatever the port; one
// under an Azure vault domain gives the vault's URL in lower case. A version is
// 32 hexadecimal digits, or the same as a GUID. Anything else is InvalidArgument.
func (c *Client) ParseURI(uri string) (envelope.KeyVersion, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return envelope.KeyVersion{}, c.invalidURI(uri)
	}
	vault, ok := c.parseVault(u)
	if !ok {
		return envelope.KeyVersion{}, c.invalidURI(uri)
	}
	path, ok := strings.CutPrefix(u.EscapedPath(), "/keys/")
	if !ok {
		return envelope.KeyVersion{}, c.invalidURI(uri)
	}
	key, version, versioned := strings.Cut(path, "/")
	version, ok = normalVersion(version)
	if !ok || !keyNames().MatchString(key) || versioned && version == "" {
		return envelope.KeyVersion{}, c.invalidURI(uri)
	}
	return envelope.KeyVersion{Vault: vault, Key: key, Version: version}, nil
}

// Reference checks the three parts of a key reference and normalises them as
// ParseURI does. The vault is the bare name of an own vault, or https://HOST.
// The version may be empty.
func (c *Client) Reference(vault, key, version string) (envelope.KeyVersion, error) {
	if strings.Contains(vault, ":") {
		u, err := url.Parse(strings.TrimSuffix(vault, "/"))
		if err != nil {
			return envelope.KeyVersion{}, c.invalidVault(vault)
		}
		parsed, ok := c.parseVault(u)
		if !ok || u.Path != "" {
			return envelope.KeyVersion{}, c.invalidVault(vault)
		}
		vault = parsed
	} else if !vaultNames().MatchString(vault) {
		return envelope.KeyVersion{}, c.invalidVault(vault)
	}
	if !keyNames().MatchString(key) {
		return envelope.KeyVersion{}, fail.New(api.InvalidArgument, "%.200q is not a valid key name", key).
			WithHint("a key name is 1 to 127 letters, digits and hyphens")
	}
	normal, ok := normalVersion(version)
	if !ok {
		return envelope.KeyVersion{}, fail.New(api.InvalidArgument, "%.200q is not a valid key version", version).
			WithHint("a key version is 32 hexadecimal digits: Get-AzKeyVaultKey -VaultName %s -Name %s -IncludeVersions lists them", vault, key)
	}
	return envelope.KeyVersion{Vault: vault, Key: key, Version: normal}, nil
}

// URI returns the key identifier in the documented form. That of an own
// vault has the port of keyroll's listener, unless it is 443.
func (c *Client) URI(kv envelope.KeyVersion) string {
	uri := c.vaultURL(kv.Vault) + "/keys/" + kv.Key
	if kv.Version != "" {
		uri += "/" + kv.Version
	}
	return uri
}

// vaultURL returns the base URL of a vault. That of an own vault has a port although
// it is not used for dialling: the Azure client compares the URL with the resource
// that a challenge names.
func (c *Client) vaultURL(vault string) string {
	if IsExternal(vault) {
		return vault
	}
	host := "https://" + vault + "." + c.config.VaultDomain
	if c.config.Port != "443" {
		host += ":" + c.config.Port
	}
	return host
}

// IsExternal reports whether a vault, as KeyVersion names it, is not embedded in this
// keyroll.
func IsExternal(vault string) bool { return strings.HasPrefix(vault, "https://") }

// target is a normalised key version with the address of its vault.
type target struct {
	envelope.KeyVersion
	url       string
	own       bool
	authority string // of an external vault, as azureClouds has it
}

// target checks a reference that comes from a caller or a database before any
// of it becomes part of a URL.
func (c *Client) target(kv envelope.KeyVersion) (target, error) {
	kv, err := c.Reference(kv.Vault, kv.Key, kv.Version)
	if err != nil {
		return target{}, err
	}
	to := target{KeyVersion: kv, url: c.vaultURL(kv.Vault)}
	if !IsExternal(kv.Vault) {
		to.url, to.own = strings.ToLower(to.url), true
		return to, nil
	}
	_, domain, _ := strings.Cut(kv.Vault, ".")
	for _, cloud := range azureClouds {
		if cloud.domain == domain {
			to.authority = cloud.authority
		}
	}
	return to, nil
}

// exactTarget is target for operations that need an exact version.
func (c *Client) exactTarget(kv envelope.KeyVersion) (target, error) {
	to, err := c.target(kv)
	if err == nil && to.Version == "" {
		err = fail.New(api.InvalidArgument, "%s: wrapping and unwrapping need a key version", describe(kv))
	}
	return to, err
}

// parseVault returns the vault that a URL's host names, and whether the URL is valid.
func (c *Client) parseVault(u *url.URL) (string, bool) {
	if u.Scheme != "https" || u.User != nil || u.Opaque != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return "", false
	}
	name, domain, _ := strings.Cut(u.Hostname(), ".")
	domain = strings.ToLower(domain)
	if !vaultNames().MatchString(name) {
		return "", false
	}
	if domain == c.config.VaultDomain || domain == "managedhsm."+strings.TrimPrefix(c.config.VaultDomain, "vault.") {
		return name, true // a Managed HSM of keyroll's own is a premium vault
	}
	for _, cloud := range azureClouds {
		if cloud.domain == domain && (u.Port() == "" || u.Port() == "443") {
			return "https://" + strings.ToLower(name) + "." + domain, true
		}
	}
	return "", false
}

// normalVersion returns a version in lower case and without hyphens, and whether it is
// valid; an empty version is.
func normalVersion(version string) (string, bool) {
	version = strings.ToLower(version)
	if versionGUID().MatchString(version) {
		version = strings.ReplaceAll(version, "-", "")
	}
	return version, version == "" || versions().MatchString(version)
}

// lastVersion returns the version at the end of a key identifier.
func lastVersion(kid string) string {
	version, _ := normalVersion(kid[strings.LastIndexByte(kid, '/')+1:])
	return version
}

func (c *Client) invalidURI(uri string) error {
	return fail.New(api.InvalidArgument, "%.200q is not the URI of a key in a vault", uri).
		WithHint("write https://NAME.%s/keys/KEY, with /VERSION where a version is required, or the URI of a key in an Azure vault", c.config.VaultDomain)
}

func (c *Client) invalidVault(vault string) error {
	return fail.New(api.InvalidArgument, "%.200q is not a valid vault name", vault).
		WithHint("name a vault by 3 to 127 letters, digits, hyphens and underscores, or an Azure vault by its https URL")
}
