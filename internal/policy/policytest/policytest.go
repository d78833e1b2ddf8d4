// Package policytest gives tests policies on a real database and a real store of
// availability keys. The vaults of the customer keys are fakes.
// Start reading at New.
package policytest

import (
	"context"
	"crypto/fips140"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/audit"
	"keyroll/internal/availability"
	"keyroll/internal/envelope"
	"keyroll/internal/keypage"
	"keyroll/internal/policy"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// World is one tenant with its policies.
type World struct {
	testing.TB
	Ctx          context.Context
	DB           *store.DB
	Policies     *policy.Policies
	Config       policy.Config // of Policies
	Vaults       *FakeVaults
	Availability *Counted
	Tenant       int64
	GUID         uuid.UUID
	Clock        *Clock
	Folder       string // of the availability keys
}

// Clock is a clock that does not run; Advance moves it.
type Clock struct{ at atomic.Int64 } // Unix milliseconds

// Now returns the time, to the millisecond.
func (c *Clock) Now() time.Time { return time.UnixMilli(c.at.Load()) }

// Advance moves the clock.
func (c *Clock) Advance(d time.Duration) { c.at.Add(d.Milliseconds()) }

// Counted is a store of availability keys that counts calls of Open.
type Counted struct {
	*availability.Store
	Opens atomic.Int64
}

func (c *Counted) Open(ctx context.Context, id int64, version uint32, ec envelope.EncryptionContext, wrapped []byte) ([]byte, error) {
	c.Opens.Add(1)
	return c.Store.Open(ctx, id, version, ec, wrapped)
}

// Bubble runs a test in a synctest bubble, whose clock advances only when all goroutines
// wait. FIPS mode seeds its random numbers from the jitter of the processor, measured by
// the clock (crypto/internal/fips140/entropy), and panics if the clock does not run:
// there the test is skipped, because it tests time, not cryptography.
func Bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	if fips140.Enabled() {
		t.Skip("in FIPS mode random numbers need a clock that runs, which a synctest bubble does not have")
	}
	synctest.Test(t, test)
}

// New returns a tenant of a database with its service-managed policy.
func New(t testing.TB, db *store.DB) *World {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "availability")
	keys, err := availability.Open(context.Background(), "file://"+folder)
	if err != nil {
		t.Fatal(err)
	}
	w := &World{TB: t, Ctx: context.Background(), DB: db, Vaults: newFakeVaults(), Availability: &Counted{Store: keys}, Clock: &Clock{}, Folder: folder}
	w.Clock.at.Store(1_800_000_000_000)
	w.Configure(func(c *policy.Config) {
		*c = policy.Config{DB: db, Roots: w.Vaults, Availability: w.Availability, RevisionKey: envelope.NewKey(), Now: w.Clock.Now, Logger: slog.New(slog.DiscardHandler)}
	})
	return w.Neighbour()
}

// Configure replaces the policies by ones whose configuration edit changes.
func (w *World) Configure(edit func(c *policy.Config)) {
	edit(&w.Config)
	w.Policies = policy.New(w.Config)
	w.Cleanup(w.Policies.Close)
}

// Neighbour returns another tenant of the same database.
func (w *World) Neighbour() *World {
	w.Helper()
	n := *w
	n.Tenant, n.GUID = store.NewID(), uuid.New()
	n.InTx(func(tx *store.Tx) error {
		_, err := tx.Exec(n.Ctx, `INSERT INTO tenant (id, tenant, guid, name, created) VALUES (?1, ?1, ?2, ?3, 0)`, n.Tenant, n.GUID.String(), n.GUID.String())
		return err
	})
	n.Must(storetest.Ask(n.Ctx, n.TB, func(ctx context.Context) error { return n.Policies.Bootstrap(ctx, n.Tenant, n.GUID) }, nil))
	return &n
}

// Node returns the policies of another node on the same database.
func (w *World) Node() *policy.Policies {
	node := policy.New(w.Config)
	w.Cleanup(node.Close)
	return node
}

