package node_test

import (
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
)

// A sweep works at the requested depth, also for mailboxes that are not active. A backup
// is moved under the newest policy key, with unchanged content.
func TestSweepAtEachDepthIncludesInactiveMailboxesAndKeepsBackups(t *testing.T) {
	t.Parallel()
	w := nodetest.Start(t, node.Options{})
	w.StageMail()
	const mbox = "From alice@contoso.com Thu Jan  1 00:00:00 2026\nSubject: hello\n\nbody\n"
	names := []string{"active@contoso.com", "inactive@contoso.com", "kept@contoso.com"}
	for _, name := range names {
		w.Mailbox(name, nodetest.MailboxPolicy)
		w.Import(name, mbox)
	}
	w.SetState(names[1], api.Inactive)
	w.Backup("mailbox", names[2])
	for i, depth := range []api.Depth{api.DepthPolicy, api.DepthContainer, api.DepthContent} {
		total := int64(3 + i) // with those that were restored
		changed := total      // and the backup, where all that changes is the key above
		if depth == api.DepthPolicy {
			changed++
		}
		w.AddKey(nodetest.VaultA1)
		in := api.RefreshPolicyInput{PolicyInput: api.PolicyInput{Policy: nodetest.MailboxPolicy}}
		in.Body.Depth, in.Body.IncludeInactive, in.Body.DryRun = depth, true, true
		dry, err := w.Client.RefreshPolicy(t.Context(), in)
		if err != nil {
			t.Fatalf("%s: %v", depth, err)
		}
		if e := dry.Estimate; e.Containers != total+1 || e.Stays != 0 || (e.Blobs > 0) != (i > 0) || (e.Bytes > 0) != (i > 1) {
			t.Errorf("%s: the estimate is %+v", depth, e)
		}
		in.Body.DryRun = false
		refreshed, err := w.Client.RefreshPolicy(t.Context(), in)
		if err != nil {
			t.Fatalf("%s: %v", depth, err)
		}
		r := w.FinishRoll(nodetest.MailboxPolicy)
		if r.Total != changed || r.Done != changed || r.PercentComplete != 100 || r.BlobsTotal != dry.Estimate.Blobs || r.BytesTotal != dry.Estimate.Bytes {
			t.Errorf("%s: the roll is %+v, estimated as %+v", depth, r, dry.Estimate)
		}
		if id := w.PolicyID(names[1]); id != refreshed.Policy.Revision {
			t.Errorf("%s: the inactive mailbox is under %s", depth, id)
		}
		if b := w.Backups()[0]; !b.Protection.Current || b.Items != 1 {
			t.Errorf("%s: the backup is %+v", depth, b)
		}
		w.VerifyClean()
		to := string(depth) + "@contoso.com"
		w.Restore("mailbox", names[2], to)
		for _, name := range append(names, to) {
			if got := w.Export(name); !strings.Contains(got, "hello") {
				t.Errorf("%s: %s reads %q", depth, name, got)
			}
		}
		w.SetState(names[1], api.Inactive)
	}
}
