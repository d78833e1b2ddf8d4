package crashtest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"keyroll/internal/node/nodetest"
	"keyroll/internal/store"
)

// serviceManaged is the name of the policy that needs its availability key for
// every read.
const serviceManaged = "Service-managed"

// rollAvailability rolls the availability key of a policy, which is invisible to users.
func rollAvailability(policy string) step {
	return step{
		name: "roll the availability key of " + policy,
		do:   func(w *nodetest.World) { w.RollAvailability(policy) },
		then: func(*model) {},
	}
}

// checkAvailabilityKeys checks that one more roll leaves no version but the newest.
func checkAvailabilityKeys(t *testing.T, w *nodetest.World) {
	t.Helper()
	for name := range view(t, w).Policies {
		w.RollAvailability(name)
	}
	w.VerifyClean()
	type version struct{ id, version int64 }
	var destroyed []version
	var policies, left int
	err := w.Node.DB.ViewOnce(t.Context(), func(tx *store.Tx) error {
		if err := tx.QueryRow(t.Context(), `SELECT count(*) FROM policy`).Scan(&policies); err != nil {
			return err
		}
		if err := tx.QueryRow(t.Context(), `SELECT count(*) FROM availability_version WHERE destroyed = 0`).Scan(&left); err != nil {
			return err
		}
		rows, err := tx.Query(t.Context(), `SELECT id, version FROM availability_version WHERE destroyed <> 0`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var v version
			if err := rows.Scan(&v.id, &v.version); err != nil {
				return err
			}
			destroyed = append(destroyed, v)
		}
		return rows.Err()
	})
	if err != nil || left != policies || len(destroyed) < policies {
		t.Errorf("%d policies have %d versions of availability keys, %d are destroyed (%v)", policies, left, len(destroyed), err)
	}
	for _, v := range destroyed {
		if _, err := os.Stat(filepath.Join(w.Data, "availability", fmt.Sprintf("%d-%d.key", v.id, v.version))); err == nil {
			t.Errorf("version %d of availability key %d is still there", v.version, v.id)
		}
	}
}
