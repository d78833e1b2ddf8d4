package depth_test

import (
	"fmt"
	"testing"

	"keyroll/api"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// The index by which a roll finds the key pages of blobs has lost some entries: the
// older key of those pages is kept until the index has been rebuilt from the rows.
func TestARollTakesNoOlderKeyBecauseOfAWrongIndex(t *testing.T) {
	for _, check := range []bool{false, true} {
		t.Run(fmt.Sprint("check ", check), func(t *testing.T) {
			each(t, func(w *world) {
				pol := w.MailboxPolicy("p")
				a, b := w.mailbox(pol.ID, "a", 2), w.mailbox(pol.ID, "b", 2)
				over := func(db *store.DB) *world { return worldOf(w.World.Over(db), w.blobs, w.wrote, slots) }
				w = over(storetest.LoseWrites(w, w.DB, "key_page_place", func(db *store.DB) { over(db).receive(a, 2) }))
				w.wantContent(a, b)
				storetest.UseIndexes(w, w.DB, check)
				ro := w.begin(pol, api.DepthContainer)
				p := w.finish(ro, api.RollFailed)
				if p.SkippedCount == 0 || p.Done > 1 {
					w.Errorf("%+v", p)
				}
				w.wantContent(a, b)
				storetest.Reindex(w, w.DB, "key_page")
				w.resume(ro)
				w.finish(ro, api.RollFinished)
				w.wantContent(a, b)
				w.wantNothingLeft()
			})
		})
	}
}
