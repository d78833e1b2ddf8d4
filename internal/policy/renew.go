package policy

import (
	"context"
	"fmt"
	"time"

	"keyroll/api"
	"keyroll/internal/audit"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keycache"
	"keyroll/internal/keyhealth"
	"keyroll/internal/profiles"
)

// RevocationBound is how long a node may go on using a policy key for users after the
// customer revoked it, the same for every kind of policy: a cached key is returned
// only if its customer keys have been asked within it.
const RevocationBound = 5 * time.Minute

// renewAfter is when the customer keys are asked again for a key in the cache. The
// rest of RevocationBound is more than two calls of a vault may take.
const renewAfter = RevocationBound - time.Minute

// alertBefore is how long before the end of a lifetime an alert says that renewing
// fails, if the lifetime is longer than that.
const alertBefore = 2 * time.Hour

// renewOrRelease is called when the timer of a cache entry fires: it renews the entry
// or removes it.
func (p *Policies) renewOrRelease(ctx context.Context, e *keycache.Entry) {
	if e.For != User || p.cache.Expired(e) {
		p.cache.Release(e)
		return
	}
	kept := p.renew(ctx, e)
	p.cache.Rearm(e)
	if kept {
		p.recheck(ctx, e)
	}
}

// recheck uses the customer keys of a policy key that failed when they were last
// used. A renewal needs only one of the two, so otherwise the other one might not be
// tried after its vault is back or its permission was restored.
func (p *Policies) recheck(ctx context.Context, e *keycache.Entry) {
	ctx = renewing(ctx, e)
	r, err := p.authentic(ctx, e.Tenant, e.ID)
	if err != nil {
		return // the next renewal fails with it
	}
	for _, root := range customerRoots(profiles.Of(e.Kind), r) {
		seen, err := keyhealth.Observe(ctx, p.db, r.rootOf(e.Tenant, root.kv), "")
		if err != nil || seen.Seen() == api.Serves {
			continue
		}
		bundle, _ := p.unwrapWith(ctx, e.Tenant, profiles.Of(e.Kind), r, root) // unwrapWith records the result
		clear(bundle)
	}
}

func renewing(ctx context.Context, e *keycache.Entry) context.Context {
	return audit.WithOrigin(ctx, audit.Origin{Operation: JobRenew, Request: fmt.Sprintf("policy key %d", e.ID), System: true})
}

// renew asks the customer keys of a cached policy key again and reports whether the
// key is still cached: a success renews its lifetime, a refusal removes it at once,
// and after an outage of both or a local problem it stays to the end of its lifetime.
func (p *Policies) renew(ctx context.Context, e *keycache.Entry) bool {
	kept, _, _ := p.renewals.Do(fmt.Sprint(e.ID), func() (any, error) { return p.renewOnce(ctx, e), nil })
	return kept.(bool)
}

func (p *Policies) renewOnce(ctx context.Context, e *keycache.Entry) (kept bool) {
	ctx = renewing(ctx, e)
	at := p.cache.Now()
	r, err := p.authentic(ctx, e.Tenant, e.ID)
	if err == nil {
		var key *envelope.Key
		if key, err = p.unwrapCustomer(ctx, e.Tenant, profiles.Of(e.Kind), r); err == nil {
			err = p.cache.Extend(e, key, at)
			key.Zero()
		} else {
			_, err = p.classifyFailure(ctx, e.Tenant, r, err)
		}
	}
	if ctx.Err() != nil {
		return false // the cache is being closed
	}
	switch code := fail.CodeOf(err); {
	case err == nil:
		return true
	case code == api.VaultDenied && !r.InRecovery, code == api.Damaged, code == api.NotFound, code == api.Gone:
		p.logger.WarnContext(ctx, "a policy key is withdrawn", "policy", r.Binding.Policy, "key", e.ID, "error", err)
		p.cache.Release(e)
		return false
	default:
		left, alert := p.cache.RecordFailure(e, at)
		if alert && !r.InRecovery {
			p.alert(ctx, e, r, left, err)
		}
		return left > 0
	}
}

// alert reports, once for an entry, that it expires soon: in the log, and in the
// tenant's audit log.
func (p *Policies) alert(ctx context.Context, e *keycache.Entry, r revisionRow, left time.Duration, err error) {
	p.logger.ErrorContext(ctx, "renewing a policy key keeps failing; the data under it becomes unreadable when its cache entry expires",
		"policy", r.Binding.Policy, "key", e.ID, "left", left, "error", err)
	use := audit.Entry{Tenant: e.Tenant, Outcome: string(fail.CodeOf(err)),
		Detail: fmt.Sprintf("renewing policy key %d of policy %s keeps failing; its time in the cache ends in %v", e.ID, r.Binding.Policy, left.Round(time.Second))}
	if err := p.record(ctx, use); err != nil {
		p.logger.ErrorContext(ctx, "an alert could not be written to the audit log", "policy", r.Binding.Policy, "error", err)
	}
}
