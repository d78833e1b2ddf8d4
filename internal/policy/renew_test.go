package policy_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"keyroll/api"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
)

// everyCustomerKind makes a policy of each kind that has customer keys.
func everyCustomerKind(w *policytest.World) []policy.Policy {
	return []policy.Policy{w.MailboxPolicy("p"), w.SitePolicy(), multiWorkload(w)}
}

// use reads like users, every 20 seconds, for as long as the key is readable, and returns
// how long that was; it stops after most.
func use(w *policytest.World, p *policy.Policies, pol policy.Policy, most time.Duration) time.Duration {
	began := time.Now()
	for time.Since(began) < most && tryOpen(w, p, user, pol) == nil {
		time.Sleep(20 * time.Second)
	}
	return time.Since(began)
}

// A revocation works within the bound for every kind of policy and on every node, at any
// point in the lifetime of a cached key, and during outages.
func TestRevocationTakesEffectWithinItsBoundOnEveryNode(t *testing.T) {
	bubble(t, func(w *policytest.World) {
		w.Vaults.Before = func(context.Context, policytest.Call) error { time.Sleep(9 * time.Second); return nil } // a slow vault
		other := w.Node()
		for _, pol := range everyCustomerKind(w) {
			for _, failures := range [][2]error{{policytest.Denied(), policytest.Denied()}, {policytest.Denied(), policytest.Away()}, {policytest.Away(), policytest.Denied()}} {
				for _, after := range []time.Duration{0, 1 * time.Minute, 3*time.Minute + 59*time.Second, 4*time.Minute + 5*time.Second, 17 * time.Minute, 3 * time.Hour} {
					w.Must(tryOpen(w, w.Policies, user, pol))
					time.Sleep(77 * time.Second) // the nodes do not go in step
					w.Must(tryOpen(w, other, user, pol))
					read := make(chan time.Duration)
					go func() { read <- use(w, other, pol, after) }()
					if use(w, w.Policies, pol, after) < after || <-read < after {
						t.Fatalf("%s: not readable before the revocation", pol.Kind)
					}
					bothFail(w, pol, failures[0], failures[1])
					go func() { read <- use(w, other, pol, time.Hour) }()
					for _, took := range []time.Duration{use(w, w.Policies, pol, time.Hour), <-read} {
						if took > policy.RevocationBound+20*time.Second { // the pace of use
							t.Errorf("%s: readable for %v after the revocation", pol.Kind, took)
						}
					}
					bothFail(w, pol, nil, nil)
					w.Must(tryOpen(w, w.Policies, user, pol)) // restored access works at once
					w.Must(tryOpen(w, other, user, pol))
					w.Policies.Close()
					other.Close()
				}
			}
		}
	})
}

// Even if the customer's keys still worked, a node removes a cached key of a policy that
// another node purged.
func TestPolicyKeyPurgedByAnotherNodeIsNotUsedBeyondTheBound(t *testing.T) {
	bubble(t, func(w *policytest.World) {
		other := w.Node()
		for _, pol := range everyCustomerKind(w) {
			w.Must(tryOpen(w, other, user, pol))
			w.InTx(func(tx *store.Tx) error { return w.Policies.Delete(w.Ctx, tx, w.Tenant, pol.ID) })
			if took := use(w, other, pol, time.Hour); took > policy.RevocationBound+20*time.Second {
				t.Errorf("%s: readable for %v", pol.Kind, took)
			}
			policytest.Refuses(t, tryOpen(w, other, user, pol), api.Gone)
		}
	})
}

// A cached key that is not used is removed and zeroed in time, too.
func TestRevocationZeroesKeysThatAreNotUsed(t *testing.T) {
	bubble(t, func(w *policytest.World) {
		for _, pol := range everyCustomerKind(w) {
			w.Open(pol.Current.ID).Zero()
			kept := w.Policies.Cached(pol.Current.ID)
			bothFail(w, pol, policytest.Denied(), policytest.Denied())
			time.Sleep(policy.RevocationBound)
			synctest.Wait()
			if w.Policies.Cached(pol.Current.ID) != nil || kept.Equal(kept) {
				t.Errorf("%s: the key is still there", pol.Kind)
			}
		}
	})
}

