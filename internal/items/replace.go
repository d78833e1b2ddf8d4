package items

import (
	"context"
	"errors"
	"fmt"

	"keyroll/internal/container"
	"keyroll/internal/store"
)

const (
	// selectOlder selects blobs of a container with ids below ?3, after a given item
	// and sequence in the order of items and sequences.
	selectOlder = `SELECT ` + blobColumns + ` FROM item i JOIN blob b ON b.item = i.id
		WHERE i.tenant = ?1 AND i.container = ?2 AND b.id < ?3 AND i.id >= ?4 AND (i.id > ?4 OR b.sequence > ?5)
		ORDER BY i.id, b.sequence LIMIT ?6`

	// selectBetween selects the items of a container in a range of ids, each with all
	// its blobs.
	selectBetween = `SELECT ` + itemColumns + `, ` + blobColumns + ` FROM item i JOIN blob b ON b.item = i.id
		WHERE i.tenant = ?1 AND i.container = ?2 AND i.id >= ?3 AND i.id <= ?4 ORDER BY i.id, b.sequence`

	countOlder = `SELECT COUNT(*) FROM (SELECT b.id FROM item i JOIN blob b ON b.item = i.id
		WHERE i.tenant = ?1 AND i.container = ?2 AND b.id < ?3 LIMIT 1) AS stale`

	// replaceBlobs finds blobs by another index than the one that listed them, like deleteBlob.
	replaceBlobs = `UPDATE blob SET id = new.column4, page = new.column5, object = new.column6, at = new.column7 FROM ROWS AS new
		WHERE blob.id = new.column3 AND +blob.item = new.column1 AND +blob.sequence = new.column2`
	replaceItem = `UPDATE item SET version = ?4, metadata = ?5 WHERE tenant = ?1 AND id = ?2 AND version = ?3`
)

// Replacement is an item before and after its metadata was resealed, and those of its
// blobs that are replaced.
type Replacement struct {
	Was, Item Row
	Blobs     []ReplacedBlob
}

// ReplacedBlob is a blob and its replacement.
type ReplacedBlob struct{ Old, New Blob }

// ReplaceBlobs replaces blobs of a container, and records each old one as dropped. It fails
// with store.ErrOutdated if another transaction has changed an item or a blob.
func ReplaceBlobs(ctx context.Context, tx *store.Tx, container int64, list []Replacement) error {
	var items [][]any
	var blobs, dropped [][]int64
	for _, r := range list {
		items = append(items, []any{r.Was.Tenant, r.Was.ID, r.Was.Version, r.Item.Version, r.Item.Metadata})
		for _, b := range r.Blobs {
			blobs = append(blobs, []int64{b.Old.Item, b.Old.Sequence, b.Old.ID, b.New.ID, b.New.Page, b.New.Object, b.New.At})
			dropped = append(dropped, []int64{b.Old.ID, b.Old.Item, b.Old.Tenant})
		}
	}
	if err := lockPlaces(ctx, tx, false); err != nil {
		return err
	}
	for _, one := range []struct {
		statement string
		rows      [][]int64
	}{{dropBlobs, dropped}, {replaceBlobs, blobs}} {
		changed, err := tx.ExecTogether(ctx, one.statement, one.rows)
		if err != nil {
			return fmt.Errorf("replace blobs of container %d: %w", container, err)
		}
		if changed != int64(len(one.rows)) {
			return store.ErrOutdated
		}
	}
	resealed, err := tx.ExecMany(ctx, replaceItem, items)
	if err != nil {
		return fmt.Errorf("replace blobs of container %d: %w", container, err)
	}
	for _, n := range resealed {
		if n != 1 {
			return store.ErrOutdated
		}
	}
	return nil
}

// NewestBlob returns the highest id that a blob has, 0 if there is none.
func NewestBlob(ctx context.Context, tx *store.Tx) (id int64, err error) {
	if err := tx.QueryRow(ctx, `SELECT COALESCE(MAX(id), 0) FROM blob`).Scan(&id); err != nil {
		return 0, fmt.Errorf("find the newest blob: %w", err)
	}
	return id, nil
}

// CountBytes sums the sizes of those blobs of some containers of a tenant that a roll
// re-encrypts, which are older than mark: an earlier roll may have re-encrypted part of a
// container.
func CountBytes(ctx context.Context, tx *store.Tx, tenant int64, containers store.Selection, mark int64) (n int64, err error) {
	in, args := containers.In([]any{tenant, mark})
	err = tx.QueryRow(ctx, `SELECT CAST(COALESCE(SUM(b.size), 0) AS BIGINT) FROM item i JOIN blob b ON b.item = i.id
		WHERE i.tenant = ?1 AND b.id < ?2 AND i.container IN `+in, args...).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("sum blobs: %w", err)
	}
	return n, nil
}

// OlderRange selects up to limit blobs with ids below a mark, after one of them in the order
// of items and sequences.
type OlderRange struct {
	Mark  int64
	After Blob
	Limit int
}

// OlderThan returns the blobs of a container in a range.
func OlderThan(ctx context.Context, tx *store.Tx, c container.Container, r OlderRange) (blobs []Blob, err error) {
	blobs, err = store.Collect(ctx, tx, scanBlob, selectOlder, c.Tenant, c.ID, r.Mark, r.After.Item, r.After.Sequence, r.Limit)
	if err != nil {
		return nil, fmt.Errorf("read blobs of container %d: %w", c.ID, err)
	}
	return blobs, nil
}

// WithBlobs is an item with all its blobs.
type WithBlobs struct {
	Item  Row
	Blobs []Blob
}

// Between returns the items of a container in a range of ids, by id.
func Between(ctx context.Context, tx *store.Tx, c container.Container, from, to int64) (map[int64]*WithBlobs, error) {
	rows, err := tx.Query(ctx, selectBetween, c.Tenant, c.ID, from, to)
	if err != nil {
		return nil, fmt.Errorf("read items of container %d: %w", c.ID, err)
	}
	all := make(map[int64]*WithBlobs)
	for rows.Next() {
		var s itemScan
		var b Blob
		if err := rows.Scan(append(s.targets(), b.targets()...)...); err != nil {
			return nil, errors.Join(fmt.Errorf("read items of container %d: %w", c.ID, err), rows.Close())
		}
		w := all[b.Item]
		if w == nil {
			w = &WithBlobs{Item: s.item()}
			all[b.Item] = w
		}
		w.Blobs = append(w.Blobs, b)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read items of container %d: %w", c.ID, err)
	}
	return all, nil
}

// HasBlob reports whether the item still has a blob at its sequence; w may be nil.
func (w *WithBlobs) HasBlob(b Blob) bool {
	return w != nil && b.Sequence < int64(len(w.Blobs)) && w.Blobs[b.Sequence].ID == b.ID
}

// HasOlder reports whether a container has a blob that is older than mark.
func HasOlder(ctx context.Context, tx *store.Tx, c container.Container, mark int64) (bool, error) {
	var n int64
	if err := tx.QueryRow(ctx, countOlder, c.Tenant, c.ID, mark).Scan(&n); err != nil {
		return false, fmt.Errorf("read blobs of container %d: %w", c.ID, err)
	}
	return n > 0, nil
}
