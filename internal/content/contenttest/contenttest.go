// Package contenttest gives tests a tenant of policytest with containers, content and
// rolls, and the tests of items, content, backup, collect and renew a smaller one whose
// policies need no vault. Start reading at New and at NewSmall.
package contenttest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/container"
	"keyroll/internal/container/containertest"
	"keyroll/internal/content"
	"keyroll/internal/depth"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// Slots is the number of slots of a key page.
const Slots = 4

// Fixture is a tenant with its containers, their content and a roller.
type Fixture struct {
	*policytest.World
	Containers containertest.Containers
	Contents   Contents
	Blobs      blob.Store
	Roller     *roll.Roller
	Wrote      map[int64]string // mail by container, as Import wrote it

	now   func() time.Time
	rolls roll.Config // of Roller
}

// New gives a tenant its containers, and a blob store of its own.
func New(p *policytest.World, now func() time.Time) *Fixture {
	p.Helper()
	return Open(p, NewBlobs(p), now).withDirectory()
}

// NewBlobs returns an empty blob store.
func NewBlobs(p *policytest.World) blob.Store {
	p.Helper()
	blobs, err := blob.Open(p.Ctx, "file://"+p.TempDir())
	p.Must(err)
	return blobs
}

// Open is New over an existing blob store. If the tenant already has containers, it opens
// none of their keys, so no vault needs to answer.
func Open(p *policytest.World, blobs blob.Store, now func() time.Time) *Fixture {
	p.Helper()
	f := &Fixture{World: p, Blobs: blobs, Wrote: map[int64]string{}, now: now}
	f.Containers = containertest.Containers{Containers: container.New(p.DB, p.Policies, Slots, now), DB: p.DB}
	p.Must(f.Containers.Bootstrap(p.Ctx, p.Tenant))
	f.Contents = Connect(Config{DB: p.DB, Containers: f.Containers.Containers, Blobs: blobs, Slots: Slots, Now: now})
	f.rolls = roll.Config{DB: p.DB, Policies: p.Policies, Deep: depth.New(p.DB, f.Containers.Containers, f.Contents.Renewer),
		Settled: func(int64, int64) {}, Now: now, Logger: slog.New(slog.DiscardHandler)}
	f.Roller = roll.New(f.rolls)
	return f
}

// Over returns the tenant with another database, as after a restart.
func (f *Fixture) Over(db *store.DB) *Fixture {
	f.Helper()
	n := Open(f.World.Over(db), f.Blobs, f.now)
	n.Wrote = f.Wrote
	return n.withDirectory()
}

// withDirectory opens the directory, which verification and the names of containers need.
func (f *Fixture) withDirectory() *Fixture {
	f.Helper()
	_, err := f.Containers.Directory(f.Ctx, f.Tenant)
	f.Must(err)
	return f
}

// With returns the tenant with another roller, whose configuration edit changes.
func (f *Fixture) With(edit func(c *roll.Config)) *Fixture {
	n := *f
	edit(&n.rolls)
	n.Roller = roll.New(n.rolls)
	return &n
}

// Message is a message in a mailbox file, whose length depends on n.
func Message(n int) string {
	return fmt.Sprintf("From a\nSubject: %d\n\n%s\n\n", n, strings.Repeat("x", n))
}

// Mailbox makes a mailbox of a policy with so many messages.
func (f *Fixture) Mailbox(pol int64, name string, messages int) container.Container {
	f.Helper()
	c, err := f.Containers.Create(f.Ctx, f.Tenant, container.Mailbox, name+"@contoso.com", pol)
	f.Must(err)
	f.Receive(c, messages)
	return c
}

// Receive imports so many messages into a mailbox, one after the other.
func (f *Fixture) Receive(c container.Container, messages int) {
	f.Helper()
	for range messages {
		f.Import(c, Message(len(f.Wrote[c.ID])))
	}
}

