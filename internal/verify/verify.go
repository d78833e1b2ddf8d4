// Package verify decrypts everything and reports what cannot be decrypted.
//
// It works from the roots down: every policy key by every root that wraps it, every
// container key and every blob key in every key page, every item to its last byte;
// then every key version of the embedded vaults, and every table of the database
// against its indexes. If a policy is given, each of its roots first wraps and unwraps
// fresh bytes. Keys that are inaccessible by policy are reported as closed; keys and
// items that should be readable and are not, or are not in their place, are reported
// as damaged with their ids. It changes nothing. Keys are read from one snapshot; an
// item that is added, removed or replaced in the meantime is not a finding. Start
// reading at Run.
package verify

import (
	"context"
	"fmt"
	"slices"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/items"
	"keyroll/internal/keypage"
	"keyroll/internal/policy"
	"keyroll/internal/roll"
	"keyroll/internal/store"
)

// Verifier verifies the data of the packages below it.
type Verifier struct {
	db         *store.DB
	policies   *policy.Policies
	containers *container.Containers
	items      *items.Store
	contents   *content.Contents
	// Vaults are the embedded vaults; nil if there are none.
	Vaults Vaults
	// one lets only one verification at a time hold a snapshot: the number of database
	// connections is small, and a client that reads the progress slowly occupies one
	// for long.
	slot chan struct{}
}

// Vaults is the part of the embedded vaults that this package uses.
type Vaults interface {
	// CheckKeys decrypts every key version of a tenant, calls damaged for each that is
	// damaged, and returns how many are not.
	CheckKeys(ctx context.Context, tenant int64, damaged func(id string, err error) error) (sound int64, err error)
}

// New returns a verifier of the data of a node.
func New(db *store.DB, policies *policy.Policies, containers *container.Containers, stored *items.Store, contents *content.Contents) *Verifier {
	return &Verifier{db: db, policies: policies, containers: containers, items: stored, contents: contents, slot: make(chan struct{}, 1)}
}

// run is one verification under way.
type run struct {
	*Verifier
	tx       *store.Tx
	tenant   int64
	report   api.Verified
	progress func(api.VerifyProgress)
	keys     map[int64]*envelope.Key // opened policy keys
	closed   map[int64]bool          // policy keys that are inaccessible by policy or damaged
	reported map[int64]bool          // policies that have been reported as damaged
}

// pageBatch is how many key pages are read at a time.
const pageBatch = 32

// Run verifies a tenant, or, if only is not 0, the data that this policy protects.
// Only one verification runs at a time, others wait for it. progress is called from
// one goroutine.
func (v *Verifier) Run(ctx context.Context, tenant, only int64, progress func(api.VerifyProgress)) (api.Verified, error) {
	r := &run{Verifier: v, tenant: tenant, progress: progress, keys: map[int64]*envelope.Key{}, closed: map[int64]bool{}, reported: map[int64]bool{}}
	r.report.Closed, r.report.Damaged = []api.Finding{}, []api.Finding{}
	select {
	case v.slot <- struct{}{}:
		defer func() { <-v.slot }()
	case <-ctx.Done():
		return r.report, ctx.Err()
	}
	defer func() {
		for _, key := range r.keys {
			key.Zero()
		}
	}()
	steps := []struct {
		name string
		run  func(ctx context.Context, only int64) error
	}{{"policy's roots", r.testRoots}, {"keys", r.checkKeys}, {"wraps", r.listVaultMade}, {"content", r.checkContent}, {"rest", r.checkOthers}, {"vault keys", r.checkVaultKeys}, {"tables", r.checkTables}}
	for _, step := range steps {
		err := step.run(ctx, only)
		if fail.Is(err, api.Damaged) { // of the database itself: the other steps still report what they can
			err = r.addFinding("check of", step.name, err)
		}
		if err != nil {
			return r.report, err
		}
	}
	return r.report, nil
}

// testRoots makes each root of the policy id wrap and unwrap. A policy without a wrapping
// root has no probes.
func (r *run) testRoots(ctx context.Context, id int64) error {
	if id == 0 {
		return nil
	}
	var pol policy.Policy
	err := r.db.View(ctx, func(tx *store.Tx) (err error) {
		pol, err = r.policies.ByID(ctx, tx, r.tenant, id)
		return err
	})
	if err != nil {
		return err
	}
	r.report.Probes, err = r.policies.Test(ctx, pol)
	if code := fail.CodeOf(err); err != nil && (code == api.NotFound || code == api.Damaged) {
		return nil // it is reported with its policy key
	}
	return err
}

