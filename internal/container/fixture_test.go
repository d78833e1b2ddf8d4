package container_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/container/containertest"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keypage"
	"keyroll/internal/policy"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// fixture is one tenant with its policies and containers.
type fixture struct {
	testing.TB
	ctx      context.Context
	db       *store.DB
	policies *containertest.Policies
	all      containertest.Containers
	tenant   int64
	managed  int64 // the service-managed policy
}

var _ container.PolicyKeys = (*policy.Policies)(nil)

const testSlots = 4

var testTime = time.UnixMilli(1_800_000_000_123)

func each(t *testing.T, test func(w fixture)) {
	t.Helper()
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		test(newFixture(t, db, containertest.NewPolicies(t, db)))
	})
}

func newFixture(t testing.TB, db *store.DB, policies *containertest.Policies) fixture {
	t.Helper()
	w := fixture{TB: t, ctx: context.Background(), db: db, policies: policies, tenant: store.NewID()}
	w.all = containertest.Containers{Containers: container.New(db, policies, testSlots, func() time.Time { return testTime }), DB: db}
	w.must(db.InTx(w.ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(w.ctx, `INSERT INTO tenant (id, tenant, guid, name, created) VALUES (?1, ?1, ?2, ?2, 0)`, w.tenant, uuid.NewString())
		return err
	}))
	w.managed = policies.Create(t, w.tenant, containertest.ServiceManaged)
	w.must(w.all.Bootstrap(w.ctx, w.tenant))
	return w
}

// neighbour is another tenant in the same database.
func (w fixture) neighbour() fixture {
	w.Helper()
	return newFixture(w.TB, w.db, w.policies)
}

func (w fixture) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w fixture) wantCode(err error, code api.Code) {
	w.Helper()
	if !fail.Is(err, code) {
		w.Errorf("error is %v (%s), want %s", err, fail.CodeOf(err), code)
	}
}

func (w fixture) view(f func(tx *store.Tx) error) {
	w.Helper()
	w.must(w.db.ViewOnce(w.ctx, f))
}

func (w fixture) mailbox(name string, policy int64) container.Container {
	w.Helper()
	var c container.Container
	w.must(storetest.Ask(w.ctx, w.TB, func(ctx context.Context) (err error) {
		c, err = w.all.Create(ctx, w.tenant, container.Mailbox, name, policy)
		return err
	}, func() bool {
		there, err := w.all.Find(w.ctx, w.tenant, container.Mailbox, name)
		c = there
		return err == nil
	}))
	return c
}

func (w fixture) mailboxes(names ...string) (list []container.Container) {
	w.Helper()
	rest := names
	w.must(storetest.Ask(w.ctx, w.TB, func(ctx context.Context) error {
		return w.all.CreateMany(ctx, w.tenant, container.Mailbox, rest, 0)
	}, func() bool { // whole batches of them may be there
		for len(rest) > 0 {
			if _, err := w.all.Find(w.ctx, w.tenant, container.Mailbox, rest[0]); err != nil {
				return false
			}
			rest = rest[1:]
		}
		return true
	}))
	for _, name := range names {
		list = append(list, w.find(name))
	}
	return list
}

func (w fixture) find(name string) container.Container {
	w.Helper()
	c, err := w.all.Find(w.ctx, w.tenant, container.Mailbox, name)
	w.must(err)
	return c
}

// key returns a container's key and the policy key that it is under.
func (w fixture) key(c container.Container) (*envelope.Key, int64) {
	w.Helper()
	o, err := w.all.OpenKey(w.ctx, c, api.ByUser)
	w.must(err)
	return o.Key, o.PolicyKey
}

func (w fixture) currentOf(policy int64) (id int64) {
	w.Helper()
	w.view(func(tx *store.Tx) error {
		k, err := w.policies.Current(w.ctx, tx, w.tenant, policy)
		id = k.ID
		return err
	})
	return id
}

// pages returns the tenant's key pages in id order.
func (w fixture) pages() (pages []keypage.Row) {
	w.Helper()
	w.view(func(tx *store.Tx) (err error) {
		pages, err = containertest.Pages(w.ctx, tx, w.tenant)
		return err
	})
	return pages
}

// keyLocation is the location of a container's key.
type keyLocation struct {
	container.Container
	key       *envelope.Key
	policyKey int64
}

// keyLocations opens every page and returns every container, after checking that
// the slots of each page are exactly the containers that point to it.
func (w fixture) keyLocations() (all map[int64]keyLocation, err error) {
	all = map[int64]keyLocation{}
	return all, w.db.ViewOnce(w.ctx, func(tx *store.Tx) error {
		list, err := w.all.All(w.ctx, tx, w.tenant, 0, 10_000)
		if err != nil {
			return err
		}
		pointing := map[int64][]string{}
		for _, c := range list {
			pointing[c.Page] = append(pointing[c.Page], fmt.Sprint(c.ID, c.Generation, c.State))
			all[c.ID] = keyLocation{Container: c}
		}
		pages, err := containertest.Pages(w.ctx, tx, w.tenant)
		if err != nil {
			return err
		}
		for _, row := range pages {
			page, err := envelope.OpenPage(w.policies.Key(row.Parent), row.EncryptionContext(), row.Body)
			if err != nil {
				return err
			}
			var has []string
			for _, s := range page.Slots() {
				has = append(has, fmt.Sprint(s.Child, s.Generation, row.Class))
				all[s.Child] = keyLocation{all[s.Child].Container, &s.Key, row.Parent}
			}
			if !slices.Equal(has, pointing[row.ID]) {
				return fmt.Errorf("page %d has the slots %v, and the containers %v point to it", row.ID, has, pointing[row.ID])
			}
			delete(pointing, row.ID)
		}
		if len(pointing) > 0 {
			return fmt.Errorf("containers point to pages that are not there: %v", pointing)
		}
		return nil
	})
}

// checkSlots fails unless pages and pointers agree.
func (w fixture) checkSlots() error {
	_, err := w.keyLocations()
	return err
}

// dump returns all rows of a tenant's containers and pages as text.
func (w fixture) dump() string {
	w.Helper()
	var all []container.Container
	w.view(func(tx *store.Tx) (err error) {
		all, err = w.all.All(w.ctx, tx, w.tenant, 0, 10_000)
		return err
	})
	return fmt.Sprint(all, w.pages())
}

var errRefused = errors.New("refused by the test")

func (w fixture) now() time.Time { return testTime }

// parentOfKey returns the policy key that a container's key is under.
func (w fixture) parentOfKey(c container.Container) (p keypage.Parent) {
	w.Helper()
	w.view(func(tx *store.Tx) (err error) {
		p.ID, p.Generation, err = w.all.PolicyKeyOf(w.ctx, tx, c)
		return err
	})
	return p
}