// As returns the context of an operation or of a job of the service.
func (w *World) As(operation string) context.Context {
	return audit.WithOrigin(w.Ctx, audit.Origin{Operation: operation, Request: "request of " + operation})
}

// On returns the world for a subtest.
func (w *World) On(t testing.TB) *World {
	n := *w
	n.TB = t
	return &n
}

// Over returns the world with another database, as after a restart.
func (w *World) Over(db *store.DB) *World {
	n := *w
	n.DB = db
	n.Configure(func(c *policy.Config) { c.DB = db })
	return &n
}

// Must fails the test on an error.
func (w *World) Must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// View and InTx run f in a transaction that must succeed.
func (w *World) View(f func(tx *store.Tx) error) { w.Helper(); w.Must(w.DB.ViewOnce(w.Ctx, f)) }
func (w *World) InTx(f func(tx *store.Tx) error) { w.Helper(); w.Must(w.DB.InTx(w.Ctx, f)) }

// Number returns the only number that a query selects.
func (w *World) Number(query string, args ...any) (n int64) {
	w.Helper()
	w.View(func(tx *store.Tx) error { return tx.QueryRow(w.Ctx, query, args...).Scan(&n) })
	return n
}

// Exec changes rows, at least one.
func (w *World) Exec(query string, args ...any) {
	w.Helper()
	w.InTx(func(tx *store.Tx) error {
		n, err := tx.Exec(w.Ctx, query, args...)
		if err == nil && n == 0 {
			return fmt.Errorf("no row: %s", query)
		}
		return err
	})
}

// MailboxPolicy makes a mailbox policy on the newest versions of key k in vault
// A-NAME and in vault B-NAME, which are created if they do not exist.
func (w *World) MailboxPolicy(name string) policy.Policy {
	w.Helper()
	pol, err := w.TryMailboxPolicy(name)
	w.Must(err)
	return pol
}

// TryMailboxPolicy is MailboxPolicy that may be refused.
func (w *World) TryMailboxPolicy(name string) (policy.Policy, error) {
	a, b := w.Vaults.Add("A-"+name, "k"), w.Vaults.Add("B-"+name, "k")
	a.Version, b.Version = "", ""
	return w.ask(policy.Definition{Kind: api.MailboxPolicy, Name: name, Primary: a, Secondary: b})
}

// Created is a new policy with the warnings of the key checks.
type Created struct {
	policy.Policy
	Warnings []string
}

// Create makes a policy. Functions run in its transaction.
func (w *World) Create(d policy.Definition, within ...func(*store.Tx, policy.Policy) error) (Created, error) {
	return w.create(w.Ctx, w.Policies, d, within...)
}

// CreateOn is Create on a node.
func (w *World) CreateOn(node *policy.Policies, d policy.Definition) (Created, error) {
	return w.create(w.Ctx, node, d)
}

func (w *World) create(ctx context.Context, node *policy.Policies, d policy.Definition, within ...func(*store.Tx, policy.Policy) error) (made Created, err error) {
	p, err := node.PrepareCreate(ctx, w.Tenant, w.GUID, d)
	if err != nil {
		return made, err
	}
	made.Warnings = p.Warnings
	return made, w.DB.Commit(ctx, p, func(tx *store.Tx) error {
		if made.Policy, err = p.Commit(ctx, tx); err != nil {
			return err
		}
		for _, f := range within {
			if err := f(tx, made.Policy); err != nil {
				return err
			}
		}
		return nil
	})
}

// Changed is a change of the keys of a policy with the warnings of the key checks.
type Changed struct {
	policy.Change
	Warnings []string
}

// Change changes the keys of a policy. Functions run in its transaction.
func (w *World) Change(pol policy.Policy, r policy.Request, within ...func(*store.Tx, policy.Change) error) (Changed, error) {
	return w.change(w.Ctx, w.Policies, pol, r, within...)
}

// ChangeOn is Change on a node.
func (w *World) ChangeOn(node *policy.Policies, pol policy.Policy, r policy.Request) (Changed, error) {
	return w.change(w.Ctx, node, pol, r)
}

