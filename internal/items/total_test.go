package items_test

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// wantTotals fails the test unless the totals of containers are kept and are right.
func wantTotals(t testing.TB, w *fixture, list ...container.Container) {
	t.Helper()
	for _, c := range list {
		must(t, w.Items.CheckTotal(t.Context(), c))
		if !keepsTotal(t, w, c) {
			t.Errorf("the total of container %d is not kept", c.ID)
		}
	}
}

func keepsTotal(t testing.TB, w *fixture, c container.Container) bool {
	t.Helper()
	var n int64
	must(t, w.DB.View(t.Context(), func(tx *store.Tx) error {
		return tx.QueryRow(t.Context(), `SELECT COUNT(*) FROM item_total WHERE tenant = ?1 AND container = ?2`, c.Tenant, c.ID).Scan(&n)
	}))
	return n == 1
}

func TestTotalsFollowEveryChangeOfItems(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.MustImport(t, contenttest.Mbox(3)) // before its total is kept
		must(t, w.Items.KeepTotals(t.Context(), tenant, []int64{w.Mail.ID, w.Site.ID, w.Site.ID, 17}))
		wantTotals(t, w, w.Mail, w.Site)
		w.MustImport(t, contenttest.Mbox(300)) // several transactions
		for i := range 5 {
			w.MustPut(t, fmt.Sprint("file", i%3), strings.Repeat("x", 10*i+1)) // some replace others
			wantTotals(t, w, w.Site)
		}
		if items, bytes := w.MustTotals(t); items != 303 || bytes != int64(len(contenttest.Mbox(3))+len(contenttest.Mbox(300))) {
			t.Errorf("%d items of %d bytes", items, bytes)
		}
		b := w.MustBackup(t, w.Mail)
		wantTotals(t, w, w.Mail, b.Container, w.MustRestore(t, b, "restored@contoso.com"))
		w.MustExpire(t, b)
		w.TidyUp(t)
		if keepsTotal(t, w, b.Container) {
			t.Error("the total of a deleted backup is kept")
		}
		wantTotals(t, w, w.Mail, w.Site)
	})
}

// Imports and puts into one container lose no count, also while it begins to be kept.
func TestTotalsOfConcurrentImportsAreExact(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		g, ctx := errgroup.WithContext(t.Context())
		for i := range 4 {
			g.Go(func() error {
				for n := range 3 {
					if _, err := w.Import(ctx, w.Mail, -1, strings.NewReader(contenttest.Mbox(2)), content.ImportOptions{}); err != nil {
						return err
					}
					if _, err := w.Put(ctx, w.Site, fmt.Sprint("file", (i+n)%3), -1, strings.NewReader(strings.Repeat("x", i+n))); err != nil && !fail.Is(err, api.Conflict) {
						return err
					}
				}
				return nil
			})
		}
		g.Go(func() error { return w.Items.KeepTotals(ctx, tenant, []int64{w.Site.ID, w.Mail.ID}) })
		must(t, g.Wait())
		wantTotals(t, w, w.Mail, w.Site)
		if items, _ := w.MustTotals(t); items != 24 {
			t.Errorf("%d items", items)
		}
	})
}

func TestTotalsAreNotKeptBesideOlderNodes(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.Older = true
		must(t, w.Items.KeepTotals(t.Context(), tenant, []int64{w.Mail.ID}))
		b := w.MustBackup(t, w.Mail)
		w.MustImport(t, contenttest.Mbox(2))
		if items, _ := w.MustTotals(t); items != 2 || keepsTotal(t, w, w.Mail) || keepsTotal(t, w, b.Container) {
			t.Errorf("%d items, or a total is kept", items)
		}
		w.Older = false
		must(t, w.Items.KeepTotals(t.Context(), tenant, []int64{w.Mail.ID, b.ID}))
		wantTotals(t, w, w.Mail, b.Container)
	})
}

func TestAWrongTotalIsDamage(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		must(t, w.Items.KeepTotals(t.Context(), tenant, []int64{w.Mail.ID}))
		w.MustImport(t, contenttest.Mbox(2))
		w.Exec(t, `UPDATE item_total SET items = items + 1 WHERE container = ?1`, w.Mail.ID)
		wantCode(t, w.Items.CheckTotal(t.Context(), w.Mail), api.Damaged)
		w.Exec(t, `DELETE FROM item_total WHERE container = ?1`, w.Mail.ID) // it is counted again
		must(t, w.Items.CheckTotal(t.Context(), w.Mail))
		if items, _ := w.MustTotals(t); items != 2 {
			t.Errorf("%d items", items)
		}
	})
}
