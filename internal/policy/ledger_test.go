package policy_test

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/keypage"
	"keyroll/internal/longtest"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// The model's acts are durable transactions, so few checks are the default; -rapid.checks
// sets more.
func init() { flag.Set("rapid.checks", strconv.Itoa(longtest.Of(15, 100))) }

// wrapped is a revision in the model.
type wrapped struct {
	policy             policy.Policy
	key                int64
	primary, secondary envelope.KeyVersion
	created, erased    time.Time // erased is zero while the wraps are kept
}

// book is a model of the ledger that records every act.
type book struct {
	*policytest.World
	policies  []policy.Policy
	revisions []*wrapped
	pages     map[int64]keypage.Row
}

// TestLedgerEqualsACountOfEveryPage compares the ledger with a count
// over all pages and revisions that ever were, after any sequence of acts.
func TestLedgerEqualsACountOfEveryPage(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		world := policytest.New(t, db)
		rapid.Check(t, func(r *rapid.T) {
			b := &book{World: world.Neighbour(), pages: map[int64]keypage.Row{}}
			prefix := fmt.Sprint(store.NewID())
			for _, name := range []string{prefix + "x", prefix + "y"} {
				b.add(b.MailboxPolicy(name))
			}
			b.add(b.SitePolicy())
			r.Repeat(map[string]func(*rapid.T){
				"refresh": b.refresh, "update": b.update, "put": b.put, "move": b.move, "delete": b.delete, "retire": b.retire, "wait": b.wait, "": b.check,
			})
		})
	})
}

func (b *book) add(pol policy.Policy) {
	b.policies = append(b.policies, pol)
	b.recordRevision(pol, pol.Current)
}

// recordRevision records the current revision of a policy key, in place of the previous one.
func (b *book) recordRevision(pol policy.Policy, key policy.KeyRow) {
	rev := revisionOf(b.World, key)
	for _, r := range b.revisions {
		if r.key == key.ID && r.erased.IsZero() {
			r.erased = b.Clock.Now()
		}
	}
	b.revisions = append(b.revisions, &wrapped{policy: pol, key: key.ID, primary: rev.Primary, secondary: rev.Secondary, created: b.Clock.Now()})
}

func (b *book) draw(t *rapid.T, kind api.PolicyKind) policy.Policy {
	var fit []policy.Policy
	for _, p := range b.policies {
		if kind == "" || p.Kind == kind {
			fit = append(fit, p)
		}
	}
	return b.Reload(rapid.SampledFrom(fit).Draw(t, "policy"))
}

func (b *book) refresh(t *rapid.T) {
	pol := b.draw(t, api.MailboxPolicy)
	depth := rapid.SampledFrom([]api.Depth{api.DepthRoot, api.DepthPolicy}).Draw(t, "depth")
	all := rapid.Bool().Draw(t, "all generations")
	kept := map[int64]bool{}
	for _, r := range b.revisions {
		if r.policy.ID == pol.ID && r.erased.IsZero() {
			kept[r.key] = true
		}
	}
	c := b.Refresh(pol, depth, all)
	for _, key := range keysOf(b.World, pol) {
		if depth == api.DepthPolicy && key == c.Policy.Current || depth == api.DepthRoot && kept[key.ID] && (all || key == pol.Current) {
			b.recordRevision(pol, key)
		}
	}
}

func (b *book) update(t *rapid.T) {
	pol := b.draw(t, api.SitePolicy)
	kv, other := b.NewVersions(pol)
	secondary := rapid.Bool().Draw(t, "secondary")
	if secondary {
		kv = other
	}
	if rapid.Bool().Draw(t, "in another spelling") {
		kv.Vault, kv.Key = strings.ToUpper(kv.Vault), strings.ToUpper(kv.Key)
	}
	if rapid.Bool().Draw(t, "back to the first") {
		kv.Version = fmt.Sprintf("%032x", 1)
	}
	depth := rapid.SampledFrom([]api.Depth{api.DepthRoot, api.DepthPolicy}).Draw(t, "depth")
	c, err := b.Change(pol, policytest.Update(secondary, kv, depth))
	if err != nil {
		policytest.Refuses(b, err, api.NoNewVersion)
		return
	}
	b.recordRevision(pol, c.Policy.Current)
}

// keptKeys are the policy keys that have a wrap.
func (b *book) keptKeys(t *rapid.T) policy.KeyRow {
	var keys []policy.KeyRow
	for _, p := range b.policies {
		for _, k := range keysOf(b.World, p) {
			if slices.ContainsFunc(b.revisions, func(r *wrapped) bool { return r.key == k.ID && r.erased.IsZero() }) {
				keys = append(keys, k)
			}
		}
	}
	return rapid.SampledFrom(keys).Draw(t, "policy key")
}

func (b *book) put(t *rapid.T) {
	row := b.Put(b.keptKeys(t), rapid.SampledFrom(policy.Classes).Draw(t, "class"), rapid.IntRange(1, 5).Draw(t, "slots"))
	b.pages[row.ID] = row
}

func (b *book) page(t *rapid.T) keypage.Row {
	if len(b.pages) == 0 {
		t.Skip("there is no page")
	}
	return b.pages[rapid.SampledFrom(slices.Sorted(maps.Keys(b.pages))).Draw(t, "page")]
}