// listVaultMade lists the wraps of policy keys that external vaults made.
func (r *run) listVaultMade(ctx context.Context, only int64) error {
	if only != 0 {
		return nil
	}
	return r.db.ViewOnce(ctx, func(tx *store.Tx) error {
		left, err := r.policies.VaultMade(ctx, tx, r.tenant)
		for _, wrap := range left {
			r.report.VaultMade = append(r.report.VaultMade, api.Finding{Kind: "revision", ID: wrap.Revision,
				Detail: wrap.Key + ": the vault made this wrap, and keyroll has not yet replaced it by its own"})
		}
		return err
	})
}

// checkKeys opens the policy keys outside the snapshot, since that may call a vault, and
// then reads all key pages from one snapshot of which it has opened every policy key.
// After a refresh in between it starts again with the new policy keys.
func (r *run) checkKeys(ctx context.Context, only int64) error {
	for {
		var unopened []root
		err := r.db.ViewOnce(ctx, func(tx *store.Tx) error {
			r.tx = tx
			parents, retired, err := r.roots(ctx, only)
			if err != nil {
				return err
			}
			unopened = slices.DeleteFunc(slices.Clone(parents), func(one root) bool { return r.keys[one.ID] != nil || r.closed[one.ID] })
			if len(unopened) > 0 {
				return nil
			}
			if only == 0 {
				if err := r.checkUnknownParents(ctx, parents, retired); err != nil {
					return err
				}
			}
			return r.checkPages(ctx, parents, retired)
		})
		if err != nil || len(unopened) == 0 {
			return err
		}
		for _, one := range unopened {
			if err := r.openPolicyKey(ctx, one); err != nil {
				return err
			}
		}
	}
}

// addFinding reports a finding as closed or as damaged; any other error ends the run.
func (r *run) addFinding(kind string, id any, err error) error {
	f := api.Finding{Kind: kind, ID: fmt.Sprint(id), Detail: err.Error()}
	switch fail.CodeOf(err) {
	case api.Damaged:
		r.report.Damaged = append(r.report.Damaged, f)
	case api.VaultDenied, api.VaultUnavailable, api.NotFound, api.Gone:
		r.report.Closed = append(r.report.Closed, f)
	default:
		return err
	}
	return nil
}

// root is a policy key with the GUID of the revision that wraps it.
type root struct {
	keypage.Parent
	revision string
	// left are the classes of key pages that a finished roll has moved from this
	// policy key to the current one: no page of them may be under it.
	vacated []envelope.Class
}

// roots lists the policy keys that have wraps, and those without any.
func (r *run) roots(ctx context.Context, only int64) (kept []root, retired []keypage.Parent, err error) {
	policies, err := r.policies.List(ctx, r.tx, r.tenant)
	if err != nil {
		return nil, nil, err
	}
	for _, pol := range policies {
		if only != 0 && pol.ID != only {
			continue
		}
		if pol.Damaged != nil && !r.reported[pol.ID] {
			r.reported[pol.ID] = true
			if err := r.addFinding("policy", pol.ID, pol.Damaged); err != nil {
				return nil, nil, err
			}
		}
		keys, err := r.policies.Keys(ctx, r.tx, r.tenant, pol.ID)
		if err != nil {
			return nil, nil, err
		}
		latest, _, err := roll.Latest(ctx, r.tx, r.tenant, pol.ID)
		if err != nil {
			return nil, nil, err
		}
		var left []envelope.Class
		if latest.State == api.RollFinished && latest.Target == pol.Current.ID {
			left = latest.Classes
		}
		for _, k := range keys {
			parent := keypage.Parent{ID: k.ID, Generation: k.Generation}
			switch rev, err := r.policies.RevisionOf(ctx, r.tx, r.tenant, k.ID); {
			case fail.Is(err, api.NotFound):
				retired = append(retired, parent)
			case err != nil:
				return nil, nil, err
			case k.ID == pol.Current.ID:
				kept = append(kept, root{parent, rev.GUID.String(), nil})
			default:
				kept = append(kept, root{parent, rev.GUID.String(), left})
			}
		}
	}
	return kept, retired, nil
}

