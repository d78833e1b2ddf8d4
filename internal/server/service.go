package server

import (
	"context"
	"io"

	"keyroll/api"
	"keyroll/internal/access"
)

// Authenticator finds the principal of a bearer token; a token that is not
// valid fails Unauthenticated.
type Authenticator interface {
	Authenticate(ctx context.Context, bearer string) (access.Principal, error)
	// CheckTenant refuses a principal that is not of the named tenant.
	CheckTenant(ctx context.Context, p access.Principal, tenant string) error
}

// Service implements the operations of api.Operations. The context of a call carries
// the principal (access.PrincipalOf) and the origin (audit.OriginOf) with the request's
// id.
type Service interface {
	// CheckRole refuses an operation that the caller's role does not allow.
	CheckRole(context.Context, api.Meta) error

	CreateMailbox(context.Context, api.CreateMailboxInput) (api.Mailbox, error)
	ListMailboxes(context.Context, api.ListInput) (api.List[api.Mailbox], error)
	ShowMailbox(context.Context, api.MailboxInput) (api.Mailbox, error)
	SetMailboxState(context.Context, api.SetMailboxStateInput) (api.Mailbox, error)
	AssignMailbox(context.Context, api.AssignMailboxInput) (api.Mailbox, error)
	ListMessages(context.Context, api.ListMailboxItems) (api.List[api.Message], error)

	CreateSite(context.Context, api.CreateSiteInput) (api.Site, error)
	ListSites(context.Context, api.ListInput) (api.List[api.Site], error)
	ShowSite(context.Context, api.SiteInput) (api.Site, error)
	ListFiles(context.Context, api.ListSiteFiles) (api.List[api.File], error)

	CreatePolicy(context.Context, api.CreatePolicyInput) (api.Policy, error)
	CheckKeys(context.Context, api.CheckKeysInput) (api.KeyCheck, error)
	RegisterSites(context.Context, api.RegisterSitesInput) (api.Policy, error)
	ListPolicies(context.Context, api.ListInput) (api.List[api.Policy], error)
	ShowPolicy(context.Context, api.PolicyInput) (api.Policy, error)
	RefreshPolicy(context.Context, api.RefreshPolicyInput) (api.Refreshed, error)
	UpdatePolicy(context.Context, api.UpdatePolicyInput) (api.Refreshed, error)
	TestPolicy(context.Context, api.PolicyInput) (api.List[api.Probe], error)
	SetPolicy(context.Context, api.SetPolicyInput) (api.Policy, error)
	ReplacePolicyKeys(context.Context, api.ReplacePolicyKeysInput) (api.Refreshed, error)
	LeavePolicy(context.Context, api.LeavePolicyInput) (api.Refreshed, error)
	AssignPolicy(context.Context, api.AssignPolicyInput) (api.Policy, error)
	ShowAssignment(context.Context, api.None) (api.Policy, error)

	ListWorkloads(context.Context, api.None) (api.List[api.Workload], error)
	ListWorkloadItems(context.Context, api.ListStoreItems) (api.List[api.File], error)

	RollAvailabilityKeys(context.Context, api.RollAvailabilityKeysInput) (api.RolledAvailabilityKeys, error)

	ListMailImports(context.Context, api.MailboxInput) (api.List[api.MailImport], error)
	StopMailImport(context.Context, api.MailImportInput) (api.MailImport, error)
	ListRolls(context.Context, api.ListInput) (api.List[api.Roll], error)
	ShowRoll(context.Context, api.RollInput) (api.Roll, error)
	PauseRoll(context.Context, api.RollInput) (api.Roll, error)
	ResumeRoll(context.Context, api.RollInput) (api.Roll, error)
	CancelRoll(context.Context, api.RollInput) (api.Roll, error)
	ListKeyUsage(context.Context, api.KeyUsageInput) (api.List[api.KeyUsage], error)

	CreateTenant(context.Context, api.CreateTenantInput) (api.CreatedTenant, error)
	ListTenants(context.Context, api.ListInput) (api.List[api.Tenant], error)
	ShowTenant(context.Context, api.TenantInput) (api.Tenant, error)
	SetTenant(context.Context, api.SetTenantInput) (api.Tenant, error)
	CreateGeo(context.Context, api.CreateGeoInput) (api.Geo, error)
	ListGeos(context.Context, api.None) (api.List[api.Geo], error)

	CreateBackup(context.Context, api.CreateBackupInput) (api.Backup, error)
	ListBackups(context.Context, api.ListInput) (api.List[api.Backup], error)
	RestoreBackup(context.Context, api.RestoreBackupInput) (api.Backup, error)
	ExpireBackup(context.Context, api.BackupInput) (api.Backup, error)
	AbandonContainer(context.Context, api.AbandonInput) (api.Abandoned, error)

	AddPurgeApprover(context.Context, api.AddPurgeApproverInput) (api.CreatedPurgeApprover, error)
	ListPurgeApprovers(context.Context, api.None) (api.List[api.PurgeApprover], error)
	RequestPurge(context.Context, api.RequestPurgeInput) (api.Purge, error)
	ShowPurge(context.Context, api.PolicyInput) (api.Purge, error)
	ListPurges(context.Context, api.ListInput) (api.List[api.Purge], error)
	ApprovePurge(context.Context, api.PolicyInput) (api.Purge, error)
	RecoverPolicy(context.Context, api.PolicyInput) (api.Policy, error)
	RestoreSites(context.Context, api.RestoreSitesInput) (api.Policy, error)

	// ImportMail, PutFile and PutWorkloadItem read the content from r. size is its length in
	// bytes, -1 if the sender did not state one. For a transfer that ends early, r
	// returns fail Truncated.
	ImportMail(ctx context.Context, in api.ImportMailInput, size int64, r io.Reader) (api.Imported, error)
	PutFile(ctx context.Context, in api.FileInput, size int64, r io.Reader) (api.File, error)
	PutWorkloadItem(ctx context.Context, in api.WorkloadItemInput, size int64, r io.Reader) (api.File, error)
	// ExportMail, ReadMessage, GetFile and GetWorkloadItem write content to w. They fail before
	// the first byte where possible, because only then the caller always sees the reason.
	ExportMail(ctx context.Context, in api.MailboxInput, w io.Writer) error
	ReadMessage(ctx context.Context, in api.MessageInput, w io.Writer) error
	GetWorkloadItem(ctx context.Context, in api.WorkloadItemInput, w io.Writer) error
	// GetFile calls part once, before the first byte, with the opened file. It returns
	// which n bytes from off on to write.
	GetFile(ctx context.Context, in api.FileInput, part func(api.File) (off, n int64, err error), w io.Writer) error
	// Verify and CollectBlobs call progress from one goroutine at a time, and not after
	// they have returned.
	Verify(ctx context.Context, in api.VerifyInput, progress func(api.VerifyProgress)) (api.Verified, error)
	CollectBlobs(ctx context.Context, in api.CollectBlobsInput, progress func(api.CollectedBlobs)) (api.CollectedBlobs, error)
}
