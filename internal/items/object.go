package items

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"keyroll/internal/envelope"
	"keyroll/internal/store"
)

// Object is a file of the blob store that holds several sealed blobs, one after another.
// A blob that is alone in its file has no Object: its place is 0 in the object of its own
// id.
type Object struct {
	ID, Tenant, Size int64
	Dead             int64 // bytes of blobs that no row refers to
}

// ObjectID returns the id of the object that holds the blob, from the byte At on.
func (b Blob) ObjectID() int64 {
	if b.Object == 0 {
		return b.ID
	}
	return b.Object
}

// SealedSize returns the length of the blob in its object.
func (b Blob) SealedSize() int64 { return envelope.SealedSize(b.Size) }

// sharesObject reports whether the blob is in an object that may hold other blobs too.
func (b Blob) sharesObject() bool { return b.Object != 0 }

// samePlace reports whether two rows of a blob refer to the same bytes.
func (b Blob) samePlace(o Blob) bool { return b.Object == o.Object && b.At == o.At }

const (
	insertObject  = `INSERT INTO object (id, tenant, size, dead) VALUES (?1, ?2, ?3, ?4)`
	selectObjects = `SELECT id, tenant, size, dead FROM object WHERE tenant = ?1 AND id IN `
	selectEmptied = `SELECT id, tenant, size, dead FROM object WHERE tenant = ?1 AND id > ?2 AND dead >= size ORDER BY id LIMIT ?3`
	addDead       = `UPDATE object SET dead = dead + ?3 WHERE tenant = ?1 AND id = ?2`
	deleteObject  = `DELETE FROM object WHERE tenant = ?1 AND id = ?2 AND dead >= size`
)

// InsertObjects inserts the rows of those objects that one of the used blobs is in, in the
// transaction that inserts or changes the rows of these blobs. All else that they hold is
// dead.
func InsertObjects(ctx context.Context, tx *store.Tx, objects []Object, used []Blob) error {
	live := map[int64]int64{}
	for _, b := range used {
		live[b.Object] += b.SealedSize()
	}
	var args [][]any
	for _, o := range objects {
		if live[o.ID] > 0 {
			args = append(args, []any{o.ID, o.Tenant, o.Size, o.Size - live[o.ID]})
		}
	}
	if _, err := tx.ExecMany(ctx, insertObject, args); err != nil {
		return fmt.Errorf("insert objects: %w", err)
	}
	return nil
}

// addDeadBytes counts bytes of objects of a tenant that no row refers to any more.
func addDeadBytes(ctx context.Context, tx *store.Tx, tenant int64, dead map[int64]int64) error {
	var args [][]any
	for _, id := range slices.Sorted(maps.Keys(dead)) {
		args = append(args, []any{tenant, id, dead[id]})
	}
	if _, err := tx.ExecMany(ctx, addDead, args); err != nil {
		return fmt.Errorf("count the dead bytes of objects: %w", err)
	}
	return nil
}

// ObjectsByID returns those of some objects of a tenant that have a row.
func ObjectsByID(ctx context.Context, tx *store.Tx, tenant int64, ids []int64) ([]Object, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	in, args := store.InList(ids, []any{tenant})
	return objectsOf(ctx, tx, selectObjects+in+` ORDER BY id`, args...)
}

// EmptiedAfter returns up to limit objects of a tenant with ids above after that hold no
// blob to which a row refers.
func EmptiedAfter(ctx context.Context, tx *store.Tx, tenant, after int64, limit int) ([]Object, error) {
	return objectsOf(ctx, tx, selectEmptied, tenant, after, limit)
}

func objectsOf(ctx context.Context, tx *store.Tx, query string, args ...any) ([]Object, error) {
	list, err := store.Collect(ctx, tx, func(row store.Scanner) (o Object, err error) {
		err = row.Scan(&o.ID, &o.Tenant, &o.Size, &o.Dead)
		return o, err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read objects: %w", err)
	}
	return list, nil
}

// DeleteEmptied deletes the rows of objects that hold no blob to which a row refers.
func DeleteEmptied(ctx context.Context, tx *store.Tx, objects []Object) error {
	args := make([][]any, len(objects))
	for i, o := range objects {
		args[i] = []any{o.Tenant, o.ID}
	}
	if _, err := tx.ExecMany(ctx, deleteObject, args); err != nil {
		return fmt.Errorf("forget objects: %w", err)
	}
	return nil
}
