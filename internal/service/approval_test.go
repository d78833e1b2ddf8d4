package service_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/fail"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
)

// people are an admin of the tenant, the operator and two approvers who enrolled with the
// operator's codes.
type people struct {
	testService
	carol, dana, erin context.Context
}

// withPeople runs a test for each database.
func withPeople(t *testing.T, test func(w people)) {
	t.Helper()
	each(t, func(w testService) {
		p := people{testService: w, dana: w.approver("dana"), erin: w.approver("erin")}
		p.carol = w.with("carol", api.Global)
		test(p)
	})
}

// with returns the context of a principal that has a row and that the service has made.
func (w testService) with(name string, roles ...api.Role) context.Context {
	w.Helper()
	return w.as(w.principal(name, uuid.Nil, roles...))
}

// principal makes a principal with a token that an issuer received.
func (w testService) principal(name string, issuer uuid.UUID, roles ...api.Role) (p access.Principal) {
	w.Helper()
	w.InTx(func(tx *store.Tx) (err error) {
		p, _, err = w.parts.Access.AddToken(w.Ctx, tx, access.Principal{Tenant: w.Tenant, Name: name, Roles: roles, Kind: access.ByToken, Created: time.Now()}, issuer)
		return err
	})
	return p
}

// revoked makes a mailbox with mail whose policy is revoked, and a policy that serves.
func (w people) revoked() {
	w.Helper()
	w.mailPolicy()
	w.withMail(alice, "p")
	w.newKey("A-q")
	w.newKey("B-q")
	w.Must(e(w.CreatePolicy(w.ctx, newPolicy("q", keyURI("A-q"), keyURI("B-q")))))
	w.revoke("p")
	refused(w, w.ExportMail(w.ctx, mailbox(alice), &strings.Builder{}), api.VaultDenied)
}

// work does what is approved.
func (w people) work() {
	w.Helper()
	if w.Approvals().WorkAll(w.Ctx) {
		w.Error("a request waits")
	}
}

// only returns the only request that waits.
func (w people) only() api.Approval {
	w.Helper()
	list, err := w.ListApprovals(w.ctx, api.ListApprovalsInput{})
	w.Must(err)
	if len(list.Items) != 1 {
		w.Fatalf("%d requests wait: %+v", len(list.Items), list.Items)
	}
	return list.Items[0]
}

func named(a api.Approval) api.ApprovalInput { return api.ApprovalInput{Approval: a.ID} }

func (w people) wantState(a api.Approval, want api.ApprovalState) api.Approval {
	w.Helper()
	got, err := w.ShowApproval(w.ctx, named(a))
	w.Must(err)
	if got.State != want {
		w.Errorf("the request is %s, want %s: %+v", got.State, want, got)
	}
	return got
}

func TestOneAdminCannotUndoARevocationByReassigning(t *testing.T) {
	withPeople(t, func(w people) {
		w.revoked()
		before := w.show(alice)
		m, err := w.AssignMailbox(w.carol, assign(alice, "q"))
		w.Must(err)
		if m.PendingApproval == "" || m.AssignedPolicy != "p" {
			t.Fatalf("%+v", m)
		}
		w.work()
		if now := w.show(alice); now.Protection != before.Protection {
			t.Errorf("it was moved before it was approved: %+v", now)
		}
		a := w.only()
		if a.ID != m.PendingApproval || a.Operation != "AssignMailbox" || a.Target != alice || a.Requester != "carol" || a.Needed != 1 || !strings.Contains(a.Act, alice) {
			t.Errorf("%+v", a)
		}
		refused(t, e(w.ApproveAct(w.carol, named(a))), api.Forbidden)
		approved, err := w.ApproveAct(w.dana, named(a))
		w.Must(err)
		if approved.State != api.ApprovalApproved || len(approved.Decisions) != 1 || approved.Decisions[0].Approver != "dana" {
			t.Errorf("%+v", approved)
		}
		w.work()
		w.wantState(a, api.ApprovalDone)
		var got strings.Builder
		if err := w.ExportMail(w.ctx, mailbox(alice), &got); err != nil || got.String() != mbox || w.show(alice).AssignedPolicy != "q" {
			t.Errorf("after the approval: %v, %+v", err, w.show(alice))
		}
		refused(t, e(w.ApproveAct(w.erin, named(a))), api.Conflict)
		w.work() // it is done once
	})
}

