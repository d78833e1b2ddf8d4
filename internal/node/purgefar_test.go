package node_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyroll/api"
	"keyroll/internal/longtest"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/rootkey"
	"keyroll/internal/store"
)

const (
	idle     = "idle@contoso.com" // inactive, under the purged policy
	restored = "restored@contoso.com"
)

// The availability keys are in a vault of a second keyroll. The attacker has everything
// that was on the first one's disk before the purge and after it, the credentials of
// the service in the far vault too, and attack.
//
// The customer's keys would then not be in vaults of the first keyroll; but a node can
// only access its own vaults and those of Azure, so the test keeps them there and
// deletes them from the attacker's copy, unless a case says that it has them.
func TestAfterAPurgeAvailabilityKeysInAnExternalVaultDecryptNothing(t *testing.T) {
	far := nodetest.StartFar(t)
	w := withMail(t, far)
	w.Mailbox(idle, nodetest.MailboxPolicy)
	w.Import(idle, ourMail)
	w.SetState(idle, api.Inactive)
	w.Node.Upkeep.Wait()
	backup := w.Backup("mailbox", underOurs).ID
	w.RefreshMail()
	w.FinishRoll(nodetest.MailboxPolicy)
	w.Stop()
	before, after := filepath.Join(t.TempDir(), "before"), filepath.Join(t.TempDir(), "after")
	nodetest.CopyFolder(t, w.Data, before)
	t.Run("not purged yet", func(t *testing.T) { // what the attack is worth
		decryptStolenCopy(t, far, stolenCopy{disk: before, backup: backup, unpurged: true, opens: true, others: true})
	})

	w.Restart(nil)
	w.RevokeMail()
	w.RequestPurge(nodetest.MailboxPolicy)
	w.ApprovePurge(w.Approver("dana"), nodetest.MailboxPolicy)
	w.ApprovePurge(w.Approver("erin"), nodetest.MailboxPolicy)
	w.WaitPurges()
	p, err := w.Client.ShowPurge(t.Context(), api.PolicyInput{Policy: nodetest.MailboxPolicy})
	if err != nil || p.State != api.Purged || len(p.Destroy) != 4 {
		t.Fatalf("the purge: %+v, %v", p, err)
	}
	w.Stop()
	nodetest.CopyFolder(t, w.Data, after)
	if strings.Contains(p.Limit, "availability keys are files") || !strings.Contains(p.Limit, "customer keys are in vaults of this server") {
		t.Errorf("what the purge cannot promise: %s", p.Limit)
	}
	if left := farKeys(t, far); len(left) != 1 {
		t.Errorf("the far vault holds %v, want the key of the service-managed policy alone", left)
	}
	if deleted := far.Script("Get-AzKeyVaultKey -VaultName " + far.Vault + " -InRemovedState"); strings.Contains(deleted, "keyroll-availability") {
		t.Errorf("the far vault can recover %s", deleted)
	}

	cases := []stolenCopy{
		{name: "a copy of before", disk: before},
		{name: "a copy of after", disk: after},
		{name: "a copy of after with the database of before", disk: after, database: before},
		{name: "a copy of after with the customer's keys", disk: after, customersKeys: true},
		{name: "a copy of before with the customer's keys", disk: before, customersKeys: true, opens: true}, // p.Limit says so
	}
	for _, c := range cases {
		c.backup, c.others = backup, true
		t.Run(c.name, func(t *testing.T) { decryptStolenCopy(t, far, c) })
	}
	far.Away()
	for _, c := range cases {
		if !c.customersKeys && !longtest.On() {
			continue // who has less opens no more; each waits for seconds
		}
		c.backup = backup
		t.Run(c.name+", the far vault away", func(t *testing.T) { decryptStolenCopy(t, far, c) })
	}
}

// stolenCopy is what an attacker has, and the expected result.
type stolenCopy struct {
	name           string
	disk, database string // the database is that of disk unless another copy lends it
	customersKeys  bool   // the customer has not destroyed them, and they lie on the disk
	backup         string // of a mailbox, made before the purge
	unpurged       bool   // it came before the purge
	opens          bool   // a policy key of the purged policy
	others         bool   // the far vault is there, and opens what is under no policy of the customer's
}

