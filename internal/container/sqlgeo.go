package container

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

const (
	insertGeo     = `INSERT INTO geo (id, tenant, name, name_key, created) VALUES (?1, ?2, ?3, ?4, ?5)`
	insertGeoHost = `INSERT INTO geo_host (id, tenant, geo, host_hash, host) VALUES (?1, ?2, ?3, ?4, ?5)`
	geoByID       = `SELECT name FROM geo WHERE tenant = ?1 AND id = ?2`
	allGeos       = `SELECT id, name, created FROM geo WHERE tenant = ?1 ORDER BY id`
	allGeoHosts   = `SELECT id, geo, host_hash, host FROM geo_host WHERE tenant = ?1 ORDER BY id`
	sitesByGeo    = `SELECT geo, COUNT(*) FROM container WHERE tenant = ?1 AND kind = ?2 GROUP BY geo`
)

// geoHostRow is a host of a geo as it is stored.
type geoHostRow struct {
	id, geo      int64
	hash, sealed []byte
}

// selectGeos returns all geos except the default one, without their hosts.
func selectGeos(ctx context.Context, tx *store.Tx, tenant int64) (list []Geo, err error) {
	err = eachRow(ctx, tx, func(scan func(...any) error) error {
		var g Geo
		var created int64
		err := scan(&g.ID, &g.Name, &created)
		g.Created = time.UnixMilli(created)
		list = append(list, g)
		return err
	}, allGeos, tenant)
	return list, err
}

func selectGeoName(ctx context.Context, tx *store.Tx, tenant, id int64) (name string, err error) {
	err = tx.QueryRow(ctx, geoByID, tenant, id).Scan(&name)
	if errors.Is(err, sql.ErrNoRows) {
		err = fail.New(api.NotFound, "geo %d does not exist", id)
	}
	return name, err
}

func selectGeoHosts(ctx context.Context, tx *store.Tx, tenant int64) (list []geoHostRow, err error) {
	err = eachRow(ctx, tx, func(scan func(...any) error) error {
		var h geoHostRow
		err := scan(&h.id, &h.geo, &h.hash, &h.sealed)
		list = append(list, h)
		return err
	}, allGeoHosts, tenant)
	return list, err
}

func countByGeo(ctx context.Context, tx *store.Tx, tenant int64) (map[int64]int64, error) {
	counts := map[int64]int64{}
	err := eachRow(ctx, tx, func(scan func(...any) error) error {
		var geo, n int64
		err := scan(&geo, &n)
		counts[geo] = n
		return err
	}, sitesByGeo, tenant, string(Site))
	return counts, err
}

// eachRow calls row for each row of a query.
func eachRow(ctx context.Context, tx *store.Tx, row func(scan func(...any) error) error, query string, args ...any) error {
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("read geos: %w", err)
	}
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return errors.Join(fmt.Errorf("read geos: %w", err), rows.Close())
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read geos: %w", err)
	}
	return nil
}
