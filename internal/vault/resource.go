package vault

import (
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/vault/azure"
)

const (
	resourceType = "Microsoft.KeyVault/vaults"
	minRetention = 7  // days
	maxRetention = 90 // days, and the default
)

// resource is a vault in answers of the management interface.
type resource struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags"`
	System     systemData        `json:"systemData"`
	Properties properties        `json:"properties"`
}

type systemData struct {
	Created  time.Time `json:"createdAt"`
	Modified time.Time `json:"lastModifiedAt"`
}

type properties struct {
	TenantID        string         `json:"tenantId"`
	SKU             sku            `json:"sku"`
	AccessPolicies  []accessPolicy `json:"accessPolicies"`
	URI             string         `json:"vaultUri"`
	SoftDelete      bool           `json:"enableSoftDelete"`
	RetentionDays   int64          `json:"softDeleteRetentionInDays"`
	PurgeProtection bool           `json:"enablePurgeProtection,omitempty"`
	RBAC            bool           `json:"enableRbacAuthorization"`
	State           string         `json:"provisioningState"`
}

type sku struct {
	Family string `json:"family"`
	Name   string `json:"name"`
}

type accessPolicy struct {
	TenantID      string      `json:"tenantId"`
	ObjectID      string      `json:"objectId"`
	ApplicationID string      `json:"applicationId,omitempty"`
	DisplayName   string      `json:"displayName,omitempty"` // in answers; beyond Azure's form
	Permissions   permissible `json:"permissions"`
}

// permissible has key permissions. The others must be empty, because vaults here hold
// only keys.
type permissible struct {
	Keys         []string `json:"keys"`
	Secrets      []string `json:"secrets,omitempty"`
	Certificates []string `json:"certificates,omitempty"`
	Storage      []string `json:"storage,omitempty"`
}

type policies struct {
	AccessPolicies []accessPolicy `json:"accessPolicies"`
}

type policiesRequest struct {
	Properties policies        `json:"properties"`
	ID         json.RawMessage `json:"id"` // of an answer that is sent back: ignored, like those below
	Name       json.RawMessage `json:"name"`
	Type       json.RawMessage `json:"type"`
	Location   json.RawMessage `json:"location"`
}

type policiesAnswer struct {
	ID         string   `json:"id"`
	Type       string   `json:"type"`
	Properties policies `json:"properties"`
}

func (o *managementRequest) resource(domain string, v vault, grants []grant) resource {
	shown := []accessPolicy{}
	for _, g := range grants {
		shown = append(shown, accessPolicy{
			TenantID: o.tenant.GUID.String(), ObjectID: g.principal.String(), DisplayName: g.name,
			Permissions: permissible{Keys: g.permissions},
		})
	}
	return resource{
		ID: o.resourceID(v), Name: v.name, Type: resourceType, Location: v.location, Tags: tagsOf(v),
		System: systemData{time.UnixMilli(v.created).UTC(), time.UnixMilli(v.updated).UTC()},
		Properties: properties{
			TenantID: o.tenant.GUID.String(), SKU: sku{"A", v.sku}, AccessPolicies: shown,
			URI:        "https://" + v.name + "." + domain + o.port() + "/",
			SoftDelete: true, RetentionDays: v.retentionDays, PurgeProtection: v.purgeProtection, State: "Succeeded",
		},
	}
}

func (o *managementRequest) resourceID(v vault) string {
	return "/subscriptions/" + v.subscription + "/resourceGroups/" + v.group + "/providers/" + resourceType + "/" + v.name
}

func tagsOf(v vault) map[string]string {
	if v.tags == nil {
		return map[string]string{}
	}
	return v.tags
}

// nextLink returns the link to the page after the position in token.
func (o *managementRequest) nextLink(token string) string {
	query := url.Values{"api-version": {o.query.Get("api-version")}, "$skiptoken": {token}}
	return "https://" + o.host + o.url.EscapedPath() + "?" + query.Encode()
}

// vaultRequest is the body of a request to create or change a vault. Members that only
// answers have are ignored, because clients send back what they have read.
type vaultRequest struct {
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags"`
	Properties vaultProperties   `json:"properties"`
	ID         json.RawMessage   `json:"id"`
	Name       json.RawMessage   `json:"name"`
	Type       json.RawMessage   `json:"type"`
	SystemData json.RawMessage   `json:"systemData"`
}

type vaultProperties struct {
	TenantID        string          `json:"tenantId"`
	SKU             *sku            `json:"sku"`
	AccessPolicies  *[]accessPolicy `json:"accessPolicies"`
	CreateMode      string          `json:"createMode"`
	RetentionDays   *int64          `json:"softDeleteRetentionInDays"`
	PurgeProtection *bool           `json:"enablePurgeProtection"`
	SoftDelete      *bool           `json:"enableSoftDelete"`
	RBAC            *bool           `json:"enableRbacAuthorization"`
	Deployment      *bool           `json:"enabledForDeployment"`
	DiskEncryption  *bool           `json:"enabledForDiskEncryption"`
	Template        *bool           `json:"enabledForTemplateDeployment"`
	PublicAccess    string          `json:"publicNetworkAccess"`
	NetworkRules    *struct {
		Bypass  string            `json:"bypass"`
		Default string            `json:"defaultAction"`
		IPs     []json.RawMessage `json:"ipRules"`
		Subnets []json.RawMessage `json:"virtualNetworkRules"`
	} `json:"networkAcls"`
	URI   json.RawMessage `json:"vaultUri"`
	State json.RawMessage `json:"provisioningState"`
	Pool  json.RawMessage `json:"hsmPoolResourceId"`
	Links json.RawMessage `json:"privateEndpointConnections"`
}

