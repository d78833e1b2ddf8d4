package service

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/depth"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/operation"
	"keyroll/internal/policy"
	"keyroll/internal/profiles"
	"keyroll/internal/roll"
	"keyroll/internal/store"
)

// CreatePolicy makes a mailbox policy or a multi-workload policy from two
// customer keys.
func (s *Service) CreatePolicy(ctx context.Context, in api.CreatePolicyInput) (api.Policy, error) {
	return do(ctx, s, api.CreatePolicy.Meta, in.Body.Name, func(ctx context.Context, c *call) (api.Policy, error) {
		if err := checkPolicyName(in.Body.Name); err != nil {
			return api.Policy{}, err
		}
		kind := cmp.Or(in.Body.Kind, api.MailboxPolicy)
		if profile := profiles.Of(kind); profile.Keys == 0 || profile.Fixed {
			return api.Policy{}, fail.New(api.InvalidArgument, "create policy %q: kind %q must be one of %s, %s", in.Body.Name, in.Body.Kind, api.MailboxPolicy, api.MultiWorkloadPolicy)
		}
		primary, secondary, err := s.parseTwoKeys(in.Body.Keys)
		if err != nil {
			return api.Policy{}, fmt.Errorf("create policy %q: %w", in.Body.Name, err)
		}
		d := policy.Definition{Kind: kind, Name: in.Body.Name, Description: in.Body.Description, Primary: primary, Secondary: secondary}
		c.DryRun = in.Body.DryRun
		return c.createPolicy(ctx, d)
	})
}

// parseTwoKeys parses the URIs of the two keys of a policy.
func (s *Service) parseTwoKeys(uris []string) (primary, secondary envelope.KeyVersion, err error) {
	if len(uris) != 2 {
		return primary, secondary, fail.New(api.InvalidArgument, "%d key URIs are given; a policy has exactly two, in two vaults", len(uris))
	}
	if primary, err = s.keyNames.ParseURI(uris[0]); err != nil {
		return primary, secondary, err
	}
	secondary, err = s.keyNames.ParseURI(uris[1])
	return primary, secondary, err
}

// RegisterSites makes the site policy of a geo and begins to move every site of the geo
// under it.
func (s *Service) RegisterSites(ctx context.Context, in api.RegisterSitesInput) (api.Policy, error) {
	target := strings.TrimSpace(sitePolicyName + " " + in.Body.Geo)
	return do(ctx, s, api.RegisterSites.Meta, target, func(ctx context.Context, c *call) (api.Policy, error) {
		var geo container.Geo
		err := s.db.View(ctx, func(tx *store.Tx) (err error) {
			geo, err = s.containers.FindGeo(ctx, tx, c.Tenant, in.Body.Geo)
			return err
		})
		if err != nil {
			return api.Policy{}, err
		}
		primary, err := s.keyVersion(in.Body.Primary)
		if err != nil {
			return api.Policy{}, err
		}
		secondary, err := s.keyVersion(in.Body.Secondary)
		if err != nil {
			return api.Policy{}, err
		}
		d := policy.Definition{Kind: api.SitePolicy, Name: policyName(sitePolicyName, geo), Geo: geo.ID,
			Description: "Covers every site of geo " + geo.Name + ".", Primary: primary, Secondary: secondary}
		c.DryRun = in.Body.DryRun
		return c.createPolicy(ctx, d)
	})
}

// CheckKeys returns why a policy of a kind would refuse two keys.
func (s *Service) CheckKeys(ctx context.Context, in api.CheckKeysInput) (out api.KeyCheck, err error) {
	return do(ctx, s, api.CheckKeys.Meta, "", func(ctx context.Context, c *call) (api.KeyCheck, error) {
		if profiles.Of(in.Body.Kind).Keys == 0 {
			return out, fail.New(api.InvalidArgument, "policies of kind %q have no customer keys", in.Body.Kind)
		}
		primary, secondary, err := s.parseTwoKeys(in.Body.Keys)
		if err != nil {
			return out, err
		}
		refusals, warnings, err := s.policies.CheckKeys(ctx, c.Tenant, in.Body.Kind, primary, secondary)
		if err != nil {
			return out, err
		}
		out.Warnings = warnings
		for _, refusal := range refusals {
			code, detail, hint := fail.Public(refusal)
			out.Refusals = append(out.Refusals, api.Refusal{Code: code, Detail: detail, Hint: hint})
		}
		return out, c.RecordRead(ctx)
	})
}

