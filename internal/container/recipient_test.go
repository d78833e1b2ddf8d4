package container_test

import (
	"bytes"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/store"
)

func TestMailboxHasItsTypeAndAMailUserItsAddress(t *testing.T) {
	each(t, func(w fixture) {
		if c := w.mailbox("alice", 0); c.Recipient != api.UserMailbox || c.External != "" || w.find("alice") != c {
			t.Errorf("a mailbox is a user's: %+v", c)
		}
		for _, test := range []struct {
			recipient api.RecipientType
			external  string
			code      api.Code
		}{
			{"", "", ""}, {api.SharedMailbox, "", ""}, {api.PublicFolder, "", ""}, {api.GroupMailbox, "", ""},
			{api.MailUser, "bob@mail.contoso.local", ""},
			{"Robot", "", api.InvalidArgument}, {api.MailUser, "", api.InvalidArgument}, {api.UserMailbox, "bob@mail.contoso.local", api.InvalidArgument},
			{api.MailUser, strings.Repeat("x", 257), api.InvalidArgument},
		} {
			name := "box" + string(test.recipient) + test.external
			c, err := w.all.CreateMailbox(w.ctx, w.tenant, container.NewMailbox{Name: name[:min(len(name), 60)], Type: test.recipient, External: test.external})
			if test.code != "" {
				w.wantCode(err, test.code)
				continue
			}
			w.must(err)
			if test.recipient != "" && c.Recipient != test.recipient || c.External != test.external || w.find(c.Name) != c {
				t.Errorf("%s: %+v, found %+v", test.recipient, c, w.find(c.Name))
			}
		}
	})
}

func TestMigrationMakesAMailUserAMailbox(t *testing.T) {
	each(t, func(w fixture) {
		user, err := w.all.CreateMailbox(w.ctx, w.tenant, container.NewMailbox{Name: "bob", Type: api.MailUser, External: "bob@mail.contoso.local"})
		w.must(err)
		shared, err := w.all.CreateMailbox(w.ctx, w.tenant, container.NewMailbox{Name: "office", Type: api.SharedMailbox})
		w.must(err)
		for _, c := range []container.Container{user, shared} {
			w.must(w.db.InTx(w.ctx, func(tx *store.Tx) error { return w.all.Migrated(w.ctx, tx, c) }))
		}
		if got := w.find("bob"); got.Recipient != api.UserMailbox || got.External != "" || got.Page != user.Page {
			t.Errorf("migrated: %+v", got)
		}
		if w.find("office") != shared {
			t.Errorf("a shared mailbox became %+v", w.find("office"))
		}
	})
}

func TestExternalAddressIsSealedInAnEncryptionContextOfItsOwn(t *testing.T) {
	each(t, func(w fixture) {
		const address = "bob@mail.contoso.local"
		c, err := w.all.CreateMailbox(w.ctx, w.tenant, container.NewMailbox{Name: "bob", Type: api.MailUser, External: address})
		w.must(err)
		w.view(func(tx *store.Tx) error {
			var sealed []byte
			err := tx.QueryRow(w.ctx, `SELECT external FROM container WHERE id = ?1`, c.ID).Scan(&sealed)
			if len(sealed) == 0 || bytes.Contains(sealed, []byte("contoso")) {
				t.Errorf("stored as %q", sealed)
			}
			return err
		})
		w.must(w.db.InTx(w.ctx, func(tx *store.Tx) error {
			_, err := tx.Exec(w.ctx, `UPDATE container SET external = name WHERE id = ?1`, c.ID)
			return err
		}))
		_, err = w.all.Find(w.ctx, w.tenant, container.Mailbox, "bob")
		w.wantCode(err, api.Damaged)
	})
}