func (w *World) change(ctx context.Context, node *policy.Policies, pol policy.Policy, r policy.Request, within ...func(*store.Tx, policy.Change) error) (made Changed, err error) {
	p, err := node.PrepareChange(ctx, pol, r)
	if err != nil {
		return made, err
	}
	made.Warnings = p.Warnings
	return made, w.DB.Commit(ctx, p, func(tx *store.Tx) error {
		if made.Change, err = p.Commit(ctx, tx); err != nil {
			return err
		}
		for _, f := range within {
			if err := f(tx, made.Change); err != nil {
				return err
			}
		}
		return nil
	})
}

// Update replaces one key of a policy that names exact versions.
func Update(secondary bool, kv envelope.KeyVersion, depth api.Depth) policy.Request {
	if secondary {
		return policy.Request{Act: policy.UpdateSecondary, Secondary: kv, Depth: depth}
	}
	return policy.Request{Act: policy.UpdatePrimary, Primary: kv, Depth: depth}
}

// ask makes a policy even if answers of the database are lost.
func (w *World) ask(d policy.Definition, within ...func(*store.Tx, policy.Policy) error) (pol policy.Policy, err error) {
	return pol, storetest.Ask(w.Ctx, w.TB, func(ctx context.Context) error {
		made, err := w.create(ctx, w.Policies, d, within...)
		pol = made.Policy
		return err
	}, func() bool {
		return w.DB.ViewOnce(w.Ctx, func(tx *store.Tx) (err error) {
			pol, err = w.Policies.Find(w.Ctx, tx, w.Tenant, d.Name)
			return err
		}) == nil
	})
}

// SitePolicy registers the site policy, named Sites, on key k in vaults A-Sites
// and B-Sites. Functions run in its transaction.
func (w *World) SitePolicy(within ...func(*store.Tx, policy.Policy) error) policy.Policy {
	w.Helper()
	d := policy.Definition{Kind: api.SitePolicy, Name: "Sites", Primary: w.Vaults.Add("A-Sites", "k"), Secondary: w.Vaults.Add("B-Sites", "k")}
	pol, err := w.ask(d, within...)
	w.Must(err)
	return pol
}

// NewVersions adds a version to both keys of a policy that MailboxPolicy or
// SitePolicy made.
func (w *World) NewVersions(pol policy.Policy) (primary, secondary envelope.KeyVersion) {
	return w.Vaults.Add("A-"+pol.Name, "k"), w.Vaults.Add("B-"+pol.Name, "k")
}

// Refresh adds versions and refreshes the current state of the policy. Functions run in
// its transaction.
func (w *World) Refresh(pol policy.Policy, depth api.Depth, allGenerations bool, within ...func(*store.Tx, policy.Change) error) policy.Change {
	w.Helper()
	w.NewVersions(pol)
	var c policy.Change
	note := func(_ *store.Tx, made policy.Change) error { c = made; return nil }
	now := w.Reload(pol)
	w.Must(storetest.Ask(w.Ctx, w.TB, func(ctx context.Context) error {
		_, err := w.change(ctx, w.Policies, now, policy.Request{Depth: depth, AllGenerations: allGenerations}, append(within, note)...)
		return err
	}, func() bool { return w.has(c.Revision.GUID) }))
	return c
}

// has reports whether there is a revision.
func (w *World) has(revision uuid.UUID) bool {
	w.Helper()
	return w.Number(`SELECT COUNT(*) FROM revision WHERE tenant = ?1 AND guid = ?2`, w.Tenant, revision.String()) > 0
}

// Reload returns the current state of a policy.
func (w *World) Reload(pol policy.Policy) (now policy.Policy) {
	w.Helper()
	w.View(func(tx *store.Tx) (err error) {
		now, err = w.Policies.ByID(w.Ctx, tx, pol.Tenant, pol.ID)
		return err
	})
	return now
}

// Open opens a policy key.
func (w *World) Open(policyKey int64) *envelope.Key {
	w.Helper()
	key, err := w.Policies.Open(w.Ctx, w.Tenant, policyKey, policy.User)
	w.Must(err)
	return key
}

