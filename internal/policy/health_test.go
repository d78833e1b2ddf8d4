package policy_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// localFailure is a local problem of keyroll.
func localFailure() error {
	return fail.New(api.Unavailable, "this server has run out of file descriptors")
}

// After both customer keys have refused, no sequence of outages, local problems,
// restarts, nodes and time lets a user read before a customer key has been used again.
func TestAfterARefusalNoSequenceLetsAUserReadBeforeACustomerKeyServes(t *testing.T) {
	each(t, func(w *policytest.World) {
		rapid.Check(t, func(r *rapid.T) {
			x := &afterRefusal{World: w, pol: w.MailboxPolicy(fmt.Sprint("p", store.NewID())), nodes: []*policy.Policies{w.Node(), w.Node()}}
			x.useBothKeys()
			if rapid.Bool().Draw(r, "one vault is away when the other refuses") {
				bothFail(w, x.pol, policytest.Denied(), policytest.Away())
			} else {
				bothFail(w, x.pol, policytest.Denied(), policytest.Denied())
			}
			x.open(r, x.nodes[0], user) // the node that meets the refusal
			for range rapid.IntRange(1, 12).Draw(r, "acts") {
				node := rapid.SampledFrom(x.nodes).Draw(r, "node")
				switch rapid.SampledFrom([]string{"fail", "time", "restart", "work", "read", "read", "serve"}).Draw(r, "act") {
				case "fail":
					failures := rapid.SampledFrom([]error{policytest.Away(), localFailure(), policytest.Denied()})
					bothFail(w, x.pol, failures.Draw(r, "A"), failures.Draw(r, "B"))
				case "time":
					w.Clock.Advance(time.Duration(rapid.IntRange(1, 20).Draw(r, "minutes")) * time.Minute)
				case "restart":
					i := slices.Index(x.nodes, node)
					node.Close()
					x.nodes[i] = w.Node()
				case "work": // what the service itself starts, and the documented recovery
					x.open(r, node, rapid.SampledFrom([]string{system, recovery}).Draw(r, "work"))
				case "read":
					x.open(r, node, user)
				case "serve":
					if rapid.IntRange(0, 3).Draw(r, "really") == 0 {
						x.useBothKeys()
					}
				}
			}
			x.Policies.ForgetKeys(w.Ctx, w.Tenant, x.pol.ID)
			w.Exec(`UPDATE policy SET enabled = 0 WHERE id = ?1`, x.pol.ID) // at most 50 are active
		})
	})
}

// afterRefusal is a policy both of whose keys refuse, until one is used successfully.
type afterRefusal struct {
	*policytest.World
	pol    policy.Policy
	nodes  []*policy.Policies
	served bool // both customer keys have, since the last refusal
}

// useBothKeys restores the service's permissions and uses both keys.
func (x *afterRefusal) useBothKeys() {
	x.Serve(x.pol)
	x.served = true
	for _, node := range x.nodes {
		node.Close()
	}
}

func (x *afterRefusal) open(r *rapid.T, node *policy.Policies, operation string) {
	err := tryOpen(x.World, node, operation, x.pol)
	if operation != user {
		return
	}
	if fail.Is(err, api.VaultDenied) {
		x.served = false // until then a key in the cache may have answered, within its bound
	}
	if !x.served && !fail.Is(err, api.VaultDenied) {
		r.Fatalf("a user's request after a refusal ends with %v (%s), want %s", err, fail.CodeOf(err), api.VaultDenied)
	}
}

// How each answer of a vault changes the record of its key.
func TestHealthOfACustomerKey(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		health := func() *api.KeyHealth {
			var h *api.KeyHealth
			w.View(func(tx *store.Tx) (err error) {
				l, _, err := w.Policies.ListOne(w.Ctx, tx, w.Tenant, pol.ID)
				h = l.PrimaryHealth
				return err
			})
			return h
		}
		for i, step := range []struct {
			answer error
			state  api.HealthState
			reason string
			moves  bool // since
		}{
			{nil, api.Serves, "", false}, // creating the policy records it
			{localFailure(), api.Serves, "", false},
			{policytest.Away(), api.Unreachable, "did not answer", true},
			{policytest.Away(), api.Unreachable, "did not answer", false},
			{nil, api.Serves, "", true},
			{policytest.Away(), api.Unreachable, "did not answer", true},
			{policytest.Denied(), api.Refused, "refused the service", true},
			{policytest.Away(), api.Refused, "refused the service", false},
			{localFailure(), api.Refused, "refused the service", false},
			{policytest.Denied(), api.Refused, "refused the service", false},
			{nil, api.Serves, "", true},
		} {
			before := health()
			w.Clock.Advance(time.Second)
			w.Vaults.Fail("A-p", step.answer)
			w.Policies.Probe(w.Ctx, w.Tenant, pol.Current.ID)
			got := health()
			if got.State != step.state || !strings.Contains(got.Reason, step.reason) || got.Since.Equal(*before.Since) == step.moves {
				t.Errorf("step %d, %v: %v, before %v", i, step.answer, got, before)
			}
		}
	})
}

