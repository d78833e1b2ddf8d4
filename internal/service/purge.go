package service

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"keyroll/api"
	"keyroll/internal/approval"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keypage"
	"keyroll/internal/operation"
	"keyroll/internal/policy"
	"keyroll/internal/profiles"
	"keyroll/internal/purge"
	"keyroll/internal/roll"
	"keyroll/internal/store"
)

// RequestPurge requests the purge of a policy. The customer must have removed the
// service's permission on both keys before, which is checked in both vaults.
func (s *Service) RequestPurge(ctx context.Context, in api.RequestPurgeInput) (out api.Purge, err error) {
	return do(ctx, s, api.RequestPurge.Meta, in.Policy, func(ctx context.Context, c *call) (api.Purge, error) {
		c.DryRun = in.Body.DryRun
		for what, text := range map[string]string{"reason": in.Body.Reason, "contact": in.Body.Contact} {
			if strings.TrimSpace(text) == "" || len(text) > 1024 {
				return out, fail.New(api.InvalidArgument, "purge policy %q: the %s must be 1 to 1,024 bytes of text", in.Policy, what)
			}
		}
		var pol policy.Policy
		err := s.db.View(ctx, func(tx *store.Tx) (err error) {
			if pol, err = c.findPolicy(ctx, tx, in.PolicyInput); err != nil {
				return err
			}
			return c.checkPurgeable(ctx, tx, pol)
		})
		if err != nil {
			return out, err
		}
		if err := s.policies.CheckRevoked(ctx, pol, in.Body.Force); err != nil {
			return out, err
		}
		d, err := s.containers.Directory(ctx, c.Tenant)
		if err != nil {
			return out, err
		}
		p := purge.Purge{ID: store.NewID(), Policy: pol.ID, Tenant: c.Tenant, Requester: c.Principal.ID, Requested: s.now()}
		p.Reason, p.Contact = d.Seal(p.ID, in.Body.Reason), d.Seal(p.ID, in.Body.Contact)
		request, err := c.NewRequest(c.Call, p.ID, api.RequestPurge.Meta, api.None{})
		if err != nil {
			return out, err
		}
		request.Needed = purge.Approvals
		err = c.Change(ctx, func(tx *store.Tx) (string, error) {
			if pol, err = s.policies.RequestPurge(ctx, tx, c.Tenant, pol.ID); err != nil {
				return "", err
			}
			if err := c.checkPurgeable(ctx, tx, pol); err != nil {
				return "", err
			}
			ending := roll.Ending{Tenant: c.Tenant, Policy: pol.ID, Message: fmt.Sprintf("the purge of policy %q was requested", pol.Name), At: s.now()}
			if err := roll.End(ctx, tx, ending); err != nil {
				return "", err
			}
			if err := purge.Request(ctx, tx, p); err != nil {
				return "", err
			}
			warnings, err := c.InsertRequest(ctx, tx, request)
			if err != nil {
				return "", err
			}
			if out, err = c.showPurge(ctx, tx, p, d); err != nil {
				return "", err
			}
			out.Warnings = warnings
			return "policy " + pol.GUID.String(), nil
		})
		return out, err
	})
}

// checkPurgeable refuses a policy that cannot be purged, or not now.
func (c *call) checkPurgeable(ctx context.Context, tx *store.Tx, pol policy.Policy) error {
	if err := pol.CheckAccepting(); err != nil {
		return err
	}
	if profiles.Of(pol.Kind).Keys == 0 {
		return fail.New(api.InvalidArgument, "purge policy %q: a %s policy is the built-in default and cannot be purged", pol.Name, pol.Kind).
			WithHint("name a policy with customer keys")
	}
	ro, incoming, err := roll.IncomingRoll(ctx, tx, c.Tenant, pol.ID)
	if err != nil || !incoming {
		return err
	}
	return fail.New(api.RollInProgress, "purge policy %q: containers are still being moved to it, and those that are not yet moved would not be purged", pol.Name).
		WithHint("wait until roll %d has finished: keyroll roll watch %d follows it", ro.ID, ro.ID)
}

