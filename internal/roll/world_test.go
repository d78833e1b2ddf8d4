package roll_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/keypage"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

const testSlots = 4

// world is one tenant with real policies and containers, and a roller.
type world struct {
	*policytest.World
	containers *container.Containers
	roller     *roll.Roller
	settled    *settlements
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

func each(t *testing.T, test func(w world)) {
	t.Helper()
	storetest.Each(t, func(t *testing.T, db *store.DB) { test(newWorld(policytest.New(t, db), nil)) })
}

// newWorld gives a tenant its containers and a roller, whose configuration edit
// may change.
func newWorld(p *policytest.World, edit func(c *roll.Config)) world {
	p.Helper()
	w := world{World: p, containers: container.New(p.DB, p.Policies, testSlots, p.Clock.Now), settled: &settlements{}}
	w.Must(w.containers.Bootstrap(w.Ctx, w.Tenant))
	_, err := w.containers.Directory(w.Ctx, w.Tenant)
	w.Must(err)
	return w.with(edit)
}

// with returns the same tenant with a roller of its own.
func (w world) with(edit func(c *roll.Config)) world {
	c := roll.Config{DB: w.DB, Policies: w.Policies, Now: w.Clock.Now, Logger: slog.New(slog.DiscardHandler),
		Settled: func(_, policy int64) { w.settled.add(policy) }}
	if edit != nil {
		edit(&c)
	}
	w.roller = roll.New(c)
	return w
}

// beforeReseal makes a roller call f before the n-th page that it re-seals,
// counted from 1, a page a batch.
func (w world) beforeReseal(f func(n int)) world {
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

func (w world) mailboxes(pol int64, names ...string) (list []container.Container) {
	w.Helper()
	w.Must(w.containers.CreateMany(w.Ctx, w.Tenant, container.Mailbox, names, pol))
	for _, name := range names {
		c, err := w.containers.Find(w.Ctx, w.Tenant, container.Mailbox, name)
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

func (w world) site(name string) container.Container {
	w.Helper()
	c, err := w.containers.Create(w.Ctx, w.Tenant, container.Site, "https://contoso.sharepoint.com/sites/"+name, 0, nil)
	w.Must(err)
	return c
}

// begin refreshes a policy and begins its roll.
func (w world) begin(pol policy.Policy) (ro roll.Roll) {
	w.Helper()
	w.Refresh(pol, api.DepthPolicy, false, func(tx *store.Tx, c policy.Change) (err error) {
		ro, err = roll.Begin(w.Ctx, tx, w.Policies, roll.Start{Policy: c.Policy, Revision: c.Revision.GUID}, w.Clock.Now())
		return err
	})
	return ro
}

// register registers the site policy and begins its roll.
func (w world) register() (pol policy.Policy, ro roll.Roll) {
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

// finish works on a roll, which must end without waiting, in the given state.
func (w world) finish(ro roll.Roll, state api.RollState) roll.Roll {
	w.Helper()
	var waits bool
	err := storetest.Ask(w.Ctx, w.TB, func(ctx context.Context) (err error) {
		if waits, err = w.roller.Work(ctx, ro); waits && err == nil {
			waits, err = w.roller.Work(w.Ctx, ro) // as it waits for a database that does not answer
		}
		return err
	}, nil)
	if err != nil || waits {
		w.Fatalf("the roll waits: %v; error: %v", waits, err)
	}
	now := w.now(ro)
	if now.State != state {
		w.Fatalf("the roll is %s (%s), want %s", now.State, now.Message, state)
	}
	return now
}

// now returns the current state of a roll.
func (w world) now(ro roll.Roll) (now roll.Roll) {
	w.Helper()
	w.View(func(tx *store.Tx) (err error) {
		now, err = roll.Find(w.Ctx, tx, w.Tenant, fmt.Sprint(ro.ID))
		return err
	})
	return now
}

func (w world) progress(ro roll.Roll) (p api.Roll) {
	w.Helper()
	w.View(func(tx *store.Tx) (err error) {
		now, err := roll.Find(w.Ctx, tx, w.Tenant, fmt.Sprint(ro.ID))
		if err != nil {
			return err
		}
		p, err = w.roller.Progress(w.Ctx, tx, now)
		return err
	})
	return p
}

func (w world) setState(ro roll.Roll, state api.RollState) error {
	return w.DB.InTx(w.Ctx, func(tx *store.Tx) error { return roll.SetState(w.Ctx, tx, w.nowIn(tx, ro), state) })
}

func (w world) nowIn(tx *store.Tx, ro roll.Roll) roll.Roll {
	now, err := roll.Find(w.Ctx, tx, w.Tenant, fmt.Sprint(ro.ID))
	w.Must(err)
	return now
}

// under returns the policy key that a container's key is under.
func (w world) under(c container.Container) (policyKey int64) {
	w.Helper()
	w.View(func(tx *store.Tx) (err error) {
		policyKey, _, err = w.containers.PolicyKeyOf(w.Ctx, tx, c)
		return err
	})
	return policyKey
}

// current returns the current policy key.
func (w world) current(pol policy.Policy) int64 { w.Helper(); return w.Reload(pol).Current.ID }

// keyring returns the key of every container.
type keyring map[int64]*envelope.Key

func (w world) keys() keyring {
	w.Helper()
	ring := keyring{}
	var all []container.Container
	w.View(func(tx *store.Tx) (err error) {
		all, err = w.containers.All(w.Ctx, tx, w.Tenant, 0, 10_000)
		return err
	})
	for _, c := range all {
		o, err := w.containers.OpenKey(w.Ctx, c, api.ByUser)
		w.Must(err)
		ring[c.ID] = o.Key
	}
	return ring
}

// same fails the test unless both have the same keys.
func (w world) same(before, after keyring) {
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
func (w world) pages() map[int64]keypage.Row {
	w.Helper()
	all := map[int64]keypage.Row{}
	w.View(func(tx *store.Tx) error {
		rows, err := tx.Query(w.Ctx, `SELECT id, tenant, parent, generation, class, version, count, body FROM key_page WHERE tenant = ?1`, w.Tenant)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r keypage.Row
			if err := rows.Scan(&r.ID, &r.Tenant, &r.Parent, &r.Generation, &r.Class, &r.Version, &r.Count, &r.Body); err != nil {
				return err
			}
			all[r.ID] = r
		}
		return rows.Err()
	})
	return all
}

// damage alters the body of a key page and returns a function that restores it.
func (w world) damage(page int64) (repair func()) {
	w.Helper()
	was := w.pages()[page].Body
	set := func(body []byte) {
		w.InTx(func(tx *store.Tx) error {
			_, err := tx.Exec(w.Ctx, `UPDATE key_page SET body = ?2 WHERE id = ?1`, page, body)
			return err
		})
	}
	altered := append([]byte{}, was...)
	altered[len(altered)/2] ^= 1
	set(altered)
	return func() { set(was) }
}

// away makes a policy's vaults unavailable, or available again.
func (w world) away(pol policy.Policy, err error) {
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
func (w world) run() (stop func()) {
	ctx, cancel := context.WithCancel(w.Ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); w.roller.Run(ctx) }()
	return func() { cancel(); <-ended }
}
