package items

import (
	"context"
	"fmt"
	"strconv"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// fenceLock is the lock that transactions hold while they insert rows of new blobs. Its
// number cannot clash with locks of ids, which are far larger.
const fenceLock = 2

// fenceSetting is the setting with the fence of the last collection.
const fenceSetting = "blobs-collected-below"

// RaiseGCFence sets the fence of a collection, unless an earlier one is higher: once tx is
// committed, no rows of blobs with lower ids are inserted any more.
func RaiseGCFence(ctx context.Context, tx *store.Tx, fence int64) error {
	if err := tx.Lock(ctx, fenceLock, true); err != nil {
		return err
	}
	last, err := lastFence(ctx, tx)
	if err != nil || fence <= last {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2`, fenceSetting, strconv.FormatInt(fence, 10))
	return err
}

// lastFence returns the fence of the last collection.
func lastFence(ctx context.Context, tx *store.Tx) (line int64, err error) {
	if err := tx.QueryRow(ctx, `SELECT COALESCE(MAX(CAST(value AS BIGINT)), 0) FROM setting WHERE name = ?1`, fenceSetting).Scan(&line); err != nil {
		return 0, fmt.Errorf("read which blobs were collected: %w", err)
	}
	return line, nil
}

// CheckGCFence must be called in the transaction that inserts rows of new blobs. It
// fails if a collection may have deleted one of them, and blocks the next collection
// until the transaction has ended.
func CheckGCFence(ctx context.Context, tx *store.Tx, blobs []Blob) error {
	return checkFence(ctx, tx, blobs, func(b Blob) int64 { return min(b.ID, b.ObjectID()) })
}

// checkObjectsFence is CheckGCFence for blobs that are older than their new objects.
func checkObjectsFence(ctx context.Context, tx *store.Tx, blobs []Blob) error {
	return checkFence(ctx, tx, blobs, Blob.ObjectID)
}

func checkFence(ctx context.Context, tx *store.Tx, blobs []Blob, lowest func(b Blob) int64) error {
	if err := tx.Lock(ctx, fenceLock, false); err != nil {
		return err
	}
	line, err := lastFence(ctx, tx)
	if err != nil {
		return err
	}
	for _, b := range blobs {
		if lowest(b) < line {
			return fail.New(api.Conflict, "it took longer than the grace period of a blob collection, which may have deleted its blobs; nothing was stored").
				WithHint("send it again; the operator can use a longer grace period and should check that the clocks of all nodes agree")
		}
	}
	return nil
}

// AcceptsBlobs prevents, until tx ends, that the key of opened is replaced and that
// the container's watermark is raised. It fails with store.ErrOutdated if the key has
// been replaced, or if blobs are older than the watermark to which a roll has
// re-encrypted the container; then it returns the watermark too.
func (s *Store) AcceptsBlobs(ctx context.Context, tx *store.Tx, opened container.Opened, blobs []Blob) (stale int64, err error) {
	accepts, renewed, err := s.keys.AcceptsBlobs(ctx, tx, opened.Tenant, opened.ID, opened.Generation)
	if err != nil {
		return 0, err
	}
	if !accepts {
		return 0, store.ErrOutdated
	}
	for _, b := range blobs {
		if b.ID < renewed {
			return renewed, store.ErrOutdated
		}
	}
	return 0, nil
}