// A key that the availability key opened in an outage is subject to the bound, too.
func TestRevocationAfterAnOutageTakesEffectWithinItsBound(t *testing.T) {
	bubble(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		for _, into := range []time.Duration{0, 3 * time.Minute, 26 * time.Minute} {
			w.Serve(pol)
			bothFail(w, pol, policytest.Away(), policytest.Away())
			if use(w, w.Policies, pol, into) < into {
				t.Fatal("the outage was felt")
			}
			w.Must(tryOpen(w, w.Policies, user, pol))
			bothFail(w, pol, policytest.Away(), policytest.Denied())
			if took := use(w, w.Policies, pol, time.Hour); took > policy.RevocationBound+20*time.Second {
				t.Errorf("readable for %v after the revocation", took)
			}
		}
	})
}

// An outage removes nothing before the lifetime ends: sites stay readable for the cache
// lifetime, counted from the last answer of a vault.
func TestSitesSurviveAnOutageOfBothVaultsForTheLifetimeOfTheirCache(t *testing.T) {
	bubble(t, func(w *policytest.World) {
		pol := w.SitePolicy()
		use(w, w.Policies, pol, 7*time.Hour) // used and renewed for longer than a lifetime
		bothFail(w, pol, policytest.Away(), policytest.Away())
		const lifetime = 4 * time.Hour
		if lasted := use(w, w.Policies, pol, 24*time.Hour); lasted < lifetime-policy.RevocationBound || lasted > lifetime+20*time.Second {
			t.Errorf("readable for %v of the outage, want %v", lasted, lifetime)
		}
		policytest.Refuses(t, tryOpen(w, w.Policies, user, pol), api.VaultUnavailable)
		if opens := fallbacks(w); len(opens) > 0 {
			t.Errorf("the availability key was used: %q", opens)
		}
		w.Vaults.Fail("B-Sites", nil)
		w.Must(tryOpen(w, w.Policies, user, pol)) // as soon as one is back
	})
}

// Mailboxes stay readable in an outage of hours, and after it.
func TestMailboxesAreReadableThroughAnyOutage(t *testing.T) {
	bubble(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		for range 3 {
			for _, failure := range []error{policytest.Away(), nil} {
				bothFail(w, pol, failure, failure)
				if lasted := use(w, w.Policies, pol, time.Hour); lasted < time.Hour {
					t.Fatalf("not readable after %v", lasted)
				}
			}
		}
	})
}

// Keys in use are renewed long before their alert is due, by one vault if the other is
// unavailable, and the use is in the log as Renew.
func TestKeysInUseAreRenewed(t *testing.T) {
	bubble(t, func(w *policytest.World) {
		for _, pol := range everyCustomerKind(w) {
			w.Vaults.Fail("A-"+pol.Name, policytest.Denied())
			w.Must(tryOpen(w, w.Policies, user, pol))
			kept := w.Policies.Cached(pol.Current.ID)
			if lasted := use(w, w.Policies, pol, 9*time.Hour); lasted < 9*time.Hour || w.Policies.Cached(pol.Current.ID) != kept {
				t.Errorf("%s: kept for %v, or not all the time", pol.Kind, lasted)
			}
			w.Policies.Close()
		}
		w.View(func(tx *store.Tx) error {
			var renewals, others int
			err := tx.QueryRow(w.Ctx, `SELECT COALESCE(SUM(CASE WHEN operation = 'Renew' THEN 1 END), 0), COALESCE(SUM(CASE WHEN operation = ?1 THEN 1 END), 0)
				FROM audit_entry WHERE outcome = 'done' AND detail LIKE 'unwrap%'`, user).Scan(&renewals, &others)
			if least := 3 * 9 * 12; renewals < least || others != 3 {
				t.Errorf("%d renewals and %d uses by users are in the log, want at least %d and 3", renewals, others, least)
			}
			return err
		})
	})
}

func TestFailingRenewalIsLoggedOnceBeforeTheKeyExpires(t *testing.T) {
	bubble(t, func(w *policytest.World) {
		var log bytes.Buffer
		c := w.Config
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		node := policy.New(c)
		defer node.Close()
		told := func() int { return strings.Count(log.String(), "level=ERROR") }
		noted := func() int64 {
			return w.Number(`SELECT COUNT(*) FROM audit_entry WHERE operation = 'Renew' AND outcome = 'VaultUnavailable' AND detail LIKE '%keeps failing%'`)
		}
		sites, mail := w.SitePolicy(), w.MailboxPolicy("p")
		for round := 1; round <= 2; round++ {
			for _, pol := range []policy.Policy{sites, mail} {
				use(w, node, pol, time.Minute)
				bothFail(w, pol, policytest.Away(), policytest.Away())
			}
			use(w, node, sites, 110*time.Minute)
			if told() != round-1 {
				t.Fatalf("told with more than two hours left:\n%s", &log)
			}
			go use(w, node, mail, time.Hour)
			use(w, node, sites, 20*time.Minute)
			if told() != round || noted() != int64(round) || !strings.Contains(log.String(), sites.GUID.String()) {
				t.Fatalf("told %d times and noted %d times with less than two hours left, want %d:\n%s", told(), noted(), round, &log)
			}
			use(w, node, sites, time.Hour)
			if told() != round || noted() != int64(round) {
				t.Fatalf("told %d times, noted %d times, want %d:\n%s", told(), noted(), round, &log)
			}
			bothFail(w, sites, nil, nil)
			bothFail(w, mail, nil, nil)
			use(w, node, sites, 10*time.Minute) // renewed: the next failure is another one
		}
	})
}

