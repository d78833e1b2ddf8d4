package clustertest_test

import (
	"context"
	"testing"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/node/clustertest"
)

// Nodes that start concurrently on a new database agree on everything that is created
// once, and each serves what any of them created: tenants, tokens, vaults and content.
func TestAnyNodeServesAnyVaultAndAcceptsAnyToken(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Nodes: 2})
	a, b := c.Nodes[0].World(), c.Nodes[1].World()
	if a.Info.TenantID != b.Info.TenantID || a.Token != b.Token || a.Info.URL == b.Info.URL {
		t.Errorf("two nodes, %+v, %+v", a.Info, b.Info)
	}
	a.StageMail()
	b.AddKey("Contoso-O365EX-NA-VaultA1")
	b.Mailbox("alice@contoso.com", "USA_mailboxes")
	const mail = "From a@b Thu Jan  1 00:00:00 1970\nSubject: x\n\nhello\n"
	b.Import("alice@contoso.com", mail)
	want := a.Export("alice@contoso.com")
	for _, w := range c.Nodes {
		if got := w.World().Export("alice@contoso.com"); got != want {
			t.Errorf("exported %q, not %q", got, want)
		}
	}
	if all, err := b.Client.ListTenants(t.Context(), api.ListInput{}); err != nil || len(all.Items) != 1 {
		t.Errorf("tenants %+v, %v", all, err)
	}
	b.Refresh("USA_mailboxes", api.DepthPolicy)
	if r := b.FinishRoll("USA_mailboxes"); r.Total != 1 {
		t.Errorf("%+v", r)
	}
	for _, n := range c.Nodes {
		n.World().VerifyClean()
	}
	c.Nodes[0].Kill()
	if retries, err := c.Do(t.Context(), func(ctx context.Context, k *client.Client) error {
		_, err := k.ListPolicies(ctx, api.ListInput{})
		return err
	}); err != nil || retries == 0 {
		t.Errorf("asked on after %d nodes: %v", retries, err)
	}
}
