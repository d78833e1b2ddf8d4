package demo

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"keyroll/api"
)

// digest is a SHA-256.
type digest [sha256.Size]byte

// String shows the first bytes.
func (d digest) String() string { return fmt.Sprintf("%x…", d[:8]) }

// sum reads r to its end.
func sum(r io.Reader) (d digest, err error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return d, err
	}
	return digest(h.Sum(nil)), nil
}

// sumClose is sum over a download.
func sumClose(r io.ReadCloser, err error) (digest, error) {
	if err != nil {
		return digest{}, err
	}
	defer r.Close()
	return sum(r)
}

// put stores one file of the tree and returns its digest.
func (d *demo) put(ctx context.Context, path string) (digest, error) {
	f, err := os.Open(d.Files.local(path))
	if err != nil {
		return digest{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return digest{}, err
	}
	h := sha256.New()
	_, err = d.Client.PutFile(ctx, file(path), info.Size(), io.TeeReader(f, h))
	return digest(h.Sum(nil)), err
}

func file(path string) api.FileInput {
	return api.FileInput{SiteInput: api.SiteInput{Site: site}, Path: path}
}

// reader counts what was read while keys were rolled.
type reader struct{ messages, files atomic.Int64 }

// whileReading runs act and reads mail and files repeatedly until it ends.
func (d *demo) whileReading(ctx context.Context, act func(context.Context) error) error {
	g, gctx := errgroup.WithContext(ctx)
	done := make(chan struct{})
	g.Go(func() error {
		defer close(done)
		return act(gctx)
	})
	g.Go(func() error {
		for i := 0; ; i++ {
			if err := d.readOne(gctx, i); err != nil {
				return fmt.Errorf("a read failed while keys were rolled: %w", err)
			}
			select {
			case <-done:
				return nil
			default:
			}
		}
	})
	return g.Wait()
}

func (d *demo) readOne(ctx context.Context, i int) error {
	if len(d.files) > 0 && i%2 == 1 {
		path := d.Files.Paths[i%len(d.Files.Paths)]
		got, err := sumClose(d.Client.GetFile(ctx, file(path), 0, -1))
		if err == nil && got != d.files[path] {
			d.differs("file %s, read while keys were rolled", path)
		}
		d.reads.files.Add(1)
		return err
	}
	user := users[i%2]
	if _, ok := d.mail[user]; !ok {
		return nil
	}
	got, err := sumClose(d.Client.ExportMail(ctx, api.MailboxInput{Mailbox: user}))
	if err == nil && got != d.mail[user] {
		d.differs("mailbox %s, read while keys were rolled", user)
	}
	d.reads.messages.Add(1)
	return err
}

// prove compares everything with what was stored, and decrypts every key.
func (d *demo) prove(ctx context.Context) error {
	old, err := d.policyID(ctx, inactive)
	if err != nil {
		return err
	}
	same := 0
	for user, want := range d.mail {
		got, err := sumClose(d.Client.ExportMail(ctx, api.MailboxInput{Mailbox: user}))
		if err != nil {
			return err
		}
		if got != want {
			d.differs("mailbox %s: %s was stored, %s was read", user, want, got)
			continue
		}
		same++
	}
	d.say("mailboxes equal to what was imported, by SHA-256: %d of %d", same, len(d.mail))
	same = 0
	for path, want := range d.files {
		got, err := sumClose(d.Client.GetFile(ctx, file(path), 0, -1))
		if err != nil {
			return err
		}
		if got != want {
			d.differs("file %s: %s was stored, %s was read", path, want, got)
			continue
		}
		same++
	}
	d.say("files equal to what was stored, by SHA-256: %d of %d", same, len(d.files))
	d.say("read while keys were rolled: %d exports of mailboxes, %d files, none failed", d.reads.messages.Load(), d.reads.files.Load())
	if _, ok := d.mail[inactive]; ok {
		if err := d.waitForMove(ctx, old); err != nil {
			return err
		}
	}
	if err := d.verify(ctx); err != nil {
		return err
	}
	for _, r := range d.rolls {
		d.say("%s", timed(r))
	}
	return d.usage(ctx)
}

// moveTimeout bounds how long the move of a key after an access may take.
const moveTimeout = 30 * time.Second

// waitForMove waits until the inactive mailbox, which has just been read, is under the
// refreshed key.
func (d *demo) waitForMove(ctx context.Context, old string) error {
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		now, err := d.policyID(ctx, inactive)
		if err != nil {
			return err
		}
		if now != old {
			d.say("%s was read and is now under the refreshed key: %s", inactive, now)
			return nil
		}
		select {
		case <-ctx.Done():
			d.differs("%s was read and is still under %s", inactive, old)
			return nil
		case <-tick.C:
		}
	}
}

func (d *demo) verify(ctx context.Context) error {
	v, err := d.Client.Verify(ctx, api.VerifyInput{}, func(api.VerifyProgress) {})
	if err != nil {
		return err
	}
	d.say("wrapped keys decrypted: %d wraps of %d policy keys, %d container keys, %d blob keys; items read completely: %d (%d bytes)",
		v.Wraps, v.PolicyKeys, v.Containers, v.BlobKeys, v.Items, v.Bytes)
	for _, f := range append(v.Damaged, v.Closed...) {
		d.differs("%s %s cannot be decrypted: %s", f.Kind, f.ID, f.Detail)
	}
	return nil
}

// usage prints what each key version protects.
func (d *demo) usage(ctx context.Context) error {
	l, err := d.Client.ListKeyUsage(ctx, api.KeyUsageInput{})
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(d.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VAULT\tVERSION\tPOLICY\tACTIVE\tINACTIVE\tSITES\tVERDICT")
	for _, u := range l.Items {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%s\n", u.Vault, u.Version, u.Policy, u.Active, u.Inactive, u.Sites, u.Verdict)
	}
	return w.Flush()
}