// ShowPurge shows the progress of the purge of a policy.
func (s *Service) ShowPurge(ctx context.Context, in api.PolicyInput) (out api.Purge, err error) {
	return do(ctx, s, api.ShowPurge.Meta, in.Policy, func(ctx context.Context, c *call) (api.Purge, error) {
		d, err := s.containers.Directory(ctx, c.Tenant)
		if err != nil {
			return out, err
		}
		return out, c.Read(ctx, func(tx *store.Tx) error {
			pol, err := c.findPolicy(ctx, tx, in)
			if err != nil {
				return err
			}
			p, err := purge.Find(ctx, tx, c.Tenant, pol.ID)
			if err != nil {
				return err
			}
			out, err = c.showPurge(ctx, tx, p, d)
			return err
		})
	})
}

// ListPurges lists the purges of the tenant, the oldest first.
func (s *Service) ListPurges(ctx context.Context, in api.ListInput) (api.List[api.Purge], error) {
	return do(ctx, s, api.ListPurges.Meta, "", func(ctx context.Context, c *call) (api.List[api.Purge], error) {
		d, err := s.containers.Directory(ctx, c.Tenant)
		if err != nil {
			return api.List[api.Purge]{}, err
		}
		return operation.ListPage(ctx, c.Call, in.PageInput, func(tx *store.Tx, after int64, limit int) ([]operation.Row[api.Purge], error) {
			all, err := purge.List(ctx, tx, c.Tenant, after, limit)
			if err != nil {
				return nil, err
			}
			page, err := c.purgeDetails(ctx, tx, all)
			return operation.RowsOf(page, func(p shownPurge) operation.Row[api.Purge] {
				item, err := p.show(c, d)
				if err != nil {
					err = fmt.Errorf("purge %d: %w", p.ID, err)
				}
				return operation.Row[api.Purge]{ID: p.ID, Item: item, Err: err}
			}), err
		})
	})
}

// ApprovePurge approves a purge; the second approval carries it out.
func (s *Service) ApprovePurge(ctx context.Context, in api.PolicyInput) (out api.Purge, err error) {
	return do(ctx, s, api.ApprovePurge.Meta, in.Policy, func(ctx context.Context, c *call) (api.Purge, error) {
		d, err := s.containers.Directory(ctx, c.Tenant)
		if err != nil {
			return out, err
		}
		err = c.Change(ctx, func(tx *store.Tx) (string, error) {
			pol, err := c.findPolicy(ctx, tx, in)
			if err != nil {
				return "", err
			}
			p, err := purge.Find(ctx, tx, c.Tenant, pol.ID)
			if err == nil {
				err = c.adoptPurge(ctx, tx, p)
			}
			if err == nil {
				_, err = c.Decide(ctx, tx, c.Call, p.ID, true)
			}
			if err == nil {
				p, err = purge.Find(ctx, tx, c.Tenant, pol.ID)
			}
			if err != nil {
				return "", fmt.Errorf("approve the purge of policy %q: %w", pol.Name, err)
			}
			if out, err = c.showPurge(ctx, tx, p, d); err != nil {
				return "", err
			}
			return "policy " + pol.GUID.String(), nil
		})
		if err == nil {
			s.purger.Wake()
		}
		return out, err
	})
}

// adoptPurge gives a purge that an earlier version requested its request for approval, with
// the approvals that were given.
func (c *call) adoptPurge(ctx context.Context, tx *store.Tx, p purge.Purge) error {
	if _, err := approval.Find(ctx, tx, c.Tenant, p.ID); !fail.Is(err, api.NotFound) {
		return err
	}
	r, err := c.NewRequest(c.Call, p.ID, api.RequestPurge.Meta, api.None{})
	if err != nil {
		return err
	}
	r.Requester, r.Requested, r.Needed = p.Requester, p.Requested, purge.Approvals
	for _, a := range p.Approvals {
		r.Decisions = append(r.Decisions, approval.Decision{Approver: a.Approver, At: a.At, Approves: true})
	}
	_, err = c.InsertRequest(ctx, tx, r)
	return err
}

// shownPurge is a purge with what it is shown with besides its own row. The details of
// all purges of a page are read together.
type shownPurge struct {
	purge.Purge
	policy    *policy.History // nil: it does not exist
	protected int64           // containers, including backups, whose keys are under a key of the policy
}

