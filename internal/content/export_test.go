package content

import (
	"context"
	"io"

	"keyroll/internal/container"
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
	return itemRows{tenant, container, items, rows}.remove(ctx, tx)
}

func ConfirmFile(ctx context.Context, tx *store.Tx, tenant, container, id int64, pathHash []byte) error {
	return confirmFile(ctx, tx, itemRow{Tenant: tenant, Container: container, PathHash: pathHash}, id)
}

// Get writes bytes of the file of c at path to w, as Reader.WriteRange does.
func (s *Contents) Get(ctx context.Context, c container.Container, path string, off, n int64, w io.Writer) error {
	r, err := s.Open(ctx, c, path)
	if err != nil {
		return err
	}
	defer r.Close()
	return r.WriteRange(ctx, off, n, w)
}
