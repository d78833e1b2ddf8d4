package policy

import (
	"testing"

	"keyroll/api"
	"keyroll/internal/audit"
)

func TestEveryOperationIsUserOrSystemInitiated(t *testing.T) {
	operations := map[string]bool{JobRoll: true, JobFollow: true, JobFold: true, JobRetire: true, jobRenew: true}
	for _, op := range api.Operations() {
		operations[op.Name] = true
	}
	for name := range operations {
		if _, ok := initiated[name]; !ok {
			t.Errorf("%s is not in the table", name)
		}
	}
	for name := range initiated {
		if !operations[name] {
			t.Errorf("%s is in the table and is no operation", name)
		}
	}
	for _, name := range []string{"", "service", "NoSuchOperation"} {
		if got := initiatorOf(audit.WithOrigin(t.Context(), audit.Origin{Operation: name, System: true})); got != User {
			t.Errorf("%q, which nothing names, is taken for the service's own work", name)
		}
	}
	if initiatorOf(t.Context()) != User {
		t.Error("work of no origin is taken for the service's own")
	}
}
