package verify_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/envelope"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
	"keyroll/internal/verify"
)

// tenant has two mailboxes under a policy, one of them inactive and not moved by a roll,
// and a site with a file.
type tenant struct {
	*contenttest.Fixture
	verifier *verify.Verifier
	pol      policy.Policy
	boxes    []container.Container
}

func each(t *testing.T, test func(w tenant)) {
	t.Helper()
	storetest.Each(t, func(t *testing.T, db *store.DB) { test(newTenant(policytest.New(t, db))) })
}

func newTenant(p *policytest.World) tenant {
	p.Helper()
	w := tenant{Fixture: contenttest.New(p, time.Now)}
	w.verifier = verify.New(p.DB, p.Policies, w.Containers.Containers, w.Contents.Items, w.Contents.Contents)
	w.pol = w.MailboxPolicy("p")
	w.boxes = []container.Container{w.Mailbox(w.pol.ID, "active", 1), w.Mailbox(w.pol.ID, "idle", 1)}
	var err error
	w.boxes[1], err = w.Containers.SetState(w.Ctx, w.Tenant, w.boxes[1], envelope.ClassInactive)
	w.Must(err)
	_, err = w.Contents.Put(w.Ctx, w.Site("a"), "a.txt", -1, strings.NewReader("content"))
	w.Must(err)
	w.roll()
	return w
}

// roll refreshes the policy and rolls it to its end.
func (w tenant) roll() {
	w.Helper()
	w.Finish(w.Begin(w.pol, api.DepthPolicy, roll.Options{}), api.RollFinished)
}

func (w tenant) verify(only int64) api.Verified {
	w.Helper()
	report, err := w.verifier.Run(w.Ctx, w.Tenant, only, func(api.VerifyProgress) {})
	w.Must(err)
	return report
}

// exec changes rows, and forgets the policy keys that are in memory.
func (w tenant) exec(query string, args ...any) {
	w.Helper()
	w.Exec(query, args...)
	w.Policies.Close()
}

func TestEverythingIsDecryptedAndCounted(t *testing.T) {
	each(t, func(w tenant) {
		got := w.verify(0)
		got.BlobKeys, got.Bytes, got.Tables = min(got.BlobKeys, 1), min(got.Bytes, 1), 0 // tables: another test
		// Policy keys: the service's, two of p. Roots: one, and three each.
		if want := (api.Verified{PolicyKeys: 3, Wraps: 7, Containers: 4, BlobKeys: 1, Items: 3, Bytes: 1}); fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if got := w.verify(w.pol.ID); got.PolicyKeys != 2 || got.Containers != 2 || got.Items != 2 || len(got.Damaged)+len(got.Closed) != 0 {
			t.Errorf("the policy alone: %+v", got)
		}
		before := w.Dump("policy", "policy_key", "revision", "key_page", "container", "item", "blob")
		w.verify(0)
		if w.Dump("policy", "policy_key", "revision", "key_page", "container", "item", "blob") != before {
			t.Error("verify changed something")
		}
	})
}

func TestContentThatPolicyMakesInaccessibleIsNotReportedAsDamaged(t *testing.T) {
	each(t, func(w tenant) {
		away := policytest.Away()
		for _, failure := range []error{away, policytest.Denied()} { // a refusal outlasts an outage
			w.Vaults.Fail("A-p", failure)
			w.Vaults.Fail("B-p", failure)
			w.Policies.Close()
			got := w.verify(0)
			if len(got.Damaged) != 0 || len(got.Closed) != 4 { // two revisions by two roots each
				t.Errorf("closed %+v, damaged %+v", got.Closed, got.Damaged)
			}
			for _, f := range got.Closed {
				if f.Kind != "revision" || !strings.Contains(f.Detail, failure.Error()) {
					t.Errorf("closed %+v", f)
				}
			}
			keys, items := int64(1), int64(1)
			if failure == away {
				keys, items = 3, 3 // by the availability key
			}
			if got.PolicyKeys != keys || got.Wraps != 3 || got.Items != items {
				t.Errorf("readable keys and items: %+v", got)
			}
		}
		w.Vaults.Fail("A-p", nil)
		if got := w.verify(0); len(got.Closed) != 2 || got.Items != 3 {
			t.Errorf("with one vault away everything opens by the other, and the wraps are named: %+v", got)
		}
	})
}

