package service_test

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store/storetest"
)

const chats, labels = "chat-messages", "sensitivity-labels"

func item(store, name string) api.WorkloadItemInput {
	return api.WorkloadItemInput{WorkloadInput: api.WorkloadInput{Workload: store}, Item: name}
}

func assignment(policy string) (in api.AssignPolicyInput) {
	in.Body.Policy = policy
	return in
}

// setting renames a policy unless name is empty, and enables or disables it
// unless enabled is nil.
func setting(policy, name string, enabled *bool) api.SetPolicyInput {
	in := api.SetPolicyInput{PolicyInput: policyNamed(policy)}
	if name != "" {
		in.Body.Name = &name
	}
	in.Body.Enabled = enabled
	return in
}

func replace(policy string, depth api.Depth, keys ...string) api.ReplacePolicyKeysInput {
	in := api.ReplacePolicyKeysInput{PolicyInput: policyNamed(policy)}
	in.Body.Keys, in.Body.Depth = keys, depth
	return in
}

// namedPolicy makes a policy of a kind on the keys of vaults A-NAME and B-NAME.
func (w testService) namedPolicy(kind api.PolicyKind, name string) {
	w.Helper()
	w.newKey("A-" + name)
	w.newKey("B-" + name)
	in := newPolicy(name, keyURI("A-"+name), keyURI("B-"+name))
	in.Body.Kind = kind
	w.Must(e(w.CreatePolicy(w.ctx, in)))
}

// A request that states the kind of its policy is refused for a policy of another kind.
func TestAPolicyOfAnotherKindIsRefused(t *testing.T) {
	w := newTestService(policytest.New(t, storetest.One(t)))
	w.mailPolicy()
	w.workPolicy("m")
	w.newKey("A-m")
	for name, do := range map[string]func(of api.PolicyInput) error{
		"SetPolicy": func(of api.PolicyInput) error {
			in := setting("", "renamed", nil)
			in.PolicyInput = of
			return e(w.SetPolicy(w.ctx, in))
		},
		"RefreshPolicy": func(of api.PolicyInput) error {
			return e(w.RefreshPolicy(w.ctx, api.RefreshPolicyInput{PolicyInput: of}))
		},
		"ReplacePolicyKeys": func(of api.PolicyInput) error {
			in := replace("", "", keyURI("A-p"), keyURI("B-p"))
			in.PolicyInput = of
			return e(w.ReplacePolicyKeys(w.ctx, in))
		},
		"UpdatePolicy": func(of api.PolicyInput) error {
			in := update("", "primary", api.KeyVersion{URI: keyURI("A-p")})
			in.PolicyInput = of
			return e(w.UpdatePolicy(w.ctx, in))
		},
		"LeavePolicy": func(of api.PolicyInput) error { return e(w.LeavePolicy(w.ctx, api.LeavePolicyInput{PolicyInput: of})) },
		"RequestPurge": func(of api.PolicyInput) error {
			in := purgeOf("")
			in.PolicyInput = of
			return e(w.RequestPurge(w.ctx, in))
		},
		"ShowPolicy":    func(of api.PolicyInput) error { return e(w.ShowPolicy(w.ctx, of)) },
		"TestPolicy":    func(of api.PolicyInput) error { return e(w.TestPolicy(w.ctx, of)) },
		"RecoverPolicy": func(of api.PolicyInput) error { return e(w.RecoverPolicy(w.ctx, of)) },
		"ShowPurge":     func(of api.PolicyInput) error { return e(w.ShowPurge(w.ctx, of)) },
		"ApprovePurge":  func(of api.PolicyInput) error { return e(w.ApprovePurge(w.approver("dana"), of)) },
	} {
		before := w.shown("m")
		err := do(api.PolicyInput{Policy: "m", Kind: api.MailboxPolicy})
		policytest.Refuses(t, err, api.NotFound)
		_, detail, hint := fail.Public(err)
		if want := `no mailbox policy is named "m": that is a multi-workload policy`; detail != want || hint != "Get-DataEncryptionPolicy shows the mailbox policies" {
			t.Errorf("%s: %q, hint %q", name, detail, hint)
		}
		if after := w.shown("m"); !reflect.DeepEqual(after, before) {
			t.Errorf("%s changed the policy: %+v", name, after)
		}
	}
	w.Must(e(w.RefreshPolicy(w.ctx, api.RefreshPolicyInput{PolicyInput: api.PolicyInput{Policy: "m", Kind: api.MultiWorkloadPolicy}})))
}

