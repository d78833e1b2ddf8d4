package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/fail"
)

// itemsClients are clients with connections of their own, as separate programs have.
type itemsClients struct {
	*itemsNode
	all []*client.Client
}

// connect connects clients, and has each of them open the connections that it will use.
func (p *itemsNode) connect(ctx context.Context, n int) (c *itemsClients, err error) {
	c = &itemsClients{itemsNode: p}
	for range n {
		one, err := p.options.Client(p.Node)
		if err != nil {
			c.close()
			return nil, err
		}
		c.all = append(c.all, one)
	}
	_, err = concurrently(n, n, func(_, i int) error {
		path := fmt.Sprintf("warm/%d", i)
		if err := c.putFile(ctx, i, path, c.content); err != nil {
			return err
		}
		if err := c.getFile(ctx, i, path, c.content); err != nil {
			return err
		}
		_, err := c.all[i].ListMailboxes(ctx, api.ListInput{PageInput: api.PageInput{Limit: 1}})
		return err
	})
	if err != nil {
		c.close()
		return nil, err
	}
	p.Upkeep.Wait()
	return c, nil
}

func (c *itemsClients) close() {
	for _, one := range c.all {
		one.Close()
	}
}

// importMail imports mail with all clients at once.
func (c *itemsClients) importMail(ctx context.Context, mail []importedMail) (timing, error) {
	mboxes := make([]io.Reader, len(mail))
	for i, m := range mail {
		mboxes[i] = &filled{newMail(m.messages, c.options.ItemSize)}
	}
	return concurrently(len(mail), len(c.all), func(by, i int) error {
		got, err := c.all[by].ImportMail(ctx, api.ImportMailInput{MailboxInput: api.MailboxInput{Mailbox: mail[i].mailbox}}, -1, mboxes[i])
		if err == nil && got.Messages != int64(mail[i].messages) {
			err = fail.New(api.Internal, "%d messages were imported instead of %d", got.Messages, mail[i].messages)
		}
		return err
	})
}

// filled fills the buffer of each read, as a file does.
type filled struct{ r io.Reader }

func (f *filled) Read(p []byte) (int, error) {
	n, err := io.ReadFull(f.r, p)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, err
}

// put stores new files.
func (c *itemsClients) put(ctx context.Context) (timing, error) {
	first := c.files
	c.files += uint64(c.options.Items)
	return concurrently(c.options.Items, len(c.all), func(by, i int) error {
		return c.putFile(ctx, by, filePath(first+uint64(i)), c.file(first+uint64(i)))
	})
}

// get reads the files that were last stored and compares them.
func (c *itemsClients) get(ctx context.Context) (timing, error) {
	first := c.files - uint64(c.options.Items)
	return concurrently(c.options.Items, len(c.all), func(by, i int) error {
		return c.getFile(ctx, by, filePath(first+uint64(i)), c.file(first+uint64(i)))
	})
}

func (c *itemsClients) putFile(ctx context.Context, by int, path string, content []byte) error {
	_, err := c.all[by].PutFile(ctx, fileInput(path), int64(len(content)), bytes.NewReader(content))
	return err
}

func (c *itemsClients) getFile(ctx context.Context, by int, path string, want []byte) error {
	r, err := c.all[by].GetFile(ctx, fileInput(path), 0, -1)
	if err != nil {
		return err
	}
	defer r.Close()
	read, err := io.ReadAll(r)
	if err == nil && !bytes.Equal(read, want) {
		err = fail.New(api.Damaged, "a file that was read differs from the file that was stored")
	}
	return err
}

// list lists the messages that were imported, each client those of one mailbox.
func (c *itemsClients) list(ctx context.Context, mail []importedMail) (timing, error) {
	return concurrently(len(mail), len(c.all), func(by, i int) error {
		n := 0
		err := client.EachPage(func(page api.PageInput) (api.List[api.Message], error) {
			return c.all[by].ListMessages(ctx, api.ListMailboxItems{MailboxInput: api.MailboxInput{Mailbox: mail[i].mailbox}, PageInput: page})
		}, func(messages []api.Message) error { n += len(messages); return nil })
		if err == nil && n != mail[i].messages {
			err = fail.New(api.Internal, "%d messages are listed instead of %d", n, mail[i].messages)
		}
		return err
	})
}

func fileInput(path string) api.FileInput {
	return api.FileInput{SiteInput: api.SiteInput{Site: benchSite}, Path: path}
}

func filePath(number uint64) string { return fmt.Sprintf("small/%d", number) }
