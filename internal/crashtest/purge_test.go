package crashtest

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"keyroll/api"
	"keyroll/internal/node/nodetest"
)

// purging is a purge that the second approval carries out. Wherever it is interrupted,
// the next start finishes it.
var purging = scenario{
	name: "purge", closes: true,
	prepare: []step{createMailboxes(9, nodetest.MailboxPolicy), importMessages("m3@contoso.com", mbox(1, 3)), create(bob, ""), importMessages(bob, mbox(7, 2)), requestPurge},
	steps:   []step{approvePurge},
}

// tokenFile keeps the second approver's token in the data folder, for the child.
const tokenFile = "approver.token"

var requestPurge = step{
	name: "request a purge",
	do: func(w *nodetest.World) {
		if err := os.WriteFile(filepath.Join(w.Data, tokenFile), []byte(w.Approver("erin")), 0o600); err != nil {
			panic(err)
		}
		first := w.Approver("dana")
		w.RevokeMail()
		w.RequestPurge(nodetest.MailboxPolicy)
		w.ApprovePurge(first, nodetest.MailboxPolicy)
	},
	then: func(m *model) { m.close(nodetest.MailboxPolicy, api.PurgePending) },
}

var approvePurge = step{
	name: "approve a purge",
	do: func(w *nodetest.World) {
		token, err := os.ReadFile(filepath.Join(w.Data, tokenFile))
		if err != nil {
			panic(err)
		}
		w.ApprovePurge(string(token), nodetest.MailboxPolicy)
	},
	then: func(m *model) { m.close(nodetest.MailboxPolicy, api.PurgeDone) },
}

// close makes the mail of a policy's mailboxes inaccessible through a state of the policy.
func (m *model) close(policy string, state api.PolicyState) {
	for name, b := range m.Mailboxes {
		if b.Policy == policy {
			b.Mail = []string{string(state)}
			m.Mailboxes[name] = b
		}
	}
}

// mailOf returns the mail of a mailbox, or the state of its policy that makes it
// inaccessible.
func mailOf(t *testing.T, w *nodetest.World, b api.Mailbox, state api.PolicyState) []string {
	t.Helper()
	want, closed := map[api.PolicyState]api.Code{api.PurgePending: api.VaultDenied, api.PurgeDone: api.Gone}[state]
	if !closed {
		return messages(w.Export(b.Name))
	}
	if (b.Protection.Purged != nil) != (state == api.PurgeDone) {
		t.Errorf("%s of a policy in state %s was purged %v", b.Name, state, b.Protection.Purged)
	}
	r, err := w.Client.ExportMail(t.Context(), api.MailboxInput{Mailbox: b.Name})
	if err == nil {
		_, err = io.Copy(io.Discard, r)
		r.Close()
	}
	var problem *api.Problem
	if !errors.As(err, &problem) || problem.Code != want {
		t.Errorf("%s of a policy in state %s: %v", b.Name, state, err)
	}
	return []string{string(state)}
}
