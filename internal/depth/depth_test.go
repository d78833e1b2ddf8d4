package depth_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/depth"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

const slots = 4

// world is a tenant with mail and files under real policies, and a roller.
type world struct {
	*policytest.World
	containers *container.Containers
	contents   *content.Contents
	deep       *depth.Deep
	roller     *roll.Roller
	blobs      blob.Store
	wrote      map[int64]string // content by container
}

func newWorld(p *policytest.World, folder string) *world { return newWorldSlots(p, folder, slots) }

func newWorldSlots(p *policytest.World, folder string, slots int) *world {
	p.Helper()
	blobs, err := blob.Open(p.Ctx, "file://"+folder)
	p.Must(err)
	p.Must(container.New(p.DB, p.Policies, slots, p.Clock.Now).Bootstrap(p.Ctx, p.Tenant))
	return worldOf(p, blobs, map[int64]string{}, slots)
}

// worldOf returns a world of an existing tenant.
func worldOf(p *policytest.World, blobs blob.Store, wrote map[int64]string, slots int) *world {
	p.Helper()
	w := &world{World: p, wrote: wrote, blobs: blobs}
	w.containers = container.New(p.DB, p.Policies, slots, p.Clock.Now)
	_, err := w.containers.Directory(w.Ctx, w.Tenant)
	w.Must(err)
	w.contents = content.New(p.DB, w.containers, blobs, slots, p.Clock.Now)
	w.deep = depth.New(p.DB, w.containers, w.contents)
	w.roller = roll.New(roll.Config{DB: p.DB, Policies: p.Policies, Now: p.Clock.Now, Logger: slog.New(slog.DiscardHandler),
		Deep: w.deep, Settled: func(int64, int64) {}})
	return w
}

func each(t *testing.T, test func(w *world)) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		test(newWorld(policytest.New(t, db), filepath.Join(t.TempDir(), "blobs")))
	})
}

func message(n int) string {
	return fmt.Sprintf("From a\nSubject: %d\n\n%s\n\n", n, strings.Repeat("x", n))
}

// mailbox makes a mailbox of a policy with so many messages.
func (w *world) mailbox(pol int64, name string, messages int) container.Container {
	w.Helper()
	c, err := w.containers.Create(w.Ctx, w.Tenant, container.Mailbox, name+"@contoso.com", pol, nil)
	w.Must(err)
	w.receive(c, messages)
	return c
}

func (w *world) receive(c container.Container, messages int) {
	w.Helper()
	for i := range messages {
		text := message(len(w.wrote[c.ID]) + i)
		_, err := w.contents.Import(w.Ctx, c, -1, strings.NewReader(text), nil, nil)
		w.Must(err)
		w.wrote[c.ID] += text
	}
}

// begin refreshes a policy at a depth and begins its roll.
func (w *world) begin(pol policy.Policy, to api.Depth) (ro roll.Roll) {
	w.Helper()
	w.Refresh(pol, to, false, func(tx *store.Tx, c policy.Change) (err error) {
		start := roll.Start{Policy: c.Policy, Revision: c.Revision.GUID, Depth: to}
		if to != api.DepthPolicy {
			if start.Watermark, err = depth.NewWatermark(w.Ctx, tx); err != nil {
				return err
			}
		}
		ro, err = roll.Begin(w.Ctx, tx, w.Policies, start, w.Clock.Now())
		return err
	})
	return ro
}

func (w *world) finish(ro roll.Roll, want api.RollState) api.Roll {
	w.Helper()
	if waits, err := w.roller.Work(w.Ctx, ro); err != nil || waits {
		w.Fatalf("the roll waits: %v; error: %v", waits, err)
	}
	p := w.progress(ro)
	if p.State != want {
		w.Fatalf("the roll is %s: %s", p.State, p.Message)
	}
	return p
}

func (w *world) resume(ro roll.Roll) {
	w.Helper()
	w.InTx(func(tx *store.Tx) error {
		now, err := roll.Find(w.Ctx, tx, w.Tenant, fmt.Sprint(ro.ID))
		if err != nil {
			return err
		}
		return roll.SetState(w.Ctx, tx, now, api.RollRunning)
	})
}

func (w *world) progress(ro roll.Roll) (p api.Roll) {
	w.Helper()
	w.View(func(tx *store.Tx) error {
		now, err := roll.Find(w.Ctx, tx, w.Tenant, fmt.Sprint(ro.ID))
		if err != nil {
			return err
		}
		p, err = w.roller.Progress(w.Ctx, tx, now)
		return err
	})
	return p
}

// wantContent fails the test unless everything reads back as it was written.
func (w *world) wantContent(list ...container.Container) {
	w.Helper()
	for _, c := range list {
		var got bytes.Buffer
		w.Must(w.contents.Export(w.Ctx, c, &got))
		if got.String() != w.wrote[c.ID] {
			w.Fatalf("container %d: %d bytes, want %d, and equal", c.ID, got.Len(), len(w.wrote[c.ID]))
		}
	}
}

// key returns a container with its key.
func (w *world) key(c container.Container) container.Opened {
	w.Helper()
	o, err := w.containers.OpenKey(w.Ctx, c, api.ByUser)
	w.Must(err)
	return o
}

func (w *world) number(query string, args ...any) (n int64) {
	w.Helper()
	w.View(func(tx *store.Tx) error { return tx.QueryRow(w.Ctx, query, args...).Scan(&n) })
	return n
}

