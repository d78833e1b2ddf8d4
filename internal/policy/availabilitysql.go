package policy

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"keyroll/internal/envelope"
	"keyroll/internal/store"
)

// insertAvailability records a version of a policy's availability key; an existing
// record is not changed.
func insertAvailability(ctx context.Context, tx *store.Tx, pol Policy, v availabilityVersion, now time.Time) error {
	_, err := tx.Exec(ctx, `INSERT INTO availability_version (id, version, tenant, policy, created) VALUES (?1, ?2, ?3, ?4, ?5)
		ON CONFLICT (id, version) DO NOTHING`, v.id, v.version, pol.Tenant, pol.ID, now.UnixMilli())
	return err
}

// availabilityCreated returns when a version was made; zero if that is not recorded.
func availabilityCreated(ctx context.Context, tx *store.Tx, tenant, id int64, version uint32) (time.Time, error) {
	var created int64
	err := tx.QueryRow(ctx, `SELECT created FROM availability_version WHERE tenant = ?1 AND id = ?2 AND version = ?3`, tenant, id, version).Scan(&created)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	return time.UnixMilli(created), err
}

// newestAvailability returns the newest version of its availability key under
// which a wrap of the policy is kept. A policy has one such key, which never changes.
func newestAvailability(ctx context.Context, tx *store.Tx, tenant, policy int64) (version uint32, err error) {
	err = tx.QueryRow(ctx, `SELECT coalesce(max(availability_version), 0) FROM revision WHERE tenant = ?1 AND policy = ?2 AND erased = 0`,
		tenant, policy).Scan(&version)
	return version, err
}

// availabilityVersion names one version of an availability key.
type availabilityVersion struct {
	id      int64
	version uint32
}

// selectUnneeded returns the versions older than newest that the store may
// still have and under which no wrap is kept.
func selectUnneeded(ctx context.Context, tx *store.Tx, tenant, policy int64, newest uint32) ([]availabilityVersion, error) {
	return store.Collect(ctx, tx, func(row store.Scanner) (v availabilityVersion, err error) {
		err = row.Scan(&v.id, &v.version)
		return v, err
	}, `SELECT v.id, v.version FROM availability_version v
		WHERE v.tenant = ?1 AND v.policy = ?2 AND v.version < ?3 AND v.destroyed = 0 AND NOT EXISTS (
			SELECT 1 FROM revision r WHERE r.tenant = ?1 AND r.policy = ?2 AND r.erased = 0 AND r.availability = v.id AND r.availability_version = v.version)
		ORDER BY v.version`, tenant, policy, newest)
}

func setAvailabilityDestroyed(ctx context.Context, tx *store.Tx, tenant int64, v availabilityVersion, now time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE availability_version SET destroyed = ?4 WHERE tenant = ?1 AND id = ?2 AND version = ?3`,
		tenant, v.id, v.version, now.UnixMilli())
	return err
}

// replaceThirdWrap puts r in place of old, which differs from it only by the third
// wrap, and reports whether old was still unchanged: the MAC covers every field.
func replaceThirdWrap(ctx context.Context, tx *store.Tx, old revisionRow, r envelope.Revision, mac *envelope.Key) (bool, error) {
	n, err := tx.Exec(ctx, `UPDATE revision SET availability_version = ?3, wrap_availability = ?4, mac = ?5
		WHERE tenant = ?1 AND guid = ?2 AND erased = 0 AND mac = ?6`,
		old.Tenant, r.ID.String(), r.AvailabilityVersion, r.WrapAvailability, r.MAC(mac), old.MAC)
	return n == 1, err
}
