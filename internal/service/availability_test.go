package service_test

import (
	"fmt"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/policy/policytest"
)

func rollAvailability(policy string) (in api.RollAvailabilityKeysInput) {
	in.Body.Policy = policy
	return in
}

func TestOperatorRollsAllAvailabilityKeysOfItsTenantAndReceivesNoKey(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(alice, "p"))))
		w.Must(e(w.ImportMail(w.ctx, into(alice), -1, strings.NewReader(mbox))))
		other := w.Neighbour()
		before := other.Dump("revision")
		shown, err := w.ShowPolicy(w.ctx, api.PolicyInput{Policy: "p"})
		w.Must(err)
		got, err := w.RollAvailabilityKeys(w.ctx, rollAvailability(""))
		if want := (api.RolledAvailabilityKeys{Keys: 2, Wraps: 2, Destroyed: 2}); err != nil || got != want {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
		rolled, err := w.ShowPolicy(w.ctx, api.PolicyInput{Policy: "p"})
		w.Must(err)
		if rolled.AvailabilityKey != shown.AvailabilityKey || shown.AvailabilityVersion != 1 || rolled.AvailabilityVersion != 2 || rolled.Revision != shown.Revision {
			t.Errorf("the policy shows %s version %d and revision %s; before %s version %d and %s", rolled.AvailabilityKey, rolled.AvailabilityVersion, rolled.Revision,
				shown.AvailabilityKey, shown.AvailabilityVersion, shown.Revision)
		}
		for _, line := range strings.Split(before, "\n") {
			if strings.Contains(line, fmt.Sprint(other.Tenant)) && !strings.Contains(other.Dump("revision"), line) {
				t.Error("another tenant's revision was changed")
			}
		}
		verified, err := w.Verify(w.ctx, api.VerifyInput{}, func(api.VerifyProgress) {})
		if err != nil || len(verified.Damaged)+len(verified.Closed) > 0 {
			t.Errorf("verify: %+v, %v", verified, err)
		}
	})
}

func TestOnlyAnOperatorRollsAvailabilityKeys(t *testing.T) {
	each(t, func(w testService) {
		w.admin.Roles = []api.Role{api.Global, access.Service, api.Approver}
		policytest.Refuses(t, e(w.RollAvailabilityKeys(w.as(w.admin), rollAvailability(""))), api.Forbidden)
	})
}

func TestRollOfAvailabilityKeysContinuesAfterAPolicyThatFails(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.Exec(`UPDATE revision SET primary_version = 'x' WHERE primary_version <> ''`)
		policytest.Refuses(t, e(w.RollAvailabilityKeys(w.ctx, rollAvailability(""))), api.Damaged)
		shown, err := w.ShowPolicy(w.ctx, api.PolicyInput{Policy: "Service-managed"})
		if err != nil || shown.AvailabilityVersion != 2 {
			t.Errorf("the other policy has version %d, %v", shown.AvailabilityVersion, err)
		}
	})
}
