package contenttest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/envelope"
	"keyroll/internal/items"
	"keyroll/internal/store"
)

// WantHealthy fails unless every item of both containers can be read, the database has as
// many slots as blobs, and, if exact, the blob store has no other objects than theirs.
func (w *Small) WantHealthy(t testing.TB, exact bool) {
	t.Helper()
	ctx := context.Background()
	if exact {
		w.collectWithoutOrphans(t)
	} else {
		w.MustCollect(t, time.Hour) // what was dropped
	}
	for _, c := range []container.Container{w.Mail, w.Site} {
		Must(t, w.Check(ctx, c, func(r content.Checked) error { return r.Err }))
	}
	var rows, slots, objects int64
	Must(t, w.DB.ViewOnce(ctx, func(tx *store.Tx) error {
		return tx.QueryRow(ctx, `SELECT (SELECT COUNT(*) FROM blob), CAST(COALESCE(SUM(count), 0) AS BIGINT),
			(SELECT COUNT(DISTINCT CASE WHEN object = 0 THEN id ELSE object END) FROM blob) FROM key_page WHERE class = ?1`, envelope.ClassBlob).Scan(&rows, &slots, &objects)
	}))
	if rows != slots {
		t.Errorf("%d blobs, %d slots in their pages", rows, slots)
	}
	if stored := int64(len(w.BlobNames(t))); stored < objects || exact && stored > objects {
		t.Errorf("%d objects in the database, %d in the blob store", objects, stored)
	}
}

// Pages counts the key pages of blobs.
func (w *Small) Pages(t testing.TB) (pages int) {
	t.Helper()
	Must(t, w.DB.ViewOnce(context.Background(), func(tx *store.Tx) error {
		return tx.QueryRow(context.Background(), `SELECT COUNT(*) FROM key_page WHERE class = ?1`, envelope.ClassBlob).Scan(&pages)
	}))
	return pages
}

// BlobNames returns the names of all objects in the blob store.
func (w *Small) BlobNames(t testing.TB) (names []string) {
	t.Helper()
	Must(t, w.Blobs.List(context.Background(), "", func(name string, _ int64) error {
		names = append(names, name)
		return nil
	}))
	return names
}

// AllTables returns every row of this package's tables, for comparison.
func (w *Small) AllTables(t testing.TB) string {
	t.Helper()
	ctx := context.Background()
	var all strings.Builder
	Must(t, w.DB.ViewOnce(ctx, func(tx *store.Tx) error {
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

// FilesOf reads every file of a container, also one of kind backup.
func (w *Small) FilesOf(t testing.TB, c container.Container) map[string]string {
	t.Helper()
	list, err := w.Files(context.Background(), c)
	Must(t, err)
	all := map[string]string{}
	for _, f := range list {
		var b bytes.Buffer
		Must(t, w.Get(context.Background(), c, f.Path, 0, -1, &b))
		all[f.Path] = b.String()
	}
	return all
}

// WantExact fails unless every item of every container can be read, and no row or blob is
// missing or left over.
func (w *Small) WantExact(t testing.TB) {
	t.Helper()
	ctx := context.Background()
	var all []container.Container
	Must(t, w.DB.ViewOnce(ctx, func(tx *store.Tx) (err error) {
		all, err = w.Containers.All(ctx, tx, Tenant, 0, 10_000)
		return err
	}))
	for _, c := range all {
		Must(t, w.Check(ctx, c, func(r content.Checked) error { return r.Err }))
	}
	w.WantExactRows(t)
}

// collectWithoutOrphans deletes what was dropped, and fails if there are orphans.
func (w *Small) collectWithoutOrphans(t testing.TB) {
	t.Helper()
	found, err := w.CollectTenant(context.Background(), Tenant, 0, true)
	Must(t, err)
	if found.Orphans != 0 {
		t.Errorf("%d objects in the blob store of no row", found.Orphans)
	}
	w.MustCollect(t, 0)
}

// WantExactRows fails unless the key pages and the blob store contain exactly what rows
// reference, and the container of every row exists.
func (w *Small) WantExactRows(t testing.TB) {
	t.Helper()
	w.collectWithoutOrphans(t)
	ctx := context.Background()
	var named []string
	Must(t, w.DB.ViewOnce(ctx, func(tx *store.Tx) (err error) {
		for what, query := range map[string]string{
			"items of no container": `SELECT COUNT(*) FROM item WHERE container NOT IN (SELECT id FROM container)`,
			"key pages beside those that blobs point to": fmt.Sprintf(`SELECT COUNT(*) FROM key_page k WHERE class = %d
				AND count <> (SELECT COUNT(*) FROM blob b JOIN item i ON i.id = b.item WHERE b.page = k.id AND i.container = k.parent)`, envelope.ClassBlob),
			"blobs that wait to go":    `SELECT COUNT(*) FROM dropped`,
			"containers half way":      `SELECT COUNT(*) FROM unfinished`,
			"backups of no container":  `SELECT COUNT(*) FROM backup WHERE id NOT IN (SELECT id FROM container)`,
			"containers of no page":    `SELECT COUNT(*) FROM container WHERE page NOT IN (SELECT id FROM key_page)`,
			"key pages of no blob key": fmt.Sprintf(`SELECT COUNT(*) FROM key_page WHERE class = %d AND parent NOT IN (SELECT id FROM container)`, envelope.ClassBlob),
		} {
			var n int
			if err := tx.QueryRow(ctx, query).Scan(&n); err != nil {
				return err
			}
			if n != 0 {
				t.Errorf("%s: %d", what, n)
			}
		}
		named, err = w.wantExactObjects(ctx, t, tx)
		return err
	}))
	stored := map[string]bool{}
	for _, name := range w.BlobNames(t) {
		stored[name[strings.LastIndex(name, "/")+1:]] = true
	}
	for _, name := range named {
		if !stored[name] {
			t.Errorf("object %s is missing", name)
		}
	}
	if len(stored) != len(named) {
		t.Errorf("%d objects in the database, %d in the blob store", len(named), len(stored))
	}
}

// wantExactObjects fails unless table object has exactly the rows that it has to have, and
// returns the names of all objects.
func (w *Small) wantExactObjects(ctx context.Context, t testing.TB, tx *store.Tx) (names []string, err error) {
	t.Helper()
	blobs, err := store.Collect(ctx, tx, func(row store.Scanner) (b items.Blob, err error) {
		return b, row.Scan(&b.ID, &b.Size, &b.Object, &b.At)
	}, `SELECT DISTINCT id, size, object, at FROM blob`)
	if err != nil {
		return nil, err
	}
	live := map[int64]int64{}
	found := map[int64]bool{}
	for _, b := range blobs {
		if !found[b.ObjectID()] {
			found[b.ObjectID()] = true
			names = append(names, fmt.Sprintf("%016x", b.ObjectID()))
		}
		if b.Object != 0 {
			live[b.Object] += b.SealedSize()
		}
	}
	objects, err := store.Collect(ctx, tx, func(row store.Scanner) (o items.Object, err error) {
		return o, row.Scan(&o.ID, &o.Size, &o.Dead)
	}, `SELECT id, size, dead FROM object`)
	for _, o := range objects {
		if live[o.ID] == 0 || o.Size-o.Dead != live[o.ID] {
			t.Errorf("object %d: %d of %d bytes are dead, %d live", o.ID, o.Dead, o.Size, live[o.ID])
		}
		delete(live, o.ID)
	}
	if len(live) > 0 {
		t.Errorf("%d objects have no row", len(live))
	}
	return names, err
}