// decryptStolenCopy starts a node on a copy and tries all ways to decrypt each policy key.
func decryptStolenCopy(t *testing.T, far *nodetest.Far, b stolenCopy) {
	data := filepath.Join(t.TempDir(), "data")
	nodetest.CopyFolder(t, b.disk, data)
	if b.database != "" {
		replaceDatabase(t, b.database, data)
	}
	a := nodetest.Start(t, node.Options{Data: data})
	undoPurgeRecords(t, a, b.customersKeys)
	reads := b.opens && b.others // names are sealed under the service-managed policy
	got := func(how, name string, want bool) {
		t.Helper()
		if read := readStolen(t, a, name); (read == ourMail) != want || !want && read != "" {
			t.Errorf("%s: of %s it reads %q", how, name, read)
		}
	}
	got("export", underNone, b.others)
	for _, name := range []string{underOurs, idle} {
		got("export", name, reads)
	}
	in := api.RestoreBackupInput{BackupInput: api.BackupInput{Backup: b.backup}}
	in.Body.To = restored
	switch _, err := a.Client.RestoreBackup(t.Context(), in); {
	case (err == nil) != reads:
		t.Errorf("restore of a backup: %v", err)
	case reads:
		got("restore of a backup", restored, true)
	}
	for _, key := range policyKeys(t, a, nodetest.MailboxPolicy) {
		opened := false
		for _, probed := range a.Node.Policies.Probe(t.Context(), a.Node.Tenant.ID, key.id) {
			opened = opened || probed.Err == nil
		}
		if opened != b.opens {
			t.Errorf("that policy key %d opens is %t", key.id, opened)
		}
		if b.others && unwrapsAnywhere(t, far, key.wrap) != b.unpurged {
			t.Errorf("that a key in the far vault opens the wrap of policy key %d is %t", key.id, !b.unpurged)
		}
	}
	move := api.AssignMailboxInput{MailboxInput: api.MailboxInput{Mailbox: underOurs}}
	if _, err := a.Client.AssignMailbox(t.Context(), move); err == nil && !reads {
		t.Error("it moved to the service-managed policy")
	}
	got("export after a move", underOurs, reads)
}

// replaceDatabase replaces the database of a data folder by that of another.
func replaceDatabase(t *testing.T, from, data string) {
	t.Helper()
	for _, folder := range []string{data, from} {
		files, err := filepath.Glob(filepath.Join(folder, node.DatabaseFile+"*"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no database in %s: %v", folder, err)
		}
		for _, file := range files {
			if folder == data {
				err = os.Remove(file)
			} else {
				var content []byte
				if content, err = os.ReadFile(file); err == nil {
					err = os.WriteFile(filepath.Join(data, filepath.Base(file)), content, 0o600)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// wrapped is a policy key and what its availability key wrapped, empty once erased.
type wrapped struct {
	id   int64
	wrap []byte
}

// policyKeys are the keys of a policy, of all its generations.
func policyKeys(t *testing.T, w *nodetest.World, policy string) (all []wrapped) {
	t.Helper()
	err := w.Node.DB.ViewOnce(t.Context(), func(tx *store.Tx) error {
		rows, err := tx.Query(t.Context(), `SELECT r.policy_key, r.wrap_availability FROM revision r JOIN policy p ON p.id = r.policy WHERE p.name = ?1`, policy)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var one wrapped
			if err := rows.Scan(&one.id, &one.wrap); err != nil {
				return err
			}
			all = append(all, one)
		}
		return rows.Err()
	})
	if err != nil || len(all) == 0 {
		t.Fatalf("policy keys of %s: %v, %v", policy, all, err)
	}
	return all
}

// farKeys are the keys that the far vault shows to the service's credentials.
func farKeys(t *testing.T, far *nodetest.Far) (kids []azkeys.ID) {
	t.Helper()
	callFarVault(t, far, func(ctx context.Context, c *azkeys.Client) error {
		for pager := c.NewListKeyPropertiesPager(nil); pager.More(); {
			page, err := pager.NextPage(ctx)
			if err != nil {
				return err
			}
			for _, key := range page.Value {
				kids = append(kids, *key.KID)
			}
		}
		return nil
	})
	return kids
}

// unwrapsAnywhere tries to unwrap a wrap of an availability key with every key of the far
// vault. The wrap is the length of a version, the version, and the RSA ciphertext.
func unwrapsAnywhere(t *testing.T, far *nodetest.Far, wrap []byte) (opens bool) {
	t.Helper()
	if len(wrap) == 0 {
		return false
	}
	inner := bytes.Clone(wrap[1+wrap[0]:])
	for _, kid := range farKeys(t, far) {
		callFarVault(t, far, func(ctx context.Context, c *azkeys.Client) error {
			_, err := c.UnwrapKey(ctx, kid.Name(), "", azkeys.KeyOperationParameters{Algorithm: to.Ptr(azkeys.EncryptionAlgorithmRSAOAEP256), Value: inner}, nil)
			opens = opens || err == nil
			return nil
		})
	}
	return opens
}

// callFarVault calls the far vault with the service's credentials.
func callFarVault(t *testing.T, far *nodetest.Far, request func(context.Context, *azkeys.Client) error) {
	t.Helper()
	v, err := rootkey.OpenOperatorVault(strings.ToLower(far.URL))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if err := v.Call(t.Context(), request); err != nil {
		t.Fatal(err)
	}
}
