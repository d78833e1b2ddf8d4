package items

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// Total is the number of items of a container, and the sum of their sizes in bytes.
type Total struct{ Items, Bytes int64 }

// The total of a container is kept in a row of table item_total, which every transaction
// that inserts or deletes items of the container changes too. Such a transaction holds the
// container's lock, and the row is made in one that holds it exclusively or that makes the
// container: so none is missed. No row is made while a node is live that does not keep
// totals. Without a row, the total is counted when it is read.
const (
	addToTotal  = `UPDATE item_total SET items = items + ?3, bytes = bytes + ?4 WHERE tenant = ?1 AND container = ?2`
	insertTotal = `INSERT INTO item_total (container, tenant, items, bytes)
		SELECT CAST(?2 AS BIGINT), CAST(?1 AS BIGINT), COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM item WHERE tenant = ?1 AND container = ?2
		ON CONFLICT (container) DO NOTHING`
	deleteTotal = `DELETE FROM item_total WHERE tenant = ?1 AND container = ?2`
	checkTotal  = `SELECT t.items, t.bytes, (SELECT COUNT(*) FROM item i WHERE i.tenant = ?1 AND i.container = ?2),
		(SELECT CAST(COALESCE(SUM(i.size), 0) AS BIGINT) FROM item i WHERE i.tenant = ?1 AND i.container = ?2)
		FROM item_total t WHERE t.tenant = ?1 AND t.container = ?2`
)

// ForgetTotal stops keeping the total of a container that no longer exists.
func ForgetTotal(ctx context.Context, tx *store.Tx, tenant, container int64) error {
	_, err := tx.Exec(ctx, deleteTotal, tenant, container)
	return err
}

// TotalColumns are the total of a container that a query joins with its row t of
// item_total. The query's ?1 is the tenant.
func TotalColumns(container string) string {
	const of = `FROM item i WHERE i.tenant = ?1 AND i.container = `
	return `COALESCE(t.items, (SELECT COUNT(*) ` + of + container + `)), COALESCE(t.bytes, (SELECT CAST(COALESCE(SUM(i.size), 0) AS BIGINT) ` + of + container + `))`
}

// Totals returns the totals of some containers of a tenant with one query. It decrypts
// nothing.
func (s *Store) Totals(ctx context.Context, tx *store.Tx, tenant int64, containers []int64) (map[int64]Total, error) {
	totals := make(map[int64]Total, len(containers))
	if len(containers) == 0 {
		return totals, nil
	}
	in, args := store.InList(containers, []any{tenant})
	ids := strings.NewReplacer("(", "(CAST(", ", ", " AS BIGINT)), (CAST(", ")", " AS BIGINT))").Replace(in)
	rows, err := tx.Query(ctx, `WITH asked (id) AS (VALUES `+ids+`) SELECT asked.id, `+TotalColumns("asked.id")+`
		FROM asked LEFT JOIN item_total t ON t.container = asked.id AND t.tenant = ?1`, args...)
	if err != nil {
		return nil, fmt.Errorf("read the totals of containers: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var t Total
		if err := rows.Scan(&id, &t.Items, &t.Bytes); err != nil {
			return nil, fmt.Errorf("read the totals of containers: %w", err)
		}
		totals[id] = t
	}
	return totals, rows.Err()
}

// ChangeTotal adds to the total of a container, in a transaction that has changed its
// items and holds its lock. It is the last change of items in the transaction, so that
// others wait for its row as short as possible.
func ChangeTotal(ctx context.Context, tx *store.Tx, tenant, container int64, add Total) error {
	if _, err := tx.Exec(ctx, addToTotal, tenant, container, add.Items, add.Bytes); err != nil {
		return fmt.Errorf("change the total of container %d: %w", container, err)
	}
	return nil
}

// KeepTotal begins to keep the total of a container, in the transaction that makes it.
func (s *Store) KeepTotal(ctx context.Context, tx *store.Tx, c container.Container) error {
	older, err := s.olderNodes(ctx, tx)
	if err != nil || older {
		return err
	}
	if _, err := tx.Exec(ctx, insertTotal, c.Tenant, c.ID); err != nil {
		return fmt.Errorf("keep the total of container %d: %w", c.ID, err)
	}
	return nil
}

// KeepTotals begins to keep the totals of those of some containers of a tenant for which
// that is not done yet, because they are older than table item_total.
func (s *Store) KeepTotals(ctx context.Context, tenant int64, containers []int64) error {
	missing, err := s.withoutTotal(ctx, tenant, containers)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(missing, totalsAtOnce) {
		err := s.db.InTx(ctx, func(tx *store.Tx) error {
			for _, id := range part { // in id order
				if err := tx.Lock(ctx, id, true); err != nil {
					return err
				}
				exists, err := s.keys.Exists(ctx, tx, tenant, id)
				if err == nil && exists {
					err = s.KeepTotal(ctx, tx, container.Container{ID: id, Tenant: tenant})
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// totalsAtOnce is for how many containers one transaction begins to keep totals.
const totalsAtOnce = 100

// withoutTotal returns those of some containers whose totals are not kept, in id order.
func (s *Store) withoutTotal(ctx context.Context, tenant int64, containers []int64) (missing []int64, err error) {
	if len(containers) == 0 {
		return nil, nil
	}
	in, args := store.InList(containers, []any{tenant})
	err = s.db.View(ctx, func(tx *store.Tx) error {
		kept, err := tx.IDs(ctx, `SELECT container FROM item_total WHERE tenant = ?1 AND container IN `+in+` ORDER BY container`, args...)
		missing = slices.Sorted(slices.Values(containers))
		missing = slices.DeleteFunc(missing, func(id int64) bool { _, found := slices.BinarySearch(kept, id); return found })
		return err
	})
	return missing, err
}

// CheckTotal fails Damaged if the kept total of a container differs from its items.
func (s *Store) CheckTotal(ctx context.Context, c container.Container) error {
	var kept, counted Total
	err := s.db.View(ctx, func(tx *store.Tx) error {
		return tx.QueryRow(ctx, checkTotal, c.Tenant, c.ID).Scan(&kept.Items, &kept.Bytes, &counted.Items, &counted.Bytes)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err == nil && kept != counted {
		err = fail.New(api.Damaged, "the total of container %d is %d items of %d bytes, but it has %d of %d bytes", c.ID, kept.Items, kept.Bytes, counted.Items, counted.Bytes)
	}
	return err
}
