package content

import (
	"context"
	"errors"

	"keyroll/internal/store"
)

// tries is how often a transaction is begun again when another one has changed
// what it is about.
const tries = 10

// inTx runs a transaction that gives new blobs their rows.
type inTx func(fn func(tx *store.Tx) error) error

// nameBlobs gives durable blobs their rows. An attempt prepares one transaction
// and runs it; on errLost there is another one. When all that has failed, the
// blobs that unnamed then returns are deleted, unless a commit was under way:
// its answer may have been lost, and rows may name them. Those that none names
// are left for a collection of orphans.
func (s *Contents) nameBlobs(ctx context.Context, attempt func(run inTx) error, unnamed func() []blobRow) error {
	committing := false
	run := func(fn func(tx *store.Tx) error) error {
		return s.db.InTx(ctx, func(tx *store.Tx) error {
			committing = false // it may run again
			if err := fn(tx); err != nil {
				return err
			}
			committing = true
			return nil
		})
	}
	err := errLost
	for try := 0; try < tries && errors.Is(err, errLost); try++ {
		committing = false
		err = attempt(run)
	}
	if err != nil && !committing {
		s.deleteBlobs(ctx, unnamed())
	}
	return err
}
