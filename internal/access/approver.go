package access

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"keyroll/internal/store"
)

// Listed is a principal in a list.
type Listed struct {
	Principal
	Created time.Time
}

// WithRole returns the principals of a tenant that have a role, the oldest first.
func (d *Directory) WithRole(ctx context.Context, tx *store.Tx, tenant int64, role Role) ([]Listed, error) {
	rows, err := tx.Query(ctx, selectPrincipals, tenant)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Listed
	for rows.Next() {
		var id, name, roles string
		var created int64
		if err := rows.Scan(&id, &name, &roles, &created); err != nil {
			return nil, err
		}
		if !slices.Contains(strings.Fields(roles), string(role)) {
			continue
		}
		one := Listed{Principal{Tenant: tenant, Name: name}, time.UnixMilli(created)}
		for word := range strings.FieldsSeq(roles) {
			one.Roles = append(one.Roles, Role(word))
		}
		if one.ID, err = uuid.Parse(id); err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	return list, rows.Err()
}