// wantNothingLeft fails the test if a finished roll has left anything behind: pages of older keys,
// of containers or of blobs, or blobs that no row references.
func (w *world) wantNothingLeft() {
	w.Helper()
	c, err := w.contents.Collect(w.Ctx, 1000*24*time.Hour, false, nil) // what was dropped
	w.Must(err)
	w.Must(c.Tenant(w.Ctx, w.Tenant, nil))
	w.Must(c.End(w.Ctx))
	for what, query := range map[string]string{
		"pages of older container keys":               `SELECT COUNT(*) FROM key_page WHERE tenant = ?1 AND class >= 16`,
		"containers with an older key":                `SELECT COUNT(*) FROM container WHERE tenant = ?1 AND older <> 0`,
		"pages of blob keys under another generation": `SELECT COUNT(*) FROM key_page p JOIN container c ON c.id = p.parent WHERE p.tenant = ?1 AND p.class = 8 AND p.generation <> c.generation`,
		"blobs whose page is not there":               `SELECT COUNT(*) FROM blob b WHERE b.tenant = ?1 AND NOT EXISTS (SELECT 1 FROM key_page p WHERE p.id = b.page)`,
		"blobs that were dropped and did not go":      `SELECT COUNT(*) FROM dropped WHERE tenant = ?1`,
	} {
		if n := w.number(query, w.Tenant); n != 0 {
			w.Errorf("%d %s", n, what)
		}
	}
	files := int64(0)
	w.Must(w.blobs.List(w.Ctx, "", func(string, int64) error { files++; return nil }))
	if named := w.number(`SELECT COUNT(DISTINCT id) FROM blob WHERE tenant = ?1`, w.Tenant); files != named {
		w.Errorf("%d blobs in the store, %d are named", files, named)
	}
}

func TestDepthContainerGivesNewKeysAndKeepsBlobs(t *testing.T) {
	each(t, func(w *world) {
		pol := w.MailboxPolicy("p")
		var list []container.Container
		for i := range 6 {
			list = append(list, w.mailbox(pol.ID, fmt.Sprint("m", i), 2*i))
		}
		other := w.mailbox(0, "other", 3)
		before, elsewhere := w.key(list[3]), w.key(other)
		newest := w.number(`SELECT MAX(id) FROM blob`)
		p := w.finish(w.begin(pol, api.DepthContainer), api.RollFinished)
		if p.Total != 6 || p.Done != 6 || p.BlobsTotal != 30 || p.BlobsDone != 30 || p.PercentComplete != 100 {
			w.Errorf("%+v", p)
		}
		for _, c := range list {
			if o := w.key(c); o.Generation != 2 || o.Key.Equal(before.Key) || o.PolicyKey != w.Reload(pol).Current.ID {
				w.Errorf("container %d has generation %d under policy key %d", c.ID, o.Generation, o.PolicyKey)
			}
		}
		if o := w.key(other); o.Generation != 1 || !o.Key.Equal(elsewhere.Key) {
			w.Errorf("a container of another policy has generation %d", o.Generation)
		}
		if now := w.number(`SELECT MAX(id) FROM blob`); now != newest {
			w.Errorf("blob %d is new", now)
		}
		w.wantContent(append(list, other)...)
		w.receive(list[0], 1)
		w.wantContent(list[0])
		w.wantNothingLeft()
	})
}

func TestDepthContentEncryptsAllAnew(t *testing.T) {
	each(t, func(w *world) {
		pol := w.MailboxPolicy("p")
		var list []container.Container
		for i := range 6 {
			list = append(list, w.mailbox(pol.ID, fmt.Sprint("m", i), 2*i))
		}
		ro := w.begin(pol, api.DepthContent)
		p := w.finish(ro, api.RollFinished)
		if p.Done != 6 || p.BytesTotal == 0 || p.BytesDone != p.BytesTotal {
			w.Errorf("%+v", p)
		}
		if n := w.number(`SELECT COUNT(*) FROM blob WHERE id < ?1`, ro.Watermark); n != 0 {
			w.Errorf("%d blobs have older keys", n)
		}
		w.wantContent(list...)
		w.wantNothingLeft()
		w.receive(list[2], 2)
		w.finish(w.begin(pol, api.DepthContent), api.RollFinished) // once more
		w.wantContent(list...)
		w.wantNothingLeft()
	})
}

func TestDepthContentOfSitesOfExactVersions(t *testing.T) {
	each(t, func(w *world) {
		site, err := w.containers.Create(w.Ctx, w.Tenant, container.Site, "https://contoso.sharepoint.com/sites/a", 0, nil)
		w.Must(err)
		pol := w.SitePolicy(nil)
		site, err = w.containers.Assign(w.Ctx, w.Tenant, site, pol.ID, api.ForRecovery, nil)
		w.Must(err)
		_, err = w.contents.Put(w.Ctx, site, "a/b", -1, strings.NewReader("content"), nil)
		w.Must(err)
		get := func() string {
			var got bytes.Buffer
			w.Must(w.contents.Get(w.Ctx, site, "a/b", 0, -1, &got))
			return got.String()
		}
		reading, err := w.contents.Open(w.Ctx, site, "a/b")
		w.Must(err)
		w.finish(w.begin(pol, api.DepthContent), api.RollFinished)
		var got bytes.Buffer
		w.Must(reading.WriteRange(w.Ctx, 0, -1, &got)) // opened before the roll
		w.Must(reading.Close())
		if got.String() != "content" || get() != "content" {
			w.Errorf("%q, %q", got.String(), get())
		}
		w.wantNothingLeft()
	})
}
