package node_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/keypage"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store"
)

const (
	alice, bob, carol, dave = "alice@contoso.com", "bob@contoso.com", "carol@contoso.com", "dave@contoso.com"
	eve                     = "eve@fabrikam.com" // of another tenant
	site                    = "https://contoso.sharepoint.com/sites/one"
	sitePlace               = "s/a.bin"
)

// forgeryTest is a data folder that is not in use, of which forgers get copies, and what they
// know.
type forgeryTest struct {
	data   string
	tenant int64
	// Earlier authentic rows: alice's key page when it also had dave's key, and before the
	// roll; the site's before its roll.
	mailOfVersion2, mailOfGeneration1, siteOfGeneration1 keypage.Row
	// blobs are the blob files of the site's two files of one size.
	blobs [2]string
}

// newForgeryTest prepares the folder: two policies that have been rolled once, and
// another tenant with a policy of its own.
func newForgeryTest(t *testing.T) forgeryTest {
	t.Helper()
	w := nodetest.Start(t, node.Options{Data: nodetest.Folder(t), PageSlots: 4})
	c := forgeryTest{data: w.Data, tenant: w.Node.Tenant.ID}
	w.StageMail()
	w.StageSites()
	w.CreateMany(container.Mailbox, []string{alice, bob, carol, dave}, nodetest.MailboxPolicy)
	for _, name := range []string{alice, bob, carol} {
		w.Import(name, "From "+name+" Thu Jan  1 00:00:00 2026\nSubject: to "+name+"\n\nbody\n")
	}
	w.SetState(carol, api.Inactive)
	c.mailOfVersion2 = pageOf(t, w, alice)
	w.Assign(dave, "")
	c.mailOfGeneration1 = pageOf(t, w, alice)
	w.RefreshMail()
	w.FinishRoll(nodetest.MailboxPolicy)

	w.Site(site)
	for i, path := range []string{sitePlace, "s/b.bin"} {
		w.Put(site, path, bytes.Repeat([]byte{byte('a' + i)}, 3*envelope.SegmentSize+100))
	}
	var sitePage int64
	c.siteOfGeneration1 = ask(t, w.Node.DB, func(tx *store.Tx) (row keypage.Row, err error) {
		if err := tx.QueryRow(t.Context(), `SELECT page FROM container WHERE tenant = ?1 AND kind = 'site'`, c.tenant).Scan(&sitePage); err != nil {
			return row, err
		}
		return keypage.Get(t.Context(), tx, c.tenant, sitePage)
	})
	w.UpdateSites()
	w.FinishRoll(nodetest.SitePolicy)
	w.Node.Upkeep.Wait()
	c.blobs = blobFiles(t, w)

	other := secondTenant(t, w)
	other.Vault("Fabrikam-V1", access.Exchange.String())
	other.Vault("Fabrikam-V2", access.Exchange.String())
	other.Script(fmt.Sprintf("New-DataEncryptionPolicy -Name %s -AzureKeyIDs %s, %s", nodetest.MailboxPolicy, other.KeyURI("Fabrikam-V1"), other.KeyURI("Fabrikam-V2")))
	other.Mailbox(eve, nodetest.MailboxPolicy)
	other.VerifyClean()
	w.VerifyClean()
	w.Stop()
	return c
}

