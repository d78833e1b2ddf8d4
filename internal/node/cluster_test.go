package node_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/lease"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func folder(parts ...string) string {
	return (&url.URL{Scheme: "file", Path: filepath.Join(parts...)}).String()
}

// If a store is in the data folder of one node, no other node may run or start on the
// database; the error says what to do.
func TestANodeWithAStoreInItsDataFolderIsTheOnlyNode(t *testing.T) {
	t.Parallel()
	shared := t.TempDir()
	seal := folder(shared, "seal")
	elsewhere := func(o node.Options) node.Options {
		o.Availability, o.Blobs = folder(shared, "availability"), folder(shared, "blobs")
		return o
	}
	for _, c := range []struct {
		name string
		own  func(o node.Options) node.Options
		says string
	}{
		{"availability by default", func(o node.Options) node.Options { o.Availability = ""; return o }, "--availability https://"},
		{"availability named", func(o node.Options) node.Options { o.Availability = folder(o.Data, "keys"); return o }, "--availability https://"},
		{"blobs by default", func(o node.Options) node.Options { o.Blobs = ""; return o }, "--blobs s3://BUCKET"},
		{"blobs by a link", func(o node.Options) node.Options {
			link := filepath.Join(filepath.Dir(o.Data), "link")
			if err := os.MkdirAll(o.Data, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(o.Data, link); err != nil {
				t.Fatal(err)
			}
			o.Blobs = folder(link, "blobs") // not to be taken for a folder elsewhere
			return o
		}, "--blobs s3://BUCKET"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // a node that is refused has waited whether the other one is dead
			database := storetest.PostgresURL(t)
			all := func() node.Options {
				return elsewhere(node.Options{Data: filepath.Join(t.TempDir(), "data"), Database: database, Seal: seal})
			}
			refused := func(o node.Options) {
				t.Helper()
				n, err := node.Start(context.Background(), o)
				if err == nil {
					n.Close()
				}
				_, detail, hint := fail.Public(err)
				if !fail.Is(err, api.Conflict) || !strings.Contains(detail, "in its own data folder") || !strings.Contains(hint, c.says) {
					t.Errorf("%v, hint %q", err, hint)
				}
			}
			w := nodetest.Start(t, c.own(all()))
			refused(all()) // whatever the new one has
			w.Stop()
			if strings.HasPrefix(c.name, "blobs") {
				database = storetest.PostgresURL(t) // with no blobs elsewhere
				nodetest.Start(t, all())
				refused(c.own(all())) // or the one that runs
				nodetest.Start(t, all())
			}
		})
	}
}

// A node is evicted, and an incompatible node joins. When the first one resumes, it
// stops by itself and says why.
func TestAnEvictedNodeStopsIfAnIncompatibleNodeJoined(t *testing.T) {
	t.Parallel()
	database := storetest.PostgresURL(t)
	n, err := node.Start(context.Background(), node.Options{Data: nodetest.Folder(t), Database: database})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	err = storetest.Open(t, database).InTx(ctx, func(tx *store.Tx) error {
		if err := lease.End(ctx, tx, n.Name); err != nil {
			return err
		}
		if _, _, err := lease.Take(ctx, tx, "node/other", "other", time.Hour); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE node SET name = 'other', own = ''`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	<-n.Done()
	if err := n.Close(); !fail.Is(err, api.Conflict) || !strings.Contains(err.Error(), "in its own data folder") {
		t.Errorf("it stopped: %v", err)
	}
}

func TestANodeWithAnotherSealRefusesTheSharedDatabase(t *testing.T) {
	t.Parallel()
	database, shared := storetest.PostgresURL(t), t.TempDir()
	o := node.Options{Database: database, Seal: folder(shared, "seal"), Blobs: folder(shared, "blobs"), Availability: folder(shared, "availability")}
	nodetest.Start(t, o)
	o.Data, o.Seal = filepath.Join(t.TempDir(), "data"), ""
	if n, err := node.Start(context.Background(), o); !fail.Is(err, api.WrongSeal) {
		if err == nil {
			n.Close()
		}
		t.Error(err)
	}
}

// A node that died leaves a transaction open, which holds the lock of a policy, and
// leases that have not expired. More requests on the other node wait for that lock than
// it has connections. It still detects that the node is dead, releases its locks and
// leases, and continues its work.
func TestLeasesOfADeadNodeExpireAndItsWorkContinues(t *testing.T) {
	t.Parallel()
	database := storetest.PostgresURL(t)
	w := nodetest.Start(t, node.Options{Database: database})
	w.StageMail()
	w.Mailbox("alice@contoso.com", nodetest.MailboxPolicy)
	w.RevokeMail()
	w.RequestPurge(nodetest.MailboxPolicy)
	approvers := []string{w.Approver("dana"), w.Approver("erin")}
	tenant := w.Node.Tenant.ID

	dead := storetest.Open(t, database)
	ctx := t.Context()
	inTx := func(db *store.DB, fn func(tx *store.Tx) error) {
		t.Helper()
		if err := db.InTx(ctx, fn); err != nil {
			t.Fatal(err)
		}
	}
	var serviceManaged int64
	inTx(dead, func(tx *store.Tx) (err error) {
		serviceManaged, err = w.Node.Policies.ServiceManaged(ctx, tx, tenant)
		return err
	})
	draft := store.NewID()
	locked, died := make(chan struct{}), make(chan error)
	go func() {
		begun := false
		died <- dead.InTx(context.Background(), func(tx *store.Tx) error {
			if begun {
				return errors.New("it was undone, and is begun again")
			}
			begun = true
			if err := tx.Lock(ctx, serviceManaged, true); err != nil {
				return err
			}
			close(locked)
			<-died
			_, err := tx.Exec(ctx, `UPDATE policy SET name = 'of the dead' WHERE id = ?1`, serviceManaged)
			return err
		})
	}()
	<-locked
	inTx(dead, func(tx *store.Tx) error {
		for _, name := range []string{"purge", fmt.Sprint("copy/", draft)} {
			if _, held, err := lease.Take(ctx, tx, name, "dead", time.Hour); err != nil || !held {
				return fmt.Errorf("take %s: %v, %w", name, held, err)
			}
		}
		if _, err := tx.Exec(ctx, `INSERT INTO unfinished (container, tenant, copying) VALUES (?1, ?2, 1)`, draft, tenant); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO node (name, url, session, since, own) VALUES ('dead', '', ?1, 0, '')`, dead.Session())
		return err
	})
	var making errgroup.Group
	for i := range 40 {
		making.Go(func() error {
			var in api.CreateMailboxInput
			in.Body.Name = fmt.Sprintf("m%d@contoso.com", i)
			_, err := w.Client.CreateMailbox(ctx, in)
			return err
		})
	}
	for _, approver := range approvers {
		w.ApprovePurge(approver, nodetest.MailboxPolicy)
	}
	if err := making.Wait(); err != nil {
		t.Error(err)
	}
	w.WaitPurges()
	for left := int64(1); left > 0; pause() {
		inTx(dead, func(tx *store.Tx) error {
			return tx.QueryRow(ctx, `SELECT (SELECT COUNT(*) FROM unfinished) + (SELECT COUNT(*) FROM node WHERE name = 'dead')`).Scan(&left)
		})
	}
	died <- nil
	if err := <-died; err == nil {
		t.Error("the dead node changed something when it woke up")
	}
	if v := w.Verify(); len(v.Damaged) > 0 {
		t.Errorf("damaged: %+v", v.Damaged)
	}
}
