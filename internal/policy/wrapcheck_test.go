package policy_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/rootkey"
	"keyroll/internal/store/storetest"
)

// otherKey is a bundle that is bound to the same policy key, with another key in it.
func otherKey(bundle []byte) []byte {
	other := bytes.Clone(bundle)
	other[0] ^= 1
	return other
}

// mistaken wraps another key than it is given, which only shows once the wrap is
// opened and compared.
type mistaken struct{ policy.Availability }

func (m mistaken) Wrap(ctx context.Context, id int64, version uint32, ec envelope.EncryptionContext, plaintext []byte) ([]byte, error) {
	return m.Availability.Wrap(ctx, id, version, ec, otherKey(plaintext))
}

// mistakenRoot has the customer key in one vault unwrap to another key.
type mistakenRoot struct {
	policy.Roots
	vault string
}

func (m mistakenRoot) Unwrap(ctx context.Context, tenant int64, id rootkey.Identity, kv envelope.KeyVersion, wrapped []byte) ([]byte, error) {
	bundle, err := m.Roots.Unwrap(ctx, tenant, id, kv, wrapped)
	if err == nil && strings.Contains(kv.Vault, m.vault) {
		bundle = otherKey(bundle)
	}
	return bundle, err
}

func TestWrapOfAnotherKeyIsNeverStored(t *testing.T) {
	w := policytest.New(t, storetest.One(t))
	pol := w.MailboxPolicy("p")
	w.NewVersions(pol)
	tables := []string{"policy", "policy_key", "revision"}
	before := w.Dump(tables...)
	availability, roots := w.Config.Availability, w.Config.Roots
	rollAvailability := func() error {
		_, err := w.Policies.RollAvailability(w.Ctx, pol)
		return err
	}
	refresh := func(depth api.Depth) func() error {
		return func() error {
			_, err := w.Change(pol, policy.Request{Depth: depth, AllGenerations: depth == api.DepthRoot})
			return err
		}
	}
	for _, c := range []struct {
		name         string
		availability policy.Availability
		roots        policy.Roots
		act          func() error
		code         api.Code
		says         string
	}{
		{"a roll of the availability key", mistaken{availability}, roots, rollAvailability, api.Damaged, "another key than it had wrapped"},
		{"a refresh, by the availability key", mistaken{availability}, roots, refresh(api.DepthPolicy), api.Damaged, "another key than it had wrapped"},
		{"a re-wrap, by the availability key", mistaken{availability}, roots, refresh(api.DepthRoot), api.Damaged, "another key than it had wrapped"},
		{"a refresh, by the first customer key", availability, mistakenRoot{roots, "A-p"}, refresh(api.DepthPolicy), api.KeyUnusable, "does not decrypt what was encrypted"},
		{"a re-wrap, by the second customer key", availability, mistakenRoot{roots, "B-p"}, refresh(api.DepthRoot), api.KeyUnusable, "does not decrypt what was encrypted"},
	} {
		w.Configure(func(p *policy.Config) { p.Availability, p.Roots = c.availability, c.roots })
		err := c.act()
		policytest.Refuses(t, err, c.code)
		if err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
		w.Configure(func(p *policy.Config) { p.Availability, p.Roots = availability, roots })
		if after := w.Dump(tables...); after != before {
			t.Errorf("%s changed what is stored", c.name)
		}
		probe(w, pol, 1)
	}
}
