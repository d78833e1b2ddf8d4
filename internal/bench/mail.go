package bench

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/store"
)

// importAll imports o.Items messages of o.ItemSize bytes into each of the first
// mailboxes.
func (w *fixture) importAll(ctx context.Context, mailboxes int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range mailboxes {
		g.Go(func() error {
			c, err := w.Containers.Find(ctx, w.Tenant.ID, container.Mailbox, mailboxName(i))
			if err != nil {
				return err
			}
			mail, err := w.Contents.PrepareImport(ctx, c, -1, newMail(w.options.Items, w.options.ItemSize), content.ImportOptions{})
			if err != nil {
				return err
			}
			return w.DB.Commit(ctx, mail, func(tx *store.Tx) error {
				_, err := mail.Commit(ctx, tx)
				return err
			})
		})
	}
	return g.Wait()
}

// text returns the text of messages: lines that do not compress well. It is created at
// the first use, not at the start of every command.
var text = sync.OnceValue(func() string {
	random := make([]byte, 192<<10)
	rand.Read(random)
	all := base64.StdEncoding.EncodeToString(random)
	var lines strings.Builder
	for ; len(all) > 63; all = all[63:] {
		lines.WriteString(all[:63] + "\n")
	}
	return lines.String()
})

// newMail returns an mbox of messages that each take size bytes of it.
func newMail(messages int, size int64) io.Reader {
	text := text()
	var parts []io.Reader
	for i := range messages {
		head := fmt.Sprintf("From bench Thu Jan  1 00:00:00 1970\nSubject: message %d\n\n", i)
		left := max(size-int64(len(head))-2, 0) // the last line's end, and an empty line
		parts = append(parts, strings.NewReader(head))
		for ; left > int64(len(text)); left -= int64(len(text)) {
			parts = append(parts, strings.NewReader(text))
		}
		parts = append(parts, strings.NewReader(text[:left]), strings.NewReader("\n\n"))
	}
	return io.MultiReader(parts...)
}
