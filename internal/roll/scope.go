package roll

import (
	"context"
	"slices"

	"keyroll/internal/envelope"
	"keyroll/internal/keypage"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// Scope selects the keys that a roll moves: those in a set of key pages. At the deeper
// stages those older than Watermark are replaced.
type Scope struct {
	keypage.Set
	Watermark int64
}

// scope returns the keys that a roll moves to its target: those under the other policy
// keys of its policy and of its source.
func (r Roll) scope(ctx context.Context, tx *store.Tx, policies *policy.Policies) (Scope, error) {
	sc := Scope{keypage.Set{Tenant: r.Tenant, Classes: r.Classes}, r.Watermark}
	for _, pol := range []int64{r.Policy, r.Source} {
		if pol == 0 {
			continue
		}
		keys, err := policies.Keys(ctx, tx, r.Tenant, pol)
		if err != nil {
			return sc, err
		}
		for _, k := range keys {
			if k.ID != r.Target {
				sc.Parents = append(sc.Parents, keypage.Parent{ID: k.ID, Generation: k.Generation})
			}
		}
	}
	return sc, nil
}

// targetScope returns the keys of a roll that are under its target, which the deeper
// stages work on.
func (r Roll) targetScope(target policy.KeyRow) Scope {
	parents := []keypage.Parent{{ID: target.ID, Generation: target.Generation}}
	sc := Scope{keypage.Set{Tenant: r.Tenant, Parents: parents, Classes: r.Classes}, r.Watermark}
	return sc.withoutBackups()
}

// with returns the scope with other classes.
func (sc Scope) with(classes []envelope.Class) Scope {
	sc.Classes = classes
	return sc
}

// withoutBackups returns the part whose containers a deep stage changes. A backup is
// frozen: its key is moved to another policy key and is not replaced.
func (sc Scope) withoutBackups() Scope {
	return sc.with(slices.DeleteFunc(slices.Clone(sc.Classes), func(c envelope.Class) bool { return c == envelope.ClassBackup }))
}

// withOlder adds the keys that the containers had before a roll replaced them. They are
// moved together with the new ones.
func (sc Scope) withOlder() Scope {
	all := slices.Clone(sc.Classes)
	for _, c := range sc.withoutBackups().Classes {
		all = append(all, c.Older())
	}
	return sc.with(all)
}

// count counts the keys of a scope.
func (sc Scope) count(ctx context.Context, tx *store.Tx) (int64, error) {
	if len(sc.Parents) == 0 {
		return 0, nil
	}
	_, keys, err := keypage.Count(ctx, tx, sc.Tenant, sc.Parents, sc.Classes)
	return keys, err
}
