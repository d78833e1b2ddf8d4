package contenttest

import (
	"context"
	"testing"

	"keyroll/internal/container"
	"keyroll/internal/renew"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// Renewal returns callbacks without limits, which record the skipped items.
func (w *Small) Renewal(mark int64, skipped map[int64]error) renew.Renewal {
	return renew.Renewal{Watermark: mark, LockRunning: func(*store.Tx) error { return nil }, Throttle: func(context.Context, int64) error { return nil },
		Done: func(*store.Tx, int64) error { return nil }, Skip: func(item int64, err error) { skipped[item] = err }}
}

// MustRenew re-encrypts all content of containers and returns the number of containers
// that have no older blobs left.
func (w *Small) MustRenew(t testing.TB, mark int64, list ...container.Container) (n int64, skipped map[int64]error) {
	t.Helper()
	ctx, skipped := context.Background(), map[int64]error{}
	for _, c := range list {
		Must(t, storetest.Ask(ctx, t, func(ctx context.Context) error { return w.Renewer.Renew(ctx, c, w.Renewal(mark, skipped)) }, nil))
	}
	n, err := w.Renewer.Finish(ctx, list, mark, func(*store.Tx) error { return nil }, func(*store.Tx, int64) error { return nil })
	Must(t, err)
	return n, skipped
}

// CountOlder counts the blobs below an id.
func (w *Small) CountOlder(t testing.TB, mark int64) (n int64) {
	t.Helper()
	Must(t, w.DB.ViewOnce(context.Background(), func(tx *store.Tx) error {
		return tx.QueryRow(context.Background(), `SELECT COUNT(*) FROM blob WHERE id < ?1`, mark).Scan(&n)
	}))
	return n
}
