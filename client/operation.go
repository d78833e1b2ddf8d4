package client

import (
	"context"
	"fmt"
	"io"

	"keyroll/api"
)

// CreateMailbox makes a mailbox.
func (c *Client) CreateMailbox(ctx context.Context, in api.CreateMailboxInput) (api.Mailbox, error) {
	return call(ctx, c, api.CreateMailbox, in)
}

// ListMailboxes lists a page of mailboxes.
func (c *Client) ListMailboxes(ctx context.Context, in api.ListInput) (api.List[api.Mailbox], error) {
	return call(ctx, c, api.ListMailboxes, in)
}

// ShowMailbox shows a mailbox and what it is encrypted with.
func (c *Client) ShowMailbox(ctx context.Context, in api.MailboxInput) (api.Mailbox, error) {
	return call(ctx, c, api.ShowMailbox, in)
}

// SetMailboxState changes the state of a mailbox.
func (c *Client) SetMailboxState(ctx context.Context, in api.SetMailboxStateInput) (api.Mailbox, error) {
	return call(ctx, c, api.SetMailboxState, in)
}

// AssignMailbox assigns a policy to a mailbox; its key moves at once.
func (c *Client) AssignMailbox(ctx context.Context, in api.AssignMailboxInput) (api.Mailbox, error) {
	return call(ctx, c, api.AssignMailbox, in)
}

// ListMessages lists a page of the messages of a mailbox.
func (c *Client) ListMessages(ctx context.Context, in api.ListMailboxItems) (api.List[api.Message], error) {
	return call(ctx, c, api.ListMessages, in)
}

// CreateSite makes a site.
func (c *Client) CreateSite(ctx context.Context, in api.CreateSiteInput) (api.Site, error) {
	return call(ctx, c, api.CreateSite, in)
}

// ListSites lists a page of sites.
func (c *Client) ListSites(ctx context.Context, in api.ListInput) (api.List[api.Site], error) {
	return call(ctx, c, api.ListSites, in)
}

// ShowSite shows a site and what it is encrypted with.
func (c *Client) ShowSite(ctx context.Context, in api.SiteInput) (api.Site, error) {
	return call(ctx, c, api.ShowSite, in)
}

// ListFiles lists the files of a site: all of them, by path, if in selects no page.
func (c *Client) ListFiles(ctx context.Context, in api.ListSiteFiles) (api.List[api.File], error) {
	return byPath(whole(in.PageInput, func(page api.PageInput) (api.List[api.File], error) {
		in.PageInput = page
		return call(ctx, c, api.ListFiles, in)
	}))
}

// CreatePolicy makes a mailbox policy from two customer keys.
func (c *Client) CreatePolicy(ctx context.Context, in api.CreatePolicyInput) (api.Policy, error) {
	return call(ctx, c, api.CreatePolicy, in)
}

// RegisterSites registers the site policy of a geo; all its sites are moved under it.
func (c *Client) RegisterSites(ctx context.Context, in api.RegisterSitesInput) (api.Policy, error) {
	return call(ctx, c, api.RegisterSites, in)
}

// ListPolicies lists policies: all of them if in selects no page.
func (c *Client) ListPolicies(ctx context.Context, in api.ListInput) (api.List[api.Policy], error) {
	return wholeList(ctx, c, api.ListPolicies, in)
}

// ShowPolicy shows a policy.
func (c *Client) ShowPolicy(ctx context.Context, in api.PolicyInput) (api.Policy, error) {
	return call(ctx, c, api.ShowPolicy, in)
}

// RefreshPolicy adopts the newest key versions of a mailbox or multi-workload policy
// and rolls.
func (c *Client) RefreshPolicy(ctx context.Context, in api.RefreshPolicyInput) (api.Refreshed, error) {
	return call(ctx, c, api.RefreshPolicy, in)
}

// TestPolicy has each root of a policy wrap and unwrap fresh random bytes.
func (c *Client) TestPolicy(ctx context.Context, in api.PolicyInput) (api.List[api.Probe], error) {
	return call(ctx, c, api.TestPolicy, in)
}

// UpdatePolicy replaces one customer key of a site policy and rolls.
func (c *Client) UpdatePolicy(ctx context.Context, in api.UpdatePolicyInput) (api.Refreshed, error) {
	return call(ctx, c, api.UpdatePolicy, in)
}

