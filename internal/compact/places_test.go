package compact_test

import (
	"testing"
	"time"

	"keyroll/internal/content/contenttest"
	"keyroll/internal/fault"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// A node that has copied blobs leaves those that another node has moved in the meantime.
func TestABlobThatAnotherNodeHasMovedIsNotMovedAgain(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		mail, files := storeAlone(t, w)
		other := w.Connect(w.Blobs)
		var first int64
		fault.Set(func(name string) {
			if name == "compact.objects-durable" {
				fault.Set(nil)
				done, err := other.Compactor.Run(t.Context())
				must(t, err)
				first = done.Blobs
			}
		})
		defer fault.Set(nil)
		if second := w.MustCompact(t).Blobs; first != 14 || second != 0 {
			t.Errorf("the other node has moved %d blobs, and then this one %d", first, second)
		}
		wantContent(t, w, mail, files)
		w.MustCollect(t, 0)
		wantContent(t, w, mail, files)
		w.WantExact(t)
	})
}

// A blob that was dropped before it was moved is dead at its new place, also if that is
// decided by the row of the item that dropped it first.
func TestABlobThatWasDroppedBeforeItWasMovedIsDeadAtItsNewPlace(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	mail := contenttest.Mbox(4)
	for range 3 {
		w.MustImport(t, mail)
	}
	copied := w.MustBackup(t, w.Mail)
	w.MustExpire(t, copied) // its items are newer than those of the mailbox
	must(t, w.Backups.DeleteLeftoverRows(t.Context(), tenant))
	if done := w.MustCompact(t); done.Blobs != 12 {
		t.Errorf("%+v", done)
	}
	w.MustRenew(t, store.NewID(), w.Mail)
	w.MustCollect(t, time.Hour)
	w.MustCollect(t, time.Hour)
	w.WantExact(t)
	wantContent(t, w, mail+mail+mail, map[string]string{})
}