// secondTenant makes another tenant on a running node and returns a World of its admin.
func secondTenant(t *testing.T, w *nodetest.World) *nodetest.World {
	t.Helper()
	ctx := t.Context()
	directory, err := access.Open(ctx, access.Config{DB: w.Node.DB, Seal: sealerOf(t, w.Data), VaultDomain: w.Info.VaultDomain, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var tenant access.Tenant
	err = w.Node.DB.InTx(ctx, func(tx *store.Tx) error {
		tenant, err = directory.CreateTenant(ctx, tx, "Fabrikam")
		return err
	})
	err = errors.Join(err, w.Node.Policies.Bootstrap(ctx, tenant.ID, tenant.GUID), w.Node.Containers.Bootstrap(ctx, tenant.ID))
	if err != nil {
		t.Fatal(err)
	}
	token, err := directory.AdminToken(ctx, tenant.ID)
	if err != nil {
		t.Fatal(err)
	}
	return w.As(token)
}

// ask runs a query on a database.
func ask[T any](t *testing.T, db *store.DB, f func(tx *store.Tx) (T, error)) (answer T) {
	t.Helper()
	err := db.ViewOnce(t.Context(), func(tx *store.Tx) (err error) {
		answer, err = f(tx)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func pageOf(t *testing.T, w *nodetest.World, mailbox string) keypage.Row {
	t.Helper()
	c, err := w.Node.Containers.Find(t.Context(), w.Node.Tenant.ID, container.Mailbox, mailbox)
	if err != nil {
		t.Fatal(err)
	}
	return ask(t, w.Node.DB, func(tx *store.Tx) (keypage.Row, error) { return keypage.Get(t.Context(), tx, c.Tenant, c.Page) })
}

// blobFiles returns the blob files of the site's two files.
func blobFiles(t *testing.T, w *nodetest.World) [2]string {
	t.Helper()
	ids := ask(t, w.Node.DB, func(tx *store.Tx) (ids []int64, err error) {
		rows, err := tx.Query(t.Context(), `SELECT b.id FROM blob b JOIN item i ON i.id = b.item WHERE i.path_hash IS NOT NULL ORDER BY b.id`)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			var id int64
			if err := rows.Scan(&id); err != nil {
				return nil, err
			}
			ids = append(ids, id)
		}
		return ids, rows.Err()
	})
	var files [2]string
	err := filepath.WalkDir(filepath.Join(w.Data, "blobs"), func(path string, entry os.DirEntry, err error) error {
		for i, id := range ids {
			if filepath.Base(path) == fmt.Sprintf("%016x", id) {
				files[i], _ = filepath.Rel(w.Data, path)
			}
		}
		return err
	})
	if err != nil || len(ids) != 2 || files[0] == "" || files[1] == "" {
		t.Fatalf("blob files %q of blobs %d: %v", files, ids, err)
	}
	return files
}

// forger edits stored data. It has the database and the files, but not the seal unless
// stated otherwise.
type forger struct {
	forgeryTest
	t  *testing.T
	tx *store.Tx
}

func (f forger) exec(query string, args ...any) {
	f.t.Helper()
	n, err := f.tx.Exec(f.t.Context(), query, args...)
	if err != nil || n == 0 {
		f.t.Fatalf("%s: %d rows, %v", query, n, err)
	}
}

func (f forger) number(query string, args ...any) (n int64) {
	f.t.Helper()
	if err := f.tx.QueryRow(f.t.Context(), query, args...).Scan(&n); err != nil {
		f.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// putBack replaces a page's row by an earlier version of it.
func (f forger) putBack(r keypage.Row) {
	f.t.Helper()
	f.exec(`UPDATE key_page SET parent = ?2, generation = ?3, class = ?4, version = ?5, count = ?6, body = ?7 WHERE id = ?1`,
		r.ID, r.Parent, r.Generation, r.Class, r.Version, r.Count, r.Body)
}

// sealedSegment is the length of a full segment of a blob file, header the length of the
// bytes before the first one.
const sealedSegment = envelope.SegmentSize + 28

func header(content []byte) int { return len(content) - 3*sealedSegment - (100 + 28) }

func (f forger) blob(i int, edit func(content []byte) []byte) {
	f.t.Helper()
	path := filepath.Join(f.data, f.blobs[i])
	content, err := os.ReadFile(path)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, edit(content), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// segment is the n-th segment of a blob file.
func segment(content []byte, n int) []byte {
	begin := header(content) + n*sealedSegment
	return content[begin:min(begin+sealedSegment, len(content))]
}

// exchange swaps the values of a column of two rows.
func (f forger) exchange(table, column, where string) {
	f.t.Helper()
	rows, err := f.tx.Query(f.t.Context(), fmt.Sprintf(`SELECT id, %s FROM %s WHERE %s ORDER BY id`, column, table, where))
	if err != nil {
		f.t.Fatal(err)
	}
	var ids []int64
	var values []any
	for rows.Next() {
		var id int64
		var value any
		if err := rows.Scan(&id, &value); err != nil {
			f.t.Fatal(err)
		}
		if b, ok := value.([]byte); ok {
			value = bytes.Clone(b)
		}
		ids, values = append(ids, id), append(values, value)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(ids) != 2 {
		f.t.Fatalf("%d rows of %s, %v", len(ids), table, err)
	}
	set := fmt.Sprintf(`UPDATE %s SET %s = ?2 WHERE id = ?1`, table, column)
	out := any([]byte("out of the way"))
	if table == "blob" { // a blob's item must be there
		f.exec(`INSERT INTO item SELECT 1, tenant, container, version, NULL, metadata, size, created FROM item WHERE id = ?1`, values[0])
		out = int64(1)
		defer f.exec(`DELETE FROM item WHERE id = ?1`, 1)
	}
	f.exec(set, ids[0], out)
	f.exec(set, ids[1], values[0])
	f.exec(set, ids[0], values[1])
}

// forgeRevision replaces the wraps of alice's revision by wraps of a key that
// the forger chose, made only with the public halves of the customer keys.
func forgeRevision(f forger) {
	chosen := envelope.NewKey()
	var primary, secondary []byte
	err := f.tx.QueryRow(f.t.Context(), `SELECT a.public, b.public FROM revision r
		JOIN vault_key_version a ON a.version = r.primary_version JOIN vault_key_version b ON b.version = r.secondary_version
		WHERE r.policy_key = ?1 AND r.erased = 0`, f.number(currentKey, f.tenant)).Scan(&primary, &secondary)
	if err != nil {
		f.t.Fatal(err)
	}
	var tenant, policy string
	err = f.tx.QueryRow(f.t.Context(), `SELECT t.guid, p.guid FROM tenant t JOIN policy p ON p.tenant = t.id WHERE t.id = ?1 AND p.name = 'USA_mailboxes'`, f.tenant).Scan(&tenant, &policy)
	if err != nil {
		f.t.Fatal(err)
	}
	bundle := envelope.Bundle(chosen, envelope.Binding{Tenant: uuid.MustParse(tenant), Policy: uuid.MustParse(policy),
		PolicyKey: f.number(currentKey, f.tenant), Generation: uint32(f.number(`SELECT generation FROM policy_key WHERE id = ?1`, f.number(currentKey, f.tenant)))})
	f.exec(`UPDATE revision SET wrap_primary = ?2, wrap_secondary = ?3 WHERE policy_key = ?1 AND erased = 0`,
		f.number(currentKey, f.tenant), wrapTo(f.t, primary, bundle), wrapTo(f.t, secondary, bundle))
}

func wrapTo(t *testing.T, public, bundle []byte) []byte {
	t.Helper()
	key, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, key.(*rsa.PublicKey), bundle, nil)
	if err != nil {
		t.Fatal(err)
	}
	return wrapped
}

func tryAll(t *testing.T, c forgeryTest, forgeries []forgery) {
	for _, forgery := range forgeries {
		t.Run(forgery.name, func(t *testing.T) { c.tryForgery(t, forgery) })
	}
}

func (c forgeryTest) tryForgery(t *testing.T, forgery forgery) {
	original := c.data
	c.data = filepath.Join(t.TempDir(), "data")
	nodetest.CopyFolder(t, original, c.data)
	unwraps := func(db *store.DB) int64 {
		return ask(t, db, func(tx *store.Tx) (int64, error) {
			f := forger{c, t, tx}
			return f.number(`SELECT count(*) FROM audit_entry WHERE detail LIKE ?1`, fmt.Sprintf("unwrap policy key %d %%", f.number(forgery.noUnwrapOf, c.tenant))), nil
		})
	}
	var before int64
	db, err := store.Open(t.Context(), "sqlite://"+filepath.Join(c.data, node.DatabaseFile))
	if err != nil {
		t.Fatal(err)
	}
	err = db.InTx(t.Context(), func(tx *store.Tx) error {
		forgery.forge(forger{c, t, tx})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if forgery.noUnwrapOf != "" {
		before = unwraps(db)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	w := nodetest.Start(t, node.Options{Data: c.data, PageSlots: 4, Idle: true})
	if forgery.read != nil {
		err := forgery.read(w)
		var p *api.Problem
		switch {
		case err == nil:
			t.Errorf("content was read")
		case !errors.As(err, &p) || p.Code != api.Damaged && !(forgery.kind == "item" && p.Code == api.Truncated):
			t.Errorf("reading failed with %v (%+v), not as damaged", err, p)
		default:
			t.Logf("reading: %s [%s]", p.Detail, p.Code)
		}
	}
	v := w.Verify()
	if len(v.Damaged) == 0 {
		t.Errorf("verify found nothing damaged, closed: %+v", v.Closed)
	}
	named := false
	for _, d := range v.Damaged {
		t.Logf("verify: %s %s: %s", d.Kind, d.ID, d.Detail)
		named = named || d.Kind == forgery.kind && (forgery.names == nil || d.ID == forgery.names(c))
	}
	if !named {
		t.Errorf("verify did not name the %s", forgery.kind)
	}
	if len(v.Closed) > 0 {
		t.Errorf("verify calls it closed: %+v", v.Closed)
	}
	if forgery.noUnwrapOf != "" {
		if after := unwraps(w.Node.DB); after != before {
			t.Errorf("%d unwraps of the policy key were asked for", after-before)
		}
	}
}
