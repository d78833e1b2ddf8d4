package contenttest

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/container"
	"keyroll/internal/container/containertest"
	"keyroll/internal/content"
	"keyroll/internal/fail"
	"keyroll/internal/items"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// Tenant is the tenant of a fixture, and SmallSlots is how many slots its key pages have.
const (
	Tenant     = 7
	SmallSlots = 8
)

// Small is a tenant with one mailbox and one site, over real containers, a real database and
// real blobs, whose policies need no vault. Its blobs, key pages and batches are small.
type Small struct {
	Contents
	Policies   *containertest.Policies
	Containers containertest.Containers
	Blobs      blob.Store
	BlobDir    string
	Mail, Site container.Container

	// Sizes, Now and Older may be changed before Reopen or Connect.
	Sizes items.Sizes
	Now   func() time.Time
	Older bool // a node is live that does not keep totals
}

// SmallBlob is small in most tests, and not a divisor of a segment.
const SmallBlob = 100_000

// NewSmall returns a fixture whose test ends with t.
func NewSmall(t testing.TB, db *store.DB) *Small {
	t.Helper()
	w := &Small{Contents: Contents{DB: db}, Policies: containertest.NewPolicies(t, db), BlobDir: filepath.Join(t.TempDir(), "blobs"),
		Sizes: items.Sizes{Blob: SmallBlob, Batch: 4, Part: 4}, Now: time.Now}
	w.Policies.Create(t, Tenant, containertest.ServiceManaged)
	ctx := context.Background()
	w.Containers = containertest.Containers{Containers: container.New(db, w.Policies, SmallSlots, time.Now), DB: db}
	t.Cleanup(w.Containers.Close)
	Must(t, w.Containers.Bootstrap(ctx, Tenant))
	w.Mail = w.MustCreate(t, container.Mailbox, "alice@contoso.com")
	w.Site = w.MustCreate(t, container.Site, "https://contoso.sharepoint.com/sites/a")
	w.Reopen(t)
	return w
}

// RevokeAfter revokes the policy key after it was opened so many times.
func (w *Small) RevokeAfter(opens int64) {
	var n atomic.Int64
	w.Policies.Opening = func(int64) error {
		if n.Add(1) > opens {
			return fail.New(api.VaultDenied, "the key is revoked")
		}
		return nil
	}
}

// Reopen returns the fixture as the next process sees it.
func (w *Small) Reopen(t testing.TB) {
	t.Helper()
	blobs, err := blob.Open(context.Background(), "file://"+w.BlobDir)
	Must(t, err)
	w.Blobs = blobs
	w.Contents = w.Connect(blobs)
}

// Connect returns the content of the fixture over a blob store, with the settings of the
// fixture.
func (w *Small) Connect(blobs blob.Store) Contents {
	return Connect(Config{DB: w.DB, Containers: w.Containers.Containers, Blobs: blobs, Slots: SmallSlots, Sizes: w.Sizes, Now: w.Now,
		OlderNodes: func(context.Context, *store.Tx) (bool, error) { return w.Older, nil }})
}

// MustCreate makes a container.
func (w *Small) MustCreate(t testing.TB, kind container.Kind, name string) container.Container {
	t.Helper()
	var c container.Container
	Must(t, storetest.Ask(context.Background(), t, func(ctx context.Context) (err error) {
		c, err = w.Containers.Create(ctx, Tenant, kind, name, 0)
		return err
	}, func() bool { return w.Exists(&c, kind, name) }))
	return c
}

// Exists reads a container, if it exists.
func (w *Small) Exists(c *container.Container, kind container.Kind, name string) bool {
	there, err := w.Containers.Find(context.Background(), Tenant, kind, name)
	if err == nil {
		*c = there
	}
	return err == nil
}

// Each runs a test in a new fixture on each database.
func Each(t *testing.T, test func(t *testing.T, w *Small)) {
	storetest.Each(t, func(t *testing.T, db *store.DB) { test(t, NewSmall(t, db)) })
}