// move puts a page under another policy key; its body does not matter here.
func (b *book) move(t *rapid.T) {
	old, to := b.page(t), b.keptKeys(t)
	next := old
	next.Parent, next.Generation, next.Version = to.ID, to.Generation, old.Version+1
	next.Class = rapid.SampledFrom(policy.Classes).Draw(t, "class")
	b.InTx(func(tx *store.Tx) error {
		_, err := keypage.Swap(b.Ctx, tx, []keypage.Row{old}, []keypage.Row{next})
		return err
	})
	b.pages[next.ID] = next
}

func (b *book) delete(t *rapid.T) {
	row := b.page(t)
	b.InTx(func(tx *store.Tx) error {
		_, err := keypage.Delete(b.Ctx, tx, row)
		return err
	})
	delete(b.pages, row.ID)
}

func (b *book) retire(t *rapid.T) {
	pol := b.draw(t, "")
	want := 0
	for _, r := range b.revisions {
		if r.policy.ID != pol.ID || !r.erased.IsZero() || r.key == pol.Current.ID {
			continue
		}
		used := false
		for _, p := range b.pages {
			used = used || p.Parent == r.key
		}
		if !used {
			r.erased = b.Clock.Now()
			want++
		}
	}
	got, err := b.Policies.Retire(b.Ctx, b.Tenant, pol.ID)
	if err != nil || got != want {
		b.Fatalf("retired %d, %v, want %d", got, err, want)
	}
}

func (b *book) wait(t *rapid.T) {
	b.Clock.Advance(time.Duration(rapid.IntRange(1, 1000).Draw(t, "milliseconds")) * time.Millisecond)
}

func (b *book) check(*rapid.T) {
	want := b.countEveryPage()
	for _, u := range b.Usage() {
		if u.Health.State != api.Serves {
			b.Fatalf("a key that made and opened its wraps: %+v", u.Health)
		}
		u.Health = api.KeyHealth{}
		u.Vault, u.Key, u.Since = strings.ToLower(u.Vault), strings.ToLower(u.Key), u.Since.UTC()
		name := lineName(u)
		if w, ok := want[name]; !ok || w != u {
			b.Fatalf("the ledger says %+v\nby hand it is %+v", u, w)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		b.Fatalf("the ledger lacks %v", want)
	}
}

func lineName(u api.KeyUsage) string {
	return strings.Join([]string{u.Policy, u.Vault, u.Key, u.Version}, "|")
}

// countEveryPage computes the ledger: for each version it goes over each revision and each page.
func (b *book) countEveryPage() map[string]api.KeyUsage {
	lines := map[string]api.KeyUsage{}
	for _, named := range b.revisions {
		for _, kv := range []envelope.KeyVersion{named.primary, named.secondary} {
			u := api.KeyUsage{Policy: named.policy.Name, Vault: strings.ToLower(kv.Vault), Key: strings.ToLower(kv.Key), Version: kv.Version, Verdict: api.SafeToRetire}
			var under []*wrapped
			for _, r := range b.revisions {
				for _, other := range []envelope.KeyVersion{r.primary, r.secondary} {
					if r.policy.ID == named.policy.ID && strings.EqualFold(other.Vault, kv.Vault) && strings.EqualFold(other.Key, kv.Key) && other.Version == kv.Version {
						under = append(under, r)
					}
				}
			}
			for _, r := range under {
				if !r.erased.IsZero() {
					continue
				}
				u.Verdict = api.InUse
				for _, p := range b.pages {
					if p.Parent != r.key {
						continue
					}
					n := int64(p.Count)
					switch p.Class {
					case envelope.ClassActive:
						u.Active += n
					case envelope.ClassInactive:
						u.Inactive += n
					case envelope.ClassDisconnected:
						u.Disconnected += n
					case envelope.ClassDisabled:
						u.Disabled += n
					case envelope.ClassSite:
						u.Sites += n
					case envelope.ClassWorkload:
						u.Workloads += n
					case envelope.ClassBackup:
						u.Backups += n
					}
				}
			}
			u.Since = inUseSince(under, u.Verdict).UTC()
			lines[lineName(u)] = u
		}
	}
	return lines
}

// inUseSince returns the time since which the verdict has held: for a version in use, since
// when a wrap under it has been kept.
func inUseSince(under []*wrapped, verdict api.Verdict) time.Time {
	if verdict == api.SafeToRetire {
		return slices.MaxFunc(under, func(a, b *wrapped) int { return a.erased.Compare(b.erased) }).erased
	}
	var at time.Time
	for _, r := range under {
		if r.erased.IsZero() && (at.IsZero() || r.created.Before(at)) {
			at = r.created
		}
	}
	for {
		earlier := slices.MinFunc(under, func(a, b *wrapped) int {
			start := func(r *wrapped) time.Time {
				if r.created.Before(at) && (r.erased.IsZero() || !r.erased.Before(at)) {
					return r.created
				}
				return at
			}
			return cmp.Compare(start(a).UnixMilli(), start(b).UnixMilli())
		})
		if !earlier.created.Before(at) || !earlier.erased.IsZero() && earlier.erased.Before(at) {
			return at
		}
		at = earlier.created
	}
}
