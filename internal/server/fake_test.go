package server_test

import (
	"context"
	"io"
	"sync"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/fail"
)

// fakeService replaces the service: it records each call, and returns the result of its
// function.
type fakeService struct {
	role   error // what the check of the caller's role says
	answer func(ctx context.Context, name string, in any) (any, error)
	// for the operations that carry content
	read  func(ctx context.Context, size int64, r io.Reader) error
	write func(ctx context.Context, off, n int64, w io.Writer) error

	mu    sync.Mutex
	calls []string
	last  any
}

func (f *fakeService) CheckRole(context.Context, api.Meta) error { return f.role }

func (f *fakeService) called(name string, in any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls, f.last = append(f.calls, name), in
}

func (f *fakeService) lastCall() (name string, in any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.calls) == 0 {
		return "", nil
	}
	return f.calls[len(f.calls)-1], f.last
}

func fake[Out any](ctx context.Context, f *fakeService, name string, in any) (out Out, err error) {
	f.called(name, in)
	if f.answer == nil {
		return out, nil
	}
	got, err := f.answer(ctx, name, in)
	if got != nil {
		out = got.(Out)
	}
	return out, err
}

func (f *fakeService) content(ctx context.Context, name string, in any, off, n int64, w io.Writer) error {
	f.called(name, in)
	if f.write == nil {
		return nil
	}
	return f.write(ctx, off, n, w)
}

func (f *fakeService) ImportMail(ctx context.Context, in api.ImportMailInput, size int64, r io.Reader) (api.Imported, error) {
	if f.read != nil {
		if err := f.read(ctx, size, r); err != nil {
			return api.Imported{}, err
		}
	}
	return fake[api.Imported](ctx, f, "ImportMail", in)
}

func (f *fakeService) PutFile(ctx context.Context, in api.FileInput, size int64, r io.Reader) (api.File, error) {
	if f.read != nil {
		if err := f.read(ctx, size, r); err != nil {
			return api.File{}, err
		}
	}
	return fake[api.File](ctx, f, "PutFile", in)
}

func (f *fakeService) ExportMail(ctx context.Context, in api.MailboxInput, w io.Writer) error {
	return f.content(ctx, "ExportMail", in, 0, -1, w)
}

func (f *fakeService) ReadMessage(ctx context.Context, in api.MessageInput, w io.Writer) error {
	return f.content(ctx, "ReadMessage", in, 0, -1, w)
}

func (f *fakeService) GetFile(ctx context.Context, in api.FileInput, part func(api.File) (off, n int64, err error), w io.Writer) error {
	file, err := fake[api.File](ctx, f, "GetFile", in)
	if err != nil {
		return err
	}
	off, n, err := part(file)
	if err != nil || f.write == nil {
		return err
	}
	return f.write(ctx, off, n, w)
}

func (f *fakeService) Verify(ctx context.Context, in api.VerifyInput, progress func(api.VerifyProgress)) (api.Verified, error) {
	for i := range int64(3) {
		progress(api.VerifyProgress{Stage: "items", Done: i, Total: 3})
	}
	return fake[api.Verified](ctx, f, "Verify", in)
}

func (f *fakeService) CollectBlobs(ctx context.Context, in api.CollectBlobsInput, progress func(api.CollectedBlobs)) (api.CollectedBlobs, error) {
	progress(api.CollectedBlobs{Blobs: 1})
	return fake[api.CollectedBlobs](ctx, f, "CollectBlobs", in)
}

func (f *fakeService) CreateMailbox(ctx context.Context, in api.CreateMailboxInput) (api.Mailbox, error) {
	return fake[api.Mailbox](ctx, f, "CreateMailbox", in)
}

func (f *fakeService) ListMailboxes(ctx context.Context, in api.ListInput) (api.List[api.Mailbox], error) {
	return fake[api.List[api.Mailbox]](ctx, f, "ListMailboxes", in)
}

func (f *fakeService) ShowMailbox(ctx context.Context, in api.MailboxInput) (api.Mailbox, error) {
	return fake[api.Mailbox](ctx, f, "ShowMailbox", in)
}

func (f *fakeService) SetMailboxState(ctx context.Context, in api.SetMailboxStateInput) (api.Mailbox, error) {
	return fake[api.Mailbox](ctx, f, "SetMailboxState", in)
}

func (f *fakeService) AssignMailbox(ctx context.Context, in api.AssignMailboxInput) (api.Mailbox, error) {
	return fake[api.Mailbox](ctx, f, "AssignMailbox", in)
}

func (f *fakeService) ListMessages(ctx context.Context, in api.ListMailboxItems) (api.List[api.Message], error) {
	return fake[api.List[api.Message]](ctx, f, "ListMessages", in)
}

func (f *fakeService) CreateSite(ctx context.Context, in api.CreateSiteInput) (api.Site, error) {
	return fake[api.Site](ctx, f, "CreateSite", in)
}

func (f *fakeService) ListSites(ctx context.Context, in api.ListInput) (api.List[api.Site], error) {
	return fake[api.List[api.Site]](ctx, f, "ListSites", in)
}

func (f *fakeService) ShowSite(ctx context.Context, in api.SiteInput) (api.Site, error) {
	return fake[api.Site](ctx, f, "ShowSite", in)
}

func (f *fakeService) ListFiles(ctx context.Context, in api.ListSiteFiles) (api.List[api.File], error) {
	return fake[api.List[api.File]](ctx, f, "ListFiles", in)
}