// createPolicy makes a policy, and begins to move the sites of a geo under its site
// policy. A dry run stops after the checks: it makes no keys.
func (c *call) createPolicy(ctx context.Context, d policy.Definition) (api.Policy, error) {
	if c.DryRun {
		warnings, err := c.policies.CheckCreate(ctx, c.Tenant, d)
		if err == nil {
			err = c.Change(ctx, func(tx *store.Tx) (string, error) {
				_, err := c.sourceOfSites(ctx, tx, d)
				return "", err
			})
		}
		return api.Policy{Kind: d.Kind, Name: d.Name, Warnings: warnings}, err
	}
	guid, err := c.tenantGUID(ctx, c.Tenant)
	if err != nil {
		return api.Policy{}, err
	}
	made, err := c.policies.PrepareCreate(ctx, c.Tenant, guid, d)
	if err != nil {
		return api.Policy{}, err
	}
	var pol policy.Policy
	err = c.Commit(ctx, made, func(tx *store.Tx) (string, error) {
		if pol, err = made.Commit(ctx, tx); err != nil {
			return "", err
		}
		source, err := c.sourceOfSites(ctx, tx, d)
		if err == nil && source != 0 {
			err = c.beginRoll(ctx, tx, roll.Start{Policy: pol, Source: source})
		}
		return "policy " + pol.GUID.String(), err
	})
	if err != nil {
		return api.Policy{}, err
	}
	c.roller.Wake()
	out, err := c.policyOf(ctx, pol.ID)
	out.Warnings = made.Warnings
	return out, err
}

// sourceOfSites returns the policy from which a new site policy takes over the sites of
// its geo, and 0 for a policy that does not cover one.
func (c *call) sourceOfSites(ctx context.Context, tx *store.Tx, d policy.Definition) (int64, error) {
	if !profiles.Of(d.Kind).OnePerGeo {
		return 0, nil
	}
	managed, err := c.policies.ServiceManagedIn(ctx, tx, c.Tenant, d.Geo)
	if err != nil {
		return 0, err
	}
	return managed, c.checkNoIncoming(ctx, tx, managed)
}

// ListPolicies lists the tenant's policies, including the service-managed one, the oldest
// first.
func (s *Service) ListPolicies(ctx context.Context, in api.ListInput) (api.List[api.Policy], error) {
	return do(ctx, s, api.ListPolicies.Meta, "", func(ctx context.Context, c *call) (api.List[api.Policy], error) {
		return operation.ListPage(ctx, c.Call, in.PageInput, func(tx *store.Tx, after int64, limit int) ([]operation.Row[api.Policy], error) {
			list, names, err := s.policies.Page(ctx, tx, c.Tenant, after, limit)
			if err != nil {
				return nil, err
			}
			rolls, err := c.newestRolls(ctx, tx, list, names)
			if err != nil {
				return nil, err
			}
			return operation.RowsOf(list, func(l policy.Listed) operation.Row[api.Policy] {
				if l.Damaged != nil {
					return operation.Row[api.Policy]{ID: l.ID, Err: l.Damaged}
				}
				item, err := c.policyWith(l, rolls[l.ID])
				return operation.Row[api.Policy]{ID: l.ID, Item: item, Err: err}
			}), nil
		})
	})
}

