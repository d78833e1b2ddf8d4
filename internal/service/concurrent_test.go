package service_test

import (
	"bytes"
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// pair is two concurrent acts of administration, and their expected results.
type pair struct {
	name          string
	first, second func(w testService) error
	// firstFails is the code of the first one's failure, or empty if it succeeds. The
	// second always succeeds.
	firstFails api.Code
	// under is the policy of alice when all rolls have ended.
	under string
	then  func(w testService)
}

const bob = "bob@contoso.com"

// stage makes two mailbox policies, two multi-workload policies of which the first is
// assigned, a mailbox with its own policy, one without, and a workload store.
func (w testService) stage() {
	w.Helper()
	w.namedPolicy(api.MailboxPolicy, "p")
	w.namedPolicy(api.MailboxPolicy, "q")
	w.workPolicy("m")
	w.workPolicy("n")
	w.Must(e(w.AssignPolicy(w.ctx, assignment("m"))))
	w.Must(e(w.CreateMailbox(w.ctx, newMailbox(alice, "p"))))
	w.Must(e(w.CreateMailbox(w.ctx, newMailbox(bob, ""))))
	for _, name := range []string{alice, bob} {
		w.Must(e(w.ImportMail(w.ctx, into(name), -1, strings.NewReader(mbox))))
	}
	w.Must(e(w.PutWorkloadItem(w.ctx, item(chats, "thread"), -1, strings.NewReader("hello"))))
	w.finishRolls()
}

func refreshing(policy string) func(w testService) error {
	return func(w testService) error {
		w.newKey("A-" + policy)
		return e(w.RefreshPolicy(w.ctx, refresh(policy, "")))
	}
}

func assigning(name, policy string) func(w testService) error {
	return func(w testService) error { return e(w.AssignMailbox(w.ctx, assign(name, policy))) }
}

func assigningTenant(policy string) func(w testService) error {
	return func(w testService) error { return e(w.AssignPolicy(w.ctx, assignment(policy))) }
}

func leaving(policy string) func(w testService) error {
	return func(w testService) error { return e(w.LeavePolicy(w.ctx, leave(policy))) }
}

func disabling(policy string) func(w testService) error {
	return func(w testService) error { return e(w.SetPolicy(w.ctx, setting(policy, "", new(bool)))) }
}

func replacing(policy string) func(w testService) error {
	return func(w testService) error {
		w.newKey("C-" + policy)
		w.newKey("D-" + policy)
		return e(w.ReplacePolicyKeys(w.ctx, replace(policy, "", keyURI("C-"+policy), keyURI("D-"+policy))))
	}
}

func creating(name, policy string) func(w testService) error {
	return func(w testService) error { return e(w.CreateMailbox(w.ctx, newMailbox(name, policy))) }
}

const late = "late@contoso.com"

func lateUnder(policy string) func(w testService) {
	return func(w testService) { w.expect(w.under(late), policy, "the mailbox that came late") }
}

func lateIsNotThere(w testService) {
	policytest.Refuses(w, e(w.ShowMailbox(w.ctx, mailbox(late))), api.NotFound)
}

// pairs: the first act waits for a vault while the second is done.
var pairs = []pair{
	{name: "two refreshes", first: refreshing("p"), second: refreshing("p"), firstFails: api.Conflict, under: "p"},
	{name: "refresh while keys are replaced", first: refreshing("p"), second: replacing("p"), firstFails: api.Conflict, under: "p"},
	{name: "replace keys during a refresh", first: replacing("p"), second: refreshing("p"), firstFails: api.Conflict, under: "p"},
	{name: "refresh while a mailbox is assigned", first: refreshing("p"), second: assigning(bob, "p"), under: "p"},
	{name: "refresh while a mailbox is taken back", first: refreshing("p"), second: assigning(alice, ""), under: "m"},
	{name: "assign a mailbox during a refresh", first: assigning(alice, "q"), second: refreshing("q"), under: "q"},
	{name: "assign a mailbox while its new policy is left", first: assigning(alice, "q"), second: leaving("q"), firstFails: api.Conflict, under: "p"},
	{name: "assign a mailbox while its old policy is left", first: assigning(alice, "q"), second: leaving("p"), under: "q"},
	{name: "assign a mailbox while its new policy is disabled", first: assigning(alice, "q"), second: disabling("q"), firstFails: api.Conflict, under: "p"},
	{name: "take a mailbox back while the default is left", first: assigning(alice, ""), second: leaving("m"), under: "Service-managed"},
	{name: "take a mailbox back while another default is assigned", first: assigning(alice, ""), second: assigningTenant("n"), under: "n"},
	{name: "create while the policy is left", first: creating(late, "q"), second: leaving("q"), firstFails: api.Conflict, under: "p", then: lateIsNotThere},
	{name: "create while the default is left", first: creating(late, ""), second: leaving("m"), under: "p", then: lateUnder("Service-managed")},
	{name: "create while another default is assigned", first: creating(late, ""), second: assigningTenant("n"), under: "p", then: lateUnder("n")},
	{name: "make a store while another default is assigned", under: "p", second: assigningTenant("n"),
		first: func(w testService) error {
			return e(w.PutWorkloadItem(w.ctx, item(labels, "xml"), -1, strings.NewReader("x")))
		},
		then: func(w testService) { w.expect(w.stores()[labels].Protection.Policy, "n", "the store that came late") }},
	{name: "refresh while the policy is left", first: refreshing("p"), second: leaving("p"), firstFails: api.Conflict, under: "m"},
	{name: "refresh where a left policy's mailboxes go", first: refreshing("m"), second: leaving("p"), under: "m"},
	{name: "refresh the default while another is assigned", first: refreshing("m"), second: assigningTenant("n"), under: "p"},
	{name: "refresh the default while it is left", first: refreshing("m"), second: leaving("m"), firstFails: api.Conflict, under: "p"},
	{name: "read while the policy is left", first: reading, second: leaving("p"), under: "m"},
	{name: "read while another default is assigned", first: reading, second: assigningTenant("n"), under: "p"},
	{name: "read while keys are replaced", first: reading, second: replacing("p"), under: "p"},
}

func reading(w testService) error {
	var out bytes.Buffer
	err := w.ExportMail(w.ctx, mailbox(alice), &out)
	w.expect(out.String(), mbox, "the mail that was read meanwhile")
	return err
}

// TestEachPairOfConcurrentOperationsHasItsOutcomeAndLosesNoKey runs the first act up to
// its first call of a vault, then the whole second one, then the rest.
func TestEachPairOfConcurrentOperationsHasItsOutcomeAndLosesNoKey(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		base := policytest.New(t, db)
		for _, p := range pairs {
			t.Run(p.name, func(t *testing.T) {
				w := newTestService(base.Neighbour().On(t))
				w.stage()
				w.Policies.Close() // so that each act asks a vault
				var met atomic.Bool
				var second error
				w.Vaults.Before = func(context.Context, policytest.Call) error {
					if met.CompareAndSwap(false, true) {
						second = p.second(w)
					}
					return nil
				}
				first := p.first(w)
				w.Vaults.Before = nil
				if !met.Load() {
					t.Fatal("the first act asked no vault")
				}
				if p.firstFails == "" && first != nil || p.firstFails != "" && !fail.Is(first, p.firstFails) {
					t.Errorf("the first act: %v, want [%s]", first, p.firstFails)
				}
				if second != nil {
					t.Errorf("the second act: %v", second)
				}
				w.finishRollsAndCheck(p.under)
				if p.then != nil {
					p.then(w)
				}
			})
		}
	})
}

