package items

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"keyroll/internal/envelope"
	"keyroll/internal/store"
)

// Object is a file of the blob store that holds several sealed blobs, one after another.
// A blob that is alone in its file has no Object: its place is 0 in the object of its own
// id.
type Object struct {
	ID, Tenant, Size int64
	Blobs            int64 // that rows referred to at first
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

// SharesObject reports whether the blob is in an object that may hold other blobs too.
func (b Blob) SharesObject() bool { return b.Object != 0 }

// ComparePlace orders blobs of a tenant by their objects and their places in them.
func (b Blob) ComparePlace(o Blob) int {
	return cmp.Or(cmp.Compare(b.ObjectID(), o.ObjectID()), cmp.Compare(b.At, o.At))
}

// samePlace reports whether two rows of a blob refer to the same bytes.
func (b Blob) samePlace(o Blob) bool { return b.Object == o.Object && b.At == o.At }

const (
	objectColumns = `id, tenant, size, blobs, dead`

	insertObject  = `INSERT INTO object (id, tenant, size, blobs, dead) VALUES (?1, ?2, ?3, ?4, ?5)`
	selectObjects = `SELECT ` + objectColumns + ` FROM object WHERE tenant = ?1 AND id IN `
	selectEmptied = `SELECT ` + objectColumns + ` FROM object WHERE tenant = ?1 AND id > ?2 AND dead >= size ORDER BY id LIMIT ?3`
	// placeInObject inserts the row of an object with one blob, or adds another blob to it.
	placeInObject = `INSERT INTO object (id, tenant, size, blobs, dead) VALUES (?1, ?2, ?3, 1, ?5)
		ON CONFLICT (tenant, id) DO UPDATE SET blobs = object.blobs + 1, dead = object.dead - ?4`
	addDead      = `UPDATE object SET dead = dead + ?3 WHERE tenant = ?1 AND id = ?2`
	deleteObject = `DELETE FROM object WHERE tenant = ?1 AND id = ?2 AND dead >= size`
)

// InsertObjects inserts the rows of those objects that one of the used blobs is in, in the
// transaction that inserts or changes the rows of these blobs. All else that they hold is
// dead.
func InsertObjects(ctx context.Context, tx *store.Tx, objects []Object, used []Blob) error {
	live, blobs := map[int64]int64{}, map[int64]int64{}
	for _, b := range used {
		live[b.Object] += b.SealedSize()
		blobs[b.Object]++
	}
	var args [][]any
	for _, o := range objects {
		if live[o.ID] > 0 {
			args = append(args, []any{o.ID, o.Tenant, o.Size, blobs[o.ID], o.Size - live[o.ID]})
		}
	}
	if _, err := tx.ExecMany(ctx, insertObject, args); err != nil {
		return fmt.Errorf("insert objects: %w", err)
	}
	return nil
}

// InsertPlaced records that blobs are in objects with other blobs, in the transaction that
// inserts their rows. All else in an object is dead until the transactions of the others
// record the same: a collection deletes no object for which that may still happen.
func InsertPlaced(ctx context.Context, tx *store.Tx, blobs []Placed) error {
	var args [][]any
	for _, p := range blobs {
		if o, sealed := p.Object, p.Blob.SealedSize(); o.ID != 0 {
			args = append(args, []any{o.ID, o.Tenant, o.Size, sealed, o.Size - sealed})
		}
	}
	if _, err := tx.ExecMany(ctx, placeInObject, args); err != nil {
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
		err = row.Scan(&o.ID, &o.Tenant, &o.Size, &o.Blobs, &o.Dead)
		return o, err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read objects: %w", err)
	}
	return list, nil
}

// Small is what an object must have less of to be small.
type Small struct{ Bytes, Blobs int64 }

// SparseAfter returns up to limit objects after one of them, in the order of tenants and
// ids, of which more than half is dead, or which are small.
func SparseAfter(ctx context.Context, tx *store.Tx, after Object, small Small, limit int) ([]Object, error) {
	return objectsOf(ctx, tx, `SELECT `+objectColumns+` FROM object WHERE (tenant > ?1 OR tenant = ?1 AND id > ?2)
		AND (dead * 2 > size OR size < ?3 AND blobs < ?4) ORDER BY tenant, id LIMIT ?5`, after.Tenant, after.ID, small.Bytes, small.Blobs, limit)
}

// Sparse reports whether more than half of the object is dead.
func (o Object) Sparse() bool { return 2*o.Dead > o.Size }

// TenantsWithSmall returns the tenants with at least n objects that are small and not
// sparse.
func TenantsWithSmall(ctx context.Context, tx *store.Tx, small Small, n int64) ([]int64, error) {
	return tx.IDs(ctx, `SELECT tenant FROM object WHERE dead * 2 <= size AND size < ?1 AND blobs < ?2 GROUP BY tenant HAVING COUNT(*) >= ?3`, small.Bytes, small.Blobs, n)
}

// InObjects reads table blob from end to end and calls each for every row of a blob in one
// of some objects.
func (s *Store) InObjects(ctx context.Context, ids []int64, each func(b Blob)) error {
	return s.db.Scan(ctx, store.ScanQuery{Table: "blob", Columns: "id, tenant, item, sequence, size, page, object, at", Column: "object", IDs: ids}, func(row store.Scanner) error {
		b, err := scanBlob(row)
		if err == nil {
			each(b)
		}
		return err
	})
}

const (
	// selectWalk selects where a part of walkRows rows ends, and selectAlone those blobs of
	// it that have small objects of their own.
	selectWalk  = `SELECT COALESCE((SELECT id FROM blob WHERE id > ?1 ORDER BY id LIMIT 1 OFFSET ?2), 9223372036854775807)`
	selectAlone = `SELECT ` + blobColumns + ` FROM blob b WHERE b.id > ?1 AND b.id <= ?2 AND b.object = 0 AND b.size < ?3 ORDER BY b.id`
)

// walkRows is how many rows one part of AloneAfter has at most.
const walkRows = 10_000

// AloneAfter returns the blobs of less than small bytes that have objects of their own, from
// a part of the blobs with ids above after. The next part begins after last; it is the last
// part if there is no more.
func AloneAfter(ctx context.Context, tx *store.Tx, after, small int64) (blobs []Blob, last int64, more bool, err error) {
	if err := tx.QueryRow(ctx, selectWalk, after, walkRows).Scan(&last); err != nil {
		return nil, 0, false, fmt.Errorf("read blobs: %w", err)
	}
	blobs, err = store.Collect(ctx, tx, scanBlob, selectAlone, after, last, small)
	if err != nil {
		return nil, 0, false, fmt.Errorf("read blobs: %w", err)
	}
	return blobs, last, last != math.MaxInt64, nil
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
