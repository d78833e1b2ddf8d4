package collect

import (
	"context"
	"fmt"
	"time"

	"keyroll/internal/store"
)

// passSetting is the setting with the progress of the daily collection: when the last
// one ended, and the last tenant that the current one has finished.
const passSetting = "blobs-collected"

// Interval is the time from the end of a daily collection to the begin of the next one.
const Interval = 24 * time.Hour

// Due reports whether a daily collection is due at a moment, and after which
// tenant it continues. The first one is due a day after the database was first used.
func (s *Collector) Due(ctx context.Context, at time.Time) (due bool, after int64, err error) {
	var last int64
	noted := false
	err = s.db.View(ctx, func(tx *store.Tx) error {
		values, err := store.Collect(ctx, tx, func(row store.Scanner) (v string, err error) {
			err = row.Scan(&v)
			return v, err
		}, `SELECT value FROM setting WHERE name = ?1`, passSetting)
		if err != nil || len(values) == 0 {
			return err
		}
		noted = true
		_, err = fmt.Sscan(values[0], &last, &after)
		return err
	})
	if err != nil {
		return false, 0, fmt.Errorf("read when blobs were collected: %w", err)
	}
	if !noted {
		return false, 0, s.NoteCollected(ctx, at, 0)
	}
	return at.Sub(time.UnixMilli(last)) >= Interval, after, nil
}

// NoteCollected records that a daily collection ended at a moment. With after > 0 it
// records that the collection has finished the tenants up to after; at is then the
// moment at which the previous collection ended.
func (s *Collector) NoteCollected(ctx context.Context, at time.Time, after int64) error {
	err := s.db.InTx(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2`,
			passSetting, fmt.Sprint(at.UnixMilli(), after))
		return err
	})
	if err != nil {
		return fmt.Errorf("note which blobs were collected: %w", err)
	}
	return nil
}
