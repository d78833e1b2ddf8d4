package container

import (
	"bytes"
	"context"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// Exists reports whether there is a container with an id.
func (s *Containers) Exists(ctx context.Context, tx *store.Tx, tenant, id int64) (bool, error) {
	_, found, err := selectRow(ctx, tx, whereID, tenant, id)
	return found, err
}

// CheckOlder fails if a container has an older key and its pointer to the page of
// that key is wrong.
func (s *Containers) CheckOlder(ctx context.Context, tx *store.Tx, c Container) error {
	at, err := locate(ctx, tx, c)
	if err != nil || at.Older == 0 {
		return nil // PolicyKeyOf reports errors of the present key
	}
	if at.olderErr != nil {
		return at.olderErr
	}
	return at.checkClass(slot{at.older, at.Generation - 1})
}

// CheckHosts calls report for each host of a geo that cannot be decrypted or is not
// found by its name. The tenant's directory must have been opened before.
func (s *Containers) CheckHosts(ctx context.Context, tx *store.Tx, tenant int64, report func(host int64, err error) error) error {
	d, err := s.openedDirectory(tenant, "check hosts")
	if err != nil {
		return err
	}
	hosts, err := selectGeoHosts(ctx, tx, tenant)
	if err != nil {
		return err
	}
	for _, h := range hosts {
		host, err := d.Open(h.id, h.sealed)
		if err == nil && !bytes.Equal(h.hash, d.geoHost(host)) {
			err = fail.New(api.Damaged, "host %d of geo %d cannot be found by its name", h.id, h.geo)
		}
		if err == nil {
			continue
		}
		if err := report(h.id, err); err != nil {
			return err
		}
	}
	return nil
}
