// Package api is the service's public contract: its operations, their inputs
// and outputs, and the codes of its failures. The server, the OpenAPI document
// and the Go client all come from the table of operations in operation.go; a
// type here is what is sent on the wire.
package api

import (
	"fmt"
	"time"
)

// Problem is a failure as the service API sends it (RFC 9457), with the code
// and the hint as extension members.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   Code   `json:"code"`
	Hint   string `json:"hint,omitempty"`
	// Request is the id under which the server logged and audited the request.
	Request string `json:"request,omitempty"`
}

// Error returns the detail.
func (p *Problem) Error() string { return p.Detail }

// List is one page of a list. Next, when not empty, is the After of the next page.
type List[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
	// Damaged says, for each entry that could not be shown, what cannot be decrypted.
	Damaged []string `json:"damaged,omitempty"`
}

// Unshown returns Damaged; the Client calls it on every response.
func (l List[T]) Unshown() []string { return l.Damaged }

// KeyVersion names one version of a customer key. Vault is the bare name of a
// vault of this server and the URL of any other.
type KeyVersion struct {
	Vault   string `json:"vault"`
	Key     string `json:"key"`
	Version string `json:"version"`
	URI     string `json:"uri" required:"false" doc:"the key identifier as a vault prints it"`
}

// PolicyKind is one of the rule sets for policies.
type PolicyKind string

const (
	MailboxPolicy        PolicyKind = "mailbox"
	SitePolicy           PolicyKind = "site"
	MultiWorkloadPolicy  PolicyKind = "multi-workload"
	ServiceManagedPolicy PolicyKind = "service-managed"
)

// PolicyState is the state of a policy. The words are those of
// Get-SPODataEncryptionPolicy; a mailbox policy is only Registered or Rolling.
type PolicyState string

const (
	Registering PolicyState = "Registering"
	Registered  PolicyState = "Registered"
	Rolling     PolicyState = "Rolling"
	// Unregistered is a geo without a policy, or a policy that was left.
	Unregistered PolicyState = "Unregistered"
	// Recovery is a site policy that uses its availability key until its customer
	// keys are restored.
	Recovery PolicyState = "Recovery"
	// PurgePending and PurgeDone are a policy whose purge was requested, or done.
	PurgePending PolicyState = "PurgePending"
	PurgeDone    PolicyState = "Purged"
)

// HealthState is the last definitive result of using a customer key.
type HealthState string

const (
	// Serves is a key whose last unwrap succeeded.
	Serves HealthState = "serves"
	// Refused is a key that its owner made unusable on purpose. The state lasts
	// until the key serves again, whatever outages follow.
	Refused HealthState = "refused"
	// Unreachable is a key that served, and whose vault has been out of reach since.
	Unreachable HealthState = "unreachable"
	// HealthUnknown is a key without a recorded success. It counts as refused.
	HealthUnknown HealthState = "unknown"
)

// KeyHealth is the health of a customer key version as one policy uses it.
type KeyHealth struct {
	State  HealthState `json:"state" enum:"serves,refused,unreachable,unknown" doc:"unknown: no success is recorded, and the key counts as refused"`
	Since  *time.Time  `json:"since,omitempty"`
	Reason string      `json:"reason,omitempty" doc:"why the key is refused or unreachable"`
}

// String describes the health in one line; it is empty if h is nil.
func (h *KeyHealth) String() string {
	switch {
	case h == nil:
		return ""
	case h.State == HealthUnknown:
		return "unknown: it has not served yet, and counts as refused"
	case h.Since == nil:
		return string(h.State)
	case h.Reason != "":
		return fmt.Sprintf("%s since %s: %s", h.State, h.Since.UTC().Format(time.DateTime), h.Reason)
	}
	return fmt.Sprintf("%s since %s", h.State, h.Since.UTC().Format(time.DateTime))
}

