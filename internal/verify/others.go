package verify

import (
	"context"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// checkOthers checks the data that belongs to no existing container: items of a container
// that does not exist, and the hosts of geos.
func (r *run) checkOthers(ctx context.Context, only int64) error {
	if only != 0 {
		return nil
	}
	return r.db.ViewOnce(ctx, func(tx *store.Tx) error {
		for after := int64(0); ; {
			ids, err := r.items.Containers(ctx, tx, r.tenant, after, pageBatch)
			if err != nil {
				return err
			}
			for _, id := range ids {
				after = id
				if there, err := r.containers.Exists(ctx, tx, r.tenant, id); err != nil {
					return err
				} else if !there {
					err := fail.New(api.Damaged, "items belong to container %d, which does not exist", id)
					if err := r.addFinding("container", id, err); err != nil {
						return err
					}
				}
			}
			if len(ids) < pageBatch {
				break
			}
		}
		return r.containers.CheckHosts(ctx, tx, r.tenant, func(host int64, err error) error { return r.addFinding("geo host", host, err) })
	})
}

// checkVaultKeys checks the key versions of the embedded vaults, including those that no
// policy uses.
func (r *run) checkVaultKeys(ctx context.Context, only int64) (err error) {
	if only != 0 || r.Vaults == nil {
		return nil
	}
	r.report.VaultKeys, err = r.Vaults.CheckKeys(ctx, r.tenant, func(id string, err error) error { return r.addFinding("vault key", id, err) })
	return err
}

// checkTables compares every table of the database with its indexes.
func (r *run) checkTables(ctx context.Context, only int64) error {
	if only != 0 {
		return nil
	}
	tables, err := r.db.Tables(ctx)
	if err != nil {
		return err
	}
	for i, table := range tables {
		checked, err := r.db.CheckTable(ctx, table)
		if checked {
			r.report.Tables++
		}
		if err != nil {
			if err := r.addFinding("table", table, err); err != nil {
				return err
			}
		}
		r.progress(api.VerifyProgress{Stage: "tables", Done: int64(i + 1), Total: int64(len(tables))})
	}
	return nil
}
