package container

import (
	"context"
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
	allGeos       = `SELECT t.created, COALESCE(g.id, 0), COALESCE(g.name, ''), COALESCE(g.created, 0), COALESCE(h.id, 0), h.host
		FROM tenant t LEFT JOIN geo g ON g.tenant = t.id LEFT JOIN geo_host h ON h.tenant = t.id AND h.geo = g.id
		WHERE t.id = ?1 ORDER BY g.id, h.id`
	allGeoHosts = `SELECT id, geo, host_hash, host FROM geo_host WHERE tenant = ?1 ORDER BY id`
	sitesByGeo  = `SELECT geo, COUNT(*) FROM container WHERE tenant = ?1 AND kind = ?2 GROUP BY geo`
)

// geoHostRow is a host of a geo as it is stored.
type geoHostRow struct {
	id, geo      int64
	hash, sealed []byte
}

// selectGeos returns all geos, the default one first, with the hosts that open decrypts.
func selectGeos(ctx context.Context, tx *store.Tx, tenant int64, open func(id int64, sealed []byte) (string, error)) (list []Geo, err error) {
	err = eachRow(ctx, tx, func(scan func(...any) error) error {
		var g Geo
		var began, created, hostID int64
		var sealed []byte
		if err := scan(&began, &g.ID, &g.Name, &created, &hostID, &sealed); err != nil {
			return err
		}
		if list == nil {
			list = []Geo{{Name: DefaultGeo, Created: time.UnixMilli(began)}}
		}
		if g.ID != list[len(list)-1].ID {
			g.Created = time.UnixMilli(created)
			list = append(list, g)
		}
		if last := &list[len(list)-1]; hostID != 0 {
			host, err := open(hostID, sealed)
			if err != nil {
				last.Damaged = append(last.Damaged, fmt.Errorf("geo %q: a host of it: %w", last.Name, err))
			} else {
				last.Hosts = append(last.Hosts, host)
			}
		}
		return nil
	}, allGeos, tenant)
	if err == nil && list == nil {
		err = fail.New(api.NotFound, "tenant %d does not exist", tenant)
	}
	return list, err
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
