package node_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store"
)

// One identity accesses the outside vaults of all tenants. A tenant may use those that
// the operator has registered for it, and no key of another tenant's vault is called.
func TestATenantUsesOnlyExternalVaultsRegisteredForIt(t *testing.T) {
	t.Parallel()
	outside := nodetest.StartOutside(t, node.Options{})
	var log bytes.Buffer
	w := nodetest.StartUsing(t, node.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, outside)
	w.StageMail()
	w.Mailbox(alice, nodetest.MailboxPolicy)
	w.Import(alice, keptMail)
	var fabrikam api.CreateTenantInput
	fabrikam.Body.Name = "Fabrikam"
	made, err := w.Client.CreateTenant(t.Context(), fabrikam)
	if err != nil {
		t.Fatal(err)
	}
	other := w.As(made.AdminToken)
	create := func() error {
		var in api.CreatePolicyInput
		in.Body.Kind, in.Body.Name = api.MailboxPolicy, "theirs"
		in.Body.Keys = []string{w.KeyURI(nodetest.VaultA1), w.KeyURI(nodetest.VaultA2)}
		_, err := other.Client.CreatePolicy(t.Context(), in)
		return err
	}
	directory := outside.Info.TenantID
	refusal := create()
	refused(t, "another tenant's vault", refusal, api.Forbidden, directory, "registered for this tenant")
	if p := (*api.Problem)(nil); !errors.As(refusal, &p) || !strings.Contains(p.Hint, "keyroll tenant set") {
		t.Errorf("the hint is %+v", p)
	}
	for _, vault := range []string{nodetest.VaultA1, nodetest.VaultA2} {
		in := api.SetTenantInput{TenantInput: api.TenantInput{Tenant: "Fabrikam"}}
		in.Body.Add.Vaults = []string{w.VaultURL(vault)}
		if _, err := w.Client.SetTenant(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	if err := create(); err != nil {
		t.Errorf("vaults that are registered for it: %v", err)
	}
	// A revoked registration applies from the next use on, even with a cached token.
	in := api.SetTenantInput{TenantInput: api.TenantInput{Tenant: w.Info.TenantID}}
	in.Body.Remove.Directories = []string{directory}
	if _, err := w.Client.SetTenant(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	w.Node.Policies.Close()
	if _, err := exportMail(t.Context(), w, alice); err == nil {
		t.Error("mail is read by a vault that is not registered any more")
	}
}

// Policies from before vaults were registered stay usable, with a warning; their vaults
// are registered once.
func TestVaultsInUseAreRegisteredAtTheFirstStartAfterAnUpgrade(t *testing.T) {
	t.Parallel()
	outside := nodetest.StartOutside(t, node.Options{})
	w := nodetest.StartUsing(t, node.Options{}, outside)
	w.StageMail()
	w.Mailbox(alice, nodetest.MailboxPolicy)
	w.Import(alice, keptMail)
	show := func() api.Tenant {
		shown, err := w.Client.ShowTenant(t.Context(), api.TenantInput{Tenant: w.Info.TenantID})
		if err != nil {
			t.Fatal(err)
		}
		return shown
	}
	forget := func(tables ...string) {
		err := w.Node.DB.InTx(context.Background(), func(tx *store.Tx) error {
			for _, statement := range tables {
				if _, err := tx.Exec(context.Background(), statement); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	forget(`DELETE FROM outside`, `DELETE FROM setting WHERE name = 'outside-vaults-adopted'`)
	w.Restart(nil)
	w.Node.Policies.Close()
	if got := w.Export(alice); got == "" {
		t.Error("mail is not read")
	}
	if shown := show(); len(shown.Directories) != 0 || len(shown.Vaults) != 2 || !strings.HasPrefix(shown.Vaults[0], "https://") {
		t.Errorf("registered: %+v", shown)
	}
	forget(`DELETE FROM outside`)
	w.Restart(nil)
	if shown := show(); len(shown.Vaults) != 0 {
		t.Errorf("a later start registers %+v", shown)
	}
}