// A key that was never used successfully counts as refused.
func TestKeyWithoutARecordOfHealthCountsAsRefused(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		w.Exec(`DELETE FROM root_health`) // as after an upgrade
		bothFail(w, pol, policytest.Away(), policytest.Away())
		policytest.Refuses(t, tryOpen(w, w.Policies, user, pol), api.VaultDenied)
		w.Must(tryOpen(w, w.Policies, system, pol))
		w.Serve(pol)
		w.Policies.Close()
		bothFail(w, pol, policytest.Away(), policytest.Away())
		w.Must(tryOpen(w, w.Policies, user, pol))
	})
}

// A success that began before a refusal was recorded does not clear the refusal.
func TestSuccessFromBeforeARefusalDoesNotClearIt(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		w.Vaults.Fail("B-p", policytest.Away())
		refuse := true
		w.Vaults.Before = func(ctx context.Context, c policytest.Call) error {
			if !refuse || c.Op != "unwrap" || c.Vault != "A-p" {
				return nil
			}
			refuse = false // the next call is made while this one is under way, and is refused
			w.Vaults.Fail("A-p", policytest.Denied())
			policytest.Refuses(t, tryOpen(w, w.Node(), user, pol), api.VaultDenied)
			return nil
		}
		for _, probe := range w.Policies.Probe(w.Ctx, w.Tenant, pol.Current.ID)[:1] {
			w.Must(probe.Err)
		}
		w.Vaults.Before = nil
		bothFail(w, pol, policytest.Away(), policytest.Away())
		policytest.Refuses(t, tryOpen(w, w.Policies, user, pol), api.VaultDenied)
	})
}

// A vault that unwraps to something else does not count as a success, and does not block
// the other key.
func TestVaultThatUnwrapsToAnotherKeyDoesNotCountAsASuccess(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		bothFail(w, pol, policytest.Denied(), policytest.Denied())
		policytest.Refuses(t, tryOpen(w, w.Policies, user, pol), api.VaultDenied)
		bothFail(w, pol, nil, policytest.Away())
		w.Vaults.Gives = func(c policytest.Call, plaintext []byte) []byte { return bytes.Repeat([]byte{7}, len(plaintext)) }
		policytest.Refuses(t, tryOpen(w, w.Policies, user, pol), api.VaultDenied)
		bothFail(w, pol, policytest.Away(), policytest.Away())
		policytest.Refuses(t, tryOpen(w, w.Policies, user, pol), api.VaultDenied)
		w.Vaults.Gives = func(c policytest.Call, plaintext []byte) []byte {
			if c.Vault == "A-p" {
				return bytes.Repeat([]byte{7}, len(plaintext))
			}
			return plaintext
		}
		bothFail(w, pol, nil, nil)
		for range 4 { // whichever is asked first
			w.Policies.Close()
			w.Must(tryOpen(w, w.Policies, user, pol))
		}
	})
}

// With a local problem the availability key is not used for a user or for the service's
// own work, but it is for the documented recovery.
func TestLocalFailureIsNotAnOutage(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		for _, failures := range [][2]error{{localFailure(), localFailure()}, {localFailure(), policytest.Away()}, {policytest.Away(), localFailure()}} {
			bothFail(w, pol, failures[0], failures[1])
			policytest.Refuses(t, tryOpen(w, w.Policies, user, pol), api.Unavailable)
			policytest.Refuses(t, tryOpen(w, w.Policies, system, pol), api.Unavailable)
			w.Must(tryOpen(w, w.Policies, recovery, pol))
			policytest.Refuses(t, tryOpen(w, w.Policies, system, pol), api.Unavailable)
		}
	})
}

// While a node of an older version is live, the availability key is not used for users.
func TestAvailabilityKeyIsNotUsedForUsersWhileAnOlderNodeRuns(t *testing.T) {
	w := policytest.New(t, storetest.One(t))
	pol := w.MailboxPolicy("p")
	older := true
	c := w.Config
	c.OlderNodes = func(context.Context, *store.Tx) (bool, error) { return older, nil }
	node := policy.New(c)
	defer node.Close()
	bothFail(w, pol, policytest.Away(), policytest.Away())
	policytest.Refuses(t, tryOpen(w, node, user, pol), api.VaultUnavailable)
	w.Must(tryOpen(w, node, system, pol))
	older = false
	w.Must(tryOpen(w, node, user, pol))
}

// A change is logged as a warning and in the audit log, once; the first use of a key does
// not count as a change.
func TestChangeOfHealthIsLogged(t *testing.T) {
	each(t, func(w *policytest.World) {
		var log bytes.Buffer
		c := w.Config
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		node := policy.New(c)
		defer node.Close()
		pol := w.MailboxPolicy("p")
		for _, answer := range []error{nil, policytest.Denied(), policytest.Denied(), policytest.Away(), nil} {
			w.Vaults.Fail("A-p", answer)
			node.Probe(w.Ctx, w.Tenant, pol.Current.ID)
		}
		var audited []string
		w.View(func(tx *store.Tx) (err error) {
			audited, err = store.Collect(w.Ctx, tx, func(row store.Scanner) (s string, err error) { return s, row.Scan(&s) },
				`SELECT outcome FROM audit_entry WHERE detail LIKE 'health of the primary key %' ORDER BY id`)
			return err
		})
		if want := []string{"refused", "serves"}; !slices.Equal(audited, want) {
			t.Errorf("the audit log has %q, want %q", audited, want)
		}
		if n := strings.Count(log.String(), "level=WARN"); n != 2 || !strings.Contains(log.String(), pol.GUID.String()) {
			t.Errorf("%d warnings:\n%s", n, &log)
		}
	})
}
