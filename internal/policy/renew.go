package policy

import (
	"context"
	"fmt"
	"time"

	"keyroll/api"
	"keyroll/internal/audit"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keyhealth"
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
func (p *Policies) renewOrRelease(ctx context.Context, e *cached) {
	if e.whose != User || p.cache.expired(e) {
		p.cache.release(e)
		return
	}
	kept := p.renew(ctx, e)
	p.cache.rearm(e)
	if kept {
		p.recheck(ctx, e)
	}
}

// recheck uses the customer keys of a policy key that failed when they were last
// used. A renewal needs only one of the two, so otherwise the other one might not be
// tried after its vault is back or its permission was restored.
func (p *Policies) recheck(ctx context.Context, e *cached) {
	ctx = renewing(ctx, e)
	r, err := p.authentic(ctx, e.tenant, e.id)
	if err != nil {
		return // the next renewal fails with it
	}
	for _, root := range customerRoots(e.profile, r) {
		seen, err := keyhealth.Observe(ctx, p.db, r.rootOf(e.tenant, root.kv), "")
		if err != nil || seen.Seen() == api.Serves {
			continue
		}
		bundle, _ := p.unwrapWith(ctx, e.tenant, e.profile, r, root) // unwrapWith records the result
		clear(bundle)
	}
}

func renewing(ctx context.Context, e *cached) context.Context {
	return audit.WithOrigin(ctx, audit.Origin{Operation: JobRenew, Request: fmt.Sprintf("policy key %d", e.id), System: true})
}

// renew asks the customer keys of a cached policy key again and reports whether the
// key is still cached: a success renews its lifetime, a refusal removes it at once,
// and after an outage of both or a local problem it stays to the end of its lifetime.
func (p *Policies) renew(ctx context.Context, e *cached) bool {
	kept, _, _ := p.cache.renewals.Do(fmt.Sprint(e.id), func() (any, error) { return p.renewOnce(ctx, e), nil })
	return kept.(bool)
}

func (p *Policies) renewOnce(ctx context.Context, e *cached) (kept bool) {
	ctx = renewing(ctx, e)
	at := p.cache.now()
	r, err := p.authentic(ctx, e.tenant, e.id)
	if err == nil {
		var key *envelope.Key
		if key, err = p.unwrapCustomer(ctx, e.tenant, e.profile, r); err == nil {
			err = p.cache.extend(e, key, at)
			key.Zero()
		} else {
			_, err = p.classifyFailure(ctx, e.tenant, r, err)
		}
	}
	if ctx.Err() != nil {
		return false // the cache is being closed
	}
	switch code := fail.CodeOf(err); {
	case err == nil:
		return true
	case code == api.VaultDenied && !r.InRecovery, code == api.Damaged, code == api.NotFound, code == api.Gone:
		p.logger.WarnContext(ctx, "a policy key is withdrawn", "policy", r.Binding.Policy, "key", e.id, "error", err)
		p.cache.release(e)
		return false
	default:
		left, alert := p.cache.recordFailure(e, at)
		if alert && !r.InRecovery {
			p.alert(ctx, e, r, left, err)
		}
		return left > 0
	}
}

// alert reports, once for an entry, that it expires soon: in the log, and in the
// tenant's audit log.
func (p *Policies) alert(ctx context.Context, e *cached, r revisionRow, left time.Duration, err error) {
	p.logger.ErrorContext(ctx, "renewing a policy key keeps failing; the data under it becomes unreadable when its cache entry expires",
		"policy", r.Binding.Policy, "key", e.id, "left", left, "error", err)
	use := audit.Entry{Tenant: e.tenant, Outcome: string(fail.CodeOf(err)),
		Detail: fmt.Sprintf("renewing policy key %d of policy %s keeps failing; its time in the cache ends in %v", e.id, r.Binding.Policy, left.Round(time.Second))}
	if err := p.record(ctx, use); err != nil {
		p.logger.ErrorContext(ctx, "an alert could not be written to the audit log", "policy", r.Binding.Policy, "error", err)
	}
}

// extend renews the lifetime of an entry; key must be the entry's key.
func (c *cache) extend(e *cached, key *envelope.Key, at moment) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys[User][e.id] != e {
		return fail.New(api.NotFound, "policy key %d was dropped from the cache meanwhile", e.id)
	}
	if !e.key.Equal(key) {
		return fail.New(api.Damaged, "the roots of policy key %d decrypt to another key than before", e.id)
	}
	e.renewed, e.asked, e.alerted = at, at, false
	return nil
}

// recordFailure records that an entry could not be renewed. It returns the rest of its
// lifetime, and whether to alert, which is true once for an entry.
func (c *cache) recordFailure(e *cached, at moment) (left time.Duration, alert bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys[User][e.id] != e {
		return 0, false
	}
	e.asked = at
	left = c.remaining(e)
	alert = !e.alerted && e.lifetime() > alertBefore && left < alertBefore
	e.alerted = e.alerted || alert
	return left, alert
}
