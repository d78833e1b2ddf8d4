package keypage

import (
	"context"
	"fmt"
	"slices"

	"keyroll/internal/envelope"
	"keyroll/internal/store"
)

// Count returns the number of pages under one of parents with one of classes, and of
// the keys in them. It reads only the index.
func Count(ctx context.Context, tx *store.Tx, tenant int64, parents []Parent, classes []envelope.Class) (pages, keys int64, err error) {
	for part := range slices.Chunk(spans(parents, classes), maxSpans) {
		query, args := countPages(tenant, part)
		var p, k int64
		if err := tx.QueryRow(ctx, query, args...).Scan(&p, &k); err != nil {
			return 0, 0, fmt.Errorf("count key pages: %w", err)
		}
		pages, keys = pages+p, keys+k
	}
	return pages, keys, nil
}

// WithPages returns those of some parents under which there is a page of one of
// classes, in their order. It reads only the index.
func WithPages(ctx context.Context, tx *store.Tx, tenant int64, parents []Parent, classes []envelope.Class) ([]Parent, error) {
	has := make(map[Parent]bool)
	for part := range slices.Chunk(spans(parents, classes), maxSpans) {
		query, args := parentsWithPages(tenant, part)
		found, err := store.Collect(ctx, tx, func(row store.Scanner) (p Parent, err error) {
			err = row.Scan(&p.ID, &p.Generation)
			return p, err
		}, query, args...)
		if err != nil {
			return nil, fmt.Errorf("list the parents of key pages: %w", err)
		}
		for _, p := range found {
			has[p] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(parents), func(p Parent) bool { return !has[p] }), nil
}

// Sum is a line of the ledger: the pages and keys of one class under one
// generation of a policy key.
type Sum struct {
	Parent      int64
	Generation  uint32
	Class       envelope.Class
	Pages, Keys int64
}

// Usage returns the tenant's ledger, all classes but blobs, ordered by class,
// parent and generation. It reads only the index.
func Usage(ctx context.Context, tx *store.Tx, tenant int64) ([]Sum, error) {
	sums, err := store.Collect(ctx, tx, func(row store.Scanner) (s Sum, err error) {
		err = row.Scan(&s.Class, &s.Parent, &s.Generation, &s.Pages, &s.Keys)
		return s, err
	}, sumPages, tenant, envelope.ClassBlob)
	if err != nil {
		return nil, fmt.Errorf("sum key pages: %w", err)
	}
	return sums, nil
}