// openPolicyKey opens a policy key by each of its roots, unless it was retired in the meantime.
func (r *run) openPolicyKey(ctx context.Context, one root) error {
	shut := false
	probes := r.policies.Probe(ctx, r.tenant, one.ID)
	key, unopened := r.policies.Open(ctx, r.tenant, one.ID, policy.User)
	err := r.db.View(ctx, func(tx *store.Tx) error {
		_, err := r.policies.RevisionOf(ctx, tx, r.tenant, one.ID)
		return err
	})
	if err != nil {
		key.Zero()
		if fail.Is(err, api.NotFound) {
			return nil
		}
		return err
	}
	for _, probe := range probes {
		if probe.Err == nil {
			r.report.Wraps++
			continue
		}
		shut = true
		if err := r.addFinding("revision", one.revision, fmt.Errorf("%s: %w", probe.Root, probe.Err)); err != nil {
			key.Zero()
			return err
		}
	}
	if unopened == nil {
		r.report.PolicyKeys++
		r.keys[one.ID] = key
		return nil
	}
	r.closed[one.ID] = true
	if shut {
		return nil // the error of each root has been reported
	}
	return r.addFinding("revision", one.revision, unopened)
}

// addNotice reports something that is not damaged but should be known.
func (r *run) addNotice(kind string, id int64, detail string) {
	r.report.Notices = append(r.report.Notices, api.Finding{Kind: kind, ID: fmt.Sprint(id), Detail: detail})
}

// checkUnknownParents reports key pages that are under policy keys which the tenant does not have.
func (r *run) checkUnknownParents(ctx context.Context, kept []root, retired []keypage.Parent) error {
	known := map[keypage.Parent]bool{}
	for _, one := range kept {
		known[one.Parent] = true
	}
	for _, parent := range retired {
		known[parent] = true
	}
	sums, err := keypage.Usage(ctx, r.tx, r.tenant)
	if err != nil {
		return err
	}
	for _, sum := range sums {
		if known[keypage.Parent{ID: sum.Parent, Generation: sum.Generation}] {
			continue
		}
		err := fail.New(api.Damaged, "%d key pages of class %v are under policy key %d generation %d, which this tenant does not have", sum.Pages, sum.Class, sum.Parent, sum.Generation)
		if err := r.addFinding("policy key", sum.Parent, err); err != nil {
			return err
		}
	}
	return nil
}

// checkPages decrypts every key page under the policy keys, and checks that its slots
// are exactly those of the containers that point to it. There must be no page under a
// policy key that no root wraps any more.
func (r *run) checkPages(ctx context.Context, kept []root, retired []keypage.Parent) error {
	classes := slices.Concat(policy.Classes, policy.OlderClasses)
	for _, parent := range retired {
		pages, _, err := keypage.Count(ctx, r.tx, r.tenant, []keypage.Parent{parent}, classes)
		if err != nil {
			return err
		}
		if pages > 0 {
			err := fail.New(api.Damaged, "%d key pages are under policy key %d, which no root wraps any more", pages, parent.ID)
			if err := r.addFinding("policy key", parent.ID, err); err != nil {
				return err
			}
		}
	}
	parents := make([]keypage.Parent, len(kept))
	for i, one := range kept {
		parents[i] = one.Parent
	}
	_, total, err := keypage.Count(ctx, r.tx, r.tenant, parents, policy.Classes)
	if err != nil {
		return err
	}
	for _, one := range kept {
		for after := int64(0); ; {
			rows, err := keypage.Under(ctx, r.tx, keypage.Set{Tenant: r.tenant, Parents: []keypage.Parent{one.Parent}, Classes: classes}, after, pageBatch)
			if err != nil {
				return err
			}
			if len(rows) == 0 {
				break
			}
			after = rows[len(rows)-1].ID
			for _, row := range rows {
				if err := r.checkPage(ctx, one, row); err != nil {
					return err
				}
			}
			r.progress(api.VerifyProgress{Stage: "container keys", Done: r.report.Containers, Total: total})
		}
	}
	return nil
}

func (r *run) checkPage(ctx context.Context, under root, row keypage.Row) error {
	if slices.Contains(under.vacated, row.Class) {
		err := fail.New(api.Damaged, "key page %d of class %v is under generation %d of its policy, which no page uses since a roll finished: an older row was put back", row.ID, row.Class, row.Generation)
		if err := r.addFinding("key page", row.ID, err); err != nil {
			return err
		}
	}
	key := r.keys[row.Parent]
	if key == nil {
		return nil // its revision has been reported
	}
	page, err := envelope.OpenPage(key, row.EncryptionContext(), row.Body)
	if err != nil {
		return r.addFinding("key page", row.ID, err)
	}
	defer page.Zero()
	if row.Class.IsOlder() {
		return r.checkOlderPage(ctx, row, page)
	}
	pointing, err := r.containers.OnPage(ctx, r.tx, r.tenant, row.ID)
	if err != nil {
		return err
	}
	for _, c := range pointing {
		key, ok := page.Find(c.ID, c.Generation)
		if !ok {
			err := fail.New(api.Damaged, "container %d points to key page %d, which has no key of its generation %d", c.ID, row.ID, c.Generation)
			if err := r.addFinding(findingKind(c), c.ID, err); err != nil {
				return err
			}
			continue
		}
		key.Zero()
		exact, err := r.containers.CheckName(ctx, r.tx, c)
		if err != nil {
			if err := r.addFinding(findingKind(c), c.ID, err); err != nil {
				return err
			}
			continue
		}
		if exact {
			r.addNotice(findingKind(c), c.ID, "another site has the same URL except for case and encoding; this one is found only by its exact spelling")
		}
		r.report.Containers++
	}
	if page.Len() != len(pointing) {
		return r.addFinding("key page", row.ID, fail.New(api.Damaged, "key page %d has %d keys, and %d containers point to it", row.ID, page.Len(), len(pointing)))
	}
	return nil
}