func TestVerifyOfAPolicyTestsItsRoots(t *testing.T) {
	each(t, func(w tenant) {
		w.Vaults.Fail("B-p", policytest.Denied())
		w.Policies.Close()
		got := w.verify(w.pol.ID)
		var said []string
		for _, p := range got.Probes {
			said = append(said, fmt.Sprint(p.Root, " ", p.Wraps, " ", p.Unwraps))
		}
		if strings.Join(said, ", ") != "primary true true, secondary false false, availability true true" {
			t.Errorf("the roots: %v", said)
		}
		if got := w.verify(0); len(got.Probes) != 0 {
			t.Errorf("verify of all has probes of some: %+v", got.Probes)
		}
	})
}

// The messages of an import share an object.
func TestEachMessageOfALostObjectIsNamedInOrder(t *testing.T) {
	each(t, func(w tenant) {
		objects := func() (names []string) {
			w.Must(w.Blobs.List(w.Ctx, "", func(name string, _ int64) error {
				names = append(names, name)
				return nil
			}))
			return names
		}
		before, sound := objects(), w.verify(0)
		text := ""
		for i := range 5 {
			text += contenttest.Message(i)
		}
		w.Import(w.boxes[0], text)
		if got := w.verify(0); got.Items != sound.Items+5 || len(got.Damaged) != 0 {
			t.Fatalf("%+v", got)
		}
		lost := slices.DeleteFunc(objects(), func(name string) bool { return slices.Contains(before, name) })
		if len(lost) != 1 {
			t.Fatalf("%d objects", len(lost))
		}
		w.Must(w.Blobs.Delete(w.Ctx, lost[0]))
		got := w.verify(0)
		var ids []string
		for _, f := range got.Damaged {
			if f.Kind != "item" || !strings.Contains(f.Detail, "is missing from the blob store") {
				t.Errorf("%+v", f)
			}
			ids = append(ids, f.ID)
		}
		if got.Items != sound.Items || len(ids) != 5 || !slices.IsSorted(ids) {
			t.Errorf("%d items, damaged %v", got.Items, ids)
		}
	})
}

func TestDamageIsNamedByItsIds(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(w tenant)
		kind   string
		id     func(w tenant) any
		reason string
	}{
		"a key page's body": {func(w tenant) {
			w.exec(`UPDATE key_page SET body = ?2 WHERE id = ?1`, w.page(1), make([]byte, 73))
		}, "key page", func(w tenant) any { return w.page(1) }, ""},
		"a revision's column": {func(w tenant) {
			w.exec(`UPDATE revision SET primary_version = 'x' WHERE policy_key = ?1`, w.Reload(w.pol).Current.ID)
		}, "revision", nil, "MAC"},
		"a revision's wraps": {func(w tenant) {
			w.exec(`UPDATE revision SET erased = 1 WHERE policy_key = ?1`, w.pol.Current.ID) // the idle mailbox is under it
		}, "policy key", func(w tenant) any { return w.pol.Current.ID }, "no root wraps"},
		"an availability key": {func(w tenant) {
			w.RemoveAvailabilityKeys()
			w.Policies.Close()
		}, "revision", nil, "availability key"},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(w tenant) {
				c.damage(w)
				got := w.verify(0)
				if len(got.Damaged) == 0 {
					t.Errorf("nothing is damaged; closed %+v", got.Closed)
				}
				for i, f := range got.Damaged {
					follows := i > 0 && f.Kind == "container" // containers of a page that cannot be decrypted
					if !follows && (f.Kind != c.kind || c.id != nil && f.ID != fmt.Sprint(c.id(w)) || !strings.Contains(f.Detail, c.reason)) {
						t.Errorf("found %+v", f)
					}
				}
			})
		})
	}
}

// page returns the current key page of a mailbox.
func (w tenant) page(box int) int64 {
	return w.Number(`SELECT page FROM container WHERE id = ?1`, w.boxes[box].ID)
}

func TestInconsistentSlotsAndPointersAreReported(t *testing.T) {
	each(t, func(w tenant) {
		idle, active := w.boxes[1], w.boxes[0]
		w.exec(`UPDATE container SET page = ?2 WHERE id = ?1`, idle.ID, w.page(0))
		got := w.verify(0)
		var kinds []string
		for _, f := range got.Damaged {
			kinds = append(kinds, f.Kind+" "+f.ID)
		}
		all := strings.Join(kinds, ", ")
		for _, want := range []string{fmt.Sprint("container ", idle.ID), "key page"} {
			if !strings.Contains(all, want) {
				t.Errorf("found %s, want %s too", all, want)
			}
		}
		if strings.Contains(all, fmt.Sprint("container ", active.ID)) {
			t.Errorf("found %s, of which the sound one's container is one", all)
		}
	})
}

