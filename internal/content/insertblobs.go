package content

import (
	"context"
	"errors"

	"keyroll/internal/store"
)

// maxAttempts is how often a transaction is attempted if others keep changing the rows
// that it depends on.
const maxAttempts = 10

// inTx runs a transaction that inserts the rows of new blobs.
type inTx func(fn func(tx *store.Tx) error) error

// insertNewBlobs inserts the rows of durable blobs. An attempt prepares one transaction
// and runs it; on errRetry there is another attempt. If all attempts fail, the blobs
// that newBlobs returns are deleted, unless a commit was under way: it may have
// succeeded although its answer was lost, so that rows may reference the blobs. Those
// that no row references are left for a collection of orphans.
func (s *Contents) insertNewBlobs(ctx context.Context, attempt func(run inTx) error, newBlobs func() []blobRow) error {
	committing := false
	run := func(fn func(tx *store.Tx) error) error {
		return s.db.InTx(ctx, func(tx *store.Tx) error {
			committing = false // fn may run again
			if err := fn(tx); err != nil {
				return err
			}
			committing = true
			return nil
		})
	}
	err := errRetry
	for try := 0; try < maxAttempts && errors.Is(err, errRetry); try++ {
		committing = false
		err = attempt(run)
	}
	if err != nil && !committing {
		s.deleteBlobs(ctx, newBlobs())
	}
	return err
}
