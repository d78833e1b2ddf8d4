package policy

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/rootkey"
	"keyroll/internal/store"
)

// Open returns a policy key, opened by the roots in the order of its profile's
// rule, or from the cache. The copy is the caller's to zero. It may call a
// vault, so it stands outside transactions. A policy key whose wraps are
// erased, because nothing stood under it any more, is NotFound: who meets that
// reads again where its container stands now.
func (p *Policies) Open(ctx context.Context, tenant, policyKey int64) (*envelope.Key, error) {
	for {
		if key := p.cache.get(policyKey, tenant); key != nil {
			return key, nil
		}
		// Concurrent callers share one unwrap; the first one's cancellation must
		// not fail the others, so the vault calls keep to their own time limit.
		_, err, _ := p.cache.flight.Do(fmt.Sprint(tenant, policyKey), func() (any, error) {
			return nil, p.fill(context.WithoutCancel(ctx), tenant, policyKey)
		})
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// fill opens a policy key into the cache.
func (p *Policies) fill(ctx context.Context, tenant, policyKey int64) error {
	since := p.cache.mark()
	r, err := p.authentic(ctx, tenant, policyKey)
	if err != nil {
		return err
	}
	key, err := p.unwrap(ctx, tenant, r)
	if err != nil {
		return fmt.Errorf("open policy key of policy %q: %w", r.PolicyName, err)
	}
	defer key.Zero()
	p.cache.put(policyKey, tenant, key, ProfileOf(r.Kind).CacheLifetime, since)
	return nil
}

// authentic returns the kept revision of a policy key after its MAC held: a
// row made with public keys alone never reaches an unwrap. Nor does one whose
// policy has become of a kind with other roots.
func (p *Policies) authentic(ctx context.Context, tenant, policyKey int64) (r revisionRow, err error) {
	err = p.DB.View(ctx, func(tx *store.Tx) error {
		r, err = keptRevision(ctx, tx, tenant, policyKey)
		return err
	})
	if err != nil {
		return r, err
	}
	return r, p.check(r)
}

func (p *Policies) check(r revisionRow) error {
	if err := r.Check(p.RevisionKey, r.MAC); err != nil {
		return err
	}
	if (ProfileOf(r.Kind).Keys > 0) != (r.Primary.Key != "") {
		return fail.New(api.Damaged, "check policy revision %v of policy %v: a policy of kind %s has other roots", r.ID, r.Binding.Policy, r.Kind)
	}
	return nil
}

func (p *Policies) unwrap(ctx context.Context, tenant int64, r revisionRow) (*envelope.Key, error) {
	profile := ProfileOf(r.Kind)
	if profile.Keys == 0 {
		return p.unwrapAvailability(ctx, tenant, r)
	}
	roots := customerRoots(profile, r)
	ask := func(root root) rootkey.Unwrap {
		return func(ctx context.Context) ([]byte, error) { return p.unwrapWith(ctx, tenant, profile, r, root) }
	}
	bundle, _, err := profile.Rule(ctx, ask(roots[rootkey.Primary]), ask(roots[rootkey.Secondary]))
	if err != nil && r.InRecovery {
		return p.unwrapAvailability(ctx, tenant, r)
	}
	if err != nil {
		return nil, err
	}
	defer clear(bundle)
	return envelope.Unbundle(bundle, r.Binding)
}

// unwrapWith asks one customer key for the bundle. The use is written down
// before its result is used, and also when it was refused or broken off: the
// vault of a request that lost a race may have done its work.
func (p *Policies) unwrapWith(ctx context.Context, tenant int64, profile Profile, r revisionRow, root root) ([]byte, error) {
	bundle, err := p.Roots.Unwrap(ctx, tenant, profile.Identity, root.kv, root.wrap)
	if noted := p.record(ctx, p.use(tenant, r.Revision, "unwrap", root.name, root.kv, err)); noted != nil {
		clear(bundle)
		return nil, noted
	}
	return bundle, err
}

func (p *Policies) unwrapAvailability(ctx context.Context, tenant int64, r revisionRow) (*envelope.Key, error) {
	bundle, err := p.Availability.Open(ctx, r.AvailabilityKey, r.AvailabilityVersion, availabilityPlace(tenant, r.Revision), r.WrapAvailability)
	defer clear(bundle)
	if fail.Is(err, api.NotFound) {
		// What is not found is the key that this wrap needs. NotFound of a policy
		// key would say that nothing needs it any more.
		err = lost(err)
	}
	if noted := p.record(ctx, p.use(tenant, r.Revision, "unwrap", "availability", envelope.KeyVersion{}, err)); noted != nil {
		return nil, noted
	}
	if err != nil {
		return nil, err
	}
	return envelope.Unbundle(bundle, r.Binding)
}

func lost(err error) error {
	_, detail, hint := fail.Public(err)
	return fail.New(api.Damaged, "%s", detail).WithHint("%s", hint).Because(err)
}

// Probed is what one root made of its wrap of a policy key.
type Probed struct {
	Root string // URI of the customer key version, or "availability key"
	Err  error  // Damaged, or why a rule keeps it closed
}

// Probe opens a policy key by every root that wraps it, the cache aside.
func (p *Policies) Probe(ctx context.Context, tenant, policyKey int64) []Probed {
	r, err := p.authentic(ctx, tenant, policyKey)
	if err != nil {
		return []Probed{{"revision", err}}
	}
	profile := ProfileOf(r.Kind)
	var probed []Probed
	var first *envelope.Key
	defer func() { first.Zero() }()
	probe := func(root string, open func() (*envelope.Key, error)) {
		key, err := open()
		switch {
		case err != nil:
		case first == nil:
			first = key
		default:
			if !first.Equal(key) {
				err = fail.New(api.Damaged, "it opens another key than the roots before it")
			}
			key.Zero()
		}
		probed = append(probed, Probed{root, err})
	}
	for _, root := range customerRoots(profile, r) {
		probe(p.Roots.URI(root.kv), func() (*envelope.Key, error) {
			bundle, err := p.unwrapWith(ctx, tenant, profile, r, root)
			if err != nil {
				return nil, err
			}
			defer clear(bundle)
			return envelope.Unbundle(bundle, r.Binding)
		})
	}
	probe("availability key", func() (*envelope.Key, error) { return p.unwrapAvailability(ctx, tenant, r) })
	return probed
}

// root is one customer key version with its wrap.
type root struct {
	name string
	kv   envelope.KeyVersion
	wrap []byte
}

func customerRoots(profile Profile, r revisionRow) []root {
	if profile.Keys == 0 {
		return nil
	}
	return []root{{"primary", r.Primary, r.WrapPrimary}, {"secondary", r.Secondary, r.WrapSecondary}}
}

// cache keeps opened policy keys for a bounded time, in memory alone.
type cache struct {
	mu    sync.Mutex
	keys  map[int64]*cached
	drops int64 // calls of drop
	// flight holds one unwrap for all who ask for the same key at once.
	flight singleflight.Group
}

type cached struct {
	tenant int64
	key    *envelope.Key
	expiry *time.Timer
}

func (c *cache) get(id, tenant int64) *envelope.Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.keys[id]
	if !ok || e.tenant != tenant {
		return nil
	}
	return e.key.Clone()
}

// mark returns what put compares: what is opened after it is put in only if
// nothing was dropped meanwhile.
func (c *cache) mark() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drops
}

func (c *cache) put(id, tenant int64, key *envelope.Key, lifetime time.Duration, since int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drops != since {
		return // it may be this key that is not to be kept any more
	}
	c.remove(id)
	e := &cached{tenant: tenant, key: key.Clone()}
	if lifetime > 0 {
		e.expiry = time.AfterFunc(lifetime, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.keys[id] == e {
				c.remove(id)
			}
		})
	}
	c.keys[id] = e
}

func (c *cache) drop(id int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drops++
	c.remove(id)
}

// remove zeroes an entry; c.mu is held.
func (c *cache) remove(id int64) {
	e, ok := c.keys[id]
	if !ok {
		return
	}
	if e.expiry != nil {
		e.expiry.Stop()
	}
	e.key.Zero()
	delete(c.keys, id)
}

func (c *cache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.keys {
		c.remove(id)
	}
}
