package policy

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/profiles"
	"keyroll/internal/store"
)

// Assigned returns the policy that is assigned to the tenant, or fails NotFound.
func (p *Policies) Assigned(ctx context.Context, tx *store.Tx, tenant int64) (Policy, error) {
	pol, err := single(selectPolicies(ctx, tx, `p.tenant = ?1 AND p.assigned = 1`, tenant))
	if fail.Is(err, api.NotFound) {
		err = fail.New(api.NotFound, "no multi-workload policy is assigned to the tenant").
			WithHint("containers without a policy of their own use the service-managed one; Set-M365DataAtRestEncryptionPolicyAssignment assigns a policy")
	}
	return pol, err
}

// covering returns the policy of mailboxes without one of their own and of workload
// stores: the assigned one, or else the service-managed one.
func (p *Policies) covering(ctx context.Context, tx *store.Tx, tenant int64) (int64, error) {
	pol, err := p.Assigned(ctx, tx, tenant)
	if fail.Is(err, api.NotFound) {
		return p.ServiceManaged(ctx, tx, tenant)
	}
	return pol.ID, err
}

// lockServiceManaged takes the service-managed policy's lock exclusively: while it is
// held, no other transaction changes which policy covers a container, or creates a
// container without a policy of its own.
func (p *Policies) lockServiceManaged(ctx context.Context, tx *store.Tx, tenant int64) (managed int64, err error) {
	if managed, err = p.ServiceManaged(ctx, tx, tenant); err != nil {
		return 0, err
	}
	return managed, tx.Lock(ctx, managed, true)
}

// LockAll takes the locks of some policies exclusively, always in the same order, so
// that no two transactions wait for each other.
func LockAll(ctx context.Context, tx *store.Tx, policies ...int64) error {
	slices.Sort(policies)
	for _, id := range slices.Compact(policies) {
		if err := tx.Lock(ctx, id, true); err != nil {
			return err
		}
	}
	return nil
}

// Assign assigns a policy to its tenant, in place of the one before, and returns it
// with the policy that covered until then: that policy's containers must be moved in the
// same transaction, unless it is the same policy.
func (p *Policies) Assign(ctx context.Context, tx *store.Tx, pol Policy) (now Policy, before int64, err error) {
	if !profiles.Of(pol.Kind).ForTenant {
		return now, 0, fail.New(api.InvalidArgument, "policy %q is of kind %s and cannot be assigned to the tenant", pol.Name, pol.Kind).
			WithHint("assign a multi-workload policy: New-M365DataAtRestEncryptionPolicy creates one")
	}
	if _, err := p.lockServiceManaged(ctx, tx, pol.Tenant); err != nil {
		return now, 0, err
	}
	if before, err = p.covering(ctx, tx, pol.Tenant); err != nil {
		return now, 0, err
	}
	if err := LockAll(ctx, tx, before, pol.ID); err != nil {
		return now, 0, err
	}
	now, err = p.ByID(ctx, tx, pol.Tenant, pol.ID)
	switch {
	case err != nil:
		return now, 0, err
	case !now.Enabled:
		return now, 0, Disabled("assign", now)
	case now.Purge != NotPurged:
		return now, 0, fail.New(api.Conflict, "assign policy %q: its purge has been requested, so it no longer accepts containers", now.Name)
	}
	if before != now.ID {
		if err := setAssigned(ctx, tx, pol.Tenant, now.ID); err != nil {
			return now, 0, err
		}
		now.Assigned = true
	}
	return now, before, nil
}

// Leave ends a policy permanently: it covers nothing, accepts no containers, and
// cannot be enabled again. It returns the policy as it is then, and the one that covers
// its containers from then on: they must be moved there in the same transaction. Once
// none is left, Retire erases all wraps of the policy.
func (p *Policies) Leave(ctx context.Context, tx *store.Tx, pol Policy) (left, to Policy, err error) {
	profile := profiles.Of(pol.Kind)
	if profile.Keys == 0 {
		return left, to, fail.New(api.InvalidArgument, "leave policy %q: a %s policy is the built-in default and cannot be left", pol.Name, pol.Kind).
			WithHint("name a policy of your own: Get-DataEncryptionPolicy lists them")
	}
	target, err := p.lockSuccessor(ctx, tx, profile, pol)
	if err != nil {
		return left, to, err
	}
	left, err = p.ByID(ctx, tx, pol.Tenant, pol.ID)
	switch {
	case err != nil:
		return left, to, err
	case !left.Left.IsZero():
		return left, to, fail.New(api.Conflict, "policy %q was already left on %s", left.Name, left.Left.UTC().Format("2006-01-02 15:04")).
			WithHint("keyroll roll list shows the progress of moving its containers")
	case left.Purge != NotPurged:
		return left, to, fail.New(api.Conflict, "leave policy %q: its purge has been requested", left.Name)
	}
	left.Enabled, left.Assigned, left.Left = false, false, p.now()
	if profile.Fixed { // its successor gets the same name from keyroll
		left.Name = fmt.Sprintf("%s (left %.8s)", left.Name, left.GUID)
	}
	if err := updatePolicy(ctx, tx, left); err != nil {
		return left, to, err
	}
	to, err = p.ByID(ctx, tx, pol.Tenant, target)
	return left, to, err
}

