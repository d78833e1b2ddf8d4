package nodetest

import (
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// RollAvailability rolls the availability key of a policy without the service, which
// would require an operator.
func (w *World) RollAvailability(name string) policy.Rolled {
	w.t.Helper()
	ctx := w.t.Context()
	var pol policy.Policy
	w.must(w.Node.DB.ViewOnce(ctx, func(tx *store.Tx) (err error) {
		pol, err = w.Node.Policies.Find(ctx, tx, w.Node.Tenant.ID, name)
		return err
	}))
	rolled, err := w.Node.Policies.RollAvailability(ctx, pol)
	w.must(err)
	return rolled
}