// Changes while policy keys are being opened make new policy keys, retire others and
// move pages; none of that is a finding.
func TestRefreshRollAndRetirementDuringVerifyAreNotReported(t *testing.T) {
	each(t, func(w tenant) {
		changes := 0
		w.Policies.Close()
		w.Vaults.Before = func(_ context.Context, c policytest.Call) error {
			if c.Op != "unwrap" || changes >= 3 {
				return nil
			}
			changes++
			before := w.Vaults.Before
			w.Vaults.Before = nil
			w.roll()
			if _, err := w.Containers.MoveKeyAfterAccess(w.Ctx, w.boxes[1]); err != nil {
				t.Error(err)
			}
			if _, err := w.Policies.Retire(w.Ctx, w.Tenant, w.pol.ID); err != nil {
				t.Error(err)
			}
			w.Vaults.Before = before
			return nil
		}
		got := w.verify(0)
		if changes == 0 || len(got.Damaged)+len(got.Closed) != 0 || got.Items != 3 || got.Containers != 4 {
			t.Errorf("%d changes: %+v", changes, got)
		}
	})
}

// A verification holds a snapshot and waits for vaults, which may be keyroll's own and
// also need the database. More verifications than there are connections still finish.
func TestManyConcurrentVerificationsEnd(t *testing.T) {
	each(t, func(w tenant) {
		var all sync.WaitGroup
		for range 24 {
			all.Go(func() {
				report, err := w.verifier.Run(w.Ctx, w.Tenant, 0, func(api.VerifyProgress) {
					w.Reload(w.pol) // the progress function may use the database too
				})
				if err != nil || report.Items != 3 {
					t.Errorf("%+v, %v", report, err)
				}
			})
		}
		all.Wait()
	})
}

func TestVerificationEndsIfItsCallerDisconnects(t *testing.T) {
	w := newTenant(policytest.New(t, storetest.One(t)))
	ctx, cancel := context.WithCancel(w.Ctx)
	w.Vaults.Before = func(context.Context, policytest.Call) error { cancel(); return nil }
	w.Policies.Close()
	if _, err := w.verifier.Run(ctx, w.Tenant, 0, func(api.VerifyProgress) {}); err == nil {
		t.Error("it ended without an error")
	}
	w.Vaults.Before = nil
	w.verify(0) // and does not block the next one
}

// An index that lost writes is damage, even if all data that is read without it is sound.
func TestAnIndexThatLostWritesIsReportedAsDamage(t *testing.T) {
	each(t, func(w tenant) {
		if w.DB.Dialect().Name == "postgres" {
			w.InTx(func(tx *store.Tx) error {
				_, err := tx.Exec(w.Ctx, `CREATE EXTENSION amcheck`)
				return err
			})
		}
		if got := w.verify(0); len(got.Damaged) != 0 || got.Tables < 20 {
			t.Errorf("before: %+v", got)
		}
		o := w.Over(storetest.LoseWrites(t, w.DB, "blob_id", func(db *store.DB) {
			w.Must(db.InTx(w.Ctx, func(tx *store.Tx) error {
				_, err := tx.Exec(w.Ctx, `INSERT INTO blob (id, tenant, item, sequence, size, page) SELECT id + 1, tenant + 1, item, 99, 0, page FROM blob LIMIT 1`)
				return err
			}))
		}))
		report, err := verify.New(o.DB, o.Policies, o.Containers.Containers, o.Contents.Items, o.Contents.Contents).Run(w.Ctx, w.Tenant, 0, func(api.VerifyProgress) {})
		w.Must(err)
		named := false
		for _, f := range report.Damaged {
			named = named || f.Kind == "table" && f.ID == "blob" && strings.Contains(f.Detail, "blob_id")
		}
		if !named {
			t.Errorf("table and index are not named: %+v", report.Damaged)
		}
	})
}

func TestWrapsThatExternalVaultsMadeAreListed(t *testing.T) {
	each(t, func(w tenant) {
		kv := func(vault string) envelope.KeyVersion {
			added := w.Vaults.Add("https://"+vault+".vault.azure.net", "k")
			added.Version = ""
			return added
		}
		_, err := w.Create(policy.Definition{Kind: api.MailboxPolicy, Name: "outside", Primary: kv("a-outside"), Secondary: kv("b-outside")})
		w.Must(err)
		w.Exec(`UPDATE revision SET secondary_local = 0`) // as an earlier version stored them; those of keyroll's own vaults do not count
		report, err := w.verifier.Run(w.Ctx, w.Tenant, 0, func(api.VerifyProgress) {})
		w.Must(err)
		if len(report.VaultMade) != 1 || !strings.Contains(report.VaultMade[0].Detail, "b-outside") || len(report.Damaged) != 0 {
			t.Errorf("%+v", report)
		}
	})
}
