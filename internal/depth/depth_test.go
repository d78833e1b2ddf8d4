package depth_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/collect"
	"keyroll/internal/container"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func newFixture(t testing.TB, db *store.DB) *contenttest.Fixture {
	p := policytest.New(t, db)
	return contenttest.New(p, p.Clock.Now)
}

func each(t *testing.T, test func(w *contenttest.Fixture)) {
	storetest.Each(t, func(t *testing.T, db *store.DB) { test(newFixture(t, db)) })
}

// wantNothingLeft fails the test if a finished roll has left anything behind: pages of older keys,
// of containers or of blobs, or blobs that no row references.
func wantNothingLeft(w *contenttest.Fixture) {
	w.Helper()
	if n := collectNow(w, true).Orphans; n != 0 {
		w.Errorf("%d objects of no row", n)
	}
	collectNow(w, false) // what was dropped
	for what, query := range map[string]string{
		"pages of older container keys":               `SELECT COUNT(*) FROM key_page WHERE tenant = ?1 AND class >= 16`,
		"containers with an older key":                `SELECT COUNT(*) FROM container WHERE tenant = ?1 AND older <> 0`,
		"pages of blob keys under another generation": `SELECT COUNT(*) FROM key_page p JOIN container c ON c.id = p.parent WHERE p.tenant = ?1 AND p.class = 8 AND p.generation <> c.generation`,
		"blobs whose page is not there":               `SELECT COUNT(*) FROM blob b WHERE b.tenant = ?1 AND NOT EXISTS (SELECT 1 FROM key_page p WHERE p.id = b.page)`,
		"blobs that were dropped and did not go":      `SELECT COUNT(*) FROM dropped WHERE tenant = ?1`,
	} {
		if n := w.Number(query, w.Tenant); n != 0 {
			w.Errorf("%d %s", n, what)
		}
	}
	files := int64(0)
	w.Must(w.Blobs.List(w.Ctx, "", func(string, int64) error { files++; return nil }))
	if named := w.Number(`SELECT COUNT(DISTINCT CASE WHEN object = 0 THEN id ELSE object END) FROM blob WHERE tenant = ?1`, w.Tenant); files != named {
		w.Errorf("%d objects in the store, %d are named", files, named)
	}
}

// collectNow collects all that nothing needs now, by the clock of ids, which is not that of
// the fixture.
func collectNow(w *contenttest.Fixture, dryRun bool) collect.Collected {
	w.Helper()
	contents := w.Contents
	contents.Collector = collect.New(w.DB, w.Contents.Items, time.Now)
	c, err := contents.CollectTenant(w.Ctx, w.Tenant, 0, dryRun)
	w.Must(err)
	return c
}

func TestDepthContainerGivesNewKeysAndKeepsBlobs(t *testing.T) {
	each(t, func(w *contenttest.Fixture) {
		pol := w.MailboxPolicy("p")
		var list []container.Container
		for i := range 6 {
			list = append(list, w.Mailbox(pol.ID, fmt.Sprint("m", i), 2*i))
		}
		other := w.Mailbox(0, "other", 3)
		before, elsewhere := w.Key(list[3]), w.Key(other)
		newest := w.Number(`SELECT MAX(id) FROM blob`)
		p := w.Finish(w.Begin(pol, api.DepthContainer, roll.Options{}), api.RollFinished)
		if p.Total != 6 || p.Done != 6 || p.BlobsTotal != 30 || p.BlobsDone != 30 || p.PercentComplete != 100 {
			w.Errorf("%+v", p)
		}
		for _, c := range list {
			if o := w.Key(c); o.Generation != 2 || o.Key.Equal(before.Key) || o.PolicyKey != w.Reload(pol).Current.ID {
				w.Errorf("container %d has generation %d under policy key %d", c.ID, o.Generation, o.PolicyKey)
			}
		}
		if o := w.Key(other); o.Generation != 1 || !o.Key.Equal(elsewhere.Key) {
			w.Errorf("a container of another policy has generation %d", o.Generation)
		}
		if now := w.Number(`SELECT MAX(id) FROM blob`); now != newest {
			w.Errorf("blob %d is new", now)
		}
		w.WantMail(append(list, other)...)
		w.Receive(list[0], 1)
		w.WantMail(list[0])
		wantNothingLeft(w)
	})
}

func TestDepthContentReencryptsAllContent(t *testing.T) {
	each(t, func(w *contenttest.Fixture) {
		pol := w.MailboxPolicy("p")
		var list []container.Container
		for i := range 6 {
			list = append(list, w.Mailbox(pol.ID, fmt.Sprint("m", i), 2*i))
		}
		ro := w.Begin(pol, api.DepthContent, roll.Options{})
		p := w.Finish(ro, api.RollFinished)
		if p.Done != 6 || p.BytesTotal == 0 || p.BytesDone != p.BytesTotal {
			w.Errorf("%+v", p)
		}
		if n := w.Number(`SELECT COUNT(*) FROM blob WHERE id < ?1`, ro.Watermark); n != 0 {
			w.Errorf("%d blobs have older keys", n)
		}
		w.WantMail(list...)
		wantNothingLeft(w)
		w.Receive(list[2], 2)
		w.Finish(w.Begin(pol, api.DepthContent, roll.Options{}), api.RollFinished) // once more
		w.WantMail(list...)
		wantNothingLeft(w)
	})
}

func TestDepthContentReencryptsSitesOfExactKeyVersions(t *testing.T) {
	each(t, func(w *contenttest.Fixture) {
		site := w.Site("a")
		pol := w.SitePolicy()
		site, err := w.Containers.Assign(w.Ctx, w.Tenant, site, pol.ID, api.ForRecovery)
		w.Must(err)
		_, err = w.Contents.Put(w.Ctx, site, "a/b", -1, strings.NewReader("content"))
		w.Must(err)
		get := func() string {
			var got bytes.Buffer
			file, err := w.Contents.Open(w.Ctx, site, "a/b")
			w.Must(err)
			defer file.Close()
			w.Must(file.WriteRange(w.Ctx, 0, -1, &got))
			return got.String()
		}
		reading, err := w.Contents.Open(w.Ctx, site, "a/b")
		w.Must(err)
		w.Finish(w.Begin(pol, api.DepthContent, roll.Options{}), api.RollFinished)
		var got bytes.Buffer
		w.Must(reading.WriteRange(w.Ctx, 0, -1, &got)) // opened before the roll
		w.Must(reading.Close())
		if got.String() != "content" || get() != "content" {
			w.Errorf("%q, %q", got.String(), get())
		}
		wantNothingLeft(w)
	})
}
