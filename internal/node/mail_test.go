package node_test

import (
	"encoding/json"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
)

// A list of messages says what their headers say: dates with zones of any form in
// UTC, none for a message without one, and flags by whichever program wrote them.
func TestAListOfMessagesShowsTheirHeaders(t *testing.T) {
	w := nodetest.Start(t, node.Options{Data: nodetest.Folder(t)})
	w.Mailbox("alice@contoso.com", "")
	from := "From - Thu Mar 02 08:10:00 2023\n"
	w.Import("alice@contoso.com", from+"Subject: eastern\nDate: Tue, 5 Mar 96 20:15:00 EST\nX-Mozilla-Status: 0003\n\n"+
		from+"Subject: mountain\nDate: 5 Mar 1996 20:15:00 MDT\nX-Gmail-Labels: Inbox,Starred\n\n"+
		from+"Subject: none\nX-Gmail-Labels: Inbox,Unread\n\n")
	list, err := w.Client.ListMessages(t.Context(), api.ListMailboxItems{MailboxInput: api.MailboxInput{Mailbox: "alice@contoso.com"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range list.Items {
		got = append(got, m.Subject+" "+m.Date+" "+m.Flags)
	}
	if want := "eastern 1996-03-06T01:15:00Z RA|mountain 1996-03-06T02:15:00Z FR|none  "; strings.Join(got, "|") != want {
		t.Errorf("%s, want %s", strings.Join(got, "|"), want)
	}
	if text, err := json.Marshal(list); err != nil || strings.Contains(string(text), "0001-01-01") {
		t.Errorf("%s, %v", text, err)
	}
}
