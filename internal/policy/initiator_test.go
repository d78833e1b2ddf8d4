package policy_test

import (
	"testing"

	"keyroll/api"
)

// The table of operations says on whose behalf each one opens policy keys. All but two
// are for users.
func TestOnlyDocumentedOperationsOpenPolicyKeysForTheService(t *testing.T) {
	want := map[string]api.Initiator{"AssignMailbox": api.ForRecovery, "RollAvailabilityKeys": api.BySystem}
	for _, op := range api.Operations() {
		initiator := api.ByUser
		if other, ok := want[op.Name]; ok {
			initiator = other
			delete(want, op.Name)
		}
		if op.Initiator != initiator {
			t.Errorf("%s opens keys for %q, want %q", op.Name, op.Initiator, initiator)
		}
	}
	if len(want) > 0 {
		t.Errorf("not in the table: %v", want)
	}
}
