package service_test

import (
	"fmt"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keypage"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
)

// Every class is moved, including those that a roll leaves out.
func TestLeavingAMailboxPolicyReleasesItsKeys(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		states := []api.MailboxState{api.Active, api.Inactive, api.Disconnected, api.Disabled}
		name := func(s api.MailboxState) string { return string(s) + "@contoso.com" }
		for _, s := range states {
			w.Must(e(w.CreateMailbox(w.ctx, newMailbox(name(s), "p"))))
			w.Must(e(w.ImportMail(w.ctx, into(name(s)), -1, strings.NewReader(mbox))))
			if s != api.Active {
				w.Must(e(w.SetMailboxState(w.ctx, newState(name(s), s))))
			}
		}
		w.tidy()
		w.newKey("A-p")
		w.Must(e(w.RefreshPolicy(w.ctx, refresh("p", "")))) // some are under an older policy key
		w.finishRolls()
		revision := w.shown("p").Revision
		left, err := w.LeavePolicy(w.ctx, leave("p"))
		w.Must(err)
		if p := left.Policy; p.Enabled || p.State != api.Unregistered || p.Roll == nil || p.Roll.Total != 4 || p.Roll.Source != "p" || p.Roll.Policy != "Service-managed" {
			t.Errorf("left: %+v %+v", p, p.Roll)
		}
		w.expect(w.show(name(api.Inactive)).AssignedPolicy, "", "the own policy of a mailbox")
		w.expect(w.verdicts("p"), string(api.InUse), "the ledger before the roll")
		for _, s := range states {
			w.expect(w.export(name(s)), mbox, "mail during the roll")
		}
		w.finishRolls()
		for _, s := range states {
			w.expect(w.under(name(s)), "Service-managed", name(s))
			w.expect(w.export(name(s)), mbox, "mail after the roll")
		}
		w.expect(w.verdicts("p"), string(api.SafeToRetire), "the ledger after the roll")
		w.Vaults.Fail("A-p", policytest.Denied())
		w.Vaults.Fail("B-p", policytest.Denied())
		w.clean()
		w.expect(w.export(name(api.Active)), mbox, "mail without the keys")
		w.expect(w.shown(revision).Name, "p", "the policy of an erased revision")
		w.expect(w.shown("p").Revision, revision, "its last revision")
		policytest.Refuses(t, e(w.LeavePolicy(w.ctx, leave("p"))), api.Conflict)
		policytest.Refuses(t, e(w.CreateMailbox(w.ctx, newMailbox(alice, "p"))), api.Conflict)
		policytest.Refuses(t, e(w.AssignMailbox(w.ctx, assign(name(api.Active), "p"))), api.Conflict)
		policytest.Refuses(t, e(w.RefreshPolicy(w.ctx, refresh("p", ""))), api.Conflict)
		yes := true
		policytest.Refuses(t, e(w.SetPolicy(w.ctx, setting("p", "", &yes))), api.Conflict)
	})
}

// Backups need their policy key as containers do.
func TestLeavingAPolicyMovesItsBackups(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		var pol policy.Policy
		var managed policy.KeyRow
		w.View(func(tx *store.Tx) (err error) {
			if pol, err = w.Policies.Find(w.Ctx, tx, w.Tenant, "p"); err != nil {
				return err
			}
			id, err := w.Policies.ServiceManaged(w.Ctx, tx, w.Tenant)
			if err != nil {
				return err
			}
			managed, err = w.Policies.Current(w.Ctx, tx, w.Tenant, id)
			return err
		})
		row := w.Put(pol.Current, envelope.ClassBackup, 3)
		w.Must(e(w.LeavePolicy(w.ctx, leave("p"))))
		w.finishRolls()
		w.View(func(tx *store.Tx) (err error) {
			row, err = keypage.Get(w.Ctx, tx, w.Tenant, row.ID)
			return err
		})
		w.expect(row.Parent, managed.ID, "the policy key of a page of backups")
		w.expect(row.Class, envelope.ClassBackup, "its class")
		w.expect(w.verdicts("p"), string(api.SafeToRetire), "the ledger")
	})
}