// finishRollsAndCheck lets all rolls end, and checks that nothing is lost and that alice is under the
// given policy and its current policy key.
func (w testService) finishRollsAndCheck(under string) {
	w.Helper()
	w.finishRolls()
	for _, name := range []string{alice, bob} {
		w.expect(w.export(name), mbox, "mail of "+name)
		if now := w.show(name).Protection; !now.Current {
			w.Errorf("%s is under an older policy key of %q", name, now.Policy)
		}
	}
	w.expect(w.under(alice), under, "what alice is under")
	var out bytes.Buffer
	w.Must(w.GetWorkloadItem(w.ctx, item(chats, "thread"), &out))
	w.expect(out.String(), "hello", "an item")
	w.clean()
}

// Acts that call no vault compete only in the database, so they run concurrently.
func TestConcurrentOperationsOnTheDatabaseLoseNoKey(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		base := policytest.New(t, db)
		for _, p := range []struct {
			name          string
			first, second func(w testService) error
			refused       api.Code // of one of the two, if it is
		}{
			{"leave twice", leaving("p"), leaving("p"), api.Conflict},
			{"leave two policies", leaving("p"), leaving("q"), api.RollInProgress},
			{"assign two policies", assigningTenant("m"), assigningTenant("n"), api.RollInProgress},
			{"assign and leave", assigningTenant("n"), leaving("m"), api.RollInProgress},
			{"assign and leave a mailbox policy", assigningTenant("n"), leaving("p"), api.RollInProgress},
			{"assign a mailbox and leave", assigning(bob, "p"), leaving("p"), api.Conflict},
			{"assign a mailbox and disable", assigning(bob, "q"), disabling("q"), api.Conflict},
			{"change a state and leave", func(w testService) error { return e(w.SetMailboxState(w.ctx, newState(alice, api.Inactive))) }, leaving("p"), ""},
			{"create and leave", creating(late, "p"), leaving("p"), api.Conflict},
			{"roll and leave", func(w testService) error { w.finishRolls(); return nil }, leaving("p"), ""},
		} {
			t.Run(p.name, func(t *testing.T) {
				w := newTestService(base.Neighbour().On(t))
				w.stage()
				var g errgroup.Group
				for _, act := range []func(testService) error{p.first, p.second} {
					g.Go(func() error {
						err := act(w)
						if p.refused != "" && fail.Is(err, p.refused) {
							return nil
						}
						return err
					})
				}
				if err := g.Wait(); err != nil {
					t.Errorf("neither done nor refused as it may be: %v", err)
				}
				w.finishRolls()
				box := w.show(alice)
				if box.State != api.Active { // it follows at its next access
					w.export(alice)
					w.tidy()
				}
				if box.AssignedPolicy == "" {
					box.AssignedPolicy = w.defaultPolicy()
				}
				w.finishRollsAndCheck(box.AssignedPolicy)
				if w.shown("p").State == api.Unregistered {
					w.expect(w.verdicts("p"), string(api.SafeToRetire), "the ledger of a policy that was left")
				}
			})
		}
	})
}