func (w testService) workPolicy(name string) {
	w.Helper()
	w.namedPolicy(api.MultiWorkloadPolicy, name)
}

func (w testService) shown(policy string) api.Policy {
	w.Helper()
	p, err := w.ShowPolicy(w.ctx, policyNamed(policy))
	w.Must(err)
	return p
}

// under returns the policy that a mailbox is under.
func (w testService) under(name string) string { w.Helper(); return w.show(name).Protection.Policy }

func (w testService) stores() map[string]api.Workload {
	w.Helper()
	list, err := w.ListWorkloads(w.ctx, api.ListInput{})
	w.Must(err)
	all := map[string]api.Workload{}
	for _, one := range list.Items {
		all[one.Name] = one
	}
	return all
}

// verdicts returns the distinct verdicts on all key versions of a policy.
func (w testService) verdicts(policy string) string {
	w.Helper()
	usage, err := w.ListKeyUsage(w.ctx, api.KeyUsageInput{})
	w.Must(err)
	var all []string
	for _, u := range usage.Items {
		if u.Policy == policy && !strings.Contains(strings.Join(all, ","), string(u.Verdict)) {
			all = append(all, string(u.Verdict))
		}
	}
	return strings.Join(all, ",")
}

// clean fails the test if verify finds anything damaged or inaccessible.
func (w testService) clean() {
	w.Helper()
	w.Policies.Close()
	report, err := w.Verify(w.ctx, api.VerifyInput{}, func(api.VerifyProgress) {})
	w.Must(err)
	if len(report.Damaged)+len(report.Closed) > 0 {
		w.Errorf("verify found %+v", report)
	}
}

func (w testService) expect(got, want any, what string) {
	w.Helper()
	if got != want {
		w.Errorf("%s: %v, want %v", what, got, want)
	}
}

