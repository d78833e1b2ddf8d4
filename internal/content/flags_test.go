package content_test

import (
	"fmt"
	"testing"

	"keyroll/internal/container"
	"keyroll/internal/mbox/mboxtest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func TestFlagsOfThunderbirdAndGmailMapToStatusFlags(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	for header, want := range map[string]string{
		"":                           "",
		"Status: RO\nX-Status: AF\n": "ROAF",
		"X-Mozilla-Status: 0000\n":   "",
		"X-Mozilla-Status: 0001\nX-Mozilla-Status2: 00000000\n":  "R",
		"X-Mozilla-Status: 0002\n":                               "A",
		"X-Mozilla-Status: 0005\n":                               "RF",
		"X-Mozilla-Status: 1009\n":                               "RD",
		"X-Mozilla-Status: 0001\nX-Mozilla-Status2: 00200000\n":  "RD",
		"X-Mozilla-Status2: 00000001\nX-Mozilla-Status: zzzz\n":  "",
		"Status: RO\nX-Mozilla-Status: 0007\n":                   "ROAF",
		"X-Gmail-Labels: Inbox,Unread\n":                         "",
		"X-Gmail-Labels: Inbox,Important\n":                      "R",
		"X-Gmail-Labels: Inbox,\n Opened, Starred\n":             "FR",
		"X-Gmail-Labels: =?UTF-8?Q?Posteingang,Ungelesen?=\n":    "",
		"X-Gmail-Labels: =?UTF-8?Q?Recibidos,No_le=C3=ADdos?=\n": "",
		"X-Gmail-Labels: Drafts\n":                               "TR",
		"X-Gmail-Labels:\n":                                      "",
		"Status: O\nX-Gmail-Labels: Work\n":                      "OR",
	} {
		w.Mail = w.MustCreate(t, container.Mailbox, fmt.Sprintf("m%d@contoso.com", store.NewID()))
		w.MustImport(t, mboxtest.Ann+header+"Subject: s\n\nbody\n")
		if got := w.MustMessages(t)[0].Flags; got != want {
			t.Errorf("%q: flags %q, want %q", header, got, want)
		}
	}
}