// ShowPolicy shows one policy.
func (s *Service) ShowPolicy(ctx context.Context, in api.PolicyInput) (out api.Policy, err error) {
	return do(ctx, s, api.ShowPolicy.Meta, in.Policy, func(ctx context.Context, c *call) (api.Policy, error) {
		return out, c.Read(ctx, func(tx *store.Tx) error {
			pol, err := c.findPolicy(ctx, tx, in)
			if err != nil {
				return err
			}
			out, err = c.showPolicy(ctx, tx, pol)
			return err
		})
	})
}

// RefreshPolicy adopts the newest versions of a policy's keys.
func (s *Service) RefreshPolicy(ctx context.Context, in api.RefreshPolicyInput) (api.Refreshed, error) {
	return do(ctx, s, api.RefreshPolicy.Meta, in.Policy, func(ctx context.Context, c *call) (api.Refreshed, error) {
		depth, err := depthOf(in.Body.Depth)
		if err != nil {
			return api.Refreshed{}, err
		}
		if in.Body.AllGenerations && depth != api.DepthRoot {
			return api.Refreshed{}, fail.New(api.InvalidArgument, "all generations can be re-wrapped only at depth root, not at depth %s", depth)
		}
		return c.changeKeys(ctx, in.PolicyInput, policy.Request{Act: policy.Refresh, Depth: depth, AllGenerations: in.Body.AllGenerations}, in.Body.RollOptions)
	})
}

// UpdatePolicy replaces one customer key of the site policy.
func (s *Service) UpdatePolicy(ctx context.Context, in api.UpdatePolicyInput) (api.Refreshed, error) {
	return do(ctx, s, api.UpdatePolicy.Meta, in.Policy, func(ctx context.Context, c *call) (api.Refreshed, error) {
		depth, err := depthOf(in.Body.Depth)
		if err != nil {
			return api.Refreshed{}, err
		}
		kv, err := s.keyVersion(in.Body.Key)
		if err != nil {
			return api.Refreshed{}, err
		}
		r := policy.Request{Depth: depth}
		switch strings.ToLower(in.Body.KeyType) {
		case "primary":
			r.Act, r.Primary = policy.UpdatePrimary, kv
		case "secondary":
			r.Act, r.Secondary = policy.UpdateSecondary, kv
		default:
			return api.Refreshed{}, fail.New(api.InvalidArgument, "key type %q must be primary or secondary", in.Body.KeyType)
		}
		return c.changeKeys(ctx, in.PolicyInput, r, in.Body.RollOptions)
	})
}

// changeKeys changes the keys of a policy and begins the resulting roll in the same
// transaction. A dry run returns an estimate.
func (c *call) changeKeys(ctx context.Context, in api.PolicyInput, r policy.Request, asked api.RollOptions) (api.Refreshed, error) {
	c.DryRun = asked.DryRun
	options, err := rollOptions(r.Depth, asked)
	if err != nil {
		return api.Refreshed{}, err
	}
	var pol policy.Policy
	sweeps := false // roll even without a newer version
	err = c.db.View(ctx, func(tx *store.Tx) (err error) {
		if pol, err = c.findPolicy(ctx, tx, in); err != nil {
			return err
		}
		if err := pol.CheckAccepting(); err != nil {
			return err
		}
		latest, _, err := roll.Latest(ctx, tx, c.Tenant, pol.ID)
		if err != nil {
			return err
		}
		sweeps = r.Depth != api.DepthRoot && (options.IncludeInactive || latest.State == api.RollCancelled)
		return c.checkNoRoll(ctx, tx, pol)
	})
	if err != nil {
		return api.Refreshed{}, err
	}
	began := c.now()
	change, err := c.policies.PrepareChange(ctx, pol, r)
	swept := sweeps && fail.Is(err, api.NoNewVersion)
	if err != nil && !swept {
		return api.Refreshed{}, err
	}
	out := api.Refreshed{Warnings: change.Warnings}
	start := roll.Start{Policy: pol, Depth: r.Depth, Options: options, NewestKey: depth.NewestKey}
	if c.DryRun {
		if out.Estimate, err = c.estimate(ctx, change, swept, start, c.now().Sub(began)); err != nil {
			return api.Refreshed{}, err
		}
	} else if out.Rewrapped = change.Rewrapped(); !change.NewKey {
		out.Limit = "anyone with an old copy of the wrapped policy key and the old key version can still decrypt what this policy key protects; a refresh at depth policy ends that for the containers that it moves"
	}
	if swept {
		err = c.sweep(ctx, pol, options)
	} else {
		err = c.commitChange(ctx, change, start)
	}
	if err != nil {
		return api.Refreshed{}, err
	}
	c.roller.Wake()
	out.Policy, err = c.policyOf(ctx, pol.ID)
	return out, err
}