// The multi-workload policy covers mailboxes without their own policy and the
// workload stores. A mailbox policy has precedence; sites stay where they are.
func TestAssignedPolicyCoversMailboxesWithoutTheirOwnAndWorkloadStores(t *testing.T) {
	each(t, func(w testService) {
		const idle, owner = "idle@contoso.com", "owner@contoso.com"
		w.mailPolicy()
		for name, own := range map[string]string{alice: "", idle: "", owner: "p"} {
			w.Must(e(w.CreateMailbox(w.ctx, newMailbox(name, own))))
			w.Must(e(w.ImportMail(w.ctx, into(name), -1, strings.NewReader(mbox))))
		}
		w.Must(e(w.SetMailboxState(w.ctx, newState(idle, api.Inactive))))
		w.Must(e(w.CreateSite(w.ctx, newSite(team))))
		w.Must(e(w.PutWorkloadItem(w.ctx, item(chats, "2026/thread"), -1, strings.NewReader("hello"))))
		w.tidy()
		policytest.Refuses(t, e(w.ShowAssignment(w.ctx, api.None{})), api.NotFound)
		w.workPolicy("m")
		assigned, err := w.AssignPolicy(w.ctx, assignment("M"))
		w.Must(err)
		if !assigned.Assigned || assigned.State != api.Rolling || assigned.Roll.Total != 2 || assigned.Roll.Source != "Service-managed" {
			t.Errorf("assigned: %+v %+v", assigned, assigned.Roll)
		}
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox("new@contoso.com", ""))))
		w.Must(e(w.PutWorkloadItem(w.ctx, item(labels, "labels.xml"), -1, strings.NewReader("x"))))
		w.expect(w.under("new@contoso.com"), "m", "a mailbox made after the assignment")
		w.expect(w.stores()[labels].Protection.Policy, "m", "a store made after the assignment")
		w.finishRolls()
		w.expect(w.under(alice), "m", "an active mailbox")
		w.expect(w.stores()[chats].Protection.Policy, "m", "a store")
		w.expect(w.under(owner), "p", "a mailbox with its own policy")
		w.expect(w.under(idle), "Service-managed", "an inactive mailbox, before it is read")
		w.expect(w.export(idle), mbox, "its mail")
		w.tidy()
		w.expect(w.under(idle), "m", "an inactive mailbox, after it was read")
		s, err := w.ShowSite(w.ctx, site(team))
		w.Must(err)
		w.expect(s.Protection.Policy, "Service-managed", "a site")

		w.Must(e(w.AssignMailbox(w.ctx, assign(owner, ""))))
		w.expect(w.under(owner), "m", "a mailbox whose own policy is taken back")
		w.Must(e(w.AssignMailbox(w.ctx, assign(alice, "p"))))
		w.expect(w.under(alice), "p", "a mailbox that gets its own policy")
		again, err := w.AssignPolicy(w.ctx, assignment("m"))
		w.Must(err)
		w.expect(again.State, api.Registered, "the state after the same assignment again")
		shown, err := w.ShowAssignment(w.ctx, api.None{})
		w.Must(err)
		w.expect(shown.Name, "m", "the assignment")

		w.workPolicy("n")
		w.Must(e(w.AssignPolicy(w.ctx, assignment("n"))))
		w.finishRolls()
		w.expect(w.under(owner), "n", "an active mailbox after another assignment")
		w.expect(w.under(idle), "m", "an inactive mailbox after another assignment")
		w.expect(w.under(alice), "p", "a mailbox with its own policy after another assignment")
		w.expect(w.stores()[chats].Protection.Policy, "n", "a store after another assignment")
		w.expect(w.shown("m").Assigned, false, "the policy that was assigned before")
		w.clean()
	})
}

func TestOnlyAnEnabledMultiWorkloadPolicyIsAssigned(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.sitePolicy()
		w.workPolicy("m")
		w.Must(e(w.SetPolicy(w.ctx, setting("m", "", new(bool)))))
		w.workPolicy("n")
		w.Exec(`UPDATE policy SET purge = ?2 WHERE tenant = ?1 AND name = 'n'`, w.Tenant, policy.PurgeRequested)
		policytest.Refuses(t, e(w.LeavePolicy(w.ctx, leave("n"))), api.Conflict)
		for name, code := range map[string]api.Code{"n": api.Conflict, "p": api.InvalidArgument, "Sites": api.InvalidArgument, "Service-managed": api.InvalidArgument,
			"none": api.NotFound, "m": api.Conflict} {
			before := w.state()
			policytest.Refuses(t, e(w.AssignPolicy(w.ctx, assignment(name))), code)
			if w.state() != before {
				t.Errorf("the refusal of %s changed something", name)
			}
		}
		in := newPolicy("q", keyURI("A-p"), keyURI("B-p"))
		in.Body.Kind = api.SitePolicy
		policytest.Refuses(t, e(w.CreatePolicy(w.ctx, in)), api.InvalidArgument)
		policytest.Refuses(t, e(w.CreateMailbox(w.ctx, newMailbox(alice, "m"))), api.Conflict)
	})
}

