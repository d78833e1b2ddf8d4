package content_test

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/container"
	"keyroll/internal/container/containertest"
	"keyroll/internal/content"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/items"
	"keyroll/internal/mbox/mboxtest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

const (
	tenant    = 7
	pageSlots = 8
)

// fixture is a Contents over real containers, a real database and real blobs, with one
// mailbox and one site.
type fixture struct {
	contenttest.Contents
	db         *store.DB
	policies   *containertest.Policies
	containers containertest.Containers
	blobs      blob.Store
	blobDir    string
	mail, site container.Container

	sizes items.Sizes
	now   func() time.Time
	older bool // a node is live that does not keep totals
}

// The lines with which messages begin.
const (
	ann = mboxtest.Ann
	bob = mboxtest.Bob
)

// blobSize is small in most tests, and not a divisor of a segment.
const blobSize = 100_000

func newFixture(t testing.TB, db *store.DB) *fixture {
	t.Helper()
	w := &fixture{db: db, policies: containertest.NewPolicies(t, db), blobDir: filepath.Join(t.TempDir(), "blobs")}
	w.policies.Create(t, tenant, containertest.ServiceManaged)
	ctx := context.Background()
	w.containers = containertest.Containers{Containers: container.New(db, w.policies, pageSlots, time.Now), DB: db}
	t.Cleanup(w.containers.Close)
	must(t, w.containers.Bootstrap(ctx, tenant))
	w.mail = w.create(t, container.Mailbox, "alice@contoso.com")
	w.site = w.create(t, container.Site, "https://contoso.sharepoint.com/sites/a")
	w.reopen(t)
	return w
}

// revokeAfter revokes the policy key after it was opened so many times.
func (w *fixture) revokeAfter(opens int64) {
	var n atomic.Int64
	w.policies.Opening = func(int64) error {
		if n.Add(1) > opens {
			return fail.New(api.VaultDenied, "the key is revoked")
		}
		return nil
	}
}

// reopen returns the fixture as the next process sees it.
func (w *fixture) reopen(t testing.TB) {
	t.Helper()
	blobs, err := blob.Open(context.Background(), "file://"+w.blobDir)
	must(t, err)
	w.blobs = blobs
	w.Contents = w.connect(blobs)
}

// connect returns the content of the fixture over a blob store, with the settings of the
// fixture.
func (w *fixture) connect(blobs blob.Store) contenttest.Contents {
	if w.sizes == (items.Sizes{}) {
		w.sizes = items.Sizes{Blob: blobSize, Batch: 4, Part: 4}
	}
	if w.now == nil {
		w.now = time.Now
	}
	return contenttest.Connect(contenttest.Config{DB: w.db, Containers: w.containers.Containers, Blobs: blobs, Slots: pageSlots, Sizes: w.sizes, Now: w.now,
		OlderNodes: func(context.Context, *store.Tx) (bool, error) { return w.older, nil }})
}

func (w *fixture) create(t testing.TB, kind container.Kind, name string) container.Container {
	t.Helper()
	var c container.Container
	must(t, storetest.Ask(context.Background(), t, func(ctx context.Context) (err error) {
		c, err = w.containers.Create(ctx, tenant, kind, name, 0)
		return err
	}, func() bool { return w.exists(&c, kind, name) }))
	return c
}

// exists reads a container, if it exists.
func (w *fixture) exists(c *container.Container, kind container.Kind, name string) bool {
	there, err := w.containers.Find(context.Background(), tenant, kind, name)
	if err == nil {
		*c = there
	}
	return err == nil
}

// each runs a test in a new fixture on each database.
func each(t *testing.T, test func(t *testing.T, w *fixture)) {
	storetest.Each(t, func(t *testing.T, db *store.DB) { test(t, newFixture(t, db)) })
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t testing.TB, err error, code api.Code) {
	t.Helper()
	if !fail.Is(err, code) {
		t.Fatalf("error %v (%s), want code %s", err, fail.CodeOf(err), code)
	}
}

func (w *fixture) importMail(t testing.TB, mbox string) content.Imported {
	t.Helper()
	items, bytes := w.totals(t)
	var done content.Imported
	rest := mbox
	must(t, storetest.Ask(context.Background(), t, func(ctx context.Context) (err error) {
		done, err = w.Import(ctx, w.mail, int64(len(rest)), strings.NewReader(rest), content.ImportOptions{})
		return err
	}, func() bool { // whole messages of it may be there
		_, now := w.totals(t)
		rest = mbox[now-bytes:]
		return rest == ""
	}))
	if done.Bytes != int64(len(mbox)) { // in several requests
		now, _ := w.totals(t)
		done = content.Imported{Messages: now - items, Bytes: int64(len(mbox))}
	}
	return done
}

