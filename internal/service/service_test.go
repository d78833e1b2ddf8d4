package service_test

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store/storetest"
)

func TestListsArePagedWithoutGapsOrRepeats(t *testing.T) {
	each(t, func(w testService) {
		const n = 7
		var names, urls []string
		for i := range n {
			names = append(names, fmt.Sprintf("user%d@contoso.com", i))
			urls = append(urls, fmt.Sprintf("%s%d", team, i))
			w.Must(e(w.CreateMailbox(w.ctx, newMailbox(names[i], ""))))
			w.Must(e(w.CreateSite(w.ctx, newSite(urls[i]))))
		}
		w.Must(e(w.ImportMail(w.ctx, into(names[0]), -1, strings.NewReader(strings.Repeat(mbox+"\n", n)))))
		for limit, parts := range map[int]int{1: 7, 2: 4, 3: 3, 7: 1, 8: 1, 1000: 1} {
			boxes, got := listAll(t, limit, func(in api.PageInput) (api.List[api.Mailbox], error) {
				return w.ListMailboxes(w.ctx, api.ListInput{PageInput: in})
			})
			var listed []string
			for _, m := range boxes {
				listed = append(listed, m.Name)
			}
			if !slices.Equal(listed, names) || got != parts {
				t.Errorf("limit %d: %d parts, want %d: %v", limit, got, parts, listed)
			}
			sites, got := listAll(t, limit, func(in api.PageInput) (api.List[api.Site], error) {
				return w.ListSites(w.ctx, api.ListInput{PageInput: in})
			})
			if len(sites) != n || got != parts || sites[n-1].URL != urls[n-1] {
				t.Errorf("limit %d: %d sites in %d parts", limit, len(sites), got)
			}
			messages, got := listAll(t, limit, func(in api.PageInput) (api.List[api.Message], error) {
				return w.ListMessages(w.ctx, api.ListMailboxItems{MailboxInput: mailbox(names[0]), PageInput: in})
			})
			if len(messages) != n || got != parts {
				t.Errorf("limit %d: %d messages in %d parts", limit, len(messages), got)
			}
		}
		for _, in := range []api.PageInput{{Limit: -1}, {Limit: 1001}, {After: "x"}, {After: "1x"}, {After: " 1"}, {After: "99999999999999999999"}} {
			_, err := w.ListMailboxes(w.ctx, api.ListInput{PageInput: in})
			policytest.Refuses(t, err, api.InvalidArgument)
			_, err = w.ListMessages(w.ctx, api.ListMailboxItems{MailboxInput: mailbox(names[0]), PageInput: in})
			policytest.Refuses(t, err, api.InvalidArgument)
		}
		for _, id := range []string{"", "x", "1x", "1 "} {
			policytest.Refuses(t, w.ReadMessage(w.ctx, api.MessageInput{MailboxInput: mailbox(names[0]), Message: id}, io.Discard), api.InvalidArgument)
		}
	})
}