func TestLeavingAPolicyMovesContainersToThePolicyThatThenApplies(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.workPolicy("m")
		w.Must(e(w.AssignPolicy(w.ctx, assignment("m"))))
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(alice, "p"))))
		w.Must(e(w.PutWorkloadItem(w.ctx, item(chats, "a"), -1, strings.NewReader("hello"))))
		w.finishRolls()
		w.Must(e(w.LeavePolicy(w.ctx, leave("p"))))
		w.finishRolls()
		w.expect(w.under(alice), "m", "a mailbox whose policy was left")
		w.expect(w.verdicts("p"), string(api.SafeToRetire), "the ledger of p")

		w.Must(e(w.LeavePolicy(w.ctx, leave("m"))))
		policytest.Refuses(t, e(w.ShowAssignment(w.ctx, api.None{})), api.NotFound)
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox("new@contoso.com", ""))))
		w.expect(w.under("new@contoso.com"), "Service-managed", "a mailbox made while the policy is left")
		w.finishRolls()
		w.expect(w.under(alice), "Service-managed", "a mailbox")
		w.expect(w.stores()[chats].Protection.Policy, "Service-managed", "a store")
		w.expect(w.verdicts("m"), string(api.SafeToRetire), "the ledger of m")
		w.clean()
		policytest.Refuses(t, e(w.LeavePolicy(w.ctx, leave("Service-managed"))), api.InvalidArgument)
	})
}

func TestAnotherSitePolicyCanBeRegisteredAfterLeavingOne(t *testing.T) {
	each(t, func(w testService) {
		w.Must(e(w.CreateSite(w.ctx, newSite(team))))
		w.Must(e(w.PutFile(w.ctx, file(team, path), -1, strings.NewReader("content"))))
		w.sitePolicy()
		first := w.shown("Sites").ID
		// Also while its registration roll runs.
		w.Must(e(w.LeavePolicy(w.ctx, leave("Sites"))))
		policytest.Refuses(t, e(w.RegisterSites(w.ctx, register(w.newKey("C-Sites"), w.newKey("D-Sites")))), api.RollInProgress)
		w.finishRolls()
		under := func() string {
			s, err := w.ShowSite(w.ctx, site(team))
			w.Must(err)
			return s.Protection.Policy
		}
		w.expect(under(), "Service-managed", "a site")
		w.Must(e(w.RegisterSites(w.ctx, register(w.newKey("C-Sites"), w.newKey("D-Sites")))))
		w.finishRolls()
		w.expect(under(), "Sites", "a site after another registration")
		w.expect(w.shown(first).State, api.Unregistered, "the policy that was left")
		w.expect(w.shown(first).Name, fmt.Sprintf("Sites (left %.8s)", first), "its name")
		w.clean()
	})
}

// A policy cannot be replaced while a roll still moves containers to it, because those
// would be missed.
func TestPolicyIsNotReplacedWhileARollMovesContainersToIt(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.namedPolicy(api.MailboxPolicy, "q")
		w.workPolicy("m")
		w.workPolicy("n")
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(alice, "p"))))
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox("bob@contoso.com", ""))))
		refused := func(what string, err error) {
			t.Helper()
			policytest.Refuses(t, err, api.RollInProgress)
			if _, detail, hint := fail.Public(err); !strings.Contains(detail, "0 of 1") && !strings.Contains(detail, "another policy") || !strings.Contains(hint, "roll watch") {
				t.Errorf("%s: %s, %s", what, detail, hint)
			}
		}
		w.Must(e(w.LeavePolicy(w.ctx, leave("p"))))
		refused("assign while a mailbox comes to the default", e(w.AssignPolicy(w.ctx, assignment("m"))))
		refused("leave another policy for the same one", e(w.LeavePolicy(w.ctx, leave("q"))))
		refused("register", e(w.RegisterSites(w.ctx, register(w.newKey("A-Sites"), w.newKey("B-Sites")))))
		w.finishRolls()
		w.Must(e(w.AssignPolicy(w.ctx, assignment("m"))))
		policytest.Refuses(t, e(w.AssignPolicy(w.ctx, assignment("n"))), api.RollInProgress)
		w.Must(e(w.LeavePolicy(w.ctx, leave("m")))) // back to where they come from is allowed
		w.finishRolls()
		w.expect(w.under(alice), "Service-managed", "a mailbox")
		w.expect(w.under("bob@contoso.com"), "Service-managed", "another")
		w.clean()
	})
}
