package policy

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"time"

	"keyroll/api"
	"keyroll/internal/audit"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
)

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
	probe("availability key", func() (*envelope.Key, error) { return p.unwrapAvailability(ctx, tenant, r, "") })
	return probed
}

// Test has each root of a policy's current revision wrap fresh random bytes and
// unwrap them. It opens nothing that is kept. A root that does not is no error
// of Test: the answer says so.
func (p *Policies) Test(ctx context.Context, pol Policy) ([]api.Probe, error) {
	r, err := p.authentic(ctx, pol.Tenant, pol.Current.ID)
	if err != nil {
		return nil, err
	}
	profile := ProfileOf(r.Kind)
	var probes []api.Probe
	for _, root := range customerRoots(profile, r) {
		probe, err := p.test(ctx, pol.Tenant, r, root.name, root.kv,
			func(plain []byte) ([]byte, error) {
				return p.Roots.Wrap(ctx, pol.Tenant, profile.Identity, root.kv, plain)
			},
			func(wrap []byte) ([]byte, error) {
				return p.Roots.Unwrap(ctx, pol.Tenant, profile.Identity, root.kv, wrap)
			})
		if err != nil {
			return nil, err
		}
		probe.Key = p.Roots.URI(root.kv)
		probes = append(probes, probe)
	}
	id, version, place := r.AvailabilityKey, r.AvailabilityVersion, availabilityPlace(pol.Tenant, r.Revision)
	probe, err := p.test(ctx, pol.Tenant, r, "availability", envelope.KeyVersion{},
		func(plain []byte) ([]byte, error) { return p.Availability.Wrap(ctx, id, version, place, plain) },
		func(wrap []byte) ([]byte, error) { return p.Availability.Open(ctx, id, version, place, wrap) })
	probe.Key = fmt.Sprintf("%d version %d", id, version)
	return append(probes, probe), err
}

// test has one root wrap and unwrap. The error says that its uses could not be
// written down.
func (p *Policies) test(ctx context.Context, tenant int64, r revisionRow, name string, kv envelope.KeyVersion, wrap, unwrap func([]byte) ([]byte, error)) (api.Probe, error) {
	probe := api.Probe{Root: name}
	plain := make([]byte, envelope.KeySize)
	rand.Read(plain)
	began := time.Now()
	wrapped, err := wrap(plain)
	uses := []audit.Entry{p.use(tenant, r.Revision, "test wrap for", name, kv, err)}
	if probe.Wraps = err == nil; probe.Wraps {
		var opened []byte
		opened, err = unwrap(wrapped)
		uses = append(uses, p.use(tenant, r.Revision, "test unwrap for", name, kv, err))
		if err == nil && subtle.ConstantTimeCompare(plain, opened) != 1 {
			err = fail.New(api.Damaged, "it gave back other bytes than it was given")
		}
		probe.Unwraps = err == nil
	}
	probe.Milliseconds = float64(time.Since(began).Microseconds()) / 1000
	if err != nil {
		_, detail, hint := fail.Public(err)
		if probe.Detail = detail; hint != "" {
			probe.Detail += "; " + hint
		}
	}
	return probe, p.record(ctx, uses...)
}