// ListRolls lists rolls, the newest first: all of them if in selects no page.
func (c *Client) ListRolls(ctx context.Context, in api.ListInput) (api.List[api.Roll], error) {
	return wholeList(ctx, c, api.ListRolls, in)
}

// ShowRoll shows a roll and its progress.
func (c *Client) ShowRoll(ctx context.Context, in api.RollInput) (api.Roll, error) {
	return call(ctx, c, api.ShowRoll, in)
}

// PauseRoll pauses a roll.
func (c *Client) PauseRoll(ctx context.Context, in api.RollInput) (api.Roll, error) {
	return call(ctx, c, api.PauseRoll, in)
}

// ResumeRoll resumes a paused or failed roll.
func (c *Client) ResumeRoll(ctx context.Context, in api.RollInput) (api.Roll, error) {
	return call(ctx, c, api.ResumeRoll, in)
}

// CancelRoll cancels a roll that has moved nothing yet.
func (c *Client) CancelRoll(ctx context.Context, in api.RollInput) (api.Roll, error) {
	return call(ctx, c, api.CancelRoll, in)
}

// ListKeyUsage returns the ledger: what each key version still protects.
func (c *Client) ListKeyUsage(ctx context.Context, in api.KeyUsageInput) (api.List[api.KeyUsage], error) {
	return call(ctx, c, api.ListKeyUsage, in)
}

// ImportMail imports messages from an mbox. size is the length of r in bytes,
// or -1. After a failure r may be read from for a moment more.
func (c *Client) ImportMail(ctx context.Context, in api.ImportMailInput, size int64, r io.Reader) (api.Imported, error) {
	return upload(ctx, c, api.ImportMail, in, &content{r: r, size: size})
}

// CheckKeys returns why a policy would refuse two keys, and creates nothing.
func (c *Client) CheckKeys(ctx context.Context, in api.CheckKeysInput) (api.KeyCheck, error) {
	return call(ctx, c, api.CheckKeys, in)
}

// ListMailImports lists the unfinished imports, the latest first.
func (c *Client) ListMailImports(ctx context.Context, in api.MailboxInput) (api.List[api.MailImport], error) {
	return call(ctx, c, api.ListMailImports, in)
}

// StopMailImport stops an import and returns how much it has stored.
func (c *Client) StopMailImport(ctx context.Context, in api.MailImportInput) (api.MailImport, error) {
	return call(ctx, c, api.StopMailImport, in)
}

// ExportMail returns all messages as an mbox.
func (c *Client) ExportMail(ctx context.Context, in api.MailboxInput) (io.ReadCloser, error) {
	return c.receive(ctx, api.ExportMail.Meta, in, "", 0)
}

// ReadMessage returns one message.
func (c *Client) ReadMessage(ctx context.Context, in api.MessageInput) (io.ReadCloser, error) {
	return c.receive(ctx, api.ReadMessage.Meta, in, "", 0)
}

// PutFile stores a file, all of it or nothing, and replaces one at the same path.
// size is the length of r in bytes, or -1. After a failure r may be read from for a
// moment more.
func (c *Client) PutFile(ctx context.Context, in api.FileInput, size int64, r io.Reader) (api.File, error) {
	return upload(ctx, c, api.PutFile, in, &content{r: r, size: size})
}

// GetFile returns n bytes of a file from off on; n below 0 means all that follow.
func (c *Client) GetFile(ctx context.Context, in api.FileInput, off, n int64) (io.ReadCloser, error) {
	if off < 0 || n == 0 {
		return nil, problemf(api.InvalidArgument, "a range has an offset of at least 0 and a length of at least 1")
	}
	byteRange := ""
	switch {
	case n > 0:
		byteRange = fmt.Sprintf("bytes=%d-%d", off, off+n-1)
	case off > 0:
		byteRange = fmt.Sprintf("bytes=%d-", off)
	}
	return c.receive(ctx, api.GetFile.Meta, in, byteRange, off)
}

// Verify opens every wrapped key and reads every item. It calls progress, if
// not nil, as the work goes on, and returns the report.
func (c *Client) Verify(ctx context.Context, in api.VerifyInput, progress func(api.VerifyProgress)) (api.Verified, error) {
	return verify.follow(ctx, c, in, progress)
}

var verify = followed[api.VerifyInput, api.VerifyEvent, api.VerifyProgress, api.Verified]{api.Verify, "verify",
	func(e api.VerifyEvent) (*api.VerifyProgress, *api.Verified, *api.Problem) {
		return e.Progress, e.Report, e.Problem
	}}