// The policy key is still in memory, and nothing has been refused yet.
func TestARevocationCountsBeforeKeyrollHasNoticedIt(t *testing.T) {
	withPeople(t, func(w people) {
		w.mailPolicy()
		w.withMail(alice, "p")
		w.revokeVaults("A-p", "B-p")
		m, err := w.AssignMailbox(w.carol, assign(alice, ""))
		w.Must(err)
		p, err := w.LeavePolicy(w.carol, leave("p"))
		w.Must(err)
		if m.PendingApproval == "" || p.Policy.PendingApproval == "" || w.show(alice).AssignedPolicy != "p" {
			t.Errorf("%+v, %+v", m, p.Policy)
		}
	})
}

func TestARequestThatIsNotApprovedChangesNothing(t *testing.T) {
	for name, end := range map[string]func(w people, a api.Approval) (api.ApprovalState, error){
		"rejected": func(w people, a api.Approval) (api.ApprovalState, error) {
			return api.ApprovalRejected, e(w.RejectAct(w.dana, named(a)))
		},
		"withdrawn by its requester": func(w people, a api.Approval) (api.ApprovalState, error) {
			return api.ApprovalWithdrawn, e(w.WithdrawAct(w.carol, named(a)))
		},
		"withdrawn by an approver": func(w people, a api.Approval) (api.ApprovalState, error) {
			return api.ApprovalWithdrawn, e(w.WithdrawAct(w.erin, named(a)))
		},
		"expired": func(w people, a api.Approval) (api.ApprovalState, error) {
			w.Exec(`UPDATE approval_request SET expires = requested + 1`)
			refused(w, e(w.ApproveAct(w.dana, named(a))), api.Conflict, "expired")
			return api.ApprovalExpired, nil
		},
		"of a requester who was revoked": func(w people, a api.Approval) (api.ApprovalState, error) {
			w.Must(e(w.ApproveAct(w.dana, named(a))))
			return api.ApprovalFailed, e(w.RevokeToken(w.ctx, api.TokenInput{Token: "carol"}))
		},
		"of a requester who lost the role": func(w people, a api.Approval) (api.ApprovalState, error) {
			w.Must(e(w.ApproveAct(w.dana, named(a))))
			w.Exec(`UPDATE principal SET roles = 'auditor' WHERE name = 'carol'`)
			return api.ApprovalFailed, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			withPeople(t, func(w people) {
				w.revoked()
				w.Must(e(w.AssignMailbox(w.carol, assign(alice, "q"))))
				a := w.only()
				refused(w, e(w.WithdrawAct(w.with("george", api.Global), named(a))), api.Forbidden)
				state, err := end(w, a)
				w.Must(err)
				w.work()
				w.work()
				got := w.wantState(a, state)
				if (got.Outcome != "") != (state == api.ApprovalFailed) {
					w.Errorf("the outcome is %q", got.Outcome)
				}
				if w.show(alice).AssignedPolicy != "p" {
					w.Error("the mailbox was assigned")
				}
				refused(w, w.ExportMail(w.ctx, mailbox(alice), &strings.Builder{}), api.VaultDenied)
				refused(w, e(w.ApproveAct(w.erin, named(a))), api.Conflict)
			})
		})
	}
}

// The acts that move what a revoked policy protects, each pending and then approved.
func TestActsThatUndoARevocationWaitForApproval(t *testing.T) {
	withPeople(t, func(w people) {
		w.revoked()
		p, err := w.LeavePolicy(w.carol, leave("p"))
		w.Must(err)
		if p.Policy.PendingApproval == "" || p.Policy.State != w.shown("p").State {
			t.Errorf("leave: %+v", p)
		}
		w.Must(e(w.RejectAct(w.dana, named(w.only()))))
		if got := w.shown("p"); got.State != p.Policy.State || !got.Enabled {
			t.Errorf("the policy is %+v", got)
		}
		w.Must(e(w.AssignMailbox(w.carol, assign(alice, ""))))
		w.Must(e(w.ApproveAct(w.dana, named(w.only()))))
		w.work()
		if got := w.show(alice); got.AssignedPolicy != "" {
			t.Errorf("unassigned: %+v", got)
		}
		p, err = w.LeavePolicy(w.carol, leave("q")) // it serves
		w.Must(err)
		if p.Policy.PendingApproval != "" {
			t.Errorf("leaving a policy that serves: %+v", p.Policy)
		}
	})
}