func (w *fixture) totals(t testing.TB) (items, bytes int64) {
	t.Helper()
	must(t, w.db.ViewOnce(context.Background(), func(tx *store.Tx) (err error) {
		items, bytes, err = w.Totals(context.Background(), tx, w.mail)
		return err
	}))
	return items, bytes
}

func (w *fixture) export(t testing.TB) string {
	t.Helper()
	var b bytes.Buffer
	must(t, w.Export(context.Background(), w.mail, &b))
	return b.String()
}

func (w *fixture) messages(t testing.TB) []content.Message {
	t.Helper()
	list, err := w.Messages(context.Background(), w.mail, 0, 10_000)
	must(t, err)
	return list
}

func (w *fixture) put(t testing.TB, path, body string) content.File {
	t.Helper()
	var f content.File
	must(t, storetest.Ask(context.Background(), t, func(ctx context.Context) (err error) {
		f, err = w.Put(ctx, w.site, path, int64(len(body)), strings.NewReader(body))
		return err
	}, func() bool {
		list, err := w.Files(context.Background(), w.site)
		must(t, err)
		i := slices.IndexFunc(list, func(f content.File) bool { return f.Path == path })
		if i < 0 || w.get(t, path) != body {
			return false
		}
		f = list[i]
		return true
	}))
	return f
}

func (w *fixture) get(t testing.TB, path string) string {
	t.Helper()
	var b bytes.Buffer
	must(t, w.Get(context.Background(), w.site, path, 0, -1, &b))
	return b.String()
}

// wantHealthy fails unless every item of both containers can be read, the database has as
// many slots as blobs, and, if exact, the blob store has no other blobs.
func (w *fixture) wantHealthy(t testing.TB, exact bool) {
	t.Helper()
	ctx := context.Background()
	w.collect(t, time.Hour) // what was dropped
	for _, c := range []container.Container{w.mail, w.site} {
		must(t, w.Check(ctx, c, func(r content.Checked) error { return r.Err }))
	}
	var rows, slots int64
	must(t, w.db.ViewOnce(ctx, func(tx *store.Tx) error {
		return tx.QueryRow(ctx, `SELECT (SELECT COUNT(*) FROM blob), CAST(COALESCE(SUM(count), 0) AS BIGINT) FROM key_page WHERE class = ?1`, envelope.ClassBlob).Scan(&rows, &slots)
	}))
	if rows != slots {
		t.Errorf("%d blobs, %d slots in their pages", rows, slots)
	}
	if stored := int64(len(w.blobNames(t))); stored < rows || exact && stored > rows {
		t.Errorf("%d blobs in the database, %d in the blob store", rows, stored)
	}
}

// pages counts the key pages of blobs.
func (w *fixture) pages(t testing.TB) (pages int) {
	t.Helper()
	must(t, w.db.ViewOnce(context.Background(), func(tx *store.Tx) error {
		return tx.QueryRow(context.Background(), `SELECT COUNT(*) FROM key_page WHERE class = ?1`, envelope.ClassBlob).Scan(&pages)
	}))
	return pages
}

func (w *fixture) blobNames(t testing.TB) (names []string) {
	t.Helper()
	must(t, w.blobs.List(context.Background(), "", func(name string, _ int64) error {
		names = append(names, name)
		return nil
	}))
	return names
}

// allTables returns every row of this package's tables, for comparison.
func (w *fixture) allTables(t testing.TB) string {
	t.Helper()
	ctx := context.Background()
	var all strings.Builder
	must(t, w.db.ViewOnce(ctx, func(tx *store.Tx) error {
		for _, query := range []string{
			`SELECT id, version, path_hash, metadata, size FROM item ORDER BY id`,
			`SELECT id, page, NULL, NULL, size FROM blob ORDER BY id`,
			`SELECT id, version, body, NULL, count FROM key_page ORDER BY id`,
		} {
			rows, err := tx.Query(ctx, query)
			if err != nil {
				return err
			}
			for rows.Next() {
				var a, b, c int64
				var x, y []byte
				if err := rows.Scan(&a, &b, &x, &y, &c); err != nil {
					return err
				}
				all.Write(bytes.Join([][]byte{x, y, []byte(time.Duration(a).String()), []byte(time.Duration(b).String()), []byte(time.Duration(c).String()), []byte("\n")}, []byte(" ")))
			}
			if err := rows.Err(); err != nil {
				return err
			}
		}
		return nil
	}))
	return all.String()
}

// files returns the bytes of every file under dir.
func files(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	must(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		all[path], err = os.ReadFile(path)
		return err
	}))
	return all
}

// zeros is a large body that uses no memory.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func zeroBytes(n int64) io.Reader { return io.LimitReader(zeros{}, n) }