// The documented promise: an active mailbox shows the new revision once the
// refreshed key has been applied, an inactive one when it has been read.
func TestDataEncryptionPolicyIDChangesWhenTheRefreshedKeyHasBeenApplied(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		const idle = "idle@contoso.com"
		for _, name := range []string{alice, idle} {
			w.Must(e(w.CreateMailbox(w.ctx, newMailbox(name, "p"))))
			w.Must(e(w.ImportMail(w.ctx, into(name), -1, strings.NewReader(mbox))))
		}
		w.Must(e(w.SetMailboxState(w.ctx, newState(idle, api.Inactive))))
		w.tidy()
		old := w.show(alice).Protection
		if !old.Current || !old.IsEncrypted || old.Policy != "p" || w.show(idle).Protection.DataEncryptionPolicyID != old.DataEncryptionPolicyID {
			t.Errorf("before: %+v", old)
		}
		w.newKey("A-p")
		refreshed, err := w.RefreshPolicy(w.ctx, refresh("p", ""))
		w.Must(err)
		if refreshed.Policy.State != api.Rolling || refreshed.Policy.Revision == old.DataEncryptionPolicyID || refreshed.Policy.Roll == nil || refreshed.Limit != "" {
			t.Errorf("refreshed: %+v", refreshed)
		}
		if now := w.show(alice).Protection; now.DataEncryptionPolicyID != old.DataEncryptionPolicyID || now.Current {
			t.Errorf("before the roll: %+v", now)
		}
		w.finishRolls()
		if now := w.show(alice).Protection; now.DataEncryptionPolicyID != refreshed.Policy.Revision || !now.Current {
			t.Errorf("after the roll: %+v", now)
		}
		if now := w.show(idle).Protection; now.DataEncryptionPolicyID != old.DataEncryptionPolicyID || now.Current {
			t.Errorf("inactive, after the roll: %+v", now)
		}
		if w.export(idle) != mbox {
			t.Error("the inactive mailbox reads otherwise than before")
		}
		w.tidy()
		if now := w.show(idle).Protection; now.DataEncryptionPolicyID != refreshed.Policy.Revision || !now.Current {
			t.Errorf("inactive, after it was read: %+v", now)
		}
		usage, err := w.ListKeyUsage(w.ctx, api.KeyUsageInput{Vault: "a-P"})
		w.Must(err)
		if len(usage.Items) != 2 || usage.Items[0].Verdict != api.SafeToRetire || usage.Items[1].Verdict != api.InUse || usage.Items[1].Active != 1 || usage.Items[1].Inactive != 1 {
			t.Errorf("the ledger: %+v", usage.Items)
		}
		p, err := w.ShowPolicy(w.ctx, api.PolicyInput{Policy: old.DataEncryptionPolicyID})
		w.Must(err)
		if p.Name != "p" || p.State != api.Registered || p.PercentComplete != 100 {
			t.Errorf("by the old GUID: %+v", p)
		}
	})
}

func TestDepthRootShowsItsLimitAndChangesNoContainer(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(alice, "p"))))
		old := w.show(alice).Protection
		w.newKey("A-p")
		pages := w.Dump("key_page", "container", "roll")
		got, err := w.RefreshPolicy(w.ctx, refresh("p", api.DepthRoot))
		w.Must(err)
		if got.Rewrapped != 1 || !strings.Contains(got.Limit, "old copy of the wrap") || got.Policy.State != api.Registered || got.Policy.Generation != 1 {
			t.Errorf("refreshed: %+v", got)
		}
		if w.Dump("key_page", "container", "roll") != pages {
			t.Error("a page, a container or a roll changed")
		}
		if now := w.show(alice).Protection; now.DataEncryptionPolicyID == old.DataEncryptionPolicyID || now.DataEncryptionPolicyID != got.Policy.Revision {
			t.Errorf("at once: %+v", now)
		}
	})
}

func TestSecondSiteRollIsRefusedWithTheProgressOfTheRunningOne(t *testing.T) {
	each(t, func(w testService) {
		for i := range 3 {
			w.Must(e(w.CreateSite(w.ctx, newSite(fmt.Sprint(team, i)))))
		}
		w.sitePolicy()
		p, err := w.ShowPolicy(w.ctx, api.PolicyInput{Policy: "Sites"})
		w.Must(err)
		if p.State != api.Registering || p.PercentComplete != 0 || p.Roll == nil {
			t.Fatalf("registering: %+v", p)
		}
		refused := func(depth api.Depth, state api.RollState) {
			t.Helper()
			in := update("Sites", "Primary", w.newKey("A-Sites"))
			in.Body.Depth = depth
			before := w.state()
			w.Vaults.Calls()
			_, err := w.UpdatePolicy(w.ctx, in)
			policytest.Refuses(t, err, api.RollInProgress)
			_, detail, hint := fail.Public(err)
			if !strings.Contains(detail, "0 of 3") || !strings.Contains(detail, string(state)) || !strings.Contains(hint, p.Roll.ID) {
				t.Errorf("refused with %q, %q", detail, hint)
			}
			if w.state() != before || len(w.Vaults.Calls()) != 0 {
				t.Error("the refusal changed something, or asked a vault")
			}
		}
		refused("", api.RollRunning)
		refused(api.DepthRoot, api.RollRunning)
		w.Must(e(w.PauseRoll(w.ctx, api.RollInput{Roll: p.Roll.ID})))
		refused("", api.RollPaused)
		w.Must(e(w.ResumeRoll(w.ctx, api.RollInput{Roll: p.Roll.ID})))
		w.finishRolls()
		got, err := w.UpdatePolicy(w.ctx, update("Sites", "Primary", w.newKey("A-Sites")))
		w.Must(err)
		if got.Policy.State != api.Rolling {
			t.Errorf("updated: %+v", got)
		}
		w.finishRolls()
		for i := range 3 {
			s, err := w.ShowSite(w.ctx, site(fmt.Sprint(team, i)))
			w.Must(err)
			if s.Protection.DataEncryptionPolicyID != got.Policy.Revision {
				t.Errorf("%s: %+v", s.URL, s.Protection)
			}
		}
	})
}