func TestWorkloadItemsAreReadUnchanged(t *testing.T) {
	each(t, func(w testService) {
		get := func(name string) string {
			var out bytes.Buffer
			w.Must(w.GetWorkloadItem(w.ctx, item(chats, name), &out))
			return out.String()
		}
		empty, err := w.ListWorkloadItems(w.ctx, api.ListStoreItems{WorkloadInput: api.WorkloadInput{Workload: chats}})
		w.Must(err)
		if len(empty.Items) != 0 || empty.Items == nil || len(w.stores()) != 0 {
			t.Errorf("before the first item: %v, %v", empty.Items, w.stores())
		}
		policytest.Refuses(t, w.GetWorkloadItem(w.ctx, item(chats, "a"), &bytes.Buffer{}), api.NotFound)
		for name, content := range map[string]string{"a": "first", "teams/general/1": strings.Repeat("long ", 1000), "empty": ""} {
			f, err := w.PutWorkloadItem(w.ctx, item(chats, name), int64(len(content)), strings.NewReader(content))
			w.Must(err)
			w.expect(f.Bytes, int64(len(content)), "the size of "+name)
			w.expect(get(name), content, name)
		}
		w.Must(e(w.PutWorkloadItem(w.ctx, item(chats, "a"), -1, strings.NewReader("second"))))
		w.expect(get("a"), "second", "an item that was replaced")
		items, err := w.ListWorkloadItems(w.ctx, api.ListStoreItems{WorkloadInput: api.WorkloadInput{Workload: chats}})
		w.Must(err)
		w.expect(len(items.Items), 3, "items")
		w.expect(w.stores()[chats].Items, int64(3), "items of the store")
		w.expect(len(w.stores()), 1, "stores")
		policytest.Refuses(t, e(w.PutWorkloadItem(w.ctx, item("faxes", "a"), 0, strings.NewReader(""))), api.InvalidArgument)
		policytest.Refuses(t, e(w.PutWorkloadItem(w.ctx, item(chats, "../a"), 0, strings.NewReader(""))), api.InvalidArgument)
		w.clean()
	})
}

func TestSettingsOfAPolicy(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.sitePolicy()
		w.workPolicy("m")
		yes, no, text := true, false, "for the USA"
		in := setting("p", "USA", nil)
		in.Body.Description = &text
		got, err := w.SetPolicy(w.ctx, in)
		w.Must(err)
		if got.Name != "USA" || got.Description != text || !got.Enabled {
			t.Errorf("renamed: %+v", got)
		}
		policytest.Refuses(t, e(w.ShowPolicy(w.ctx, policyNamed("p"))), api.NotFound)
		w.Must(e(w.SetPolicy(w.ctx, setting("usa", "usa", nil)))) // its own name in another case
		for name, code := range map[string]api.Code{"m": api.AlreadyExists, "sites": api.InvalidArgument, "": "", "\n": api.InvalidArgument} {
			if code != "" {
				policytest.Refuses(t, e(w.SetPolicy(w.ctx, setting("usa", name, nil))), code)
			}
		}
		policytest.Refuses(t, e(w.SetPolicy(w.ctx, setting("Sites", "x", nil))), api.InvalidArgument)

		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(alice, "usa"))))
		err = e(w.SetPolicy(w.ctx, setting("usa", "", &no)))
		policytest.Refuses(t, err, api.Conflict)
		if _, detail, _ := fail.Public(err); !strings.Contains(detail, "1 mailboxes") {
			t.Errorf("refused with %q", detail)
		}
		w.Must(e(w.AssignMailbox(w.ctx, assign(alice, ""))))
		w.Must(e(w.SetPolicy(w.ctx, setting("usa", "", &no))))
		policytest.Refuses(t, e(w.AssignMailbox(w.ctx, assign(alice, "usa"))), api.Conflict)
		w.Must(e(w.SetPolicy(w.ctx, setting("usa", "", &yes))))
		w.Must(e(w.AssignMailbox(w.ctx, assign(alice, "usa"))))

		w.Must(e(w.AssignPolicy(w.ctx, assignment("m"))))
		for _, name := range []string{"m", "Sites", "Service-managed"} {
			err := e(w.SetPolicy(w.ctx, setting(name, "", &no)))
			policytest.Refuses(t, err, api.Conflict)
			if _, _, hint := fail.Public(err); name != "Service-managed" && !strings.Contains(hint, "keyroll policy leave") {
				t.Errorf("%s: hint %q", name, hint)
			}
		}
	})
}

