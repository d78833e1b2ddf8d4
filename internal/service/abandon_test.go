package service_test

import (
	"io"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/policy/policytest"
)

func abandon(kind, name string) (in api.AbandonInput) {
	in.Body.Kind, in.Body.Container = kind, name
	return in
}

// lose makes a mailbox that is alone on a key page, and damages the page.
func (w testService) lose(name string) {
	w.Helper()
	if _, err := w.CreateMailbox(w.ctx, newMailbox(name, "")); err != nil {
		w.Fatal(err)
	}
	w.spoil()
}

// spoil damages the newest key page of an active mailbox.
func (w testService) spoil() {
	w.Helper()
	w.Exec(`UPDATE key_page SET version = version + 7 WHERE id = (SELECT page FROM container WHERE id = (SELECT MAX(id) FROM container WHERE kind = 'mailbox'))`)
}

// Nothing remains of an abandoned container: no row, no key and no blob, and its name is
// free.
func TestAnAbandonedContainerLeavesNothing(t *testing.T) {
	each(t, func(w testService) {
		before := w.Dump("container", "key_page", "item", "blob")
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(alice, ""))))
		w.Must(e(w.ImportMail(w.ctx, into(alice), -1, strings.NewReader(mbox))))
		w.spoil()
		policytest.Refuses(t, w.ExportMail(w.ctx, mailbox(alice), io.Discard), api.Damaged)
		gone, err := w.AbandonContainer(w.ctx, abandon("mailbox", alice))
		w.Must(err)
		if gone.Items == 0 || gone.Container != alice {
			t.Errorf("%+v", gone)
		}
		w.tidy()
		if after := w.Dump("container", "key_page", "item", "blob"); after != before {
			t.Errorf("it leaves %s, before there was %s", after, before)
		}
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(alice, ""))))
	})
}
