package nodetest_test

import (
	"testing"

	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
)

func TestStageRollsMailAndSitesAndVerifiesClean(t *testing.T) {
	const mbox = "From alice@contoso.com Thu Jan  1 00:00:00 2026\nSubject: hello\n\nbody\n"
	const site = "https://contoso.sharepoint.com/sites/x"
	w := nodetest.Start(t, node.Options{PageSlots: 4})
	w.StageMail()
	w.Site(site)
	w.StageSites()
	w.Mailbox("alice@contoso.com", nodetest.MailboxPolicy)
	w.Import("alice@contoso.com", mbox)
	w.Put(site, "a/b.txt", []byte("content"))
	before := w.PolicyID("alice@contoso.com")
	w.RefreshMail()
	w.FinishRoll(nodetest.MailboxPolicy)
	w.UpdateSites()
	w.FinishRoll(nodetest.SitePolicy)
	w.Restart(nil)
	if after := w.PolicyID("alice@contoso.com"); after == before {
		t.Errorf("DataEncryptionPolicyID is %s before and after the roll", after)
	}
	if got := w.Export("alice@contoso.com"); got != mbox {
		t.Errorf("export is %q", got)
	}
	if got := w.Get(site, "a/b.txt"); string(got) != "content" {
		t.Errorf("file is %q", got)
	}
	w.VerifyClean()
}