// lockSuccessor returns the policy that covers the containers of a policy after it was
// left, and takes the locks of both.
func (p *Policies) lockSuccessor(ctx context.Context, tx *store.Tx, profile profiles.Profile, pol Policy) (to int64, err error) {
	managed, err := p.lockServiceManaged(ctx, tx, pol.Tenant)
	if err != nil {
		return 0, err
	}
	if profile.OnePerGeo {
		to, err = p.ServiceManagedIn(ctx, tx, pol.Tenant, pol.Geo)
	} else {
		to, err = p.covering(ctx, tx, pol.Tenant)
	}
	if err != nil {
		return 0, err
	}
	if to == pol.ID {
		to = managed
	}
	return to, LockAll(ctx, tx, pol.ID, to)
}

// Settings are the changeable properties of a policy other than its keys; nil means
// no change.
type Settings struct {
	Name, Description *string
	Enabled           *bool
}

// Set changes a policy's settings and returns it. It holds the policy's lock, so that no
// container is added before tx ends.
func (p *Policies) Set(ctx context.Context, tx *store.Tx, pol Policy, s Settings) (now Policy, err error) {
	profile := profiles.Of(pol.Kind)
	if s.Name != nil {
		if profile.Fixed {
			return now, fail.New(api.InvalidArgument, "rename policy %q: keyroll names a %s policy itself", pol.Name, pol.Kind)
		}
		if err := checkName(*s.Name); err != nil {
			return now, err
		}
	}
	if err := tx.Lock(ctx, pol.Tenant, true); err != nil { // names and numbers of policies
		return now, err
	}
	if err := tx.Lock(ctx, pol.ID, true); err != nil {
		return now, err
	}
	if now, err = p.ByID(ctx, tx, pol.Tenant, pol.ID); err != nil {
		return now, err
	}
	if now.Purge != NotPurged {
		return now, now.CheckAccepting()
	}
	if s.Description != nil {
		now.Description = *s.Description
	}
	if s.Name != nil {
		now.Name = *s.Name
	}
	if s.Enabled != nil && *s.Enabled != now.Enabled {
		now.Enabled = *s.Enabled
		if err := p.checkEnabled(ctx, tx, profile, now); err != nil {
			return now, err
		}
	}
	if err := p.checkRenamed(ctx, tx, now); err != nil {
		return now, err
	}
	return now, updatePolicy(ctx, tx, now)
}

// checkEnabled fails if a policy may not be enabled, or disabled, as now.Enabled
// says.
func (p *Policies) checkEnabled(ctx context.Context, tx *store.Tx, profile profiles.Profile, now Policy) error {
	switch {
	case !now.Left.IsZero():
		return fail.New(api.Conflict, "enable policy %q: it was left, which is permanent", now.Name).
			WithHint("create a new policy; it may use the same keys")
	case now.Enabled:
		all, err := p.List(ctx, tx, now.Tenant)
		if err != nil {
			return err
		}
		return checkActive(profile, all, now.Geo)
	case profile.Keys == 0:
		return fail.New(api.Conflict, "disable policy %q: it is the built-in default and is always enabled", now.Name)
	case profile.Fixed || now.Assigned:
		return fail.New(api.Conflict, "disable policy %q: it covers every container without a policy of its own", now.Name).
			WithHint("keyroll policy leave %q moves all of them to service-managed keys", now.Name)
	}
	return nil
}

func (p *Policies) checkRenamed(ctx context.Context, tx *store.Tx, now Policy) error {
	all, err := p.List(ctx, tx, now.Tenant)
	if err != nil {
		return err
	}
	for _, other := range all {
		if other.ID != now.ID && other.Purge != Purged && strings.EqualFold(other.Name, now.Name) {
			return fail.New(api.AlreadyExists, "policy %q already exists", other.Name)
		}
	}
	return nil
}

// Disabled returns the error for an operation on a disabled policy.
func Disabled(act string, pol Policy) error {
	if !pol.Left.IsZero() {
		return fail.New(api.Conflict, "%s policy %q: it was left, which is permanent", act, pol.Name).
			WithHint("create a new policy; it may use the same keys")
	}
	return fail.New(api.Conflict, "%s policy %q: it is disabled", act, pol.Name).
		WithHint("enable it first: Set-DataEncryptionPolicy -Enabled $true")
}

func updatePolicy(ctx context.Context, tx *store.Tx, p Policy) error {
	var left int64
	if !p.Left.IsZero() {
		left = p.Left.UnixMilli()
	}
	_, err := tx.Exec(ctx, `UPDATE policy SET name = ?3, name_key = ?4, description = ?5, enabled = ?6, assigned = ?7, left_at = ?8
		WHERE tenant = ?1 AND id = ?2`, p.Tenant, p.ID, p.Name, strings.ToLower(p.Name), p.Description, p.Enabled, p.Assigned, left)
	return err
}

func setAssigned(ctx context.Context, tx *store.Tx, tenant, policy int64) error {
	if _, err := tx.Exec(ctx, `UPDATE policy SET assigned = 0 WHERE tenant = ?1 AND assigned = 1`, tenant); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `UPDATE policy SET assigned = 1 WHERE tenant = ?1 AND id = ?2`, tenant, policy)
	return err
}