func TestRefreshDuringAMailboxRollSupersedesIt(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(alice, "p"))))
		for range 2 {
			w.newKey("A-p")
			w.Must(e(w.RefreshPolicy(w.ctx, refresh("p", ""))))
		}
		rolls, err := w.ListRolls(w.ctx, api.ListInput{})
		w.Must(err)
		if len(rolls.Items) != 2 || rolls.Items[0].State != api.RollRunning || rolls.Items[1].State != api.RollSuperseded {
			t.Errorf("rolls: %+v", rolls.Items)
		}
		w.finishRolls()
		if now := w.show(alice).Protection; !now.Current {
			t.Errorf("%+v", now)
		}
	})
}

func TestBadInputIsRefusedAndChangesNothing(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.sitePolicy()
		w.finishRolls()
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(alice, "p"))))
		w.newKey("A-p") // there is something to refresh to
		uri := func(list ...string) api.CreatePolicyInput { return newPolicy("q", list...) }
		all := refresh("p", "")
		all.Body.AllGenerations = true
		before := w.state()
		for name, c := range map[string]struct {
			err  error
			code api.Code
		}{
			"one key":                      {e(w.CreatePolicy(w.ctx, uri(keyURI("A-p")))), api.InvalidArgument},
			"three keys":                   {e(w.CreatePolicy(w.ctx, uri(keyURI("A-p"), keyURI("B-p"), keyURI("C-p")))), api.InvalidArgument},
			"the same key twice":           {e(w.CreatePolicy(w.ctx, uri(keyURI("A-p"), keyURI("a-P")))), api.InvalidArgument},
			"no URI of a vault":            {e(w.CreatePolicy(w.ctx, uri(keyURI("A-p"), "https://example.com/keys/k"))), api.InvalidArgument},
			"the name of the site policy":  {e(w.CreatePolicy(w.ctx, newPolicy("sITES", keyURI("A-p"), keyURI("B-p")))), api.InvalidArgument},
			"a depth that is none":         {e(w.RefreshPolicy(w.ctx, refresh("p", "blob"))), api.InvalidArgument},
			"all generations, depth root":  {e(w.RefreshPolicy(w.ctx, all)), api.InvalidArgument},
			"a refresh of the site policy": {e(w.RefreshPolicy(w.ctx, refresh("Sites", ""))), api.InvalidArgument},
			"an update of a mailbox one":   {e(w.UpdatePolicy(w.ctx, update("p", "primary", api.KeyVersion{Vault: "A-p", Key: "k", Version: strings.Repeat("0", 32)}))), api.InvalidArgument},
			"a refresh of the service's":   {e(w.RefreshPolicy(w.ctx, refresh("Service-managed", ""))), api.InvalidArgument},
			"a version of the wrong form":  {e(w.UpdatePolicy(w.ctx, update("Sites", "primary", api.KeyVersion{Vault: "A-Sites", Key: "k", Version: "1"}))), api.InvalidArgument},
			"the site policy to a mailbox": {e(w.AssignMailbox(w.ctx, assign(alice, "Sites"))), api.Conflict},
			"the service's to a mailbox":   {e(w.CreateMailbox(w.ctx, newMailbox("bob", "Service-managed"))), api.Conflict},
			"an unknown policy":            {e(w.CreateMailbox(w.ctx, newMailbox("bob", "none"))), api.NotFound},
		} {
			if !fail.Is(c.err, c.code) {
				t.Errorf("%s: %v (%s), want %s", name, c.err, fail.CodeOf(c.err), c.code)
			}
		}
		if w.state() != before {
			t.Error("something changed")
		}
	})
}

