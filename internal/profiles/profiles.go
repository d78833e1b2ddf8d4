// Package profiles has the table of the kinds of policies: what distinguishes them, as
// values. No code outside it depends on the kind of a policy. Start reading at All.
package profiles

import (
	"slices"
	"time"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/rootkey"
)

// Profile is the rule set of one kind of policy. The kinds differ only by these
// values.
type Profile struct {
	Kind api.PolicyKind
	// ListedBy names the command or cmdlet that lists the policies of the kind.
	ListedBy string
	// Keys is how many customer keys a policy names: two, or none if only the
	// service holds the roots.
	Keys int
	// Versionless says that a policy names keys without a version and a refresh
	// takes the newest; otherwise each version is named.
	Versionless bool
	// Identity is the service principal that uses the customer's keys.
	Identity rootkey.Identity
	// Rule is the order in which the two customer keys are used.
	Rule rootkey.Rule
	// CacheLifetime is how long an opened policy key is kept while its vaults are
	// unavailable: an outage of both for that long has no effect. Zero means as long
	// as the process runs. A revocation takes effect within policy.RevocationBound, for all.
	CacheLifetime time.Duration
	// AutomaticFallback lets the availability key open a policy key automatically
	// when both customer keys fail without a deliberate act of the customer, and for
	// the service's own work after any failure. Otherwise it does so only in a
	// recovery that the customer requested.
	AutomaticFallback bool
	// Rolls lists the classes that a roll of depth policy moves in the background.
	// Other classes are moved at their next access.
	Rolls []envelope.Class
	// SingleRoll refuses a second roll while one runs; otherwise the newer roll
	// supersedes the older.
	SingleRoll bool
	// MaxActive bounds the enabled policies of a tenant, or of one geo if policies
	// of the kind cover a geo.
	MaxActive int
	// OnePerGeo says that a policy covers one geo; default: the default geo.
	OnePerGeo bool
	// DefaultFor lists the kinds of containers that a policy covers if they have no
	// policy of their own: an enabled policy those of its geo, a policy for a tenant
	// while it is assigned. The service-managed policy covers all others.
	DefaultFor []string
	// ForTenant says that one policy of the kind may be assigned to the tenant.
	ForTenant bool
	// Fixed says that keyroll names the policy, and that it covers its containers as
	// long as it exists: it can be left but not disabled.
	Fixed bool
}

// hedgeOffset is how long the second of two hedged unwraps waits for the first.
const hedgeOffset = 200 * time.Millisecond

// All has one row for each kind of policy.
var All = []Profile{
	{
		Kind: api.MailboxPolicy, ListedBy: "Get-DataEncryptionPolicy", Keys: 2, Versionless: true, Identity: rootkey.Exchange,
		Rule: rootkey.RandomThenOther, CacheLifetime: 5 * time.Minute, AutomaticFallback: true,
		Rolls: []envelope.Class{envelope.ClassActive}, MaxActive: 50,
	},
	{
		Kind: api.SitePolicy, ListedBy: "Get-SPODataEncryptionPolicy", Keys: 2, Identity: rootkey.SharePoint,
		Rule: rootkey.Hedged(hedgeOffset), CacheLifetime: 4 * time.Hour,
		Rolls: []envelope.Class{envelope.ClassSite}, SingleRoll: true, MaxActive: 1, OnePerGeo: true, DefaultFor: []string{"site"}, Fixed: true,
	},
	{
		Kind: api.MultiWorkloadPolicy, ListedBy: "Get-M365DataAtRestEncryptionPolicy", Keys: 2, Versionless: true, Identity: rootkey.DataAtRestEncryption,
		Rule: rootkey.RandomThenOther, CacheLifetime: 5 * time.Minute, AutomaticFallback: true,
		Rolls: []envelope.Class{envelope.ClassActive, envelope.ClassWorkload}, MaxActive: 50, DefaultFor: []string{"mailbox", "workload"}, ForTenant: true,
	},
	{
		Kind: api.ServiceManagedPolicy, ListedBy: "keyroll policy list", MaxActive: 1, Fixed: true,
		Rolls: []envelope.Class{envelope.ClassActive, envelope.ClassSite, envelope.ClassWorkload},
	},
}

// Of returns the profile of kind.
func Of(kind api.PolicyKind) Profile {
	for _, p := range All {
		if p.Kind == kind {
			return p
		}
	}
	return Profile{} // for a damaged row: it covers, rolls and opens nothing
}

// Exists reports whether there is a profile of kind; a damaged row may have any kind.
func Exists(kind api.PolicyKind) bool {
	return slices.ContainsFunc(All, func(p Profile) bool { return p.Kind == kind })
}