// A machine that sleeps stops the timers, not the wall clock.
func TestKeyDoesNotOutliveItsBoundWhileTheMachineSleeps(t *testing.T) {
	bubble(t, func(w *policytest.World) {
		for _, pol := range everyCustomerKind(w) {
			w.Must(tryOpen(w, w.Policies, user, pol))
			bothFail(w, pol, policytest.Denied(), policytest.Denied())
			w.Must(tryOpen(w, w.Policies, user, pol))
			w.Clock.Advance(policy.RevocationBound)
			policytest.Refuses(t, tryOpen(w, w.Policies, user, pol), api.VaultDenied)
			w.Serve(pol)
		}
		sites := w.Reload(everySites(w))
		w.Must(tryOpen(w, w.Policies, user, sites))
		bothFail(w, sites, policytest.Away(), policytest.Away())
		w.Clock.Advance(3 * time.Hour)
		w.Must(tryOpen(w, w.Policies, user, sites)) // asked again, and an outage drops nothing
		w.Clock.Advance(time.Hour)
		policytest.Refuses(t, tryOpen(w, w.Policies, user, sites), api.VaultUnavailable)
	})
}

// everySites finds the site policy.
func everySites(w *policytest.World) (sites policy.Policy) {
	w.View(func(tx *store.Tx) (err error) {
		sites, err = w.Policies.Find(w.Ctx, tx, w.Tenant, "Sites")
		return err
	})
	return sites
}

// A wall clock that is set back prolongs no lifetime.
func TestSettingTheClockBackExtendsNoKeysLifetime(t *testing.T) {
	bubble(t, func(w *policytest.World) {
		for _, pol := range everyCustomerKind(w) {
			w.Must(tryOpen(w, w.Policies, user, pol))
			w.Clock.Advance(-24 * time.Hour)
			bothFail(w, pol, policytest.Denied(), policytest.Denied())
			if took := use(w, w.Policies, pol, time.Hour); took > policy.RevocationBound+20*time.Second {
				t.Errorf("%s: readable for %v after the revocation", pol.Kind, took)
			}
		}
	})
}

// Close stops renewals, including those under way.
func TestCloseStopsRenewals(t *testing.T) {
	bubble(t, func(w *policytest.World) {
		var hang atomic.Bool
		w.Vaults.Before = func(ctx context.Context, _ policytest.Call) error {
			if hang.Load() {
				<-ctx.Done()
			}
			return ctx.Err()
		}
		w.Open(w.SitePolicy().Current.ID).Zero()
		hang.Store(true)
		time.Sleep(policy.RevocationBound - time.Second)
		w.Policies.Close()
		hang.Store(false)
		w.Vaults.Calls()
		time.Sleep(24 * time.Hour)
		if n := len(w.Vaults.Calls()); n != 0 {
			t.Errorf("%d calls after Close", n)
		}
	})
}

// A key that is retired during its renewal is not kept.
func TestPolicyKeyThatIsRetiredIsNotRenewed(t *testing.T) {
	bubble(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		w.Open(pol.Current.ID).Zero()
		other := w.Node()
		w.Must(tryOpen(w, other, user, pol))
		w.Refresh(pol, api.DepthPolicy, false)
		if n, err := other.Retire(w.Ctx, w.Tenant, pol.ID); err != nil || n != 1 {
			t.Fatalf("retired %d, %v", n, err)
		}
		time.Sleep(policy.RevocationBound)
		if w.Policies.Cached(pol.Current.ID) != nil || other.Cached(pol.Current.ID) != nil {
			t.Error("a node has a policy key that no root wraps any more")
		}
	})
}
