package content_test

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// wantTotals fails the test unless the totals of containers are kept and are right.
func (w *fixture) wantTotals(t testing.TB, list ...container.Container) {
	t.Helper()
	for _, c := range list {
		must(t, w.Items.CheckTotal(t.Context(), c))
		if !w.keepsTotal(t, c) {
			t.Errorf("the total of container %d is not kept", c.ID)
		}
	}
}

func (w *fixture) keepsTotal(t testing.TB, c container.Container) bool {
	t.Helper()
	var n int64
	must(t, w.db.View(t.Context(), func(tx *store.Tx) error {
		return tx.QueryRow(t.Context(), `SELECT COUNT(*) FROM item_total WHERE tenant = ?1 AND container = ?2`, c.Tenant, c.ID).Scan(&n)
	}))
	return n == 1
}

func TestTotalsFollowEveryChangeOfItems(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.importMail(t, mbox(3)) // before its total is kept
		must(t, w.Items.KeepTotals(t.Context(), tenant, []int64{w.mail.ID, w.site.ID, w.site.ID, 17}))
		w.wantTotals(t, w.mail, w.site)
		w.importMail(t, mbox(300)) // several transactions
		for i := range 5 {
			w.put(t, fmt.Sprint("file", i%3), strings.Repeat("x", 10*i+1)) // some replace others
			w.wantTotals(t, w.site)
		}
		if items, bytes := w.totals(t); items != 303 || bytes != int64(len(mbox(3))+len(mbox(300))) {
			t.Errorf("%d items of %d bytes", items, bytes)
		}
		b := w.backup(t, w.mail)
		w.wantTotals(t, w.mail, b.Container, w.restore(t, b, "restored@contoso.com"))
		w.expire(t, b)
		w.tidyUp(t)
		if w.keepsTotal(t, b.Container) {
			t.Error("the total of a deleted backup is kept")
		}
		w.wantTotals(t, w.mail, w.site)
	})
}

// Imports and puts into one container lose no count, also while it begins to be kept.
func TestTotalsOfConcurrentImportsAreExact(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		g, ctx := errgroup.WithContext(t.Context())
		for i := range 4 {
			g.Go(func() error {
				for n := range 3 {
					if _, err := w.Import(ctx, w.mail, -1, strings.NewReader(mbox(2)), content.ImportOptions{}); err != nil {
						return err
					}
					if _, err := w.Put(ctx, w.site, fmt.Sprint("file", (i+n)%3), -1, strings.NewReader(strings.Repeat("x", i+n))); err != nil && !fail.Is(err, api.Conflict) {
						return err
					}
				}
				return nil
			})
		}
		g.Go(func() error { return w.Items.KeepTotals(ctx, tenant, []int64{w.site.ID, w.mail.ID}) })
		must(t, g.Wait())
		w.wantTotals(t, w.mail, w.site)
		if items, _ := w.totals(t); items != 24 {
			t.Errorf("%d items", items)
		}
	})
}

func TestTotalsAreNotKeptBesideOlderNodes(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.older = true
		must(t, w.Items.KeepTotals(t.Context(), tenant, []int64{w.mail.ID}))
		b := w.backup(t, w.mail)
		w.importMail(t, mbox(2))
		if items, _ := w.totals(t); items != 2 || w.keepsTotal(t, w.mail) || w.keepsTotal(t, b.Container) {
			t.Errorf("%d items, or a total is kept", items)
		}
		w.older = false
		must(t, w.Items.KeepTotals(t.Context(), tenant, []int64{w.mail.ID, b.ID}))
		w.wantTotals(t, w.mail, b.Container)
	})
}

func TestAWrongTotalIsDamage(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		must(t, w.Items.KeepTotals(t.Context(), tenant, []int64{w.mail.ID}))
		w.importMail(t, mbox(2))
		w.exec(t, `UPDATE item_total SET items = items + 1 WHERE container = ?1`, w.mail.ID)
		wantCode(t, w.Items.CheckTotal(t.Context(), w.mail), api.Damaged)
		w.exec(t, `DELETE FROM item_total WHERE container = ?1`, w.mail.ID) // it is counted again
		must(t, w.Items.CheckTotal(t.Context(), w.mail))
		if items, _ := w.totals(t); items != 2 {
			t.Errorf("%d items", items)
		}
	})
}