// A disabled policy is not counted, and one that is enabled again is.
func TestEnabledPoliciesCountAgainstTheLimit(t *testing.T) {
	each(t, func(w testService) {
		yes, no := true, false
		w.newKey("A-p")
		w.newKey("B-p")
		for i := range 50 {
			w.Must(e(w.CreatePolicy(w.ctx, newPolicy(fmt.Sprintf("p%d", i), keyURI("A-p"), keyURI("B-p")))))
		}
		policytest.Refuses(t, e(w.CreatePolicy(w.ctx, newPolicy("p50", keyURI("A-p"), keyURI("B-p")))), api.Conflict)
		w.Must(e(w.SetPolicy(w.ctx, setting("p0", "", &no))))
		w.Must(e(w.CreatePolicy(w.ctx, newPolicy("p50", keyURI("A-p"), keyURI("B-p")))))
		policytest.Refuses(t, e(w.SetPolicy(w.ctx, setting("p0", "", &yes))), api.Conflict)
		w.Must(e(w.LeavePolicy(w.ctx, leave("p1"))))
		w.Must(e(w.SetPolicy(w.ctx, setting("p0", "", &yes))))
	})
}

func TestReplacedKeysAreUsedInsteadOfTheOldOnes(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(alice, "p"))))
		w.Must(e(w.ImportMail(w.ctx, into(alice), -1, strings.NewReader(mbox))))
		for _, name := range []string{"C-p", "D-p", "E-p", "F-p"} {
			w.newKey(name)
		}
		before := w.show(alice).Protection.DataEncryptionPolicyID
		got, err := w.ReplacePolicyKeys(w.ctx, replace("p", "", keyURI("C-p"), keyURI("D-p")))
		w.Must(err)
		if got.Policy.Generation != 2 || got.Policy.Primary.Vault != "C-p" || got.Policy.Secondary.Vault != "D-p" || got.Limit != "" {
			t.Errorf("at depth policy: %+v", got)
		}
		w.finishRolls()
		w.expect(w.show(alice).Protection.DataEncryptionPolicyID, got.Policy.Revision, "the revision of a mailbox")
		if before == got.Policy.Revision {
			t.Error("the revision is the old one")
		}
		w.Vaults.Fail("A-p", policytest.Denied())
		w.Vaults.Fail("B-p", policytest.Denied())
		w.clean()
		policytest.Refuses(t, e(w.ReplacePolicyKeys(w.ctx, replace("p", "", keyURI("C-p"), keyURI("D-p")))), api.NoNewVersion)

		got, err = w.ReplacePolicyKeys(w.ctx, replace("p", api.DepthRoot, keyURI("E-p"), keyURI("F-p")))
		w.Must(err)
		if got.Policy.Generation != 2 || got.Rewrapped != 1 || got.Policy.Primary.Vault != "E-p" || !strings.Contains(got.Limit, "old copy of the wrap") {
			t.Errorf("at depth root: %+v", got)
		}
		w.Vaults.Fail("C-p", policytest.Denied())
		w.Vaults.Fail("D-p", policytest.Denied())
		w.clean()
		w.expect(w.export(alice), mbox, "mail")

		w.sitePolicy()
		before = w.state()
		for _, in := range []api.ReplacePolicyKeysInput{
			replace("Sites", "", keyURI("E-p"), keyURI("F-p")), replace("Service-managed", "", keyURI("E-p"), keyURI("F-p")),
			replace("p", "", keyURI("E-p")), replace("p", "", keyURI("E-p"), keyURI("E-p")), replace("p", "blob", keyURI("E-p"), keyURI("F-p")),
		} {
			if err := e(w.ReplacePolicyKeys(w.ctx, in)); fail.CodeOf(err) != api.InvalidArgument && fail.CodeOf(err) != api.RollInProgress {
				t.Errorf("%+v: %v", in, err)
			}
		}
		w.expect(w.state(), before, "what refusals changed")
	})
}
