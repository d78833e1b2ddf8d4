package policy

import (
	"context"
	"errors"
	"fmt"

	"keyroll/api"
	"keyroll/internal/audit"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// The code that erases wraps or destroys an availability key decides by indexes, and
// cannot be undone. So each decision is confirmed before it is carried out: the
// tables are compared with their indexes and read from end to end. No lock is needed;
// a decision stays true, since nothing is added under a policy key that is not
// current, and no wrap under an older version of an availability key.

// confirmUnused fails Damaged if a key page is under one of some policy keys.
func (p *Policies) confirmUnused(ctx context.Context, tenant int64, unused []revisionRow) error {
	ids := make([]int64, len(unused))
	for i, r := range unused {
		ids[i] = r.Binding.PolicyKey
	}
	used := 0
	err := p.db.CheckTables(ctx, "policy", "policy_key", "revision", "key_page")
	if err == nil {
		err = p.db.Scan(ctx, store.ScanQuery{Table: "key_page", Columns: "id", Column: "parent", IDs: ids}, func(store.Scanner) error { used++; return nil })
	}
	if err == nil && used > 0 {
		err = store.Contradiction("%d key pages are under policy keys %d", used, ids)
	}
	return p.reportContradiction(ctx, tenant, "erase the wraps of policy keys", err)
}

// confirmUnneeded fails Damaged if a wrap is kept under one of some versions of a
// policy's availability key.
func (p *Policies) confirmUnneeded(ctx context.Context, pol Policy, unneeded []availabilityVersion) error {
	given := map[availabilityVersion]bool{}
	var ids []int64
	for _, v := range unneeded {
		given[v] = true
		ids = append(ids, v.id)
	}
	err := p.scanRevisions(ctx, "availability", ids, func(v availabilityVersion, policy int64, kept bool) error {
		if policy != pol.ID || kept && given[v] {
			return store.Contradiction("a wrap of policy %d is under version %d of availability key %d", policy, v.version, v.id)
		}
		return nil
	})
	return p.reportContradiction(ctx, pol.Tenant, "destroy versions of an availability key", err)
}

// confirmPurged fails Damaged unless a policy was purged and its revisions, and no
// others, are under some availability keys.
func (p *Policies) confirmPurged(ctx context.Context, tenant, policy int64, ids []int64) error {
	err := p.db.CheckTables(ctx, "policy")
	purged := false
	if err == nil {
		err = p.db.Scan(ctx, store.ScanQuery{Table: "policy", Columns: "purge", Column: "id", IDs: []int64{policy}}, func(row store.Scanner) error {
			var state Purge
			err := row.Scan(&state)
			purged = state == Purged
			return err
		})
	}
	if err == nil && !purged {
		err = store.Contradiction("policy %d was not purged", policy)
	}
	given := map[int64]bool{}
	for _, id := range ids {
		given[id] = true
	}
	if err == nil {
		err = p.scanRevisions(ctx, "availability", ids, func(v availabilityVersion, of int64, _ bool) error {
			if of != policy {
				return store.Contradiction("availability key %d is of policy %d too", v.id, of)
			}
			return nil
		})
	}
	if err == nil {
		err = p.scanRevisions(ctx, "policy", []int64{policy}, func(v availabilityVersion, _ int64, _ bool) error {
			if !given[v.id] {
				return store.Contradiction("policy %d has availability key %d too", policy, v.id)
			}
			return nil
		})
	}
	return p.reportContradiction(ctx, tenant, "destroy an availability key", err)
}

// scanRevisions reads the revisions whose column is one of ids.
func (p *Policies) scanRevisions(ctx context.Context, column string, ids []int64, each func(v availabilityVersion, policy int64, kept bool) error) error {
	if err := p.db.CheckTables(ctx, "revision", "availability_version"); err != nil {
		return err
	}
	return p.db.Scan(ctx, store.ScanQuery{Table: "revision", Columns: "availability, availability_version, policy, erased", Column: column, IDs: ids}, func(row store.Scanner) error {
		var v availabilityVersion
		var policy, erased int64
		if err := row.Scan(&v.id, &v.version, &policy, &erased); err != nil {
			return err
		}
		return each(v, policy, erased == 0)
	})
}

// reportContradiction writes to the log and to the audit log why an irreversible
// act is not carried out, and returns the reason. A failure that is not Damaged is
// only returned.
func (p *Policies) reportContradiction(ctx context.Context, tenant int64, what string, why error) error {
	if why == nil {
		return nil
	}
	why = fmt.Errorf("%s: nothing is deleted: %w", what, why)
	if !fail.Is(why, api.Damaged) {
		return why
	}
	p.logger.ErrorContext(ctx, "the database contradicts itself; nothing is deleted", "error", why)
	_, detail, _ := fail.Public(why)
	return errors.Join(why, p.record(ctx, audit.Entry{Tenant: tenant, Outcome: string(api.Damaged), Detail: detail}))
}