// Policy names two customer keys and what they protect.
type Policy struct {
	ID          string     `json:"id" doc:"GUID"`
	Name        string     `json:"name"`
	Kind        PolicyKind `json:"kind"`
	Description string     `json:"description"`
	Enabled     bool       `json:"enabled"`
	// Assigned is whether a multi-workload policy is assigned to the tenant.
	Assigned bool        `json:"assigned"`
	Geo      string      `json:"geo,omitempty" doc:"site policies only: the geo that the policy covers"`
	State    PolicyState `json:"state"`
	// PercentComplete is the share of containers that the running roll has moved,
	// and 100 when no roll runs.
	PercentComplete float64 `json:"percentComplete"`
	// Revision is the GUID of the revision that wraps the current policy key:
	// the DataEncryptionPolicyID of every container that has it.
	Revision   string     `json:"revision"`
	Generation uint32     `json:"generation" doc:"number of the current policy key, counted from 1"`
	Primary    KeyVersion `json:"primary"`
	Secondary  KeyVersion `json:"secondary"`
	// PrimaryHealth and SecondaryHealth are absent where there are no customer keys.
	PrimaryHealth   *KeyHealth `json:"primaryHealth,omitempty"`
	SecondaryHealth *KeyHealth `json:"secondaryHealth,omitempty"`
	// AvailabilityKey is different for each policy; no operation returns the key itself.
	AvailabilityKey     string    `json:"availabilityKey" doc:"id of the policy's own availability key"`
	AvailabilityVersion uint32    `json:"availabilityVersion" doc:"version of the availability key, counted from 1"`
	Created             time.Time `json:"created"`
	Refreshed           time.Time `json:"refreshed" doc:"when the current revision was made"`
	Roll                *Roll     `json:"roll,omitempty" doc:"the newest roll of this policy"`
	// Warnings are findings of the key checks that do not refuse the keys.
	Warnings []string `json:"warnings,omitempty"`
	Pending
}

// MailboxState is the state of a mailbox.
type MailboxState string

const (
	Active       MailboxState = "active"
	Inactive     MailboxState = "inactive"
	Disconnected MailboxState = "disconnected"
	Disabled     MailboxState = "disabled"
)

// RecipientType is the kind of recipient that a mailbox is for.
type RecipientType string

const (
	UserMailbox   RecipientType = "UserMailbox"
	SharedMailbox RecipientType = "SharedMailbox"
	PublicFolder  RecipientType = "PublicFolder"
	GroupMailbox  RecipientType = "GroupMailbox"
	// MailUser has its mail elsewhere until it is migrated; its policy can be
	// assigned before.
	MailUser RecipientType = "MailUser"
)

// Protection says what a container is encrypted under at this moment.
type Protection struct {
	Policy   string `json:"policy" doc:"name of the policy"`
	PolicyID string `json:"policyId" doc:"GUID of the policy"`
	// DataEncryptionPolicyID is the GUID of the revision whose policy key wraps
	// the container's key: it changes once a refreshed key has been applied.
	DataEncryptionPolicyID string `json:"dataEncryptionPolicyId"`
	// Current is whether the container's key is under the policy's newest policy key.
	Current bool `json:"current"`
	// Purged is when the container was purged; its content is unrecoverable.
	Purged      *time.Time `json:"purged,omitempty"`
	IsEncrypted bool       `json:"isEncrypted" doc:"always true: without a customer's policy the service-managed one encrypts"`
}

// Mailbox is a mailbox and what protects it.
type Mailbox struct {
	Name string        `json:"name"`
	Type RecipientType `json:"type"`
	// ExternalAddress is where a MailUser's mail is until it is migrated.
	ExternalAddress string       `json:"externalAddress,omitempty"`
	State           MailboxState `json:"state"`
	Created         time.Time    `json:"created"`
	// AssignedPolicy is the name of the policy of its own, empty for none.
	AssignedPolicy string     `json:"assignedPolicy"`
	Protection     Protection `json:"protection"`
	Items          int64      `json:"items"`
	Bytes          int64      `json:"bytes"`
	Pending
}

