package node_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
)

// TestReadsAndWritesContinueWhileRollsRun lets users import, export, put and get, and admins
// assign and change states, while rolls of both policies run. Nothing may fail, no
// read may differ from what was written, and afterwards everything can be decrypted.
func TestReadsAndWritesContinueWhileRollsRun(t *testing.T) {
	t.Parallel()
	var log record
	w := nodetest.Start(t, node.Options{PageSlots: 8, RollRate: 400, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	t.Cleanup(func() {
		if text := log.bytes(); len(text) > 0 {
			t.Errorf("the node had something to complain about:\n%s", text)
		}
	})
	w.StageMail()
	w.StageSites()
	fill := func(kind container.Kind, policy, form string, n int) (names []string) {
		for i := range n {
			names = append(names, fmt.Sprintf(form, i))
		}
		w.CreateMany(kind, names, policy)
		return names
	}
	mailboxes := fill(container.Mailbox, nodetest.MailboxPolicy, "m%d@contoso.com", 120)
	sites := fill(container.Site, "", "https://contoso.sharepoint.com/sites/s%d", 60)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	users, ctx := errgroup.WithContext(ctx)
	var rolled atomic.Bool
	var reads, writes atomic.Int64
	// Each user has containers that no other user writes to.
	loop := func(do func(i int) error) {
		users.Go(func() error {
			for i := 0; !rolled.Load(); i++ {
				if err := do(i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	mail := make([]string, 3)
	for u := range mail {
		name := mailboxes[40*u+1]
		loop(func(i int) error {
			message := fmt.Sprintf("From u%d Thu Jan  1 00:00:00 2026\nSubject: %d\n\nbody %d\n\n", u, i, i)
			if err := importMail(ctx, w, name, message); err != nil {
				return fmt.Errorf("import %d into %s: %w", i, name, err)
			}
			mail[u] += message
			writes.Add(1)
			got, err := exportMail(ctx, w, name)
			if err != nil || got != mail[u] {
				return fmt.Errorf("export of %s after %d imports has %d bytes, not %d: %w", name, i+1, len(got), len(mail[u]), err)
			}
			reads.Add(1)
			return nil
		})
	}
	files := make([][]byte, 2)
	for u := range files {
		in := api.FileInput{SiteInput: api.SiteInput{Site: sites[20*u+1]}, Path: "f"}
		put := func(i int) error {
			files[u] = bytes.Repeat([]byte{byte('a' + i%26)}, 1000+7*i)
			_, err := w.Client.PutFile(ctx, in, int64(len(files[u])), bytes.NewReader(files[u]))
			return err
		}
		if err := put(0); err != nil {
			t.Fatal(err)
		}
		loop(func(i int) error {
			if err := put(i); err != nil {
				return fmt.Errorf("put version %d: %w", i, err)
			}
			writes.Add(1)
			return nil
		})
		loop(func(int) error {
			got, err := getFile(ctx, w, in)
			if err != nil {
				return fmt.Errorf("get: %w", err)
			}
			if len(got) == 0 || (len(got)-1000)%7 != 0 || got[0] != byte('a'+(len(got)-1000)/7%26) || len(bytes.Trim(got, string(got[:1]))) > 0 {
				return fmt.Errorf("get: %d bytes of %.3q are no version that was put", len(got), got)
			}
			reads.Add(1)
			return nil
		})
	}
	loop(func(i int) error { // an admin, and mailboxes whose keys move all the time
		assign := api.AssignMailboxInput{MailboxInput: api.MailboxInput{Mailbox: mailboxes[3+i%16]}}
		assign.Body.Policy = []string{"", nodetest.MailboxPolicy}[i/16%2]
		if _, err := w.Client.AssignMailbox(ctx, assign); err != nil {
			return fmt.Errorf("assign: %w", err)
		}
		state := api.SetMailboxStateInput{MailboxInput: api.MailboxInput{Mailbox: mailboxes[23+i%16]}}
		state.Body.State = []api.MailboxState{api.Inactive, api.Active}[i/16%2]
		if _, err := w.Client.SetMailboxState(ctx, state); err != nil {
			return fmt.Errorf("set state: %w", err)
		}
		return nil
	})

	for range 2 {
		w.RefreshMail()
		w.UpdateSites()
		w.FinishRoll(nodetest.MailboxPolicy)
		w.FinishRoll(nodetest.SitePolicy)
	}
	rolled.Store(true)
	if err := users.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d reads and %d writes during the rolls", reads.Load(), writes.Load())
	if reads.Load() < 20 || writes.Load() < 20 {
		t.Error("too little was read and written to show anything")
	}
	w.Node.Upkeep.Wait()
	w.VerifyClean()
	w.Restart(nil)
	w.VerifyClean()
	for u := range mail {
		if got := w.Export(mailboxes[40*u+1]); got != mail[u] {
			t.Errorf("mailbox %d: %d bytes, not %d", u, len(got), len(mail[u]))
		}
	}
	for u := range files {
		if got := w.Get(sites[20*u+1], "f"); !bytes.Equal(got, files[u]) {
			t.Errorf("site %d: %d bytes, not %d", u, len(got), len(files[u]))
		}
	}
}

func importMail(ctx context.Context, w *nodetest.World, mailbox, mbox string) error {
	_, err := w.Client.ImportMail(ctx, api.ImportMailInput{MailboxInput: api.MailboxInput{Mailbox: mailbox}}, int64(len(mbox)), strings.NewReader(mbox))
	return err
}

func exportMail(ctx context.Context, w *nodetest.World, mailbox string) (string, error) {
	content, err := readAll(w.Client.ExportMail(ctx, api.MailboxInput{Mailbox: mailbox}))
	return string(content), err
}

func getFile(ctx context.Context, w *nodetest.World, in api.FileInput) ([]byte, error) {
	return readAll(w.Client.GetFile(ctx, in, 0, -1))
}

func readAll(r io.ReadCloser, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}
