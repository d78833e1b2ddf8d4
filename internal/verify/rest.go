package verify

import (
	"context"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// rest checks what no container leads to: items of a container that does not
// exist, and the hosts of geos.
func (r *run) rest(ctx context.Context) error {
	return r.db.View(ctx, func(tx *store.Tx) error {
		for after := int64(0); ; {
			ids, err := r.contents.Containers(ctx, tx, r.tenant, after, pageBatch)
			if err != nil {
				return err
			}
			for _, id := range ids {
				after = id
				if there, err := r.containers.Exists(ctx, tx, r.tenant, id); err != nil {
					return err
				} else if !there {
					err := fail.New(api.Damaged, "items are of container %d, which does not exist", id)
					if err := r.found("container", id, err); err != nil {
						return err
					}
				}
			}
			if len(ids) < pageBatch {
				break
			}
		}
		return r.containers.CheckHosts(ctx, tx, r.tenant, func(host int64, err error) error { return r.found("geo host", host, err) })
	})
}
