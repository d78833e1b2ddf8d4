package container

import (
	"cmp"
	"context"
	"slices"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/keypage"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// Create makes a container and its key; with policy 0 it is under the default
// policy. also, unless nil, runs in the same transaction, and again if that is run
// again. A name that is taken fails AlreadyExists.
func (s *Containers) Create(ctx context.Context, tenant int64, kind Kind, name string, policy int64, also func(tx *store.Tx, c Container) error) (Container, error) {
	fresh, err := s.newContainers(ctx, tenant, kind, []string{name}, policy)
	if err != nil {
		return Container{}, err
	}
	err = s.insert(ctx, fresh[0].target(), fresh, also)
	return fresh[0].Container, err
}

// batchPages is how many key pages one transaction of CreateMany fills.
const batchPages = 16

// CreateMany makes containers in bulk, with one transaction per batch of full
// pages. On an error the earlier batches stay.
func (s *Containers) CreateMany(ctx context.Context, tenant int64, kind Kind, names []string, policy int64) error {
	for part := range slices.Chunk(names, batchPages*s.pageSlots) {
		fresh, err := s.newContainers(ctx, tenant, kind, part, policy)
		if err != nil {
			return err
		}
		// All keys of a page have the same target.
		for len(fresh) > 0 {
			h := fresh[0].target()
			rest := slices.IndexFunc(fresh, func(f newContainer) bool { return f.target() != h })
			if rest < 0 {
				rest = len(fresh)
			}
			if err := s.insert(ctx, h, fresh[:rest], nil); err != nil {
				return err
			}
			fresh = fresh[rest:]
		}
	}
	return nil
}

// newContainer is a container that is not in the database yet.
type newContainer struct {
	row
	hash []byte
	key  *envelope.Key // nil: one is made
}

func (s *Containers) newContainers(ctx context.Context, tenant int64, kind Kind, names []string, policy int64) ([]newContainer, error) {
	r, err := ruleFor(kind)
	if err != nil {
		return nil, err
	}
	d, err := s.Directory(ctx, tenant)
	if err != nil {
		return nil, err
	}
	fresh := make([]newContainer, len(names))
	created := s.now()
	for i, name := range names {
		spelled, err := normalise(kind, name)
		if err == nil {
			err = checkNew(kind, name)
		}
		if err != nil {
			return nil, err
		}
		c := Container{ID: store.NewID(), Tenant: tenant, Kind: kind, Name: name, State: r.class, Policy: policy, Generation: 1, Created: created, Folded: true}
		c.Keyed, c.Renewed = c.ID, c.ID
		if kind == Mailbox {
			c.Recipient = api.UserMailbox
		}
		fresh[i] = newContainer{row: row{Container: c, name: d.Seal(c.ID, name)}, hash: d.Hash(string(kind), 0, spelled.folded)}
	}
	if kind == Site {
		if err := s.checkSites(ctx, d, names); err != nil {
			return nil, err
		}
		if err := s.setGeos(ctx, d, fresh); err != nil {
			return nil, err
		}
		slices.SortStableFunc(fresh, func(a, b newContainer) int { return cmp.Compare(a.Geo, b.Geo) })
	}
	return fresh, nil
}

// target identifies the policy under whose current policy key a container's key is put.
type target struct {
	tenant int64
	kind   Kind
	policy int64 // 0: the default of the kind in the geo
	geo    int64
}

func (c Container) target() target { return target{c.Tenant, c.Kind, c.Policy, c.Geo} }

// currentKey returns the current policy key of a target, for a View.
func (s *Containers) currentKey(ctx context.Context, tx *store.Tx, h target) (policy.KeyRow, error) {
	if h.policy == 0 {
		var err error
		if h.policy, err = s.policies.Default(ctx, tx, h.tenant, string(h.kind), h.geo); err != nil {
			return policy.KeyRow{}, err
		}
	}
	return s.policies.Current(ctx, tx, h.tenant, h.policy)
}

// lockCurrentKey returns the current policy key of a target and prevents a change of it.
func (s *Containers) lockCurrentKey(ctx context.Context, tx *store.Tx, h target) (policy.KeyRow, error) {
	if h.policy == 0 {
		_, key, err := s.policies.LockDefault(ctx, tx, h.tenant, string(h.kind), h.geo)
		return key, err
	}
	return s.policies.LockCurrent(ctx, tx, h.tenant, h.policy)
}

// insert inserts new containers with new keys, in full pages and in one
// transaction, and sets their Page.
func (s *Containers) insert(ctx context.Context, h target, fresh []newContainer, also func(*store.Tx, Container) error) error {
	return retry("create "+string(h.kind), func() error {
		var target policy.KeyRow
		err := s.db.View(ctx, func(tx *store.Tx) (err error) {
			target, err = s.currentKey(ctx, tx, h)
			return err
		})
		if err != nil {
			return err
		}
		key, err := s.openPolicyKey(ctx, h.tenant, target.ID, policy.User)
		if err != nil {
			return err
		}
		defer key.Zero()
		var pages []keypage.Row
		for part := range slices.Chunk(fresh, s.pageSlots) {
			page, err := newKeys(key, target, part)
			if err != nil {
				return err
			}
			pages = append(pages, page)
		}
		err = s.db.InTx(ctx, func(tx *store.Tx) error {
			if now, err := s.lockCurrentKey(ctx, tx, h); err != nil {
				return err
			} else if now != target {
				return errChanged
			}
			if err := keypage.Put(ctx, tx, pages...); err != nil {
				return err
			}
			return insertRows(ctx, tx, fresh, also)
		})
		if err == nil {
			fault.Point("create.after-commit")
		}
		return err
	})
}

func insertRows(ctx context.Context, tx *store.Tx, fresh []newContainer, also func(*store.Tx, Container) error) error {
	args := make([][]any, len(fresh))
	for i, f := range fresh {
		args[i] = f.values(f.hash)
	}
	inserted, err := tx.ExecMany(ctx, insertContainer, args)
	if err != nil {
		return err
	}
	for i, n := range inserted {
		if n == 0 {
			return fail.New(api.AlreadyExists, "%s %q exists", fresh[i].Kind, fresh[i].Name)
		}
	}
	if also != nil {
		for _, f := range fresh {
			if err := also(tx, f.Container); err != nil {
				return err
			}
		}
	}
	fault.Point("create.before-commit")
	return nil
}

// newKeys makes a key for each of fresh and a sealed page that holds them.
func newKeys(key *envelope.Key, under policy.KeyRow, fresh []newContainer) (keypage.Row, error) {
	slots := make([]envelope.Slot, len(fresh))
	page := store.NewID()
	for i := range fresh {
		fresh[i].Page = page
		own := envelope.NewKey()
		if fresh[i].key != nil {
			own = fresh[i].key.Clone() // the draft's key must stay: this may run again
		}
		slots[i] = envelope.Slot{Child: fresh[i].ID, Generation: fresh[i].Generation, Key: *own}
	}
	defer func() {
		for i := range slots {
			slots[i].Key.Zero()
		}
	}()
	return sealNew(key, keypage.Row{ID: page, Tenant: fresh[0].Tenant, Parent: under.ID, Generation: under.Generation, Class: fresh[0].State}, slots)
}

// sealNew returns the row of a new page with the given slots.
func sealNew(key *envelope.Key, r keypage.Row, slots []envelope.Slot) (keypage.Row, error) {
	page, err := envelope.NewPage(slots...)
	if err != nil {
		return r, err
	}
	defer page.Zero()
	r.Version, r.Count = 1, uint32(page.Len())
	r.Body, err = envelope.SealPage(key, r.EncryptionContext(), page)
	return r, err
}
