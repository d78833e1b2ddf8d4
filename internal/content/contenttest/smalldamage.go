package contenttest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyroll/internal/container"
	"keyroll/internal/container/containertest"
	"keyroll/internal/fault"
	"keyroll/internal/items"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// Stored is a blob as seen in its row and its object, which is the file at Path. It is alone
// in the file unless it is Shared.
type Stored struct {
	ID, Item, Page int64
	Path           string
	At, Len        int64
	Shared         bool
}

// StoredBlobs returns the blobs of a fixture in the order of their ids.
func (w *Small) StoredBlobs(t testing.TB) (list []Stored) {
	t.Helper()
	ctx := context.Background()
	Must(t, w.DB.ViewOnce(ctx, func(tx *store.Tx) error {
		rows, err := tx.Query(ctx, `SELECT id, item, page, size, object, at FROM blob ORDER BY id`)
		if err != nil {
			return err
		}
		for rows.Next() {
			var b items.Blob
			if err := rows.Scan(&b.ID, &b.Item, &b.Page, &b.Size, &b.Object, &b.At); err != nil {
				return err
			}
			list = append(list, Stored{ID: b.ID, Item: b.Item, Page: b.Page, Path: fmt.Sprintf("/%016x", b.ObjectID()), At: b.At, Len: b.SealedSize(), Shared: b.Object != 0})
		}
		return rows.Err()
	}))
	for i, s := range list {
		for _, name := range w.BlobNames(t) {
			if strings.HasSuffix(name, s.Path) {
				list[i].Path = filepath.Join(w.BlobDir, name)
			}
		}
	}
	return list
}

// Exec runs a statement that changes rows.
func (w *Small) Exec(t testing.TB, query string, args ...any) {
	t.Helper()
	ctx := context.Background()
	Must(t, w.DB.InTx(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec(ctx, query, args...)
		if err == nil && n == 0 {
			err = errors.New("nothing was changed")
		}
		return err
	}))
}

// Change rewrites the bytes of a blob in its object.
func (s Stored) Change(t testing.TB, f func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(s.Path)
	Must(t, err)
	if !s.Shared {
		Must(t, os.WriteFile(s.Path, f(b), 0o600))
		return
	}
	changed := f(slices.Clone(b[s.At : s.At+s.Len]))
	Must(t, os.WriteFile(s.Path, slices.Concat(b[:s.At], changed, b[s.At+s.Len:]), 0o600))
}

// Lose destroys the bytes of a blob and of no other one.
func (s Stored) Lose(t testing.TB) {
	t.Helper()
	if !s.Shared {
		Must(t, os.Remove(s.Path))
		return
	}
	s.Change(t, func(b []byte) []byte { return make([]byte, len(b)) })
}

// UseDatabase returns the fixture of a process that continues with another database.
func (w *Small) UseDatabase(t testing.TB, db *store.DB) {
	t.Helper()
	w.DB, w.Policies.DB = db, db
	w.Containers.Close()
	w.Containers = containertest.Containers{Containers: container.New(db, w.Policies, SmallSlots, time.Now), DB: db}
	t.Cleanup(w.Containers.Close)
	w.Reopen(t)
}

// LoseIndexWrites calls a function while writes to an index are lost.
func (w *Small) LoseIndexWrites(t testing.TB, index string, during func()) {
	t.Helper()
	w.UseDatabase(t, storetest.LoseWrites(t, w.DB, index, func(db *store.DB) {
		w.UseDatabase(t, db)
		during()
	}))
}

// AllRows returns the content of the rows, read without an index.
func (w *Small) AllRows(t testing.TB) (all string) {
	t.Helper()
	for _, query := range []string{
		`SELECT id, +container, 0, 0 FROM item ORDER BY +id`, `SELECT id, +item, +sequence, +page FROM blob ORDER BY +id, +item`,
		`SELECT id, +parent, +version, +count FROM key_page ORDER BY +id`, `SELECT blob, +item, 0, 0 FROM dropped ORDER BY +blob`,
	} {
		Must(t, w.DB.ViewOnce(t.Context(), func(tx *store.Tx) error {
			lines, err := store.Collect(t.Context(), tx, func(row store.Scanner) (string, error) {
				var n [4]int64
				err := row.Scan(&n[0], &n[1], &n[2], &n[3])
				return fmt.Sprintln(n), err
			}, query)
			all += query + "\n" + strings.Join(lines, "")
			return err
		}))
	}
	return all
}

// died is the panic value of a process that dies at a fault point.
type died struct{ point string }

// DieAt runs f, which dies when it reaches a fault point for the nth time, and
// reports whether it died.
func DieAt(point string, n int, f func()) (dead bool) {
	fault.Set(func(name string) {
		if name == point {
			if n--; n == 0 {
				panic(died{point})
			}
		}
	})
	defer fault.Set(nil)
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(died); !ok {
				panic(r)
			}
			dead = true
		}
	}()
	f()
	return false
}
