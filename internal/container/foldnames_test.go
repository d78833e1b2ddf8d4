package container_test

import (
	"slices"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/store"
)

// putOldSite makes a site as it was made before names were folded: it is found only by
// its exact URL.
func (w fixture) putOldSite(url string) container.Container {
	c, err := w.all.Create(w.ctx, w.tenant, container.Site, url, 0)
	w.must(err)
	spelled, err := container.Normalise(container.Site, url)
	w.must(err)
	exact, _ := spelled.Forms()
	d, err := w.all.Directory(w.ctx, w.tenant)
	w.must(err)
	w.must(w.db.InTx(w.ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec(w.ctx, `UPDATE container SET name_hash = ?2 WHERE id = ?1`, c.ID, d.Hash("site", 0, exact)); err != nil {
			return err
		}
		_, err := tx.Exec(w.ctx, `UPDATE container SET names = 0 WHERE name_hash = ?1`, []byte{})
		return err
	}))
	return c
}

// Sites that nodes made before names were folded are found by every spelling; those
// whose URLs differ only in spelling are found by their own; none is lost.
func TestSitesAreFoundInEverySpellingAndNoneIsLost(t *testing.T) {
	const root = "https://contoso.sharepoint.com/sites/"
	each(t, func(w fixture) {
		legal, pair, other := w.putOldSite(root+"Legal"), w.putOldSite(root+"R%C3%A9sum%C3%A9s"), w.putOldSite(root+"RE\u0301SUMÉS")
		w.all.Close()
		w.all.Containers = container.New(w.db, w.policies, 4, time.Now)
		for url, want := range map[string]container.Container{
			root + "legal": legal, root + "LEGAL/": legal, root + "Legal": legal,
			root + "Résumés": pair, root + "RE\u0301SUMÉS": other,
		} {
			c, err := w.all.Find(w.ctx, w.tenant, container.Site, url)
			w.must(err)
			if c.ID != want.ID || c.Name != want.Name {
				t.Errorf("%s is %q", url, c.Name)
			}
		}
		for _, url := range []string{root + "legal", root + "Legal", root + "Résumés", root + "RE\u0301SUMÉS"} {
			_, err := w.all.Create(w.ctx, w.tenant, container.Site, url, 0)
			w.wantCode(err, api.AlreadyExists)
		}
		var exact []int64
		for _, c := range []container.Container{legal, pair, other} {
			w.view(func(tx *store.Tx) error {
				alone, err := w.all.CheckName(w.ctx, tx, c)
				if alone && !slices.Contains(exact, c.ID) {
					exact = append(exact, c.ID)
				}
				return err
			})
		}
		if !slices.Equal(exact, []int64{pair.ID, other.ID}) {
			t.Errorf("%v are found by their exact URLs alone, want %d and %d", exact, pair.ID, other.ID)
		}
	})
}

// URLs that differ in more than their spelling are different sites.
func TestSitesWithDifferentNamesAreDifferent(t *testing.T) {
	each(t, func(w fixture) {
		urls := []string{"https://a/sites/hr", "https://a/sites/h%2Fr", "https://a/sites/h/r", "https://a/sites/stra%C3%9Fe", "https://a/sites/strasse", "https://b/sites/hr"}
		for _, url := range urls {
			_, err := w.all.Create(w.ctx, w.tenant, container.Site, url, 0)
			w.must(err)
		}
		for _, url := range urls {
			if c, err := w.all.Find(w.ctx, w.tenant, container.Site, url); err != nil || c.Name != url {
				t.Errorf("%s is %q (%v)", url, c.Name, err)
			}
		}
	})
}

func TestInvisibleCharactersAreInNoNewName(t *testing.T) {
	each(t, func(w fixture) {
		for _, url := range []string{"https://a/sites/h\u202Er", "https://a/sites/h%E2%80%AEr", "https://a/sites/h%0Ar", "https://a/sites/h%FFr"} {
			_, err := w.all.Create(w.ctx, w.tenant, container.Site, url, 0)
			w.wantCode(err, api.InvalidArgument)
		}
		_, err := w.all.Create(w.ctx, w.tenant, container.Mailbox, "al\u200Bice@contoso.com", 0)
		w.wantCode(err, api.InvalidArgument)
	})
}
