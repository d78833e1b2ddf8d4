package service_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/fail"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store/storetest"
)

// permitted returns the roles that permit each operation.
func permitted() map[string][]api.Role {
	roles := map[string][]api.Role{}
	for _, op := range api.Operations() {
		roles[op.Name] = op.Roles
	}
	return roles
}

func TestOperationsAreForbiddenToAllOtherRoles(t *testing.T) {
	each(t, func(w testService) {
		may := permitted()
		acts := w.acts()
		for _, a := range acts {
			if a.prepare != nil {
				a.prepare()
			}
			w.Must(a.done(w.ctx))
		}
		before, seen := w.state(), map[int64]bool{}
		w.entries(seen)
		for _, role := range append(slices.Clone(api.Roles), access.Service, "") {
			w.admin.Roles = []api.Role{role} // the same principal, as far as the log is concerned
			ctx := w.as(w.admin)
			for _, a := range acts {
				if slices.Contains(may[a.operation], role) {
					continue
				}
				err := a.done(ctx)
				policytest.Refuses(t, err, api.Forbidden)
				if !strings.Contains(err.Error(), "has none of the roles that permit this: ") {
					t.Errorf("%s as %s: %v", a.operation, role, err)
				}
				w.singleEntry(seen, a.operation, string(api.Forbidden))
			}
		}
		if w.state() != before {
			t.Error("a forbidden operation changed something")
		}
	})
}

// TestOperationsSucceedWithEachRoleThatPermitsThem runs all operations in several rounds, each
// time with another one of the roles that permit them and with no other role.
func TestOperationsSucceedWithEachRoleThatPermitsThem(t *testing.T) {
	may := permitted()
	for round := range len(api.Roles) {
		w := newTestService(policytest.New(t, storetest.One(t)))
		for _, a := range w.acts() {
			if a.prepare != nil {
				a.prepare()
			}
			roles := may[a.operation]
			if a.operation == "RotateToken" { // of the token that this round has created
				roles = may["CreateToken"]
			}
			p := w.admin
			p.Roles = []api.Role{roles[round%len(roles)]}
			if err := a.done(w.as(p)); err != nil {
				t.Errorf("%s as %s: %v", a.operation, p.Roles[0], err)
			}
		}
	}
}

// TestNoRoleReachesAnotherTenant calls every operation as a principal of another tenant that
// has the roles of its tenants' admins, approvers and auditors, after everything exists here.
func TestNoRoleReachesAnotherTenant(t *testing.T) {
	each(t, func(w testService) {
		acts := w.acts()
		for _, a := range acts {
			if a.prepare != nil {
				a.prepare()
			}
			w.Must(a.done(w.ctx))
		}
		neighbour := w.Neighbour()
		w.Must(w.parts.Containers.Bootstrap(w.Ctx, neighbour.Tenant))
		stranger := access.Principal{ID: uuid.New(), Tenant: neighbour.Tenant, Name: "frank", Kind: access.ByEnrolment,
			Roles: slices.DeleteFunc(slices.Clone(api.Roles), func(r api.Role) bool { return r == api.Operator })}
		before := w.ownState()
		for _, a := range acts {
			err := a.done(w.as(stranger))
			if fail.Is(err, api.Internal) || fail.Is(err, api.Damaged) {
				t.Errorf("%s by a stranger: %v", a.operation, err)
			}
		}
		if now := w.ownState(); now != before {
			t.Errorf("a stranger changed something:\n%s", difference(before, now))
		}
		var in api.AddApproverInput
		in.Tenant, in.Body.Name = w.GUID.String(), "frank"
		refused(t, e(w.AddApprover(w.as(stranger), in)), api.Forbidden)
		refused(t, e(w.RemoveApprover(w.as(stranger), api.RemoveApproverInput{ApproverTenant: in.ApproverTenant, Approver: "x"})), api.Forbidden)
		refused(t, e(w.ListApprovers(w.as(stranger), in.ApproverTenant)), api.Forbidden)
	})
}

// ownState is state without the rows of other tenants, and with the audit log.
func (w testService) ownState() string {
	w.Helper()
	var own []string
	for line := range strings.Lines(w.state() + "\n" + w.Dump("audit_entry")) {
		if strings.Contains(line, fmt.Sprintf("|%d|", w.Tenant)) {
			own = append(own, line)
		}
	}
	return strings.Join(own, "")
}

// difference returns the lines that are in only one of two dumps.
func difference(a, b string) string {
	var out []string
	for _, part := range []struct{ mark, of, in string }{{"-", a, b}, {"+", b, a}} {
		for line := range strings.Lines(part.of) {
			if !strings.Contains(part.in, line) {
				out = append(out, part.mark+line)
			}
		}
	}
	return strings.Join(out, "")
}

// enrolled returns the context of an approver's requests whose code the given principal issued.
func (w testService) enrolled(by context.Context, name string) (context.Context, access.Principal) {
	w.Helper()
	var in api.AddApproverInput
	in.Body.Name = name
	invited, err := w.AddApprover(by, in)
	w.Must(err)
	p, err := w.parts.Access.Authenticate(w.Ctx, invited.Code)
	w.Must(err)
	made, err := w.EnrolApprover(w.as(p), api.None{})
	w.Must(err)
	p, err = w.parts.Access.Authenticate(w.Ctx, made.Secret)
	w.Must(err)
	return w.as(p), p
}
