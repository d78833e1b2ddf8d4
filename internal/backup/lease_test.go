package backup_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/backup"
	"keyroll/internal/fault"
	"keyroll/internal/lease"
	"keyroll/internal/store"
)

// Other nodes do not touch a copy under way while its node lives. When that node is
// considered dead, another node deletes the rows of the copy; when the first node wakes
// up, it does not continue the copy and leaves no rows.
func TestACopyBelongsToItsNodeWhileTheNodeRuns(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		ctx := context.Background()
		for i := range 9 {
			w.MustPut(t, fmt.Sprint("file", i), fmt.Sprint("content ", i))
		}
		w.Backups.Leases = lease.New(w.DB, "a", time.Hour)
		other := w.Connect(w.Blobs)
		other.Backups.Leases = lease.New(w.DB, "b", time.Hour)
		defer fault.Set(nil)
		for _, at := range []string{"", "copy.begun", "copy.part-stored"} {
			before := w.AllTables(t)
			fault.Set(func(name string) {
				if name == "create.before-commit" { // in a transaction, which the other one waits for
					return
				}
				if name == at {
					must(t, w.DB.InTx(ctx, func(tx *store.Tx) error { return lease.End(ctx, tx, "a") }))
				}
				must(t, other.Backups.DeleteLeftoverRows(ctx, tenant))
			})
			err := w.Backup(ctx, w.Site, time.Time{}, func(*store.Tx, backup.Backup) error { return nil })
			fault.Set(nil)
			if at == "" {
				must(t, err)
			} else {
				wantCode(t, err, api.Unavailable)
				must(t, other.Backups.DeleteLeftoverRows(ctx, tenant))
				if w.AllTables(t) != before {
					t.Errorf("something is left of a copy that was given up at %s", at)
				}
			}
			w.WantExact(t)
		}
	})
}
