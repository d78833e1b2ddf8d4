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
	"keyroll/internal/profiles"
	"keyroll/internal/rootkey"
)

// Probed is the result of opening a policy key by one root.
type Probed struct {
	Root string // URI of the customer key version, or "availability key"
	Err  error  // Damaged, or why it is inaccessible by policy
}

// Probe opens a policy key by every root that wraps it, without the cache.
func (p *Policies) Probe(ctx context.Context, tenant, policyKey int64) []Probed {
	r, err := p.authentic(ctx, tenant, policyKey)
	if err != nil {
		return []Probed{{"revision", err}}
	}
	profile := profiles.Of(r.Kind)
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
				err = fail.New(api.Damaged, "it decrypts to another key than the roots before it")
			}
			key.Zero()
		}
		probed = append(probed, Probed{root, err})
	}
	for _, root := range customerRoots(profile, r) {
		probe(p.roots.URI(root.kv), func() (*envelope.Key, error) {
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
// unwrap them; a customer key must also unwrap what was encrypted to its public key.
// It opens no stored wrap. A root that fails is reported in the result, not as an
// error of Test.
func (p *Policies) Test(ctx context.Context, pol Policy) ([]api.Probe, error) {
	r, err := p.authentic(ctx, pol.Tenant, pol.Current.ID)
	if err != nil {
		return nil, err
	}
	profile := profiles.Of(r.Kind)
	var probes []api.Probe
	for _, root := range customerRoots(profile, r) {
		by := p.wrapperOf(r.rootOf(pol.Tenant, root.kv))
		var info rootkey.KeyInfo
		probe, err := p.test(ctx, r, root, tester{
			wrap: func(plain []byte) (wrapped []byte, err error) {
				if info, err = by.Info(ctx); err != nil {
					return nil, err
				}
				if err := by.TryWrapKey(ctx, info, len(plain)); err != nil {
					return nil, err
				}
				return info.Encrypt(plain)
			},
			unwrap: func(wrapped, want []byte) error { return by.CheckUnwraps(ctx, info, wrapped, want) },
		})
		if err != nil {
			return nil, err
		}
		probe.Key = p.roots.URI(root.kv)
		probes = append(probes, probe)
	}
	id, version, ec := r.AvailabilityKey, r.AvailabilityVersion, availabilityContext(pol.Tenant, r.Revision)
	probe, err := p.test(ctx, r, root{name: "availability"}, tester{
		wrap: func(plain []byte) ([]byte, error) { return p.availability.Wrap(ctx, id, version, ec, plain) },
		unwrap: func(wrapped, want []byte) error {
			opened, err := p.availability.Open(ctx, id, version, ec, wrapped)
			defer clear(opened)
			if err == nil && subtle.ConstantTimeCompare(opened, want) != 1 {
				err = fail.New(api.Damaged, "it returned other bytes than it had wrapped")
			}
			return err
		},
	})
	probe.Key = fmt.Sprintf("%d version %d", id, version)
	return append(probes, probe), err
}

// tester wraps by one root, and checks that it unwraps the result.
type tester struct {
	wrap   func(plain []byte) ([]byte, error)
	unwrap func(wrapped, want []byte) error
}

// test has one root wrap and unwrap. It returns an error only if the uses of the root
// could not be recorded.
func (p *Policies) test(ctx context.Context, r revisionRow, root root, t tester) (api.Probe, error) {
	probe := api.Probe{Root: root.name}
	plain := make([]byte, envelope.KeySize)
	rand.Read(plain)
	began := time.Now()
	wrapped, err := t.wrap(plain)
	uses := []audit.Entry{p.use(r.Tenant, r.Revision, "test wrap for", root, err)}
	if probe.Wraps = err == nil; probe.Wraps {
		err = t.unwrap(wrapped, plain)
		uses = append(uses, p.use(r.Tenant, r.Revision, "test unwrap for", root, err))
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
