package bench

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"time"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keypage"
	"keyroll/internal/node"
	"keyroll/internal/policy"
	"keyroll/internal/roll"
	"keyroll/internal/store"
)

const setUp = `
New-AzKeyVault -VaultName bench-a -ResourceGroupName bench -Location here -EnablePurgeProtection
New-AzKeyVault -VaultName bench-b -ResourceGroupName bench -Location there -EnablePurgeProtection
Set-AzKeyVaultAccessPolicy -VaultName bench-a -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName 00000002-0000-0ff1-ce00-000000000000
Set-AzKeyVaultAccessPolicy -VaultName bench-b -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName 00000002-0000-0ff1-ce00-000000000000
$a = Add-AzKeyVaultKey -VaultName bench-a -Name key -Destination HSM -KeyOps @('wrapKey','unwrapKey')
$b = Add-AzKeyVaultKey -VaultName bench-b -Name key -Destination HSM -KeyOps @('wrapKey','unwrapKey')
New-DataEncryptionPolicy -Name bench -AzureKeyIDs "https://bench-a.vault.localhost/keys/key", "https://bench-b.vault.localhost/keys/key"
`

const newVersion = `Add-AzKeyVaultKey -VaultName bench-a -Name key -Destination HSM -KeyOps @('wrapKey','unwrapKey')`

// fixture is a node with containers under one policy.
type fixture struct {
	*node.Node
	options  Options
	database string // URL; empty: SQLite
	client   *client.Client
	roller   *roll.Roller
}

// start starts a new node with o.Containers mailboxes under one policy. It does no work of
// its own, so that rolls run only when they are measured.
func start(ctx context.Context, o Options, name, database string) (w *fixture, err error) {
	return startNode(ctx, o, node.Options{Data: filepath.Join(o.Data, name), Database: database, Idle: true})
}