// checkOlderPage checks a page of the keys that containers had before a roll gave them
// new ones: its slots must be exactly those of the containers that point to it.
func (r *run) checkOlderPage(ctx context.Context, row keypage.Row, page *envelope.Page) error {
	pointing, err := r.containers.OnOlderPage(ctx, r.tx, r.tenant, row.ID)
	if err != nil {
		return err
	}
	for _, c := range pointing {
		key, ok := page.Find(c.ID, c.Generation-1)
		if !ok {
			err := fail.New(api.Damaged, "container %d points to key page %d, which has no key of its older generation %d", c.ID, row.ID, c.Generation-1)
			if err := r.addFinding(findingKind(c), c.ID, err); err != nil {
				return err
			}
			continue
		}
		key.Zero()
	}
	if page.Len() != len(pointing) {
		return r.addFinding("key page", row.ID, fail.New(api.Damaged, "key page %d has %d older keys, and %d containers point to it", row.ID, page.Len(), len(pointing)))
	}
	return nil
}

// placed is a container and the policy key that its key is under.
type placed struct {
	container.Container
	policyKey int64
	err       error
	olderErr  error // of its older key
}

// checkContent reads every item of every container. Containers under a policy key that has
// been reported as closed are skipped and not reported again one by one.
func (r *run) checkContent(ctx context.Context, only int64) error {
	for after := int64(0); ; {
		list, err := r.nextPlaced(ctx, after)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, c := range list {
			after = c.ID
			if c.olderErr != nil && c.err == nil && (only == 0 || r.keys[c.policyKey] != nil) {
				if err := r.addFinding(findingKind(c.Container), c.ID, c.olderErr); err != nil {
					return err
				}
			}
			switch {
			case r.closed[c.policyKey], only != 0 && r.keys[c.policyKey] == nil:
				continue
			case c.err != nil:
				err = r.addFinding(findingKind(c.Container), c.ID, c.err)
			default:
				err = r.checkItems(ctx, c.Container)
			}
			if err != nil {
				return err
			}
		}
	}
}

func (r *run) nextPlaced(ctx context.Context, after int64) (list []placed, err error) {
	err = r.db.View(ctx, func(tx *store.Tx) error {
		containers, err := r.containers.All(ctx, tx, r.tenant, after, pageBatch)
		if err != nil {
			return err
		}
		list = list[:0]
		for _, c := range containers {
			p := placed{Container: c, olderErr: r.containers.CheckOlder(ctx, tx, c)}
			if p.policyKey, _, p.err = r.containers.PolicyKeyOf(ctx, tx, c); p.err != nil && fail.CodeOf(p.err) != api.Damaged {
				return p.err
			}
			list = append(list, p)
		}
		return nil
	})
	return list, err
}

// checkItems reads every item of one container to its end.
func (r *run) checkItems(ctx context.Context, c container.Container) error {
	err := r.contents.Check(ctx, c, func(one content.Checked) error {
		r.report.BlobKeys += one.Keys
		r.report.Bytes += one.Bytes
		if one.Err != nil {
			return r.addFinding("item", one.Item, one.Err)
		}
		if one.Exact {
			r.addNotice("item", one.Item, "another file of the site has the same path except for case and encoding; this one is found only by its exact spelling")
		}
		r.report.Items++
		r.progress(api.VerifyProgress{Stage: "items", Done: r.report.Items})
		return nil
	})
	if c.Kind == container.Backup && fail.Is(err, api.NotFound) { // expired in the meantime
		return nil
	}
	if err == nil {
		err = r.items.CheckTotal(ctx, c)
	}
	if err != nil {
		return r.addFinding(findingKind(c), c.ID, err)
	}
	return nil
}

// findingKind returns the kind of the findings about a container.
func findingKind(c container.Container) string {
	if c.Kind == container.Backup {
		return "backup"
	}
	return "container"
}