// defaultPolicy returns the name of the policy for containers without their own.
func (w testService) defaultPolicy() string {
	w.Helper()
	pol, err := w.ShowAssignment(w.ctx, api.None{})
	if fail.Is(err, api.NotFound) {
		return "Service-managed"
	}
	w.Must(err)
	return pol.Name
}

// An item that is being read is read completely, even if it or its policy is replaced
// meanwhile.
func TestItemIsReadCompletelyAlthoughItIsReplaced(t *testing.T) {
	each(t, func(w testService) {
		w.stage()
		w.readDuring("replace the item", func() error {
			return e(w.PutWorkloadItem(w.ctx, item(chats, "thread"), -1, strings.NewReader("other")))
		})
		w.readDuring("replace the keys", func() error { return replacing("m")(w) })
		w.readDuring("leave its policy", func() error { return leaving("m")(w) })
		w.clean()
	})
}

// readDuring reads an item and, before its first byte is sent, does an act with all
// rolls and upkeep that follow from it.
func (w testService) readDuring(name string, act func() error) {
	w.Helper()
	w.Must(e(w.PutWorkloadItem(w.ctx, item(chats, "thread"), -1, strings.NewReader("hello"))))
	var out bytes.Buffer
	w.Must(w.GetWorkloadItem(w.ctx, item(chats, "thread"), writerFunc(func(p []byte) (int, error) {
		if out.Len() == 0 {
			w.Must(act())
			w.finishRolls()
		}
		return out.Write(p)
	})))
	w.expect(out.String(), "hello", name)
}