func TestAnotherTenantSeesNothing(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(alice, "p"))))
		w.Must(e(w.CreateSite(w.ctx, newSite(team))))
		w.newKey("A-p")
		refreshed, err := w.RefreshPolicy(w.ctx, refresh("p", ""))
		w.Must(err)
		other := newTestService(w.Neighbour())
		stranger := other.admin
		other.Service, other.ctx = w.Service, w.as(stranger) // the same service, asked by the other tenant
		policytest.Refuses(t, e(other.ShowMailbox(other.ctx, mailbox(alice))), api.NotFound)
		policytest.Refuses(t, other.ExportMail(other.ctx, mailbox(alice), io.Discard), api.NotFound)
		policytest.Refuses(t, e(other.ShowSite(other.ctx, site(team))), api.NotFound)
		for _, id := range []string{"p", refreshed.Policy.ID, refreshed.Policy.Revision} {
			policytest.Refuses(t, e(other.ShowPolicy(other.ctx, api.PolicyInput{Policy: id})), api.NotFound)
			policytest.Refuses(t, e(other.RefreshPolicy(other.ctx, refresh(id, ""))), api.NotFound)
			policytest.Refuses(t, e(other.CreateMailbox(other.ctx, newMailbox("x", id))), api.NotFound)
		}
		policytest.Refuses(t, e(other.ShowRoll(other.ctx, api.RollInput{Roll: refreshed.Policy.Roll.ID})), api.NotFound)
		policytest.Refuses(t, e(other.PauseRoll(other.ctx, api.RollInput{Roll: refreshed.Policy.Roll.ID})), api.NotFound)
		boxes, err := other.ListMailboxes(other.ctx, api.ListInput{})
		w.Must(err)
		policies, err := other.ListPolicies(other.ctx, api.ListInput{})
		w.Must(err)
		rolls, err := other.ListRolls(other.ctx, api.ListInput{})
		w.Must(err)
		usage, err := other.ListKeyUsage(other.ctx, api.KeyUsageInput{})
		w.Must(err)
		if len(boxes.Items)+len(rolls.Items)+len(usage.Items) != 0 || len(policies.Items) != 1 {
			t.Errorf("it sees %d mailboxes, %d rolls, %d key versions, %d policies", len(boxes.Items), len(rolls.Items), len(usage.Items), len(policies.Items))
		}
		w.Must(e(other.CreateMailbox(other.ctx, newMailbox(alice, "")))) // its own of the same name
	})
}

func TestShowsWhatAContainerHolds(t *testing.T) {
	w := newTestService(policytest.New(t, storetest.One(t)))
	w.Must(e(w.CreateMailbox(w.ctx, newMailbox("Alice@Contoso.com", ""))))
	w.Must(e(w.ImportMail(w.ctx, into(alice), -1, strings.NewReader(mbox))))
	m := w.show("ALICE@contoso.com")
	if m.Name != "Alice@Contoso.com" || m.State != api.Active || m.Items != 1 || m.Bytes != int64(len(mbox)) || m.AssignedPolicy != "" ||
		m.Protection.Policy != "Service-managed" || !m.Protection.IsEncrypted {
		t.Errorf("%+v", m)
	}
	w.mailPolicy()
	assigned, err := w.AssignMailbox(w.ctx, assign(alice, "P"))
	w.Must(err)
	if assigned.AssignedPolicy != "p" || assigned.Protection.Policy != "p" || !assigned.Protection.Current {
		t.Errorf("assigned: %+v", assigned)
	}
	back, err := w.AssignMailbox(w.ctx, assign(alice, ""))
	w.Must(err)
	if back.AssignedPolicy != "" || back.Protection.Policy != "Service-managed" {
		t.Errorf("taken back: %+v", back)
	}
}