// Message is what a list shows of a message.
type Message struct {
	ID      string `json:"id"`
	Subject string `json:"subject"`
	From    string `json:"from"`
	Date    string `json:"date" doc:"date of the Date header, in UTC as RFC 3339 writes it; empty if there is no valid one"`
	Flags   string `json:"flags" doc:"R read, A answered, F flagged, D deleted, T draft, and any other letters of the headers Status and X-Status; X-Mozilla-Status, X-Mozilla-Status2 and X-Gmail-Labels count too"`
	Bytes   int64  `json:"bytes"`
}

// Site is a site and what protects it.
type Site struct {
	URL        string     `json:"url"`
	Geo        string     `json:"geo"`
	Created    time.Time  `json:"created"`
	Protection Protection `json:"protection"`
	Items      int64      `json:"items"`
	Bytes      int64      `json:"bytes"`
}

// File is a file of a site.
type File struct {
	Path     string    `json:"path"`
	Bytes    int64     `json:"bytes"`
	Modified time.Time `json:"modified"`
}

// Verdict says whether a key version may be retired.
type Verdict string

const (
	// InUse: the current policy key, or the key of a container, needs the key version.
	InUse Verdict = "in use"
	// SafeToRetire: nothing that keyroll stores is wrapped by it any more.
	SafeToRetire Verdict = "safe to retire"
)

// KeyUsage is one line of the ledger: what one key version still protects
// under one policy.
type KeyUsage struct {
	Vault        string    `json:"vault"`
	Key          string    `json:"key"`
	Version      string    `json:"version"`
	Policy       string    `json:"policy"`
	Active       int64     `json:"active"`
	Inactive     int64     `json:"inactive"`
	Disconnected int64     `json:"disconnected"`
	Disabled     int64     `json:"disabled"`
	Sites        int64     `json:"sites"`
	Workloads    int64     `json:"workloads"`
	Backups      int64     `json:"backups"`
	Health       KeyHealth `json:"health" doc:"health of the key version as this policy uses it"`
	Verdict      Verdict   `json:"verdict"`
	Since        time.Time `json:"since" doc:"since when the verdict holds"`
}

// Verified is the report of a verify, which decrypts everything.
type Verified struct {
	Probes     []Probe `json:"probes,omitempty" doc:"tests of the root keys of the named policy"`
	PolicyKeys int64   `json:"policyKeys" doc:"policy keys decrypted"`
	Wraps      int64   `json:"wraps" doc:"wraps of policy keys that were unwrapped, each by its own root key"`
	Containers int64   `json:"containers" doc:"container keys decrypted"`
	BlobKeys   int64   `json:"blobKeys" doc:"blob keys decrypted"`
	Items      int64   `json:"items" doc:"messages and files that were read completely"`
	Bytes      int64   `json:"bytes" doc:"bytes of content read"`
	VaultKeys  int64   `json:"vaultKeys" doc:"key versions of embedded vaults decrypted under the seal"`
	Tables     int64   `json:"tables" doc:"tables of the database compared with their indexes; 0 where the database cannot do it"`
	// Closed lists data that is inaccessible by policy: a revoked key, an unreachable vault.
	Closed []Finding `json:"closed"`
	// Damaged lists data that should decrypt and does not.
	Damaged []Finding `json:"damaged"`
	// VaultMade lists wraps of policy keys that an external vault made; keyroll
	// replaces them by its own as soon as the vault unwraps them.
	VaultMade []Finding `json:"vaultMade,omitempty"`
	// Notices lists sound data about which an administrator should know something.
	Notices []Finding `json:"notices,omitempty"`
}

// Finding is one piece of data that verify could not decrypt, or has a notice about.
type Finding struct {
	Kind   string `json:"kind" doc:"revision, policy key, key page, container, backup, item"`
	ID     string `json:"id"`
	Detail string `json:"detail"`
}

// VerifyEvent is one line of a running verify: progress, or the report that
// ends it.
type VerifyEvent struct {
	Progress *VerifyProgress `json:"progress,omitempty"`
	Report   *Verified       `json:"report,omitempty"`
	Problem  *Problem        `json:"problem,omitempty"`
}

// VerifyProgress counts what has been verified so far.
type VerifyProgress struct {
	Stage string `json:"stage"`
	Done  int64  `json:"done"`
	Total int64  `json:"total"`
}