// commitChange commits a change of keys. If it makes a new policy key, it begins a roll
// to it.
func (c *call) commitChange(ctx context.Context, change *policy.PreparedChange, start roll.Start) error {
	return c.Commit(ctx, change, func(tx *store.Tx) (string, error) {
		done, err := change.Commit(ctx, tx)
		if err != nil {
			return "", err
		}
		if done.NewKey {
			if err := c.checkNoRoll(ctx, tx, start.Policy); err != nil {
				return "", err
			}
			start := start
			start.Policy, start.Revision = done.Policy, done.Revision.GUID
			if _, err := roll.Begin(ctx, tx, c.policies, start, c.now()); err != nil {
				return "", err
			}
		}
		return fmt.Sprintf("policy %s revision %s", done.Policy.GUID, done.Revision.GUID), nil
	})
}

// checkNoRoll refuses a second roll if the policy's profile allows only one at a time.
func (c *call) checkNoRoll(ctx context.Context, tx *store.Tx, pol policy.Policy) error {
	if !profiles.Of(pol.Kind).SingleRoll {
		return nil
	}
	latest, ok, err := roll.Latest(ctx, tx, c.Tenant, pol.ID)
	if err != nil || !ok || !latest.Unfinished() {
		return err
	}
	return c.rollInProgress(ctx, tx, pol, latest, "replace one key at a time: wait until the state of the policy is Registered; keyroll roll watch %d follows the roll")
}

// rollInProgress returns the refusal with the progress of a roll; hint is a format for
// its id.
func (c *call) rollInProgress(ctx context.Context, tx *store.Tx, pol policy.Policy, latest roll.Roll, hint string) error {
	progress, err := c.roller.Progress(ctx, tx, latest)
	if err != nil {
		return err
	}
	return fail.New(api.RollInProgress, "policy %q is being rolled: %d of %d containers (%.0f %%) have been moved, the roll is %s", pol.Name,
		progress.Done, progress.Total, progress.PercentComplete, progress.State).
		WithHint(hint, latest.ID)
}

func depthOf(d api.Depth) (api.Depth, error) {
	switch d {
	case "":
		return api.DepthPolicy, nil
	case api.DepthRoot, api.DepthPolicy, api.DepthContainer, api.DepthContent:
		return d, nil
	}
	return d, fail.New(api.InvalidArgument, "depth %q must be one of root, policy, container, content", d)
}

// keyVersion parses a key version that is given by its URI or by its parts.
func (s *Service) keyVersion(kv api.KeyVersion) (envelope.KeyVersion, error) {
	if kv.URI != "" {
		return s.keyNames.ParseURI(kv.URI)
	}
	return s.keyNames.Reference(kv.Vault, kv.Key, kv.Version)
}

func (c *call) policyOf(ctx context.Context, id int64) (out api.Policy, err error) {
	return out, c.db.View(ctx, func(tx *store.Tx) error {
		pol, err := c.policies.ByID(ctx, tx, c.Tenant, id)
		if err != nil {
			return err
		}
		out, err = c.showPolicy(ctx, tx, pol)
		return err
	})
}