// startNode is start with other options of the node.
func startNode(ctx context.Context, o Options, of node.Options) (w *fixture, err error) {
	of.PageSlots = o.PageSlots
	n, err := node.Start(ctx, of)
	if err != nil {
		return nil, err
	}
	w = &fixture{Node: n, options: o, database: of.Database, roller: n.Roller}
	if w.client, err = o.Client(n); err == nil {
		if err = o.Script(ctx, n, setUp); err == nil {
			err = w.fill(ctx)
		}
	}
	if err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// Close stops the node.
func (w *fixture) Close() error {
	if w.client != nil {
		w.client.Close()
	}
	return w.Node.Close()
}

// skipCryptography makes the rolls of w run without cryptography.
func (w *fixture) skipCryptography() {
	w.roller = roll.New(roll.Config{DB: w.DB, Policies: w.Policies, Reseal: otherBytes, Settled: func(int64, int64) {}, Now: time.Now})
}

// otherBytes replaces the cryptography: it changes one byte in each KiB, because a
// database need not write unchanged pages.
func otherBytes(_, _ *envelope.Key, _, _ envelope.EncryptionContext, body []byte) ([]byte, error) {
	for i := 0; i < len(body); i += 1 << 10 {
		body[i]++
	}
	return body, nil
}

func (w *fixture) policy(ctx context.Context) (pol policy.Policy, err error) {
	err = w.DB.View(ctx, func(tx *store.Tx) (err error) {
		pol, err = w.Policies.Find(ctx, tx, w.Tenant.ID, "bench")
		return err
	})
	return pol, err
}

// refresh adds a key version and refreshes the policy.
func (w *fixture) refresh(ctx context.Context, depth api.Depth, o api.RollOptions) error {
	if err := w.options.Script(ctx, w.Node, newVersion); err != nil {
		return err
	}
	return w.requestRefresh(ctx, depth, o)
}

func (w *fixture) requestRefresh(ctx context.Context, depth api.Depth, o api.RollOptions) error {
	in := api.RefreshPolicyInput{PolicyInput: api.PolicyInput{Policy: "bench"}}
	in.Body.Depth, in.Body.RollOptions = depth, o
	_, err := w.client.RefreshPolicy(ctx, in)
	return err
}

// roll refreshes the policy and times the roll that follows, from its first
// page to the commit of its end.
func (w *fixture) roll(ctx context.Context, depth api.Depth, o api.RollOptions) (took time.Duration, err error) {
	if err := w.refresh(ctx, depth, o); err != nil {
		return 0, err
	}
	ro, err := w.latest(ctx)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	waits, err := w.roller.Work(ctx, ro)
	took = time.Since(begin)
	if err != nil {
		return 0, err
	}
	if ro, err = w.latest(ctx); err != nil {
		return 0, err
	}
	if waits || ro.State != api.RollFinished {
		return 0, fail.New(api.Internal, "the roll did not finish: it is %s: %s", ro.State, ro.Message)
	}
	return took, nil
}

func (w *fixture) latest(ctx context.Context) (ro roll.Roll, err error) {
	pol, err := w.policy(ctx)
	if err != nil {
		return ro, err
	}
	err = w.DB.View(ctx, func(tx *store.Tx) (err error) {
		ro, _, err = roll.Latest(ctx, tx, w.Tenant.ID, pol.ID)
		return err
	})
	return ro, err
}

// root adds a key version and times a refresh at depth root, including the vaults.
func (w *fixture) root(ctx context.Context) (time.Duration, error) {
	if err := w.options.Script(ctx, w.Node, newVersion); err != nil {
		return 0, err
	}
	begin := time.Now()
	err := w.requestRefresh(ctx, api.DepthRoot, api.RollOptions{})
	return time.Since(begin), err
}

// walk calls f with every key page of the mailboxes and its parent key.
func (w *fixture) walk(ctx context.Context, f func(row keypage.Row, key *envelope.Key) (more bool, err error)) error {
	pol, err := w.policy(ctx)
	if err != nil {
		return err
	}
	key, err := w.Policies.Open(ctx, w.Tenant.ID, pol.Current.ID, policy.User)
	if err != nil {
		return err
	}
	defer key.Zero()
	return w.under(ctx, keypage.Parent{ID: pol.Current.ID, Generation: pol.Current.Generation}, envelope.ClassActive, func(row keypage.Row) (bool, error) {
		return f(row, key)
	})
}

// under calls f with every key page of a class under a parent.
func (w *fixture) under(ctx context.Context, parent keypage.Parent, class envelope.Class, f func(row keypage.Row) (more bool, err error)) error {
	for after := int64(0); ; {
		var rows []keypage.Row
		err := w.DB.View(ctx, func(tx *store.Tx) (err error) {
			rows, err = keypage.Under(ctx, tx, keypage.Set{Tenant: w.Tenant.ID, Parents: []keypage.Parent{parent}, Classes: []envelope.Class{class}}, after, 32)
			return err
		})
		if err != nil || len(rows) == 0 {
			return err
		}
		after = rows[len(rows)-1].ID
		for _, row := range rows {
			if more, err := f(row); err != nil || !more {
				return err
			}
		}
	}
}

// slots calls f with every container key.
func (w *fixture) slots(ctx context.Context, f func(slot envelope.Slot) (more bool, err error)) error {
	return w.walk(ctx, eachSlot(f))
}

// eachSlot decrypts pages and calls f with each of their slots.
func eachSlot(f func(slot envelope.Slot) (more bool, err error)) func(row keypage.Row, key *envelope.Key) (bool, error) {
	return func(row keypage.Row, key *envelope.Key) (bool, error) {
		page, err := envelope.OpenPage(key, row.EncryptionContext(), row.Body)
		if err != nil {
			return false, err
		}
		defer page.Zero()
		for _, slot := range page.Slots() {
			if more, err := f(slot); err != nil || !more {
				return false, err
			}
		}
		return true, nil
	}
}

// blobPages calls f with every page of blob keys and its parent key.
func (w *fixture) blobPages(ctx context.Context, f func(row keypage.Row, key *envelope.Key) (more bool, err error)) error {
	return w.slots(ctx, func(slot envelope.Slot) (more bool, err error) {
		more = true
		err = w.under(ctx, keypage.Parent{ID: slot.Child, Generation: slot.Generation}, envelope.ClassBlob, func(row keypage.Row) (bool, error) {
			more, err = f(row, &slot.Key)
			return more, err
		})
		return more, err
	})
}

// digest is an order-independent digest of keys and their owners.
type digest struct {
	sum  [sha256.Size]byte
	keys int64
}

func (d *digest) add(slot envelope.Slot) (more bool, err error) {
	one := sha256.Sum256(binary.BigEndian.AppendUint64(slot.Key.Bytes(), uint64(slot.Child)))
	for i := range d.sum {
		d.sum[i] ^= one[i]
	}
	d.keys++
	return true, nil
}

// containerKeys decrypts the keys of all containers and returns their digest.
func (w *fixture) containerKeys(ctx context.Context) (d digest, err error) {
	err = w.slots(ctx, d.add)
	return d, err
}

// blobKeys decrypts the keys of all blobs and returns their digest.
func (w *fixture) blobKeys(ctx context.Context) (d digest, err error) {
	err = w.blobPages(ctx, eachSlot(d.add))
	return d, err
}

func (w *fixture) pages(ctx context.Context) (n int64, err error) {
	err = w.walk(ctx, func(keypage.Row, *envelope.Key) (bool, error) { n++; return true, nil })
	return n, err
}

// base returns the conditions of the measurement.
func (w *fixture) base(ctx context.Context, s series) (b Base, err error) {
	b.Rounds, b.Range = w.options.Rounds, s.ranges()
	if b.Database, b.Durability, err = durability(ctx, w.DB); err != nil {
		return b, err
	}
	size := map[string]string{
		"sqlite": `SELECT page_count * page_size FROM pragma_page_count, pragma_page_size`,
		"postgres": `SELECT CAST(SUM(pg_total_relation_size(c.oid)) AS BIGINT) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE n.nspname = current_schema() AND c.relkind = 'r' AND c.relname <> 'bench_row'`,
	}[w.DB.Dialect().Name]
	err = w.DB.View(ctx, func(tx *store.Tx) error { return tx.QueryRow(ctx, size).Scan(&b.DatabaseBytes) })
	return b, err
}

// checkSameKeys returns an error if keys differ or are missing.
func checkSameKeys(before, after digest, want int64) error {
	if before != after || after.keys != want {
		return fail.New(api.Damaged, "the keys after the rolls differ from the keys before: %d of %d decrypted", after.keys, want)
	}
	return nil
}

// peakOf runs work and returns the peak of resident memory meanwhile.
func peakOf(work func() error) (peak int64, err error) {
	if err := resetPeak(); err != nil {
		return 0, err
	}
	if err := work(); err != nil {
		return 0, err
	}
	return status("VmHWM")
}

func perSecond(n int, took time.Duration) float64 { return float64(n) / took.Seconds() }

func roundOf(round, rounds int) string { return fmt.Sprintf("round %d of %d", round+1, rounds) }
