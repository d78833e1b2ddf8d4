package container_test

import (
	"fmt"
	"testing"

	"keyroll/internal/container"
	"keyroll/internal/container/containertest"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
)

// geo adds a geo with its service-managed policy.
func (w fixture) geo(name string, hosts ...string) (g container.Geo, managed int64) {
	w.Helper()
	_, err := w.all.Directory(w.ctx, w.tenant)
	w.must(err)
	g, err = w.all.NewGeo(name, hosts)
	w.must(err)
	managed = w.policies.CreateIn(w, w.tenant, containertest.ServiceManaged, g.ID)
	w.must(w.db.InTx(w.ctx, func(tx *store.Tx) error { return w.all.AddGeo(w.ctx, tx, w.tenant, g) }))
	return g, managed
}

func TestSitesCreatedInBulkAreInPagesOfTheirGeo(t *testing.T) {
	each(t, func(w fixture) {
		eu, managed := w.geo("EU", "contoso-eu.sharepoint.com")
		var urls []string
		for i := range 2*testSlots + 1 {
			urls = append(urls, fmt.Sprintf("https://contoso.sharepoint.com/%d", i), fmt.Sprintf("https://contoso-eu.sharepoint.com/%d", i))
		}
		w.must(w.all.CreateMany(w.ctx, w.tenant, container.Site, urls, 0))
		for i, url := range urls {
			c, err := w.all.Find(w.ctx, w.tenant, container.Site, url)
			w.must(err)
			geo, policy := int64(0), w.managed
			if i%2 == 1 {
				geo, policy = eu.ID, managed
			}
			if _, under := w.key(c); c.Geo != geo || under != w.currentOf(policy) {
				t.Errorf("%s is in geo %d under policy key %d", url, c.Geo, under)
			}
		}
		var pages []keypage.Sum
		w.must(w.db.ViewOnce(w.ctx, func(tx *store.Tx) (err error) {
			pages, err = keypage.Usage(w.ctx, tx, w.tenant)
			return err
		}))
		for _, sum := range pages {
			if sum.Keys > 1 && (sum.Pages != 3 || sum.Keys != 2*testSlots+1) {
				t.Errorf("%+v", sum)
			}
		}
	})
}

func TestGeosOfTwoTenantsMayHaveTheSameNameAndHost(t *testing.T) {
	each(t, func(w fixture) {
		other := w.neighbour()
		w.geo("EU", "contoso-eu.sharepoint.com")
		const url = "https://contoso-eu.sharepoint.com/sites/a"
		c, err := other.all.Create(other.ctx, other.tenant, container.Site, url, 0)
		w.must(err)
		if c.Geo != 0 {
			t.Errorf("the host of another tenant's geo puts a site into geo %d", c.Geo)
		}
		g, _ := other.geo("EU", "contoso-eu.sharepoint.com")
		w.must(w.db.ViewOnce(w.ctx, func(tx *store.Tx) error {
			found, err := other.all.FindGeo(w.ctx, tx, other.tenant, "eu")
			if err == nil && found.ID != g.ID {
				t.Errorf("geo %d, want %d", found.ID, g.ID)
			}
			return err
		}))
	})
}

// The database contains neither a site's name nor a geo's hosts in the clear.
func TestHostsOfGeosAreStoredSealed(t *testing.T) {
	each(t, func(w fixture) {
		w.geo("EU", "contoso-eu.sharepoint.com")
		w.must(w.db.ViewOnce(w.ctx, func(tx *store.Tx) error {
			var hash, host []byte
			err := tx.QueryRow(w.ctx, `SELECT host_hash, host FROM geo_host WHERE tenant = ?1`, w.tenant).Scan(&hash, &host)
			if len(hash) != 32 || len(host) < len("contoso-eu.sharepoint.com") || string(host) == "contoso-eu.sharepoint.com" {
				t.Errorf("hash %x, host %q", hash, host)
			}
			return err
		}))
	})
}
