package items

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/keypage"
	"keyroll/internal/name"
	"keyroll/internal/store"
)

const (
	itemColumns = `i.id, i.tenant, i.container, i.version, i.path_hash, i.metadata, i.size, i.created`
	blobColumns = `b.id, b.tenant, b.item, b.sequence, b.size, b.page, b.object, b.at`
)

const (
	insertItem = `INSERT INTO item (id, tenant, container, version, path_hash, metadata, size, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)`
	insertBlob = `INSERT INTO blob (id, tenant, item, sequence, size, page, object, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)`

	updateBlobPage = `UPDATE blob SET page = ?4 WHERE tenant = ?1 AND id = ?3
		AND EXISTS (SELECT 1 FROM item i WHERE i.id = blob.item AND i.container = ?2)`

	updatePathHash = `UPDATE item SET path_hash = ?5 WHERE tenant = ?1 AND container = ?2 AND id = ?3 AND path_hash = ?4
		AND NOT EXISTS (SELECT 1 FROM item o WHERE o.tenant = ?1 AND o.container = ?2 AND o.path_hash = ?5)`

	selectFileID    = `SELECT id FROM item WHERE tenant = ?1 AND container = ?2 AND path_hash = ?3`
	selectItemIDs   = `SELECT id FROM item WHERE tenant = ?1 AND container = ?2 ORDER BY id LIMIT ?3`
	selectItem      = `SELECT ` + itemColumns + ` FROM item i WHERE i.tenant = ?1 AND i.container = ?2 AND i.id = ?3`
	selectBlobs     = `SELECT ` + blobColumns + ` FROM blob b WHERE b.tenant = ?1 AND b.item = ?2 ORDER BY b.sequence`
	selectBlobsUpTo = `SELECT ` + blobColumns + ` FROM item i JOIN blob b ON b.item = i.id WHERE i.tenant = ?1 AND i.container = ?2 AND i.id <= ?3`
	selectBlobNow   = `SELECT id, page, object, at FROM blob WHERE tenant = ?1 AND item = ?2 AND sequence = ?3`
)

// selectWithFirstBlob selects items after an id, each with its first blob.
const selectWithFirstBlob = `SELECT ` + itemColumns + `, ` + blobColumns + ` FROM item i JOIN blob b ON b.item = i.id AND b.sequence = 0
	WHERE i.tenant = ?1 AND i.container = ?2 AND i.id > ?3`

// Which is a query for items of a container: its messages, its files, or all.
type Which string

// Each query takes the tenant, the container, an id after which it begins, and a limit.
const (
	Messages Which = selectWithFirstBlob + ` AND i.path_hash IS NULL ORDER BY i.id LIMIT ?4`
	Files    Which = selectWithFirstBlob + ` AND i.path_hash IS NOT NULL ORDER BY i.id LIMIT ?4`
	All      Which = selectWithFirstBlob + ` ORDER BY i.id LIMIT ?4`
)

// Row is an item as it is stored.
type Row struct {
	ID, Tenant, Container int64
	Version               uint64
	PathHash              []byte // nil: a message
	Metadata              []byte
	Size                  int64
	Created               time.Time
}

// Blob is a blob as it is stored in the database.
type Blob struct {
	ID, Tenant, Item int64
	Sequence         int64
	Size             int64
	Page             int64
	Object, At       int64 // see ObjectID
}

// itemScan holds the variables into which Scan reads an item.
type itemScan struct {
	row     Row
	created int64
}

func (s *itemScan) targets() []any {
	r := &s.row
	return []any{&r.ID, &r.Tenant, &r.Container, &r.Version, &r.PathHash, &r.Metadata, &r.Size, &s.created}
}

func (s *itemScan) item() Row {
	s.row.Created = time.UnixMilli(s.created).UTC()
	return s.row
}

func (b *Blob) targets() []any {
	return []any{&b.ID, &b.Tenant, &b.Item, &b.Sequence, &b.Size, &b.Page, &b.Object, &b.At}
}

func scanBlob(row store.Scanner) (b Blob, err error) {
	err = row.Scan(b.targets()...)
	return b, err
}

// Insert adds items with their blobs and the pages that hold those blobs' keys.
func Insert(ctx context.Context, tx *store.Tx, items []Row, blobs []Blob, pages []keypage.Row) error {
	if err := keypage.Put(ctx, tx, pages...); err != nil {
		return err
	}
	args := make([][]any, len(items))
	for i, r := range items {
		args[i] = []any{r.ID, r.Tenant, r.Container, r.Version, r.PathHash, r.Metadata, r.Size, r.Created.UnixMilli()}
	}
	if _, err := tx.ExecMany(ctx, insertItem, args); err != nil {
		return fmt.Errorf("insert items: %w", err)
	}
	args = make([][]any, len(blobs))
	for i, b := range blobs {
		args[i] = []any{b.ID, b.Tenant, b.Item, b.Sequence, b.Size, b.Page, b.Object, b.At}
	}
	if _, err := tx.ExecMany(ctx, insertBlob, args); err != nil {
		return fmt.Errorf("insert blobs: %w", err)
	}
	return nil
}

