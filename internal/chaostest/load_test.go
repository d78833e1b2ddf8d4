package chaostest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/node/clustertest"
)

// user calls the nodes as a client does: if one does not respond, it calls the next.
type user struct {
	cluster *clustertest.Cluster
	retries *atomic.Int64
}

// retry reports whether act was certainly done exactly once: no attempt before the one that
// was answered can have been carried out too, or will be later.
func (u user) retry(ctx context.Context, act func(ctx context.Context, k *client.Client) error) (sure bool, err error) {
	n, err := u.cluster.Do(ctx, act)
	u.retries.Add(int64(n))
	return n == 0, err
}

// content returns identifiable bytes, of a size that occasionally needs several blobs.
func content(name string) []byte {
	size := 200 + rand.IntN(20_000)
	if rand.IntN(40) == 0 {
		size = 9<<20 + rand.IntN(1<<20)
	}
	seed := sha256.Sum256([]byte(name))
	b := append(make([]byte, 0, size), name+"\n"...)
	noise := make([]byte, size-len(b))
	rand.NewChaCha8(seed).Read(noise)
	return append(b, noise...)
}

// file is a path and all contents that a reader may find there: the newest acknowledged
// content, and that of attempts without a response.
type file struct {
	path string
	may  [][32]byte
}

// files is a user of one site, and its only writer.
type files struct {
	user
	site  string
	known []*file
	puts  int
	reads int
}

func (u *files) putOrRead(ctx context.Context) error {
	if len(u.known) == 0 || rand.IntN(3) > 0 {
		return u.put(ctx)
	}
	return u.read(ctx, u.known[rand.IntN(len(u.known))])
}

func (u *files) put(ctx context.Context) error {
	f := &file{path: fmt.Sprintf("f%d", len(u.known))}
	if len(u.known) > 0 && rand.IntN(4) == 0 {
		f = u.known[rand.IntN(len(u.known))]
	}
	u.puts++
	b := content(fmt.Sprintf("%s %s put %d", u.site, f.path, u.puts))
	var in api.FileInput
	in.Site, in.Path = u.site, f.path
	sure, err := u.retry(ctx, func(ctx context.Context, k *client.Client) error {
		_, err := k.PutFile(ctx, in, int64(len(b)), bytes.NewReader(b))
		return err
	})
	if err != nil {
		return fmt.Errorf("put %s: %w", f.path, err)
	}
	sum := sha256.Sum256(b)
	if len(f.may) == 0 {
		u.known = append(u.known, f)
	}
	// An attempt without a response may be carried out at any time, even after others, so
	// its content may be found from now on.
	if sure && len(f.may) <= 1 {
		f.may = [][32]byte{sum}
	} else {
		f.may = append(f.may, sum)
	}
	return nil
}

func (u *files) read(ctx context.Context, f *file) error {
	var got [32]byte
	_, err := u.retry(ctx, func(ctx context.Context, k *client.Client) error {
		var in api.FileInput
		in.Site, in.Path = u.site, f.path
		r, err := k.GetFile(ctx, in, 0, -1)
		if err != nil {
			return err
		}
		defer r.Close()
		h := sha256.New()
		if _, err := io.Copy(h, r); err != nil {
			return err
		}
		got = [32]byte(h.Sum(nil))
		return nil
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", f.path, err)
	}
	u.reads++
	if !slices.Contains(f.may, got) {
		return fmt.Errorf("%s of %s is other than anything that was put there", f.path, u.site)
	}
	return nil
}

// readAll reads every file.
func (u *files) readAll(ctx context.Context) error {
	for _, f := range u.known {
		if err := u.read(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// mails is a user of one mailbox, and its only writer.
type mails struct {
	user
	mailbox string
	sent    []string // acknowledged, in order
	unsure  map[string]bool
	reads   int
}

func (u *mails) importOrRead(ctx context.Context) error {
	if rand.IntN(4) == 0 {
		return u.readAll(ctx)
	}
	n := len(u.sent)
	message := fmt.Sprintf("From chaos Thu Jan  1 00:00:00 2026\nSubject: %s %d\n\n%x\n\n", u.mailbox, n, sha256.Sum256(fmt.Append(nil, u.mailbox, n)))
	sure, err := u.retry(ctx, func(ctx context.Context, k *client.Client) error {
		_, err := k.ImportMail(ctx, api.ImportMailInput{MailboxInput: api.MailboxInput{Mailbox: u.mailbox}}, int64(len(message)), strings.NewReader(message))
		return err
	})
	if err != nil {
		return fmt.Errorf("import message %d: %w", n, err)
	}
	u.sent = append(u.sent, message)
	if !sure {
		u.unsure[message] = true
	}
	return nil
}

// readAll reads the mailbox, which must have each acknowledged message, exactly once if no
// attempt was without a response, and nothing else.
func (u *mails) readAll(ctx context.Context) error {
	var got string
	_, err := u.retry(ctx, func(ctx context.Context, k *client.Client) error {
		r, err := k.ExportMail(ctx, api.MailboxInput{Mailbox: u.mailbox})
		if err != nil {
			return err
		}
		defer r.Close()
		b, err := io.ReadAll(r)
		got = string(b)
		return err
	})
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	u.reads++
	rest := got
	for _, message := range u.sent {
		n := strings.Count(rest, message)
		if n == 0 || n > 1 && !u.unsure[message] {
			return fmt.Errorf("%s has a message %d times: %.60q", u.mailbox, n, message)
		}
		rest = strings.ReplaceAll(rest, message, "")
	}
	if rest != "" {
		return fmt.Errorf("%s has %d bytes that no user sent: %.80q", u.mailbox, len(rest), rest)
	}
	return nil
}