// Must fails the test if err is an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// WantCode fails the test unless err has a code.
func WantCode(t testing.TB, err error, code api.Code) {
	t.Helper()
	if !fail.Is(err, code) {
		t.Fatalf("error %v (%s), want code %s", err, fail.CodeOf(err), code)
	}
}

// MustImport imports an mbox into the mailbox.
func (w *Small) MustImport(t testing.TB, text string) content.Imported {
	t.Helper()
	before, bytes := w.MustTotals(t)
	var done content.Imported
	rest := text
	Must(t, storetest.Ask(context.Background(), t, func(ctx context.Context) (err error) {
		done, err = w.Import(ctx, w.Mail, int64(len(rest)), strings.NewReader(rest), content.ImportOptions{})
		return err
	}, func() bool { // whole messages of it may be there
		_, now := w.MustTotals(t)
		rest = text[now-bytes:]
		return rest == ""
	}))
	if done.Bytes != int64(len(text)) { // in several requests
		now, _ := w.MustTotals(t)
		done = content.Imported{Messages: now - before, Bytes: int64(len(text))}
	}
	return done
}

// MustTotals returns the totals of the mailbox.
func (w *Small) MustTotals(t testing.TB) (items, bytes int64) {
	t.Helper()
	Must(t, w.DB.ViewOnce(context.Background(), func(tx *store.Tx) (err error) {
		items, bytes, err = w.Totals(context.Background(), tx, w.Mail)
		return err
	}))
	return items, bytes
}

// MustExport exports the mailbox.
func (w *Small) MustExport(t testing.TB) string {
	t.Helper()
	var b bytes.Buffer
	Must(t, w.Export(context.Background(), w.Mail, &b))
	return b.String()
}

// MustMessages lists the messages of the mailbox.
func (w *Small) MustMessages(t testing.TB) []content.Message {
	t.Helper()
	list, err := w.Messages(context.Background(), w.Mail, 0, 10_000)
	Must(t, err)
	return list
}

// MustPut stores a file in the site.
func (w *Small) MustPut(t testing.TB, path, body string) content.File {
	t.Helper()
	var f content.File
	Must(t, storetest.Ask(context.Background(), t, func(ctx context.Context) (err error) {
		f, err = w.Put(ctx, w.Site, path, int64(len(body)), strings.NewReader(body))
		return err
	}, func() bool {
		list, err := w.Files(context.Background(), w.Site)
		Must(t, err)
		i := slices.IndexFunc(list, func(f content.File) bool { return f.Path == path })
		if i < 0 || w.MustGet(t, path) != body {
			return false
		}
		f = list[i]
		return true
	}))
	return f
}

// MustGet reads a file of the site.
func (w *Small) MustGet(t testing.TB, path string) string {
	t.Helper()
	var b bytes.Buffer
	Must(t, w.Get(context.Background(), w.Site, path, 0, -1, &b))
	return b.String()
}

// zeros is a large body that uses no memory.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// ZeroBytes returns a large body that uses no memory.
func ZeroBytes(n int64) io.Reader { return io.LimitReader(zeros{}, n) }

// RandomContent returns n pseudo-random bytes for a seed.
func RandomContent(seed, n int) string {
	b := make([]byte, n)
	x := uint32(seed)*2654435761 + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return string(b)
}

// Mbox returns an mbox with n messages.
func Mbox(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "From alice@contoso.com Mon Jan  1 00:00:%02d 2024\nSubject: message %d\n\n>From here\nbody %d\n\n", i%60, i, i)
	}
	return b.String()
}

// FewChecks makes rapid try fewer sequences, unless -rapid.checks is set: their acts
// are durable transactions.
func FewChecks(t *testing.T, n int) {
	checks := flag.Lookup("rapid.checks")
	if checks.Value.String() == checks.DefValue {
		Must(t, checks.Value.Set(fmt.Sprint(n)))
		t.Cleanup(func() { Must(t, checks.Value.Set(checks.DefValue)) })
	}
}

// ReaderFunc is a reader.
type ReaderFunc func([]byte) (int, error)

func (f ReaderFunc) Read(p []byte) (int, error) { return f(p) }
