package container_test

import (
	"slices"
	"testing"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/store"
)

// Three mailboxes share a page, and another page with their older keys. Whichever of
// the pages is lost, each mailbox is abandoned separately, the others keep their
// undamaged keys, and with the last one all rows of the three are deleted.
func TestAbandonDeletesOnlyTheDamagedContainer(t *testing.T) {
	for name, c := range map[string]struct {
		statement string
		older     bool // the page that is lost
	}{
		"present key altered": {`UPDATE key_page SET version = version + 7 WHERE id = ?1`, false},
		"present key missing": {`DELETE FROM key_page WHERE id = ?1`, false},
		"under no policy key": {`UPDATE key_page SET parent = 77 WHERE id = ?1`, false},
		"older key altered":   {`UPDATE key_page SET version = version + 7 WHERE id = ?1`, true},
		"older key missing":   {`DELETE FROM key_page WHERE id = ?1`, true},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(w fixture) {
				before := w.dump()
				boxes := w.mailboxes("a@contoso.com", "b@contoso.com", "c@contoso.com")
				n, err := w.all.Rekey(w.ctx, w.tenant, boxes[0].Page, store.NewID(), func(*store.Tx) error { return nil })
				w.must(err)
				if n != 3 {
					t.Fatalf("%d keys are new", n)
				}
				a := w.find("a@contoso.com")
				abandon := func(c container.Container) error {
					return w.all.Abandon(w.ctx, c)
				}
				sound := w.dump()
				w.wantCode(abandon(a), api.Conflict)
				if w.dump() != sound {
					t.Error("a refusal changed something")
				}

				page := a.Page
				if c.older {
					page = a.Older
				}
				w.must(w.db.InTx(w.ctx, func(tx *store.Tx) error {
					_, err := tx.Exec(w.ctx, c.statement, page)
					return err
				}))
				w.must(abandon(a))
				w.wantCode(errorOf(w.all.Find(w.ctx, w.tenant, container.Mailbox, "a@contoso.com")), api.NotFound)
				if c.older {
					opened, err := w.all.OpenKey(w.ctx, w.find("b@contoso.com"), api.ByUser)
					w.must(err)
					_, err = opened.KeyOf(opened.Generation)
					w.must(err)
					opened.Zero()
				}
				slices.Reverse(boxes)
				for _, box := range boxes[:2] {
					w.must(abandon(box))
				}
				if after := w.dump(); after != before {
					t.Errorf("left is %s, before there was %s", after, before)
				}
			})
		})
	}
}

func errorOf[T any](_ T, err error) error { return err }