// parsed is a request after its checks; omitted members are nil or empty.
type parsed struct {
	recover         bool
	location        string
	sku             string
	retention       *int64
	purgeProtection *bool
	tags            map[string]string
	setGrants       bool
	grants          []grant
}

// locationName is a region's name as Azure normalises it.
var locationName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9]{1,64}$`) })

func isTrue(b *bool) bool  { return b != nil && *b }
func isFalse(b *bool) bool { return b != nil && !*b }

// parse checks a request. Settings that a vault here does not support are refused,
// never ignored.
func (o *managementRequest) parse(r vaultRequest) (parsed, error) {
	p := parsed{
		location:  strings.ToLower(strings.ReplaceAll(r.Location, " ", "")),
		retention: r.Properties.RetentionDays, purgeProtection: r.Properties.PurgeProtection, tags: r.Tags,
	}
	q := r.Properties
	switch {
	case p.location != "" && !locationName().MatchString(p.location):
		return p, azure.Refuse(api.InvalidArgument, "LocationNotAvailable", "", "location %.40q is not the name of a region", r.Location)
	case q.TenantID != "" && !strings.EqualFold(q.TenantID, o.tenant.GUID.String()):
		return p, azure.Invalid("tenantId %.40q is not the tenant of the request, %s", q.TenantID, o.tenant.GUID)
	case p.retention != nil && (*p.retention < minRetention || *p.retention > maxRetention):
		return p, azure.Invalid("softDeleteRetentionInDays %d is not %d to %d", *p.retention, minRetention, maxRetention)
	case isFalse(q.SoftDelete):
		return p, azure.Invalid("enableSoftDelete cannot be false: every vault has soft delete")
	case isTrue(q.RBAC):
		return p, azure.Invalid("enableRbacAuthorization cannot be true: a vault here uses access policies")
	case isTrue(q.Deployment) || isTrue(q.DiskEncryption) || isTrue(q.Template):
		return p, azure.Invalid("a vault here holds only keys: enabledForDeployment, enabledForDiskEncryption and enabledForTemplateDeployment cannot be true")
	case q.PublicAccess != "" && !strings.EqualFold(q.PublicAccess, "enabled"),
		q.NetworkRules != nil && (strings.EqualFold(q.NetworkRules.Default, "deny") || len(q.NetworkRules.IPs)+len(q.NetworkRules.Subnets) > 0):
		return p, azure.Invalid("a vault here has no network rules: close its network by other means")
	case q.CreateMode != "" && !strings.EqualFold(q.CreateMode, "default") && !strings.EqualFold(q.CreateMode, "recover"):
		return p, azure.Invalid("createMode %.20q is neither default nor recover", q.CreateMode)
	}
	p.recover = strings.EqualFold(q.CreateMode, "recover")
	if q.SKU != nil {
		p.sku = strings.ToLower(q.SKU.Name)
		if p.sku != "standard" && p.sku != "premium" {
			return p, azure.Invalid("sku %.20q is neither standard nor premium", q.SKU.Name)
		}
	}
	if err := checkTags(r.Tags); err != nil {
		return p, err
	}
	if q.AccessPolicies == nil {
		return p, nil
	}
	p.setGrants = true
	var err error
	p.grants, err = o.parsePolicies(*q.AccessPolicies)
	return p, err
}

func (o *managementRequest) parsePolicies(list []accessPolicy) ([]grant, error) {
	if len(list) > 1024 { // as in Azure
		return nil, azure.Invalid("%d access policies are given; a vault has at most 1024", len(list))
	}
	var grants []grant
	for _, a := range list {
		id, err := uuid.Parse(a.ObjectID)
		person := err != nil && personName().MatchString(a.ObjectID)
		if err != nil && !person {
			return nil, azure.Invalid("access policy: objectId %.40q is neither a GUID nor a user principal name", a.ObjectID)
		}
		if a.TenantID != "" && !strings.EqualFold(a.TenantID, o.tenant.GUID.String()) {
			return nil, azure.Invalid("access policy of %s: tenantId %.40q is not the vault's tenant", a.ObjectID, a.TenantID)
		}
		if a.ApplicationID != "" && !strings.EqualFold(a.ApplicationID, a.ObjectID) {
			return nil, azure.Invalid("access policy of %s: an applicationId of another principal is not supported", a.ObjectID)
		}
		if p := a.Permissions; len(p.Secrets)+len(p.Certificates)+len(p.Storage) > 0 {
			return nil, azure.Invalid("access policy of %s: a vault here holds only keys, not secrets, certificates or storage accounts", a.ObjectID)
		}
		g := grant{principal: id}
		if person {
			g.name = a.ObjectID
		}
		if slices.ContainsFunc(grants, func(other grant) bool { return other.principal == id && strings.EqualFold(other.name, g.name) }) {
			return nil, azure.Invalid("access policy of %s occurs twice in the request", a.ObjectID)
		}
		if g.permissions, err = parsePermissions(a.Permissions.Keys); err != nil {
			return nil, err
		}
		grants = append(grants, g)
	}
	return grants, nil
}

// apply sets the properties in the request. Purge protection can be switched on but
// not off.
func (p parsed) apply(v *vault, now int64) error {
	if isFalse(p.purgeProtection) && v.purgeProtection {
		return azure.Invalid("enablePurgeProtection of vault %q cannot be switched off", v.name)
	}
	v.purgeProtection = v.purgeProtection || isTrue(p.purgeProtection)
	if p.sku != "" {
		v.sku = p.sku
	}
	if p.tags != nil {
		v.tags = p.tags
	}
	v.updated = now
	return nil
}
