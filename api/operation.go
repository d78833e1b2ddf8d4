package api

import (
	"net/http"
	"reflect"
)

// Body is the media type of the request or of the response of an operation.
type Body string

const (
	JSON   Body = "application/json"
	Bytes  Body = "application/octet-stream" // content, streamed
	Lines  Body = "application/x-ndjson"     // JSON objects, one a line, streamed
	NoBody Body = ""
)

// Initiator says on whose behalf an operation unwraps policy keys. It decides
// whether the availability key may replace customer keys that failed.
type Initiator string

const (
	// ByUser is work for a user: the availability key is used in an outage of both
	// vaults, and never after a refusal.
	ByUser Initiator = "user"
	// BySystem is work that the service starts itself and whose result no user sees.
	BySystem Initiator = "system"
	// ForRecovery is the documented recovery from lost customer keys: moving a
	// container to another policy.
	ForRecovery Initiator = "recovery"
)

// Meta describes an operation, apart from its types.
type Meta struct {
	Name    string // method of service and client, operationId of OpenAPI
	Method  string
	Path    string
	Summary string
	Roles   []Role // that permit it
	// Initiator is ByUser by default.
	Initiator Initiator
	Sends     Body // request body
	Returns   Body // response body
	In, Out   reflect.Type
}

// Operation is one operation of the service. In holds the path and query
// parameters in tagged fields, and a JSON request body in a field named Body.
type Operation[In, Out any] struct{ Meta }

// None stands for an output or an input without members.
type None struct{}

var operations []Meta

// Operations returns the table of all operations.
func Operations() []Meta { return operations }

func define[In, Out any](m Meta) Operation[In, Out] {
	m.Roles = rolesOf(m.Name)
	if m.Initiator == "" {
		m.Initiator = ByUser
	}
	m.In, m.Out = reflect.TypeFor[In](), reflect.TypeFor[Out]()
	if m.Returns == NoBody && m.Out != reflect.TypeFor[None]() {
		m.Returns = JSON
	}
	if _, ok := m.In.FieldByName("Body"); ok {
		m.Sends = JSON
	}
	operations = append(operations, m)
	return Operation[In, Out]{m}
}

// PageInput selects a page of a list.
type PageInput struct {
	After string `query:"after" doc:"the next of the previous page"`
	Limit int    `query:"limit" doc:"maximum number of items, 1 to 1000; 0 means 100" minimum:"0" maximum:"1000"`
}

// MailboxInput names a mailbox.
type MailboxInput struct {
	Mailbox string `path:"mailbox" doc:"name, for example alice@contoso.com; case-insensitive"`
}

// SiteInput names a site.
type SiteInput struct {
	Site string `query:"site" doc:"URL of the site" required:"true"`
}

// FileInput names a file of a site.
type FileInput struct {
	SiteInput
	Path string `query:"path" doc:"path of the file within the site" required:"true"`
}

// DryRunOption checks whether a change would be refused, without making it.
type DryRunOption struct {
	DryRun bool `json:"dryRun,omitempty" doc:"change nothing, but fail where the change would fail; a roll is counted and its time estimated"`
}

// PolicyInput names a policy.
type PolicyInput struct {
	Policy string     `path:"policy" doc:"name, GUID, or GUID of any of its revisions"`
	Kind   PolicyKind `query:"kind" enum:"mailbox,multi-workload,site,service-managed" doc:"refuse a policy of any other kind; default: any kind"`
}

type (
	CreateMailboxInput struct {
		Body struct {
			Name            string        `json:"name"`
			Type            RecipientType `json:"type,omitempty" enum:"UserMailbox,SharedMailbox,PublicFolder,GroupMailbox,MailUser" doc:"default: UserMailbox"`
			ExternalAddress string        `json:"externalAddress,omitempty" doc:"MailUser only: where its mail is until it is migrated"`
			Policy          string        `json:"policy,omitempty" doc:"policy to assign; default: none"`
			DryRunOption
		}
	}
	ListInput        struct{ PageInput }
	ListMailboxItems struct {
		MailboxInput
		PageInput
	}
	ListSiteFiles struct {
		SiteInput
		PageInput
	}
	SetMailboxStateInput struct {
		MailboxInput
		Body struct {
			State MailboxState `json:"state" enum:"active,inactive,disconnected,disabled"`
		}
	}
	AssignMailboxInput struct {
		MailboxInput
		Body struct {
			Policy string `json:"policy" doc:"name or GUID; empty returns the mailbox to the tenant's default policy"`
			DryRunOption
		}
	}
	MessageInput struct {
		MailboxInput
		Message string `path:"message" doc:"id of the message"`
	}
	CreateSiteInput struct {
		Body struct {
			URL string `json:"url"`
			DryRunOption
		}
	}
	CreatePolicyInput struct {
		Body struct {
			Kind        PolicyKind `json:"kind,omitempty" enum:"mailbox,multi-workload" doc:"default: mailbox"`
			Name        string     `json:"name"`
			Description string     `json:"description,omitempty"`
			Keys        []string   `json:"keys" doc:"two key URIs without a version, in two vaults"`
			DryRunOption
		}
	}
	RegisterSitesInput struct {
		Body struct {
			GeoInput
			Primary   KeyVersion `json:"primary"`
			Secondary KeyVersion `json:"secondary"`
			DryRunOption
		}
	}
	RefreshPolicyInput struct {
		PolicyInput
		Body struct {
			Depth          Depth `json:"depth,omitempty" enum:"root,policy,container,content" doc:"default: policy"`
			AllGenerations bool  `json:"allGenerations,omitempty" doc:"depth root: re-wrap the older policy keys too"`
			RollOptions
		}
	}
	UpdatePolicyInput struct {
		PolicyInput
		Body struct {
			KeyType string     `json:"keyType" enum:"primary,secondary"`
			Key     KeyVersion `json:"key"`
			Depth   Depth      `json:"depth,omitempty" enum:"root,policy,container,content" doc:"default: policy"`
			RollOptions
		}
	}
	KeyUsageInput struct {
		Vault   string `query:"vault"`
		Key     string `query:"key"`
		Version string `query:"version"`
	}
	VerifyInput struct {
		Policy string `query:"policy" doc:"only what this policy protects"`
	}
)