// Repoint sets page as the key page of some blobs of a container.
func Repoint(ctx context.Context, tx *store.Tx, c container.Container, blobs []int64, page int64) error {
	args := make([][]any, len(blobs))
	for i, id := range blobs {
		args[i] = []any{c.Tenant, c.ID, id, page}
	}
	repointed, err := tx.ExecMany(ctx, updateBlobPage, args)
	if err != nil {
		return fmt.Errorf("repoint blobs to page %d: %w", page, err)
	}
	for i, n := range repointed {
		if n == 0 {
			return fail.New(api.Damaged, "fold into key page %d: blob %d of container %d, whose key it holds, does not exist", page, blobs[i], c.ID)
		}
	}
	return nil
}

// FileID returns the id of the file at a path, and 0 if there is none.
func FileID(ctx context.Context, tx *store.Tx, tenant, container int64, pathHash []byte) (id int64, err error) {
	err = tx.QueryRow(ctx, selectFileID, tenant, container, pathHash).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("find file of container %d: %w", container, err)
	}
	return id, nil
}

// SetPathHashes changes the hashes by which files of a container are found, except to one
// that another file has.
func SetPathHashes(ctx context.Context, tx *store.Tx, c container.Container, files []name.Hashed) error {
	args := make([][]any, len(files))
	for i, f := range files {
		args[i] = []any{c.Tenant, c.ID, f.ID, f.Now, f.Folded}
	}
	_, err := tx.ExecMany(ctx, updatePathHash, args)
	return err
}

// currentBlob returns the blob that now has a blob's item and sequence, with the page that
// holds its key and its place; with id 0 if the item no longer exists.
func currentBlob(ctx context.Context, tx *store.Tx, b Blob) (now Blob, err error) {
	err = tx.QueryRow(ctx, selectBlobNow, b.Tenant, b.Item, b.Sequence).Scan(&now.ID, &now.Page, &now.Object, &now.At)
	if errors.Is(err, sql.ErrNoRows) {
		return Blob{}, nil
	}
	if err != nil {
		return Blob{}, fmt.Errorf("read blob %d: %w", b.ID, err)
	}
	return now, nil
}

// ByID returns an item of a container, and false if there is none.
func ByID(ctx context.Context, tx *store.Tx, tenant, container, id int64) (Row, bool, error) {
	var s itemScan
	err := tx.QueryRow(ctx, selectItem, tenant, container, id).Scan(s.targets()...)
	if errors.Is(err, sql.ErrNoRows) {
		return Row{}, false, nil
	}
	if err != nil {
		return Row{}, false, fmt.Errorf("read item %d: %w", id, err)
	}
	return s.item(), true, nil
}

// BlobsOf returns an item's blobs in order.
func BlobsOf(ctx context.Context, tx *store.Tx, tenant, item int64) ([]Blob, error) {
	blobs, err := store.Collect(ctx, tx, scanBlob, selectBlobs, tenant, item)
	if err != nil {
		return nil, fmt.Errorf("read blobs of item %d: %w", item, err)
	}
	return blobs, nil
}

// WithFirstBlob is an item with its first blob, from whose key the key of the item's
// metadata is derived.
type WithFirstBlob struct {
	Item Row
	Blob Blob
}

// Range selects up to limit items of a container after an id.
type Range struct {
	Which                    Which
	Tenant, Container, After int64
	Limit                    int
}

// Select returns the items of a range.
func Select(ctx context.Context, tx *store.Tx, r Range) ([]WithFirstBlob, error) {
	list, err := store.Collect(ctx, tx, func(row store.Scanner) (f WithFirstBlob, err error) {
		var s itemScan
		err = row.Scan(append(s.targets(), f.Blob.targets()...)...)
		f.Item = s.item()
		return f, err
	}, string(r.Which), r.Tenant, r.Container, r.After, r.Limit)
	if err != nil {
		return nil, fmt.Errorf("read items of container %d: %w", r.Container, err)
	}
	return list, nil
}

// FirstIDs returns the lowest ids of the items of a container, up to limit of them.
func FirstIDs(ctx context.Context, tx *store.Tx, tenant, container int64, limit int) ([]int64, error) {
	return tx.IDs(ctx, selectItemIDs, tenant, container, limit)
}

// BlobsUpTo returns the blobs of the items of a container up to an id.
func BlobsUpTo(ctx context.Context, tx *store.Tx, tenant, container, last int64) ([]Blob, error) {
	blobs, err := store.Collect(ctx, tx, scanBlob, selectBlobsUpTo, tenant, container, last)
	if err != nil {
		return nil, fmt.Errorf("read blobs of container %d: %w", container, err)
	}
	return blobs, nil
}