// Serve ends the failures of both vaults of a policy that MailboxPolicy or SitePolicy
// made, and uses both keys once, which ends recorded refusals.
func (w *World) Serve(pol policy.Policy) {
	w.Helper()
	w.Vaults.Fail("A-"+pol.Name, nil)
	w.Vaults.Fail("B-"+pol.Name, nil)
	for _, probe := range w.Policies.Probe(w.Ctx, w.Tenant, pol.Current.ID)[:2] {
		w.Must(probe.Err)
	}
}

// Put puts a page of n new keys under a policy key.
func (w *World) Put(under policy.KeyRow, class envelope.Class, n int) keypage.Row {
	w.Helper()
	key := w.Open(under.ID)
	defer key.Zero()
	slots := make([]envelope.Slot, n)
	for i := range slots {
		slots[i] = envelope.Slot{Child: store.NewID(), Generation: 1, Key: *envelope.NewKey()}
	}
	page, err := envelope.NewPage(slots...)
	w.Must(err)
	row := keypage.Row{ID: store.NewID(), Tenant: w.Tenant, Parent: under.ID, Generation: under.Generation, Class: class, Version: 1, Count: uint32(n)}
	row.Body, err = envelope.SealPage(key, row.EncryptionContext(), page)
	w.Must(err)
	w.InTx(func(tx *store.Tx) error { return keypage.Put(w.Ctx, tx, row) })
	return row
}

// RemoveAvailabilityKeys removes every availability key from its store.
func (w *World) RemoveAvailabilityKeys() {
	w.Helper()
	files, err := filepath.Glob(filepath.Join(w.Folder, "*.key"))
	w.Must(err)
	if len(files) == 0 {
		w.Fatal("there are no availability keys")
	}
	for _, f := range files {
		w.Must(os.Remove(f))
	}
}

// DestroyAvailabilityKey destroys the availability key of a policy.
func (w *World) DestroyAvailabilityKey(pol policy.Policy) {
	w.Helper()
	w.Must(w.Availability.Destroy(w.Ctx, w.Number(`SELECT availability FROM revision WHERE tenant = ?1 AND policy_key = ?2`, w.Tenant, pol.Current.ID)))
}

// Usage returns the ledger.
func (w *World) Usage() (list []api.KeyUsage) {
	w.Helper()
	w.View(func(tx *store.Tx) (err error) {
		list, err = w.Policies.Usage(w.Ctx, tx, w.Tenant)
		return err
	})
	return list
}

// Dump returns every row of some tables; default: all tables that policies and rolls
// write.
func (w *World) Dump(tables ...string) string {
	w.Helper()
	if len(tables) == 0 {
		tables = []string{"policy", "policy_key", "revision", "key_page", "container", "roll", "audit_entry"}
	}
	var all []string
	w.View(func(tx *store.Tx) error {
		for _, table := range tables {
			rows, err := tx.Query(w.Ctx, `SELECT * FROM `+table)
			if err != nil {
				return err
			}
			columns, err := rows.Columns()
			if err != nil {
				return err
			}
			for rows.Next() {
				fields := make([]any, len(columns))
				for i := range fields {
					fields[i] = new(any)
				}
				if err := rows.Scan(fields...); err != nil {
					return err
				}
				line := table
				for _, f := range fields {
					line += fmt.Sprintf("|%v", *f.(*any))
				}
				all = append(all, line)
			}
			if err := rows.Err(); err != nil {
				return err
			}
		}
		return nil
	})
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// ServiceManagedPolicy is the tenant's service-managed policy.
func (w *World) ServiceManagedPolicy() (pol policy.Policy) {
	w.Helper()
	w.View(func(tx *store.Tx) error {
		id, err := w.Policies.ServiceManaged(w.Ctx, tx, w.Tenant)
		if err != nil {
			return err
		}
		pol, err = w.Policies.ByID(w.Ctx, tx, w.Tenant, id)
		return err
	})
	return pol
}