// An approved act that cannot be done for the moment is tried again, and done once.
func TestAnApprovedActIsTriedAgain(t *testing.T) {
	withPeople(t, func(w people) {
		w.revoked()
		w.Must(e(w.AssignMailbox(w.carol, assign(alice, "q"))))
		a := w.only()
		w.Must(e(w.ApproveAct(w.dana, named(a))))
		w.rename("container", "moved") // the database cannot do it
		if !w.Approvals().WorkAll(w.Ctx) {
			t.Error("nothing waits")
		}
		w.rename("moved", "container")
		w.wantState(a, api.ApprovalApproved)
		w.work()
		w.wantState(a, api.ApprovalDone)
		if got := w.show(alice); got.AssignedPolicy != "q" {
			t.Errorf("%+v", got)
		}
	})
}

// What a row says of its state is not believed without the decisions.
func TestARequestWithoutItsApprovalsIsNotDone(t *testing.T) {
	withPeople(t, func(w people) {
		w.revoked()
		w.Must(e(w.AssignMailbox(w.carol, assign(alice, "q"))))
		a := w.only()
		w.Exec(`UPDATE approval_request SET state = 'approved'`)
		w.Exec(`INSERT INTO approval_decision (request, approver, tenant, approves, at) SELECT id, requester, tenant, 1, 0 FROM approval_request`)
		if !w.Approvals().WorkAll(w.Ctx) {
			t.Error("nothing waits")
		}
		w.wantState(a, api.ApprovalApproved)
		if got := w.show(alice); got.AssignedPolicy != "p" {
			t.Errorf("%+v", got)
		}
	})
}

func (w people) rename(table, to string) {
	w.Helper()
	w.InTx(func(tx *store.Tx) error {
		_, err := tx.Exec(w.Ctx, `ALTER TABLE `+table+` RENAME TO `+to)
		return err
	})
}

func TestWithoutApproversAnActIsDoneAtOnce(t *testing.T) {
	each(t, func(w testService) {
		p := people{testService: w}
		p.revoked()
		m, err := w.AssignMailbox(w.with("carol", api.Global), assign(alice, "q"))
		w.Must(err)
		if m.PendingApproval != "" || m.AssignedPolicy != "q" {
			t.Errorf("%+v", m)
		}
	})
}

// One admin makes a second token and two approvers, and holds the tokens of all of them.
func TestOneAdminWithSeveralTokensCannotPurge(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.revoke("p")
		admin := w.principal("mallory", uuid.Nil, api.Global)
		one, _ := w.enrolled(w.as(admin), "dana")
		two, _ := w.enrolled(w.as(admin), "erin")
		var in api.CreateTokenInput
		in.Body.Name, in.Body.Roles = "second", []api.Role{api.Compliance}
		made, err := w.CreateToken(w.as(admin), in)
		w.Must(err)
		second, err := w.parts.Access.Authenticate(w.Ctx, made.Secret)
		w.Must(err)
		rotated, err := w.RotateToken(w.as(second), api.RotateTokenInput{TokenInput: api.TokenInput{Token: "second"}})
		w.Must(err)
		second, err = w.parts.Access.Authenticate(w.Ctx, rotated.Secret)
		w.Must(err)
		w.principal("carol", uuid.Nil, api.Compliance) // whose token the admin replaces, and so knows
		taken, err := w.RotateToken(w.as(admin), api.RotateTokenInput{TokenInput: api.TokenInput{Token: "carol"}})
		w.Must(err)
		carol, err := w.parts.Access.Authenticate(w.Ctx, taken.Secret)
		w.Must(err)
		w.Must(e(w.RequestPurge(w.as(carol), purgeOf("p"))))
		refused(t, e(w.ApprovePurge(one, policyNamed("p"))), api.Forbidden, "same principal")
		w.Must(e(w.WithdrawAct(w.as(carol), named(people{testService: w}.only()))))
		// An approver whom the second token has invited, before another admin replaced that.
		inviting := w.principal("inviting", admin.ID, api.Global)
		three, _ := w.enrolled(w.as(inviting), "frank")
		w.Must(e(w.RotateToken(w.as(w.principal("helpful", uuid.Nil, api.Global)), api.RotateTokenInput{TokenInput: api.TokenInput{Token: "inviting"}})))
		purge, err := w.RequestPurge(w.as(second), purgeOf("p"))
		w.Must(err)
		if len(purge.Warnings) != 1 || !strings.Contains(purge.Warnings[0], "has 0 approvers") {
			t.Errorf("warnings: %q", purge.Warnings)
		}
		for name, by := range map[string]context.Context{"the first": one, "the second": two, "the third": three} {
			t.Run(name, func(t *testing.T) {
				refused(t, e(w.ApprovePurge(by, policyNamed("p"))), api.Forbidden, "same principal")
			})
		}
		both := second
		both.Roles = append(slices.Clone(both.Roles), api.Approver)
		refused(t, e(w.ApprovePurge(w.as(both), policyNamed("p"))), api.Forbidden, "requester")
		w.Must(w.carryOut())
		if p, err := w.ShowPurge(w.ctx, policyNamed("p")); err != nil || p.State != api.PurgeRequested || len(p.Approvals) != 0 {
			t.Errorf("the purge: %+v, %v", p, err)
		}
	})
}

