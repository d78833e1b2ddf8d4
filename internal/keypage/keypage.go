// Package keypage keeps the table of key pages: sealed bodies, and unencrypted the
// tenant, sealing key, class, version and number of slots of each page.
//
// A page is replaced and removed only by compare-and-swap on its version, so two
// nodes may work on the same page: one succeeds, the other is told that it did not.
// The ledger and the number of pages left to roll are sums over an index without
// bodies, so they are exact; there is no separate counter that could drift. Every
// call names the tenant; a page of another tenant is not found. The package holds no
// key; only Fold decrypts bodies, with a key that the caller passes. Start reading
// at Swap.
package keypage

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// Row is a key page as it is stored.
type Row struct {
	ID, Tenant int64
	Parent     int64  // id of the sealing key: a policy key; for class blobs a container
	Generation uint32 // of the sealing key
	Class      envelope.Class
	Version    uint64 // counts from 1
	Count      uint32 // slots
	Body       []byte
}

// EncryptionContext returns what the seal of the page's body is bound to.
func (r Row) EncryptionContext() envelope.EncryptionContext {
	return envelope.EncryptionContext{
		Tenant: r.Tenant, Parent: r.Parent, Generation: r.Generation, Child: r.ID,
		Class: r.Class, Version: r.Version, Count: r.Count,
	}
}

// Parent is a generation of a sealing key.
type Parent struct {
	ID         int64
	Generation uint32
}

// Get returns a page, or fails NotFound.
func Get(ctx context.Context, tx *store.Tx, tenant, id int64) (Row, error) {
	row, err := scanRow(tx.QueryRow(ctx, selectPage, tenant, id))
	if errors.Is(err, sql.ErrNoRows) {
		return Row{}, fail.New(api.NotFound, "key page %d of tenant %d does not exist", id, tenant)
	}
	if err != nil {
		return Row{}, fmt.Errorf("read key page %d: %w", id, err)
	}
	return row, nil
}

// Put adds new pages, each of version 1.
func Put(ctx context.Context, tx *store.Tx, rows ...Row) error {
	args := make([][]any, len(rows))
	for i, r := range rows {
		if r.Version != 1 {
			return fmt.Errorf("put key page %d: a new page has version 1, not %d", r.ID, r.Version)
		}
		args[i] = []any{r.ID, r.Tenant, r.Parent, r.Generation, r.Class, r.Version, r.Count, r.Body}
	}
	if _, err := tx.ExecMany(ctx, insertPage, args); err != nil {
		return fmt.Errorf("put key pages: %w", err)
	}
	return nil
}

// Swap replaces each page olds[i] by news[i], unless its version is no longer
// that of olds[i]; swapped reports which were replaced. ID and Tenant must be equal,
// and news[i].Version must be olds[i].Version+1; all else may change. Only ID,
// Tenant and Version of olds are read. Transactions that swap in id order do not
// deadlock with each other.
func Swap(ctx context.Context, tx *store.Tx, olds, news []Row) (swapped []bool, err error) {
	if len(olds) != len(news) {
		return nil, fmt.Errorf("swap key pages: %d old, %d new", len(olds), len(news))
	}
	args := make([][]any, len(olds))
	for i, r := range news {
		old := olds[i]
		if r.ID != old.ID || r.Tenant != old.Tenant || r.Version != old.Version+1 {
			return nil, fmt.Errorf("swap key page %d of tenant %d version %d: %d of tenant %d version %d does not follow it",
				old.ID, old.Tenant, old.Version, r.ID, r.Tenant, r.Version)
		}
		args[i] = []any{r.Tenant, r.ID, old.Version, r.Parent, r.Generation, r.Class, r.Version, r.Count, r.Body}
	}
	affected, err := tx.ExecMany(ctx, updatePage, args)
	if err != nil {
		return nil, fmt.Errorf("swap key pages: %w", err)
	}
	return changedOneRow(affected), nil
}

// Delete removes each page that still has its row's version, and reports which
// it removed. Only ID, Tenant and Version of rows are read.
func Delete(ctx context.Context, tx *store.Tx, rows ...Row) (deleted []bool, err error) {
	args := make([][]any, len(rows))
	for i, r := range rows {
		args[i] = []any{r.Tenant, r.ID, r.Version}
	}
	affected, err := tx.ExecMany(ctx, deletePage, args)
	if err != nil {
		return nil, fmt.Errorf("delete key pages: %w", err)
	}
	return changedOneRow(affected), nil
}

// DeleteBlobPages removes up to limit pages of blob keys, of any generation, under a
// container that does not exist, and returns how many. It fails Damaged if a page
// belongs to that container only according to the index.
func DeleteBlobPages(ctx context.Context, tx *store.Tx, tenant, container int64, limit int) (int, error) {
	ids, err := tx.IDs(ctx, selectBlobPages, tenant, envelope.ClassBlob, container, limit)
	if err != nil {
		return 0, fmt.Errorf("list key pages of container %d: %w", container, err)
	}
	args := make([][]any, len(ids))
	for i, id := range ids {
		args[i] = []any{id, tenant, envelope.ClassBlob, container}
	}
	if err := tx.DeleteRows(ctx, deleteBlobPage, args, fmt.Sprintf("a key page of container %d", container)); err != nil {
		return 0, err
	}
	return len(ids), nil
}

// Set is the pages of a tenant that are under one of some parents and have one of some
// classes.
type Set struct {
	Tenant  int64
	Parents []Parent
	Classes []envelope.Class
}

// Under returns the first limit pages of a set that have an id above after: in id order,
// whatever their parent. Its cost grows with limit and with the number of parents and
// classes, not with the number of pages that exist or were moved away.
func Under(ctx context.Context, tx *store.Tx, s Set, after int64, limit int) ([]Row, error) {
	return new(Buffer).Under(ctx, tx, s, after, limit)
}

// Location is a page and the id of its parent.
type Location struct {
	ID     int64
	Parent int64
}

// Locate returns the pages of a class under some parents, in id order, without
// reading their rows. parents must not contain duplicates.
func Locate(ctx context.Context, tx *store.Tx, tenant int64, class envelope.Class, parents []Parent) ([]Location, error) {
	var all []Location
	for part := range slices.Chunk(parents, maxListed) {
		query, args := locationsUnder(tenant, class, part)
		found, err := store.Collect(ctx, tx, func(row store.Scanner) (at Location, err error) {
			err = row.Scan(&at.ID, &at.Parent)
			return at, err
		}, query, args...)
		if err != nil {
			return nil, fmt.Errorf("list key pages: %w", err)
		}
		all = append(all, found...)
	}
	slices.SortFunc(all, func(a, b Location) int { return cmp.Compare(a.ID, b.ID) })
	return all, nil
}

// GetAll returns those of some pages that exist, in id order.
func GetAll(ctx context.Context, tx *store.Tx, tenant int64, ids []int64) (all []Row, err error) {
	for part := range slices.Chunk(ids, maxListed) {
		in, args := store.InList(part, []any{tenant})
		rows, err := queryRows(ctx, tx, selectPages+in, args)
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
	}
	slices.SortFunc(all, func(a, b Row) int { return cmp.Compare(a.ID, b.ID) })
	return all, nil
}

// queryRows returns the pages that a query selects.
func queryRows(ctx context.Context, tx *store.Tx, query string, args []any) ([]Row, error) {
	rows, err := store.Collect(ctx, tx, scanRow, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read key pages: %w", err)
	}
	return rows, nil
}
