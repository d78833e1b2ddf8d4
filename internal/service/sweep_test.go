package service_test

import (
	"testing"

	"keyroll/api"
	"keyroll/internal/policy/policytest"
)

// A sweep moves the backups of its own policy, but not those of a policy whose
// containers a roll moves to it: a backup of a site would come under a multi-workload
// policy. So the two rolls run one after the other.
func TestASweepMovesNoBackupsOfAnotherPolicy(t *testing.T) {
	each(t, func(w testService) {
		w.Must(e(w.CreateSite(w.ctx, newSite(team))))
		w.backup("site", team)
		w.workPolicy("m")
		sweep := refresh("m", "")
		sweep.Body.IncludeInactive = true

		w.newKey("A-m")
		w.Must(e(w.RefreshPolicy(w.ctx, sweep)))
		policytest.Refuses(t, e(w.AssignPolicy(w.ctx, assignment("m"))), api.RollInProgress)
		w.finishRolls()
		w.Must(e(w.AssignPolicy(w.ctx, assignment("m"))))
		w.newKey("A-m")
		policytest.Refuses(t, e(w.RefreshPolicy(w.ctx, sweep)), api.RollInProgress)
		w.finishRolls()
		w.Must(e(w.RefreshPolicy(w.ctx, sweep)))
		w.finishRolls()
		w.expect(w.backups()[0].Protection.Policy, "Service-managed", "the policy of a site's backup")
	})
}
