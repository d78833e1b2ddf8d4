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

// PreparedCreate is a new container, or many, whose keys are in sealed pages.
type PreparedCreate struct {
	containers *Containers
	target     target
	policyKey  policy.KeyRow // current when the pages were sealed
	fresh      []newContainer
	pages      []keypage.Row
}

// PrepareCreate makes a container and its key; with policy 0 it is under the default
// policy.
func (s *Containers) PrepareCreate(ctx context.Context, tenant int64, kind Kind, name string, policy int64) (*PreparedCreate, error) {
	fresh, err := s.newContainers(ctx, tenant, kind, []string{name}, policy)
	if err != nil {
		return nil, err
	}
	return s.prepareCreate(ctx, fresh[0].target(), fresh)
}

// Create makes a container in a transaction of its own.
func (s *Containers) Create(ctx context.Context, tenant int64, kind Kind, name string, policy int64) (Container, error) {
	fresh, err := s.newContainers(ctx, tenant, kind, []string{name}, policy)
	if err != nil {
		return Container{}, err
	}
	err = s.create(ctx, fresh[0].target(), fresh)
	return fresh[0].Container, err
}

func (s *Containers) prepareCreate(ctx context.Context, t target, fresh []newContainer) (*PreparedCreate, error) {
	p := &PreparedCreate{containers: s, target: t, fresh: fresh}
	return p, store.Retry(func() error { return p.Prepare(ctx) })
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
			if err := s.create(ctx, h, fresh[:rest]); err != nil {
				return err
			}
			fresh = fresh[rest:]
		}
	}
	return nil
}

// create makes containers in a transaction of their own.
func (s *Containers) create(ctx context.Context, t target, fresh []newContainer) error {
	made, err := s.prepareCreate(ctx, t, fresh)
	if err != nil {
		return err
	}
	return s.db.Commit(ctx, made, func(tx *store.Tx) error {
		_, err := made.Commit(ctx, tx)
		return err
	})
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

// Prepare seals the pages of the new keys under the current policy key.
func (p *PreparedCreate) Prepare(ctx context.Context) error {
	s := p.containers
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		p.policyKey, err = s.currentKey(ctx, tx, p.target)
		return err
	})
	if err != nil {
		return err
	}
	key, err := s.openPolicyKey(ctx, p.target.tenant, p.policyKey.ID, policy.User)
	if err != nil {
		return err
	}
	defer key.Zero()
	p.pages = nil
	for part := range slices.Chunk(p.fresh, s.pageSlots) {
		page, err := newKeys(key, p.policyKey, part)
		if err != nil {
			return err
		}
		p.pages = append(p.pages, page)
	}
	return nil
}

// Commit inserts the containers in tx and returns the first one. A name that is taken
// fails AlreadyExists.
func (p *PreparedCreate) Commit(ctx context.Context, tx *store.Tx) (Container, error) {
	first := p.fresh[0].Container
	if now, err := p.containers.lockCurrentKey(ctx, tx, p.target); err != nil {
		return first, err
	} else if now != p.policyKey {
		return first, store.ErrOutdated
	}
	if err := keypage.Put(ctx, tx, p.pages...); err != nil {
		return first, err
	}
	args := make([][]any, len(p.fresh))
	for i, f := range p.fresh {
		args[i] = f.values(f.hash)
	}
	inserted, err := tx.ExecMany(ctx, insertContainer, args)
	if err != nil {
		return first, err
	}
	for i, n := range inserted {
		if n == 0 {
			return first, fail.New(api.AlreadyExists, "%s %q exists", p.fresh[i].Kind, p.fresh[i].Name)
		}
	}
	fault.Point("create.before-commit")
	return first, nil
}

// Close ends the creation. It holds no key of its own: that of a draft is the draft's.
func (p *PreparedCreate) Close(_ context.Context, outcome store.Outcome) {
	if outcome == store.Committed {
		fault.Point("create.after-commit")
	}
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
