package roll_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/container/containertest"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/envelope"
	"keyroll/internal/keypage"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

const testSlots = contenttest.Slots

// tenant has a roller that records which policies it has settled.
type tenant struct {
	*contenttest.Fixture
	settled *settlements
}

// settlements are the policies with which Settled was called, in order. Rolls end in
// parallel.
type settlements struct {
	mu       sync.Mutex
	policies []int64
}

func (s *settlements) add(policy int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policies = append(s.policies, policy)
}

func each(t *testing.T, test func(w tenant)) {
	t.Helper()
	storetest.Each(t, func(t *testing.T, db *store.DB) { test(newTenant(policytest.New(t, db))) })
}

func newTenant(p *policytest.World) tenant {
	p.Helper()
	w := tenant{contenttest.New(p, p.Clock.Now), &settlements{}}
	return w.with(func(c *roll.Config) { c.Settled = func(_, policy int64) { w.settled.add(policy) } })
}

// with returns the same tenant with another roller, whose configuration edit changes.
func (w tenant) with(edit func(c *roll.Config)) tenant { return tenant{w.With(edit), w.settled} }

// beforeReseal makes a roller call f before the n-th page that it re-seals,
// counted from 1, a page a batch.
func (w tenant) beforeReseal(f func(n int)) tenant {
	n := 0
	return w.with(func(c *roll.Config) {
		c.Limit = pageAtATime()
		c.Reseal = func(from, to *envelope.Key, old, next envelope.EncryptionContext, body []byte) ([]byte, error) {
			n++
			f(n)
			return envelope.Reseal(from, to, old, next, body)
		}
	})
}

func (w tenant) mailboxes(pol int64, names ...string) (list []container.Container) {
	w.Helper()
	w.Must(w.Containers.CreateMany(w.Ctx, w.Tenant, container.Mailbox, names, pol))
	for _, name := range names {
		c, err := w.Containers.Find(w.Ctx, w.Tenant, container.Mailbox, name)
		w.Must(err)
		list = append(list, c)
	}
	return list
}

func numbered(prefix string, n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("%s%d@contoso.com", prefix, i))
	}
	return names
}

// begin refreshes a policy and begins its roll.
func (w tenant) begin(pol policy.Policy) roll.Roll {
	w.Helper()
	return w.Begin(pol, api.DepthPolicy, roll.Options{})
}

// register registers the site policy and begins its roll.
func (w tenant) register() (pol policy.Policy, ro roll.Roll) {
	w.Helper()
	pol = w.SitePolicy(func(tx *store.Tx, pol policy.Policy) error {
		managed, err := w.Policies.ServiceManaged(w.Ctx, tx, w.Tenant)
		if err != nil {
			return err
		}
		rev, err := w.Policies.RevisionOf(w.Ctx, tx, w.Tenant, pol.Current.ID)
		if err != nil {
			return err
		}
		ro, err = roll.Begin(w.Ctx, tx, w.Policies, roll.Start{Policy: pol, Source: managed, Revision: rev.GUID}, w.Clock.Now())
		return err
	})
	return pol, ro
}

// under returns the policy key that a container's key is under.
func (w tenant) under(c container.Container) (policyKey int64) {
	w.Helper()
	w.View(func(tx *store.Tx) (err error) {
		policyKey, _, err = w.Containers.PolicyKeyOf(w.Ctx, tx, c)
		return err
	})
	return policyKey
}

// current returns the current policy key.
func (w tenant) current(pol policy.Policy) int64 { w.Helper(); return w.Reload(pol).Current.ID }

// keyring returns the key of every container.
type keyring map[int64]*envelope.Key

func (w tenant) keys() keyring {
	w.Helper()
	ring := keyring{}
	var all []container.Container
	w.View(func(tx *store.Tx) (err error) {
		all, err = w.Containers.All(w.Ctx, tx, w.Tenant, 0, 10_000)
		return err
	})
	for _, c := range all {
		ring[c.ID] = w.Key(c).Key
	}
	return ring
}

// wantSameKeys fails the test unless both have the same keys.
func (w tenant) wantSameKeys(before, after keyring) {
	w.Helper()
	for id, key := range before {
		if !key.Equal(after[id]) {
			w.Errorf("container %d has another key than before", id)
		}
	}
	if len(before) != len(after) {
		w.Errorf("%d containers, %d before", len(after), len(before))
	}
}

// pages returns the tenant's container key pages by id.
func (w tenant) pages() map[int64]keypage.Row {
	w.Helper()
	all := map[int64]keypage.Row{}
	w.View(func(tx *store.Tx) error {
		list, err := containertest.Pages(w.Ctx, tx, w.Tenant)
		for _, row := range list {
			all[row.ID] = row
		}
		return err
	})
	return all
}

// damage alters the body of a key page and returns a function that restores it.
func (w tenant) damage(page int64) (repair func()) {
	w.Helper()
	was := w.pages()[page].Body
	set := func(body []byte) { w.Exec(`UPDATE key_page SET body = ?2 WHERE id = ?1`, page, body) }
	altered := append([]byte{}, was...)
	altered[len(altered)/2] ^= 1
	set(altered)
	return func() { set(was) }
}

// away makes a policy's vaults unavailable, or available again.
func (w tenant) away(pol policy.Policy, err error) {
	w.Vaults.Fail("A-"+pol.Name, err)
	w.Vaults.Fail("B-"+pol.Name, err)
}

// until polls in a synctest bubble, each virtual second, until f holds.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for range 10_000 {
		if f() {
			return
		}
		time.Sleep(time.Second)
	}
	t.Fatalf("it never came to pass: %s", what)
}

// run starts the roller and returns a function that stops it and waits for its end.
func (w tenant) run() (stop func()) {
	ctx, cancel := context.WithCancel(w.Ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); w.Roller.Run(ctx) }()
	return func() { cancel(); <-ended }
}