// purgeDetails adds to purges what they are shown with: two queries.
func (c *call) purgeDetails(ctx context.Context, tx *store.Tx, list []purge.Purge) ([]shownPurge, error) {
	ids := make([]int64, len(list))
	counted := false
	for i, p := range list {
		ids[i] = p.Policy
		counted = counted || p.ContainersMarked.IsZero()
	}
	policies, err := c.policies.Histories(ctx, tx, c.Tenant, ids)
	if err != nil {
		return nil, err
	}
	under := map[keypage.Parent]int64{}
	if counted {
		sums, err := keypage.Usage(ctx, tx, c.Tenant)
		if err != nil {
			return nil, err
		}
		for _, s := range sums {
			if slices.Contains(policy.Classes, s.Class) {
				under[keypage.Parent{ID: s.Parent, Generation: s.Generation}] += s.Keys
			}
		}
	}
	page := make([]shownPurge, len(list))
	for i, p := range list {
		page[i] = shownPurge{Purge: p, policy: policies[p.Policy]}
		if page[i].policy == nil {
			continue
		}
		for _, k := range page[i].policy.Keys {
			page[i].protected += under[keypage.Parent{ID: k.ID, Generation: k.Generation}]
		}
	}
	return page, nil
}

// showPurge shows one purge, as it is in tx.
func (c *call) showPurge(ctx context.Context, tx *store.Tx, p purge.Purge, d *container.Directory) (api.Purge, error) {
	page, err := c.purgeDetails(ctx, tx, []purge.Purge{p})
	if err != nil {
		return api.Purge{}, err
	}
	return page[0].show(c, d)
}

// show converts a purge; d decrypts its texts.
func (p shownPurge) show(c *call, d *container.Directory) (out api.Purge, err error) {
	if p.policy == nil {
		return out, fail.New(api.NotFound, "the policy does not exist")
	}
	pol := p.policy.Policy
	if pol.Damaged != nil {
		return out, pol.Damaged
	}
	out = api.Purge{Policy: pol.Name, PolicyID: pol.GUID.String(), State: p.State(), Requested: p.Requested.UTC(), Approvals: []api.PurgeApproval{},
		PolicyDeleted: operation.TimeOrNil(p.PolicyDeleted), ContainersMarked: operation.TimeOrNil(p.ContainersMarked), AvailabilityKeyDestroyed: operation.TimeOrNil(p.KeyDestroyed),
		Containers: p.Containers, Message: p.Message, Destroy: []api.KeyVersion{}, Limit: purgeLimit(c.purger.KeysInFiles(), p.policy.Versions)}
	if out.Reason, err = d.Open(p.ID, p.Reason); err != nil {
		return out, err
	}
	if out.Contact, err = d.Open(p.ID, p.Contact); err != nil {
		return out, err
	}
	for _, a := range p.Approvals {
		if a.Name == "" {
			return out, fail.New(api.NotFound, "principal %s does not exist in this tenant", a.Approver)
		}
		out.Approvals = append(out.Approvals, api.PurgeApproval{Approver: a.Name, At: a.At.UTC()})
	}
	if p.ContainersMarked.IsZero() {
		out.Containers = p.protected
	}
	for _, kv := range p.policy.Versions {
		out.Destroy = append(out.Destroy, c.keyOf(kv))
	}
	return out, nil
}

// purgeLimit says what a purge cannot guarantee.
func purgeLimit(keysInFiles bool, versions []envelope.KeyVersion) string {
	var limits []string
	if keysInFiles {
		limits = append(limits, "the availability keys are files: a copy of them from before the purge can still decrypt a backup of the database from before it, and a purge cannot delete such copies; "+
			"this does not apply to availability keys in a vault of the operator")
	}
	for _, kv := range versions {
		if own := !strings.Contains(kv.Vault, "/"); own {
			limits = append(limits, "customer keys are in vaults of this server: a backup of its database contains them too, under the seal, and anyone with both can decrypt what they wrapped, even after they were destroyed here")
			break
		}
	}
	return strings.Join(limits, ". ")
}
