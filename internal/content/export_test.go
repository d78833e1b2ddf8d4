package content

import (
	"context"

	"keyroll/internal/store"
)

// Small makes c split files into blobs of blobSize bytes, and import and read so many
// items at a time.
func Small(c *Contents, blobSize int64, items int) *Contents {
	c.blobSize, c.batch, c.part = blobSize, items, items
	return c
}

// RemoveItems and ConfirmFile are used when a file is replaced and a container is
// cleared; their arguments come from an index.
func RemoveItems(ctx context.Context, tx *store.Tx, tenant, container int64, items, blobs []int64) error {
	var rows []blobRow
	for i, id := range blobs {
		rows = append(rows, blobRow{ID: id, Tenant: tenant, Item: items[i]})
	}
	return removeItems(ctx, tx, tenant, container, items, rows)
}

func ConfirmFile(ctx context.Context, tx *store.Tx, tenant, container, id int64, pathHash []byte) error {
	return confirmFile(ctx, tx, itemRow{Tenant: tenant, Container: container, PathHash: pathHash}, id)
}