func TestAnApproverCountsForLaterRequestsOnly(t *testing.T) {
	withPeople(t, func(w people) {
		w.mailPolicy()
		w.revoke("p")
		w.requestPurge("p")
		operator := w.as(access.Principal{ID: uuid.New(), Tenant: w.Tenant, Name: "the operator", Roles: []api.Role{api.Operator}})
		late, _ := w.enrolled(operator, "late")
		refused(t, e(w.ApprovePurge(late, policyNamed("p"))), api.Forbidden, "after the request")
		earlier := w.principal("earlier", uuid.Nil, api.Approver)
		earlier.Kind = access.ByService // as one that an earlier version registered
		refused(t, e(w.ApprovePurge(w.as(earlier), policyNamed("p"))), api.Forbidden, "has not enrolled")
		w.Must(e(w.ApprovePurge(w.dana, policyNamed("p"))))
	})
}

func TestAWithdrawnPurgeLeavesThePolicyAsItWas(t *testing.T) {
	withPeople(t, func(w people) {
		w.mailPolicy()
		w.withMail(alice, "p")
		w.revoke("p")
		before := w.shown("p")
		w.requestPurge("p")
		a := w.only()
		if a.Operation != "RequestPurge" || a.Needed != 2 {
			t.Errorf("%+v", a)
		}
		w.Must(e(w.ApproveAct(w.dana, named(a))))
		w.Must(e(w.RejectAct(w.erin, named(a))))
		w.wantState(a, api.ApprovalRejected)
		refused(t, e(w.ShowPurge(w.ctx, policyNamed("p"))), api.NotFound)
		if now := w.shown("p"); now.State != before.State {
			t.Errorf("the policy is %s, was %s", now.State, before.State)
		}
		w.requestPurge("p")
		a = w.only()
		w.Must(e(w.ApproveAct(w.dana, named(a))))
		w.Must(e(w.ApproveAct(w.erin, named(a))))
		w.wantState(a, api.ApprovalDone)
		refused(t, e(w.WithdrawAct(w.dana, named(a))), api.Conflict)
		w.Must(w.carryOut())
		if p, err := w.ShowPurge(w.ctx, policyNamed("p")); err != nil || p.State != api.Purged {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

// A purge that an earlier version requested keeps the approval that it has.
func TestAPurgeOfAnEarlierVersionKeepsItsApproval(t *testing.T) {
	withPeople(t, func(w people) {
		w.mailPolicy()
		w.revoke("p")
		w.requestPurge("p")
		old := w.principal("old", uuid.Nil, api.Approver)
		w.Exec(`DELETE FROM approval_request`)
		w.Exec(`INSERT INTO purge_approval (policy, approver, tenant, approved) SELECT policy, '` + old.ID.String() + `', tenant, 1 FROM purge`)
		p, err := w.ApprovePurge(w.dana, policyNamed("p"))
		w.Must(err)
		if p.State != api.PurgeApproved || len(p.Approvals) != 2 {
			t.Errorf("%+v", p)
		}
		w.Must(w.carryOut())
	})
}

func TestAnApproverIsRemovedByAnotherApprover(t *testing.T) {
	withPeople(t, func(w people) {
		remove := func(by context.Context, name string) error {
			return e(w.RemoveApprover(by, api.RemoveApproverInput{Approver: name}))
		}
		operator := w.with("operator", api.Operator)
		refused(t, remove(w.carol, "dana"), api.Forbidden, "another approver")
		refused(t, remove(operator, "dana"), api.Forbidden, "another approver")
		refused(t, remove(w.dana, "dana"), api.Forbidden)
		w.Must(remove(w.erin, "dana"))
		refused(t, remove(w.carol, "erin"), api.Forbidden, "by the operator only")
		w.Must(remove(operator, "erin"))
		list, err := w.ListApprovers(w.ctx, api.ApproverTenant{})
		w.Must(err)
		if len(list.Items) != 0 {
			t.Errorf("%+v", list.Items)
		}
		var in api.AddApproverInput
		in.Body.Name = "frank"
		w.Must(e(w.AddApprover(w.carol, in)))
		w.Must(remove(w.carol, "frank")) // who has not enrolled
	})
}

func TestTokensHaveRolesThatTheirIssuerMayGrant(t *testing.T) {
	each(t, func(w testService) {
		global, compliance, operator := w.with("global", api.Global), w.with("compliance", api.Compliance), w.with("operator", api.Operator)
		create := func(by context.Context, name string, expires time.Time, roles ...api.Role) (api.CreatedToken, error) {
			var in api.CreateTokenInput
			in.Body.Name, in.Body.Roles, in.Body.Expires = name, roles, expires
			return w.CreateToken(by, in)
		}
		never := time.Time{}
		for _, role := range []api.Role{api.Approver, api.Operator, api.Application, api.Enrolling} {
			refused(t, e(create(global, "x", never, role)), api.Forbidden)
		}
		refused(t, e(create(operator, "x", never, api.Global)), api.Forbidden)
		refused(t, e(create(compliance, "x", never, api.Auditor)), api.Forbidden)
		refused(t, e(create(global, "x", never)), api.InvalidArgument)
		refused(t, e(create(global, "x", never, "king")), api.InvalidArgument)
		refused(t, e(create(global, "x", never, api.Vault, api.Vault)), api.InvalidArgument)
		refused(t, e(create(global, "x", time.Now().Add(-time.Second), api.Vault)), api.InvalidArgument)
		made, err := create(global, "x", time.Now().Add(time.Hour), api.Exchange, api.Auditor)
		w.Must(err)
		p, err := w.parts.Access.Authenticate(w.Ctx, made.Secret)
		if err != nil || !slices.Equal(p.Roles, []api.Role{api.Exchange, api.Auditor}) {
			t.Errorf("%+v, %v", p, err)
		}
		if strings.Contains(w.Dump("principal"), made.Secret) {
			t.Error("the token is stored")
		}
		refused(t, e(w.RotateToken(compliance, api.RotateTokenInput{TokenInput: api.TokenInput{Token: "x"}})), api.Forbidden)
		rotated, err := w.RotateToken(w.as(p), api.RotateTokenInput{TokenInput: api.TokenInput{Token: "X"}})
		w.Must(err)
		policytest.Refuses(t, e(w.parts.Access.Authenticate(w.Ctx, made.Secret)), api.Unauthenticated)
		w.Must(e(w.parts.Access.Authenticate(w.Ctx, rotated.Secret)))
		list, err := w.ListTokens(global, api.None{})
		w.Must(err)
		if i := slices.IndexFunc(list.Items, func(x api.Token) bool { return x.Name == "x" }); i < 0 || list.Items[i].Issuer != "global" || list.Items[i].LastUsed == nil || list.Items[i].Expires != nil {
			t.Errorf("%+v", list.Items)
		}
		w.Must(e(w.RevokeToken(global, api.TokenInput{Token: "x"})))
		if err := e(w.parts.Access.Authenticate(w.Ctx, rotated.Secret)); !fail.Is(err, api.Unauthenticated) {
			t.Errorf("a revoked token: %v", err)
		}
		expired, err := create(global, "short", time.Now().Add(time.Hour), api.Vault)
		w.Must(err)
		w.Exec(`UPDATE principal SET expires = 1 WHERE name = 'short'`)
		refused(t, e(w.parts.Access.Authenticate(w.Ctx, expired.Secret)), api.Unauthenticated, "expired")
		dana := w.approver("dana")
		refused(t, e(w.RevokeToken(global, api.TokenInput{Token: "dana"})), api.Forbidden)
		w.Must(e(w.RotateToken(dana, api.RotateTokenInput{TokenInput: api.TokenInput{Token: "dana"}})))
	})
}
