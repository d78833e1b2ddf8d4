package policy_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
)

// wantRefusedBeforeUnwrap fails the test unless a policy key is refused as damaged and no root was asked
// to unwrap anything.
func wantRefusedBeforeUnwrap(w *policytest.World, policyKey int64, what string) {
	w.Helper()
	w.Policies.Close()
	w.Vaults.Calls()
	opens := w.Availability.Opens.Load()
	key, err := w.Policies.Open(w.Ctx, w.Tenant, policyKey, api.ByUser)
	if err == nil {
		key.Zero()
	}
	if !isOneOf(err, api.Damaged, api.NotFound) {
		w.Errorf("%s: error is %v", what, err)
	}
	for _, p := range w.Policies.Probe(w.Ctx, w.Tenant, policyKey) {
		if p.Err == nil {
			w.Errorf("%s: probe by %s opens it", what, p.Root)
		}
	}
	if calls := w.Vaults.Calls(); len(calls) > 0 || w.Availability.Opens.Load() != opens {
		w.Errorf("%s: it reached an unwrap: %v", what, calls)
	}
}

func isOneOf(err error, codes ...api.Code) bool {
	for _, c := range codes {
		if fail.Is(err, c) {
			return true
		}
	}
	return false
}

// A column is either under the MAC or named here with a reason.
func TestRevisionAlteredInAnyColumnIsRefusedBeforeAnyUnwrap(t *testing.T) {
	notAuthenticated := map[string]string{
		"id":      "nothing refers to it",
		"created": "shown, and sorts the ledger; it opens nothing",

		"primary_local":   "whether the wrap is still to be replaced by a local one; it opens nothing",
		"secondary_local": "the same",
	}
	each(t, func(w *policytest.World) {
		pol, other := w.MailboxPolicy("p"), w.MailboxPolicy("other")
		neighbour := w.Neighbour()
		row := fmt.Sprintf(` WHERE id = %d`, valueOf(w, "id", fmt.Sprintf(` WHERE policy_key = %d`, pol.Current.ID)))
		for _, column := range columnsOf(w, "revision") {
			if notAuthenticated[column] != "" {
				continue
			}
			subject, target := w, pol.Current.ID
			var altered any
			old := valueOf(w, column, row)
			switch v := old.(type) {
			case string:
				altered = v + "x"
				if column == "guid" {
					altered = uuid.NewString()
				}
			case []byte:
				altered = append(slices.Clone(v[:len(v)-1]), v[len(v)-1]^1)
			case int64:
				altered = v + 1
			}
			switch column {
			case "tenant":
				subject, altered = neighbour, neighbour.Tenant
			case "policy":
				altered = other.ID
			case "policy_key": // in the place of another one's row, which is erased first
				setColumn(w, "erased", int64(1), fmt.Sprintf(` WHERE policy_key = %d`, other.Current.ID))
				target, altered = other.Current.ID, other.Current.ID
			}
			setColumn(w, column, altered, row)
			wantRefusedBeforeUnwrap(subject, target, column)
			setColumn(w, column, old, row)
			w.Policies.Close()
			w.Open(pol.Current.ID).Zero()
		}
	})
}

// An attacker who can write rows but not read the revision key has public keys, all old
// rows and their MACs.
func TestRevisionForgedWithOnlyPublicKeysIsRefusedBeforeAnyUnwrap(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol, other := w.MailboxPolicy("p"), w.MailboxPolicy("other")
		where := fmt.Sprintf(` WHERE policy_key = %d AND erased = 0`, pol.Current.ID)
		var rev policy.Revision
		w.View(func(tx *store.Tx) (err error) {
			rev, err = w.Policies.RevisionOf(w.Ctx, tx, w.Tenant, pol.Current.ID)
			return err
		})
		mine := envelope.NewKey()
		binding := envelope.Binding{Tenant: w.GUID, Policy: pol.GUID, PolicyKey: pol.Current.ID, Generation: pol.Current.Generation}
		forged := envelope.Revision{ID: rev.GUID, Binding: binding, Primary: rev.Primary, Secondary: rev.Secondary,
			AvailabilityKey: valueOf(w, "availability", where).(int64), AvailabilityVersion: uint32(valueOf(w, "availability_version", where).(int64))}
		var err error
		forged.WrapPrimary, err = w.Vaults.WrapPublic(rev.Primary, envelope.Bundle(mine, binding))
		w.Must(err)
		forged.WrapSecondary, err = w.Vaults.WrapPublic(rev.Secondary, envelope.Bundle(mine, binding))
		w.Must(err)
		forged.WrapAvailability = valueOf(w, "wrap_availability", where).([]byte)
		macs := map[string][]byte{
			"the MAC that stood there":       valueOf(w, "mac", where).([]byte),
			"the MAC of another revision":    valueOf(w, "mac", fmt.Sprintf(` WHERE policy_key = %d`, other.Current.ID)).([]byte),
			"a MAC under a key of one's own": forged.MAC(mine),
			"no MAC":                         {},
		}
		setColumn(w, "wrap_primary", forged.WrapPrimary, where)
		setColumn(w, "wrap_secondary", forged.WrapSecondary, where)
		for name, mac := range macs {
			setColumn(w, "mac", mac, where)
			wantRefusedBeforeUnwrap(w, pol.Current.ID, name)
		}
		// The fake is no obstacle: with the right MAC it would open.
		setColumn(w, "mac", forged.MAC(w.Config.RevisionKey), where)
		w.Policies.Close()
		if !w.Open(pol.Current.ID).Equal(mine) {
			t.Error("the forgery does not even open with the right MAC")
		}
	})
}

