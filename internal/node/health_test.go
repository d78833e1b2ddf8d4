package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/lease"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// An embedded vault has no outage: if it does not respond, this server itself has a
// problem, and the availability key is used only for a recovery.
func TestAnUnresponsiveEmbeddedVaultIsNotAnOutage(t *testing.T) {
	s := &silence{}
	x := newTenancy(t, node.Options{}.WithOutage(s.disconnects))
	s.disconnect(append(mailboxes.vaults[:], stores.vaults[:]...)...)
	x.clearKeyCache()
	for _, k := range versioned {
		x.wantRefusedRead(k, api.Unavailable, "its vaults break off")
		id := ask(t, x.Node.DB, func(tx *store.Tx) (int64, error) {
			p, err := x.Node.Policies.Find(t.Context(), tx, x.Node.Tenant.ID, k.policy)
			return p.Current.ID, err
		})
		key, err := x.Node.Policies.Open(t.Context(), x.Node.Tenant.ID, id, api.BySystem)
		key.Zero()
		refused(t, k.policy+", for the service's own work", err, api.Unavailable)
		if h := x.show(k.policy).PrimaryHealth; h.State != api.Serves {
			t.Errorf("%s: trouble of the server was recorded as %s", k.policy, h)
		}
	}
	s.disconnect(mailboxes.vaults[:]...)
	x.Assign(mailboxes.unit, "")
	x.wantReadable(mailboxes, "brought under another policy")
}

// shows fails the test unless every view of a policy has the health of its primary key.
func (x tenancy) shows(k kind, want api.HealthState) {
	x.t.Helper()
	view := map[api.PolicyKind]string{api.MailboxPolicy: "(Get-DataEncryptionPolicy USA_mailboxes)", api.SitePolicy: "(Get-SPODataEncryptionPolicy)",
		api.MultiWorkloadPolicy: "(Get-M365DataAtRestEncryptionPolicy Contoso_Global)"}[k.PolicyKind]
	cmdlet := x.scriptValue(view + ".PrimaryKeyHealth")
	usage, err := x.Client.ListKeyUsage(x.t.Context(), api.KeyUsageInput{Vault: x.VaultName(k.vaults[0])})
	if err != nil || len(usage.Items) != 1 {
		x.t.Fatalf("%+v, %v", usage.Items, err)
	}
	if policy := x.show(k.policy).PrimaryHealth.State; policy != want || usage.Items[0].Health.State != want || !strings.HasPrefix(cmdlet, string(want)+" since ") {
		x.t.Errorf("%s: policy show has %s, key usage %s, the cmdlet %q, want %s", k.policy, policy, usage.Items[0].Health.State, cmdlet, want)
	}
}

// A refusal lasts, even over outages and restarts, until a customer key serves again.
func TestARefusalPersistsThroughOutageRestartAndPurgeOfAVault(t *testing.T) {
	var log record
	x := newOutsideTenancy(t, node.Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	for _, k := range kinds {
		x.shows(k, api.Serves)
		x.revoke(k)
		x.wantRefusedRead(k, api.VaultDenied, "access removed")
		x.shows(k, api.Refused)
		said := "primary key " + strings.ToLower(x.VaultURL(k.vaults[0]))
		if !strings.Contains(string(log.bytes()), "the health of a customer key changed") || !strings.Contains(string(log.bytes()), said) {
			t.Errorf("the log does not say that the %s refuses:\n%s", said, string(log.bytes()))
		}
		found := false
		for _, entry := range x.audited(k.policy) {
			found = found || strings.Contains(entry, "health of the "+said) && strings.Contains(entry, "refused: ")
		}
		if !found {
			t.Errorf("the audit log of %s does not say that the %s refuses", k.policy, said)
		}
	}
	all := func(when string) {
		t.Helper()
		x.clearKeyCache()
		for _, k := range kinds {
			x.wantRefusedRead(k, api.VaultDenied, when)
			x.shows(k, api.Refused)
		}
	}
	x.outside.Away()
	all("the vaults away")
	x.Restart(nil)
	all("after a restart")
	x.outside.Back()
	var purged []string
	for _, k := range kinds {
		purged = append(purged, k.vaults[:]...)
	}
	x.outside.Unresolve(purged...)
	x.Restart(nil)
	all("the vaults purged, so that their names do not resolve")
	x.outside.Unresolve()
	for _, k := range kinds {
		x.restore(k)
		x.wantReadable(k, "given back")
		x.useBothKeys(k)
		x.shows(k, api.Serves)
	}
	x.outside.Away()
	x.clearKeyCache()
	for _, k := range versioned {
		x.wantReadable(k, "the vaults away after both keys served")
		x.shows(k, api.Unreachable)
	}
}

// All nodes share the recorded health of keys; and users do not get the availability
// key while a node is live that does not record health.
func TestARefusalAppliesToEveryNodeAndAnOlderNodeDisablesTheFallbackForUsers(t *testing.T) {
	t.Parallel()
	shared := t.TempDir()
	outside := nodetest.StartOutside(t, node.Options{})
	o := node.Options{Database: storetest.PostgresURL(t), Seal: folder(shared, "seal"), Blobs: folder(shared, "blobs"), Availability: folder(shared, "availability")}
	a := nodetest.StartUsing(t, o, outside)
	b := nodetest.StartUsing(t, o, outside)
	a.StageMail()
	a.Mailbox(alice, nodetest.MailboxPolicy)
	a.Import(alice, keptMail)
	before := a.Export(alice)
	read := func(w *nodetest.World, when string, code api.Code, words ...string) {
		t.Helper()
		w.Node.Policies.Close()
		got, err := exportMail(t.Context(), w, alice)
		if code != "" {
			refused(t, when, err, code, words...)
		} else if err != nil || got != before {
			t.Errorf("%s: %q, %v", when, got, err)
		}
	}
	db := storetest.Open(t, o.Database)
	inTx := func(fn func(ctx context.Context, tx *store.Tx) error) {
		t.Helper()
		if err := db.InTx(t.Context(), func(tx *store.Tx) error { return fn(t.Context(), tx) }); err != nil {
			t.Fatal(err)
		}
	}
	// A node of an older version records no health, and does not declare that it does.
	inTx(func(ctx context.Context, tx *store.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO node (name, url, session, since, own) VALUES ('old', '', '', 0, '')`); err != nil {
			return err
		}
		_, _, err := lease.Take(ctx, tx, lease.OfNode("old"), "old", time.Hour)
		return err
	})
	outside.Away()
	read(a, "an outage beside an older node", api.VaultUnavailable, "a node of an older version is running")
	inTx(func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM node WHERE name = 'old'`)
		return err
	})
	read(a, "an outage", "")
	outside.Back()
	a.RevokeMail()
	read(a, "access removed", api.VaultDenied)
	outside.Away()
	read(b, "an outage, on the node that met no refusal", api.VaultDenied, "the primary key has refused since")
	outside.Back()
	for _, vault := range []string{nodetest.VaultA1, nodetest.VaultA2} {
		a.Script(fmt.Sprintf("Set-AzKeyVaultAccessPolicy -VaultName %s -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName %s", vault, exchange))
	}
	read(b, "given back", "")
}