// Import imports the messages of a text into a mailbox.
func (f *Fixture) Import(c container.Container, text string) {
	f.Helper()
	_, err := f.Contents.Import(f.Ctx, c, -1, strings.NewReader(text), content.ImportOptions{})
	f.Must(err)
	f.Wrote[c.ID] += text
}

// Site makes a site of the default policy.
func (f *Fixture) Site(name string) container.Container {
	f.Helper()
	c, err := f.Containers.Create(f.Ctx, f.Tenant, container.Site, "https://contoso.sharepoint.com/sites/"+name, 0)
	f.Must(err)
	return c
}

// WantMail fails the test unless all mail reads back as it was written.
func (f *Fixture) WantMail(list ...container.Container) {
	f.Helper()
	for _, c := range list {
		var got bytes.Buffer
		f.Must(f.Contents.Export(f.Ctx, c, &got))
		if got.String() != f.Wrote[c.ID] {
			f.Fatalf("container %d: %d bytes, want %d, and equal", c.ID, got.Len(), len(f.Wrote[c.ID]))
		}
	}
}

// Key returns a container with its key.
func (f *Fixture) Key(c container.Container) container.Opened {
	f.Helper()
	o, err := f.Containers.OpenKey(f.Ctx, c, api.ByUser)
	f.Must(err)
	return o
}

// Begin refreshes a policy at a depth and begins its roll.
func (f *Fixture) Begin(pol policy.Policy, to api.Depth, o roll.Options) (ro roll.Roll) {
	f.Helper()
	f.Refresh(pol, to, false, func(tx *store.Tx, c policy.Change) (err error) {
		start := roll.Start{Policy: c.Policy, Revision: c.Revision.GUID, Depth: to, Options: o, NewestKey: depth.NewestKey}
		ro, err = roll.Begin(f.Ctx, tx, f.Policies, start, f.rolls.Now())
		return err
	})
	return ro
}

// Finish works on a roll, which must end without waiting, in the given state.
func (f *Fixture) Finish(ro roll.Roll, state api.RollState) api.Roll {
	f.Helper()
	var waits bool
	err := storetest.Ask(f.Ctx, f.TB, func(ctx context.Context) (err error) {
		if waits, err = f.Roller.Work(ctx, ro); waits && err == nil && ctx != f.Ctx {
			waits, err = f.Roller.Work(f.Ctx, ro) // it waited for the database, whose answer was lost
		}
		return err
	}, nil)
	if err != nil || waits {
		f.Fatalf("the roll waits: %v; error: %v", waits, err)
	}
	p := f.Progress(ro)
	if p.State != state {
		f.Fatalf("the roll is %s (%s), want %s", p.State, p.Message, state)
	}
	return p
}

// ReloadRoll returns the current state of a roll.
func (f *Fixture) ReloadRoll(ro roll.Roll) (now roll.Roll) {
	f.Helper()
	f.View(func(tx *store.Tx) (err error) {
		now, err = roll.Find(f.Ctx, tx, f.Tenant, fmt.Sprint(ro.ID))
		return err
	})
	return now
}

// Progress returns the progress of a roll.
func (f *Fixture) Progress(ro roll.Roll) (p api.Roll) {
	f.Helper()
	f.View(func(tx *store.Tx) error {
		now, err := roll.Find(f.Ctx, tx, f.Tenant, fmt.Sprint(ro.ID))
		if err != nil {
			return err
		}
		p, err = f.Roller.Progress(f.Ctx, tx, now)
		return err
	})
	return p
}

// SetState pauses or resumes a roll.
func (f *Fixture) SetState(ro roll.Roll, state api.RollState) error {
	return f.DB.InTx(f.Ctx, func(tx *store.Tx) error {
		now, err := roll.Find(f.Ctx, tx, f.Tenant, fmt.Sprint(ro.ID))
		if err != nil {
			return err
		}
		return roll.SetState(f.Ctx, tx, now, state)
	})
}
