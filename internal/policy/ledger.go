package policy

import (
	"cmp"
	"context"
	"slices"
	"time"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/keyhealth"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
)

// Usage returns the ledger: what each key version still protects under each policy,
// counted from the key pages and the revisions whose wraps are kept. Versions that a
// policy once used and that are no longer needed are listed too.
func (p *Policies) Usage(ctx context.Context, tx *store.Tx, tenant int64) ([]api.KeyUsage, error) {
	sums, err := keypage.Usage(ctx, tx, tenant)
	if err != nil {
		return nil, err
	}
	under := map[int64]map[envelope.Class]int64{}
	for _, s := range sums {
		if under[s.Parent] == nil {
			under[s.Parent] = map[envelope.Class]int64{}
		}
		under[s.Parent][s.Class] += s.Keys
	}
	revisions, err := selectRevisions(ctx, tx, `r.tenant = ?1 AND r.primary_key_name <> '' ORDER BY r.created, r.id`, tenant)
	if err != nil {
		return nil, err
	}
	health, err := keyhealth.All(ctx, tx, tenant)
	if err != nil {
		return nil, err
	}
	type line struct {
		kv     envelope.KeyVersion
		policy int64
	}
	lines := map[line]*usage{}
	for _, r := range revisions {
		for _, kv := range []envelope.KeyVersion{r.Primary, r.Secondary} {
			at := line{kv.Fold(), r.Policy} // one version is one line, however it was spelled
			l := lines[at]
			if l == nil {
				l = &usage{KeyUsage: api.KeyUsage{Vault: kv.Vault, Key: kv.Key, Version: kv.Version, Policy: r.PolicyName}}
				l.Health = *health[r.rootOf(tenant, kv.Fold())].API()
				lines[at] = l
			}
			l.count(r, under[r.Binding.PolicyKey])
		}
	}
	list := make([]api.KeyUsage, 0, len(lines))
	for _, l := range lines {
		list = append(list, l.verdict())
	}
	slices.SortFunc(list, func(a, b api.KeyUsage) int {
		return cmp.Or(cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Vault, b.Vault), cmp.Compare(a.Key, b.Key), a.Since.Compare(b.Since), cmp.Compare(a.Version, b.Version))
	})
	return list, nil
}

// usage is a line of the ledger in the making.
type usage struct {
	api.KeyUsage
	kept         bool      // some wrap under the version is kept
	since, until time.Time // the last period without a gap in which one was kept
}

// count adds a revision; they must be added in the order in which they were made.
func (u *usage) count(r revisionRow, keys map[envelope.Class]int64) {
	if !u.kept && r.Created.After(u.until) {
		u.since = r.Created
	}
	if !r.Kept {
		u.until = later(u.until, r.Erased)
		return
	}
	u.kept = true
	u.Active += keys[envelope.ClassActive]
	u.Inactive += keys[envelope.ClassInactive]
	u.Disconnected += keys[envelope.ClassDisconnected]
	u.Disabled += keys[envelope.ClassDisabled]
	u.Sites += keys[envelope.ClassSite]
	u.Workloads += keys[envelope.ClassWorkload]
	u.Backups += keys[envelope.ClassBackup]
}

// verdict completes the line. A key version is in use while a wrap under it is kept;
// without one it has been free since the last of them was erased.
func (u *usage) verdict() api.KeyUsage {
	u.Verdict, u.Since = api.SafeToRetire, u.until.UTC()
	if u.kept {
		u.Verdict, u.Since = api.InUse, u.since.UTC()
	}
	return u.KeyUsage
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