func TestAnotherTenantsWrapsAreRefusedBeforeAnyUnwrap(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		victim := w.Neighbour()
		theirs := victim.MailboxPolicy("p2")
		from := fmt.Sprintf(` WHERE policy_key = %d AND erased = 0`, theirs.Current.ID)
		to := fmt.Sprintf(` WHERE policy_key = %d AND erased = 0`, pol.Current.ID)
		for _, column := range []string{"wrap_primary", "wrap_secondary", "wrap_availability", "mac"} {
			setColumn(w, column, valueOf(w, column, from), to)
		}
		wantRefusedBeforeUnwrap(w, pol.Current.ID, "another tenant's row")
	})
}

// The kind of a policy decides which roots open it, and is in another row than the MAC: a
// mailbox policy that was changed to service-managed could be opened without the
// customer's vaults.
func TestPolicyWithAnAlteredKindIsNotUnwrappedByOtherRoots(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		w.Exec(`UPDATE policy SET kind = ?2 WHERE id = ?1`, pol.ID, string(api.ServiceManagedPolicy))
		wantRefusedBeforeUnwrap(w, pol.Current.ID, "service-managed")
	})
}

// A re-wrap would turn the fields of an altered row into a new, authentic one.
func TestRewrapRefusesAnAlteredRow(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol, other := w.MailboxPolicy("p"), w.MailboxPolicy("other")
		w.Put(pol.Current, envelope.ClassInactive, 1)
		pol2 := w.Refresh(pol, api.DepthPolicy, false).Policy
		w.Open(pol.Current.ID).Zero() // cached: the row would not be looked at
		theirs := valueOf(w, "availability", fmt.Sprintf(` WHERE policy_key = %d`, other.Current.ID))
		setColumn(w, "availability", theirs, fmt.Sprintf(` WHERE policy_key = %d AND erased = 0`, pol.Current.ID))
		w.NewVersions(pol)
		before := w.Dump()
		_, err := w.Change(pol2, policy.Request{Depth: api.DepthRoot, AllGenerations: true})
		policytest.Refuses(t, err, api.Damaged)
		if w.Dump() != before {
			t.Error("it changed something")
		}
	})
}

func TestMissingAvailabilityKeyIsReportedAsDamage(t *testing.T) {
	each(t, func(w *policytest.World) {
		var managed policy.KeyRow
		w.View(func(tx *store.Tx) error {
			id, err := w.Policies.ServiceManaged(w.Ctx, tx, w.Tenant)
			if err != nil {
				return err
			}
			managed, err = w.Policies.Current(w.Ctx, tx, w.Tenant, id)
			return err
		})
		w.RemoveAvailabilityKeys()
		_, err := w.Policies.Open(w.Ctx, w.Tenant, managed.ID, api.ByUser)
		policytest.Refuses(t, err, api.Damaged)
	})
}

func columnsOf(w *policytest.World, table string) (columns []string) {
	w.View(func(tx *store.Tx) error {
		rows, err := tx.Query(w.Ctx, `SELECT * FROM `+table)
		if err != nil {
			return err
		}
		defer rows.Close()
		columns, err = rows.Columns()
		return err
	})
	return columns
}

func valueOf(w *policytest.World, column, where string) (value any) {
	w.Helper()
	w.View(func(tx *store.Tx) error {
		return tx.QueryRow(w.Ctx, `SELECT `+column+` FROM revision`+where).Scan(&value)
	})
	return value
}

// setColumn writes one column; the arguments of where begin at ?1.
func setColumn(w *policytest.World, column string, value any, where string, args ...any) {
	w.Helper()
	w.InTx(func(tx *store.Tx) error {
		n, err := tx.Exec(w.Ctx, fmt.Sprintf(`UPDATE revision SET %s = ?%d%s`, column, len(args)+1, where), append(args, value)...)
		if err == nil && n != 1 {
			return fmt.Errorf("%d rows of column %s set", n, column)
		}
		return err
	})
}