// The operations. Those with Sends or Returns carry a stream; all others are JSON.
var (
	CreateMailbox = define[CreateMailboxInput, Mailbox](Meta{Name: "CreateMailbox", Method: http.MethodPost, Path: "/v1/mailboxes",
		Summary: "Create a mailbox"})
	ListMailboxes = define[ListInput, List[Mailbox]](Meta{Name: "ListMailboxes", Method: http.MethodGet, Path: "/v1/mailboxes",
		Summary: "List mailboxes"})
	ShowMailbox = define[MailboxInput, Mailbox](Meta{Name: "ShowMailbox", Method: http.MethodGet, Path: "/v1/mailboxes/{mailbox}",
		Summary: "Show a mailbox and what it is encrypted with"})
	SetMailboxState = define[SetMailboxStateInput, Mailbox](Meta{Name: "SetMailboxState", Method: http.MethodPut, Path: "/v1/mailboxes/{mailbox}/state",
		Summary: "Change the state of a mailbox"})
	AssignMailbox = define[AssignMailboxInput, Mailbox](Meta{Name: "AssignMailbox", Method: http.MethodPut, Path: "/v1/mailboxes/{mailbox}/policy",
		Summary: "Assign a policy to a mailbox; its key is re-wrapped at once", Initiator: ForRecovery})
	ExportMail = define[MailboxInput, None](Meta{Name: "ExportMail", Method: http.MethodGet, Path: "/v1/mailboxes/{mailbox}/mbox",
		Summary: "Export all messages as an mbox", Returns: Bytes})
	ListMessages = define[ListMailboxItems, List[Message]](Meta{Name: "ListMessages", Method: http.MethodGet, Path: "/v1/mailboxes/{mailbox}/messages",
		Summary: "List the messages of a mailbox"})
	ReadMessage = define[MessageInput, None](Meta{Name: "ReadMessage", Method: http.MethodGet, Path: "/v1/mailboxes/{mailbox}/messages/{message}",
		Summary: "Read one message", Returns: Bytes})

	CreateSite = define[CreateSiteInput, Site](Meta{Name: "CreateSite", Method: http.MethodPost, Path: "/v1/sites",
		Summary: "Create a site"})
	ListSites = define[ListInput, List[Site]](Meta{Name: "ListSites", Method: http.MethodGet, Path: "/v1/sites",
		Summary: "List sites"})
	ShowSite = define[SiteInput, Site](Meta{Name: "ShowSite", Method: http.MethodGet, Path: "/v1/site",
		Summary: "Show a site and what it is encrypted with"})
	ListFiles = define[ListSiteFiles, List[File]](Meta{Name: "ListFiles", Method: http.MethodGet, Path: "/v1/site/files",
		Summary: "List the files of a site in the order in which they were stored; those of one page by path"})
	PutFile = define[FileInput, File](Meta{Name: "PutFile", Method: http.MethodPut, Path: "/v1/site/file",
		Summary: "Store a file, all of it or nothing; a file at the same path is replaced", Sends: Bytes})
	GetFile = define[FileInput, None](Meta{Name: "GetFile", Method: http.MethodGet, Path: "/v1/site/file",
		Summary: "Read a file, or one byte range of it (RFC 9110, section 14)", Returns: Bytes})

	CreatePolicy = define[CreatePolicyInput, Policy](Meta{Name: "CreatePolicy", Method: http.MethodPost, Path: "/v1/policies",
		Summary: "Create a mailbox or multi-workload policy from two customer keys"})
	RegisterSites = define[RegisterSitesInput, Policy](Meta{Name: "RegisterSites", Method: http.MethodPost, Path: "/v1/policies/sites",
		Summary: "Register the site policy of a geo; all sites of the geo are moved under it"})
	ListPolicies = define[ListInput, List[Policy]](Meta{Name: "ListPolicies", Method: http.MethodGet, Path: "/v1/policies",
		Summary: "List policies"})
	ShowPolicy = define[PolicyInput, Policy](Meta{Name: "ShowPolicy", Method: http.MethodGet, Path: "/v1/policies/{policy}",
		Summary: "Show a policy"})
	RefreshPolicy = define[RefreshPolicyInput, Refreshed](Meta{Name: "RefreshPolicy", Method: http.MethodPost, Path: "/v1/policies/{policy}/refresh",
		Summary: "Adopt the newest versions of the keys of a mailbox or multi-workload policy, and roll"})
	UpdatePolicy = define[UpdatePolicyInput, Refreshed](Meta{Name: "UpdatePolicy", Method: http.MethodPost, Path: "/v1/policies/{policy}/update",
		Summary: "Replace one customer key of a site policy, and roll"})

	ListKeyUsage = define[KeyUsageInput, List[KeyUsage]](Meta{Name: "ListKeyUsage", Method: http.MethodGet, Path: "/v1/key-usage",
		Summary: "List what each key version still protects (the ledger)"})
	Verify = define[VerifyInput, VerifyEvent](Meta{Name: "Verify", Method: http.MethodPost, Path: "/v1/verify",
		Summary: "Decrypt every wrapped key and read every item; the last line is the report", Returns: Lines})
)
