package service_test

import (
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/policy/policytest"
)

func TestMailUserIsAssignedBeforeItsMailboxIsMigrated(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		in := newMailbox("bob@contoso.com", "")
		in.Body.Type = api.MailUser
		policytest.Refuses(t, e(w.CreateMailbox(w.ctx, in)), api.InvalidArgument)
		in.Body.ExternalAddress = "bob@mail.contoso.local"
		made, err := w.CreateMailbox(w.ctx, in)
		w.Must(err)
		if made.Type != api.MailUser || made.ExternalAddress != in.Body.ExternalAddress {
			t.Errorf("made %+v", made)
		}
		w.Must(e(w.AssignMailbox(w.ctx, assign("bob@contoso.com", "p"))))
		before := w.show("bob@contoso.com")
		if before.Type != api.MailUser || before.AssignedPolicy != "p" || before.Protection.Policy != "p" {
			t.Errorf("before the migration: %+v", before)
		}
		policytest.Refuses(t, e(w.ImportMail(w.ctx, into("bob@contoso.com"), 1000, strings.NewReader(mbox))), api.Truncated)
		if now := w.show("bob@contoso.com"); now.Type != api.MailUser {
			t.Errorf("after an import that failed: %+v", now)
		}
		w.Must(e(w.ImportMail(w.ctx, into("bob@contoso.com"), -1, strings.NewReader(mbox))))
		after := w.show("bob@contoso.com")
		if after.Type != api.UserMailbox || after.ExternalAddress != "" || after.Items != 1 || after.Protection != before.Protection {
			t.Errorf("after the migration: %+v", after)
		}
	})
}