// showPolicy completes a policy, as it is in tx, with its revision and its newest roll.
func (c *call) showPolicy(ctx context.Context, tx *store.Tx, pol policy.Policy) (api.Policy, error) {
	l, names, err := c.policies.ListOne(ctx, tx, c.Tenant, pol.ID)
	if err != nil {
		return api.Policy{}, err
	}
	rolls, err := c.newestRolls(ctx, tx, []policy.Listed{l}, names)
	if err != nil {
		return api.Policy{}, err
	}
	return c.policyWith(l, rolls[l.ID])
}

// newestRolls returns the roll with which each of some policies is shown, by the id of
// the policy: the newest one to the policy, or from one that was left.
func (c *call) newestRolls(ctx context.Context, tx *store.Tx, list []policy.Listed, names policy.Names) (map[int64]roll.Listed, error) {
	var to, left []int64
	for _, l := range list {
		if l.Left.IsZero() {
			to = append(to, l.ID)
		} else {
			left = append(left, l.ID)
		}
	}
	newest, err := roll.Newest(ctx, tx, c.Tenant, to, left)
	if err != nil {
		return nil, err
	}
	of := map[int64]roll.Listed{}
	for _, ro := range slices.Backward(c.roller.ProgressOf(ctx, tx, names, newest)) { // the newest is last
		if slices.Contains(to, ro.Policy) {
			of[ro.Policy] = ro
		}
		if slices.Contains(left, ro.Source) {
			of[ro.Source] = ro
		}
	}
	return of, nil
}

// policyWith returns a policy as it is shown, with its newest roll, if there is one.
func (c *call) policyWith(l policy.Listed, newest roll.Listed) (api.Policy, error) {
	pol, rev := l.Policy, l.Last
	if l.Incomplete != nil {
		return api.Policy{}, l.Incomplete
	}
	p := api.Policy{ID: pol.GUID.String(), Name: pol.Name, Kind: pol.Kind, Description: pol.Description, Enabled: pol.Enabled, Assigned: pol.Assigned,
		State: api.Registered, PercentComplete: 100, Revision: rev.GUID.String(), Generation: rev.Generation,
		Primary: c.keyOf(rev.Primary), Secondary: c.keyOf(rev.Secondary), PrimaryHealth: l.PrimaryHealth, SecondaryHealth: l.SecondaryHealth,
		AvailabilityKey: fmt.Sprint(rev.AvailabilityKey), AvailabilityVersion: rev.AvailabilityVersion, Created: pol.Created.UTC(), Refreshed: rev.Created.UTC()}
	if profiles.Of(pol.Kind).OnePerGeo || pol.Geo != 0 {
		p.Geo = cmp.Or(l.GeoName, container.DefaultGeo)
	}
	if !pol.Left.IsZero() {
		p.State = api.Unregistered
	}
	if newest.ID == 0 {
		return withState(p, pol), nil
	}
	if newest.Err != nil {
		return p, newest.Err
	}
	p.Roll = &newest.Shown
	if newest.Unfinished() {
		p.PercentComplete = newest.Shown.PercentComplete
		switch {
		case !pol.Left.IsZero():
		case newest.Source != 0 && profiles.Of(pol.Kind).SingleRoll:
			p.State = api.Registering
		default:
			p.State = api.Rolling
		}
	}
	return withState(p, pol), nil
}

// withState sets the states that take precedence over those of a roll.
func withState(p api.Policy, pol policy.Policy) api.Policy {
	switch {
	case pol.Purge == policy.Purged:
		p.State = api.PurgeDone
	case pol.Purge == policy.PurgeRequested:
		p.State = api.PurgePending
	case !pol.Recovery.IsZero():
		p.State = api.Recovery
	}
	return p
}

func (c *call) keyOf(kv envelope.KeyVersion) api.KeyVersion {
	if kv.Key == "" {
		return api.KeyVersion{}
	}
	return api.KeyVersion{Vault: kv.Vault, Key: kv.Key, Version: kv.Version, URI: c.keyNames.URI(kv)}
}
