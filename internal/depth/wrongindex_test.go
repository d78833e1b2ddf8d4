package depth_test

import (
	"fmt"
	"testing"

	"keyroll/api"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// The index by which a roll finds the key pages of blobs has lost some entries: the
// older key of those pages is kept until the index has been rebuilt from the rows.
func TestARollWithAWrongIndexDeletesNoOlderKeyInUse(t *testing.T) {
	for _, check := range []bool{false, true} {
		t.Run(fmt.Sprint("check ", check), func(t *testing.T) {
			each(t, func(w *contenttest.Fixture) {
				pol := w.MailboxPolicy("p")
				a, b := w.Mailbox(pol.ID, "a", 2), w.Mailbox(pol.ID, "b", 2)
				w = w.Over(storetest.LoseWrites(w, w.DB, "key_page_place", func(db *store.DB) { w.Over(db).Receive(a, 2) }))
				w.WantMail(a, b)
				storetest.UseIndexes(w, w.DB, check)
				ro := w.Begin(pol, api.DepthContainer, roll.Options{})
				p := w.Finish(ro, api.RollFailed)
				if p.SkippedCount == 0 || p.Done > 1 {
					w.Errorf("%+v", p)
				}
				w.WantMail(a, b)
				storetest.Reindex(w, w.DB, "key_page")
				w.Must(w.SetState(ro, api.RollRunning))
				w.Finish(ro, api.RollFinished)
				w.WantMail(a, b)
				wantNothingLeft(w)
			})
		})
	}
}