func (f *fakeService) CreatePolicy(ctx context.Context, in api.CreatePolicyInput) (api.Policy, error) {
	return fake[api.Policy](ctx, f, "CreatePolicy", in)
}

func (f *fakeService) RegisterSites(ctx context.Context, in api.RegisterSitesInput) (api.Policy, error) {
	return fake[api.Policy](ctx, f, "RegisterSites", in)
}

func (f *fakeService) ListPolicies(ctx context.Context, in api.ListInput) (api.List[api.Policy], error) {
	return fake[api.List[api.Policy]](ctx, f, "ListPolicies", in)
}

func (f *fakeService) ShowPolicy(ctx context.Context, in api.PolicyInput) (api.Policy, error) {
	return fake[api.Policy](ctx, f, "ShowPolicy", in)
}

func (f *fakeService) RollAvailabilityKeys(ctx context.Context, in api.RollAvailabilityKeysInput) (api.RolledAvailabilityKeys, error) {
	return fake[api.RolledAvailabilityKeys](ctx, f, "RollAvailabilityKeys", in)
}
func (f *fakeService) RefreshPolicy(ctx context.Context, in api.RefreshPolicyInput) (api.Refreshed, error) {
	return fake[api.Refreshed](ctx, f, "RefreshPolicy", in)
}

func (f *fakeService) TestPolicy(ctx context.Context, in api.PolicyInput) (api.List[api.Probe], error) {
	return fake[api.List[api.Probe]](ctx, f, "TestPolicy", in)
}

func (f *fakeService) UpdatePolicy(ctx context.Context, in api.UpdatePolicyInput) (api.Refreshed, error) {
	return fake[api.Refreshed](ctx, f, "UpdatePolicy", in)
}

func (f *fakeService) CheckKeys(ctx context.Context, in api.CheckKeysInput) (api.KeyCheck, error) {
	return fake[api.KeyCheck](ctx, f, "CheckKeys", in)
}

func (f *fakeService) ListMailImports(ctx context.Context, in api.MailboxInput) (api.List[api.MailImport], error) {
	return fake[api.List[api.MailImport]](ctx, f, "ListMailImports", in)
}

func (f *fakeService) StopMailImport(ctx context.Context, in api.MailImportInput) (api.MailImport, error) {
	return fake[api.MailImport](ctx, f, "StopMailImport", in)
}

func (f *fakeService) ListRolls(ctx context.Context, in api.ListInput) (api.List[api.Roll], error) {
	return fake[api.List[api.Roll]](ctx, f, "ListRolls", in)
}

func (f *fakeService) ShowRoll(ctx context.Context, in api.RollInput) (api.Roll, error) {
	return fake[api.Roll](ctx, f, "ShowRoll", in)
}

func (f *fakeService) PauseRoll(ctx context.Context, in api.RollInput) (api.Roll, error) {
	return fake[api.Roll](ctx, f, "PauseRoll", in)
}

func (f *fakeService) ResumeRoll(ctx context.Context, in api.RollInput) (api.Roll, error) {
	return fake[api.Roll](ctx, f, "ResumeRoll", in)
}

func (f *fakeService) CancelRoll(ctx context.Context, in api.RollInput) (api.Roll, error) {
	return fake[api.Roll](ctx, f, "CancelRoll", in)
}

func (f *fakeService) ListKeyUsage(ctx context.Context, in api.KeyUsageInput) (api.List[api.KeyUsage], error) {
	return fake[api.List[api.KeyUsage]](ctx, f, "ListKeyUsage", in)
}

// fakeAuth accepts the token "good" for an administrator and "weak" for a principal
// without roles; "broken" causes an internal failure.
type fakeAuth struct{ principal access.Principal }

func (fakeAuth) CheckTenant(_ context.Context, _ access.Principal, tenant string) error {
	if tenant == "contoso & söhne" {
		return nil
	}
	return fail.New(api.Forbidden, "the token belongs to another tenant than the request names")
}

func (a fakeAuth) Authenticate(_ context.Context, bearer string) (access.Principal, error) {
	switch bearer {
	case "good":
		return a.principal, nil
	case "weak":
		p := a.principal
		p.Roles = nil
		return p, nil
	case "broken":
		return access.Principal{}, io.ErrClosedPipe
	}
	return access.Principal{}, fail.New(api.Unauthenticated, "the token is not valid")
}

func (f *fakeService) CreateTenant(ctx context.Context, in api.CreateTenantInput) (api.CreatedTenant, error) {
	return fake[api.CreatedTenant](ctx, f, "CreateTenant", in)
}

func (f *fakeService) ListTenants(ctx context.Context, in api.ListInput) (api.List[api.Tenant], error) {
	return fake[api.List[api.Tenant]](ctx, f, "ListTenants", in)
}

func (f *fakeService) ShowTenant(ctx context.Context, in api.TenantInput) (api.Tenant, error) {
	return fake[api.Tenant](ctx, f, "ShowTenant", in)
}

func (f *fakeService) SetTenant(ctx context.Context, in api.SetTenantInput) (api.Tenant, error) {
	return fake[api.Tenant](ctx, f, "SetTenant", in)
}

func (f *fakeService) CreateGeo(ctx context.Context, in api.CreateGeoInput) (api.Geo, error) {
	return fake[api.Geo](ctx, f, "CreateGeo", in)
}

func (f *fakeService) ListGeos(ctx context.Context, in api.None) (api.List[api.Geo], error) {
	return fake[api.List[api.Geo]](ctx, f, "ListGeos", in)
}
