package depth_test

import (
	"fmt"
	"sync"
	"testing"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/lease"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// TestNodesShareTheDeepStages: two nodes work on one roll at once, neither
// replaces a blob that the other has replaced, and all content reads as before.
func TestNodesShareTheDeepStages(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newFixture(t, db)
		pol := w.MailboxPolicy("p")
		var list []container.Container
		for i := range 8 {
			list = append(list, w.Mailbox(pol.ID, fmt.Sprint("m", i), 3))
		}
		ro := w.Begin(pol, api.DepthContent, roll.Options{})
		var nodes sync.WaitGroup
		for _, name := range []string{"a", "b"} {
			node := w.With(func(c *roll.Config) { c.Leases = lease.New(db, name, lease.Term) }).Roller
			nodes.Go(func() {
				for w.Progress(ro).State == api.RollRunning {
					_, _ = node.Work(w.Ctx, ro) // fails while the other one has the stage that one node does
				}
			})
		}
		nodes.Wait()
		p := w.Progress(ro)
		if p.State != api.RollFinished || p.Done != 8 {
			t.Errorf("%+v", p)
		}
		done := w.Number(`SELECT bytes_done - bytes_total FROM roll WHERE id = ?1`, ro.ID)
		if done != 0 {
			t.Errorf("%d bytes were re-encrypted more than once", done)
		}
		w.WantMail(list...)
		wantNothingLeft(w)
	})
}

// A stage skips damaged items and reports them, and a resumed roll completes it after
// a repair.
func TestADeepRollSkipsDamageAndCanBeResumed(t *testing.T) {
	each(t, func(w *contenttest.Fixture) {
		pol := w.MailboxPolicy("p")
		var list []container.Container
		for i := range 6 {
			list = append(list, w.Mailbox(pol.ID, fmt.Sprint("m", i), 2))
		}
		bad := w.Number(`SELECT MIN(b.id) FROM item i JOIN blob b ON b.item = i.id WHERE i.container = ?1`, list[1].ID)
		page := w.Number(`SELECT MIN(id) FROM key_page WHERE parent = ?1`, list[4].ID)
		change := func(blobs, version int) {
			w.InTx(func(tx *store.Tx) error {
				if _, err := tx.Exec(w.Ctx, `UPDATE blob SET size = size + ?2 WHERE id = ?1`, bad, blobs); err != nil {
					return err
				}
				_, err := tx.Exec(w.Ctx, `UPDATE key_page SET version = version + ?2 WHERE id = ?1`, page, version)
				return err
			})
		}
		change(1, 1)
		ro := w.Begin(pol, api.DepthContent, roll.Options{})
		p := w.Finish(ro, api.RollFailed)
		if p.Done != 4 || p.SkippedCount < 2 || p.Message == "" {
			w.Errorf("%+v", p)
		}
		for i, c := range list {
			if i != 1 && i != 4 {
				w.WantMail(c)
			}
		}
		change(-1, -1)
		w.Must(w.SetState(ro, api.RollRunning))
		if p := w.Finish(ro, api.RollFinished); p.SkippedCount != 0 {
			w.Errorf("%+v", p)
		}
		w.WantMail(list...)
		wantNothingLeft(w)
	})
}
