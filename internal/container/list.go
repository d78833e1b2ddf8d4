package container

import (
	"context"
	"fmt"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// Listed is a container in a list, with what is shown of it besides its own row.
type Listed struct {
	Container
	PolicyKey int64  // the policy key that its key is under
	GeoName   string // of a site: the name of its geo
	// NoPolicyKey is why PolicyKey is not known; nil: it is known.
	NoPolicyKey error
}

// listColumns are those of Listed. The other tables are read row by row by their
// primary keys, whatever statistics PostgreSQL has of them.
const listColumns = columns + `,
	COALESCE((SELECT k.parent FROM key_page k WHERE k.id = container.page AND +k.tenant = container.tenant), 0),
	COALESCE((SELECT g.name FROM geo g WHERE g.id = container.geo AND +g.tenant = container.tenant), '')`

// Page selects the first Limit containers of a kind with an id above After.
type Page struct {
	Kind  Kind
	After int64
	Limit int
}

// List returns a page of a tenant's containers in id order, which is the order in which
// they were made: with one query. One whose name cannot be
// decrypted is listed as Damaged. The tenant's directory must have been opened before.
func (s *Containers) List(ctx context.Context, tx *store.Tx, tenant int64, p Page) ([]Listed, error) {
	if _, err := ruleFor(p.Kind); err != nil {
		return nil, err
	}
	return s.list(ctx, tx, tenant, whereKind, tenant, string(p.Kind), p.After, p.Limit, envelope.ClassDirectory)
}

// ListBackups returns those of some backups that exist, as List does.
func (s *Containers) ListBackups(ctx context.Context, tx *store.Tx, tenant int64, ids []int64) ([]Listed, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	in, args := store.InList(ids, []any{tenant, string(Backup)})
	return s.list(ctx, tx, tenant, ` WHERE +tenant = ?1 AND kind = ?2 AND id IN `+in+` ORDER BY id`, args...)
}

// ListOne returns a container as List does.
func (s *Containers) ListOne(ctx context.Context, tx *store.Tx, c Container) (Listed, error) {
	list, err := s.list(ctx, tx, c.Tenant, whereID, c.Tenant, c.ID)
	switch {
	case err == nil && len(list) == 0:
		err = fail.New(api.NotFound, "%s %q does not exist", c.Kind, c.Name)
	case err == nil:
		err = list[0].Damaged
	}
	if err != nil {
		return Listed{}, err
	}
	return list[0], nil
}

func (s *Containers) list(ctx context.Context, tx *store.Tx, tenant int64, where string, args ...any) ([]Listed, error) {
	d, err := s.openedDirectory(tenant, "list containers")
	if err != nil {
		return nil, err
	}
	list, err := store.Collect(ctx, tx, func(from store.Scanner) (l Listed, err error) {
		r, err := scanRow(scanMore{from, []any{&l.PolicyKey, &l.GeoName}})
		if err != nil {
			return l, err
		}
		if l.Container, err = r.open(d); err != nil {
			l.Damaged = fmt.Errorf("%s %d: %w", r.Kind, r.ID, err)
		}
		if l.PolicyKey == 0 {
			l.NoPolicyKey = fail.New(api.Damaged, "container %d points to key page %d, which does not exist", r.ID, r.Page)
		}
		if l.Geo == 0 {
			l.GeoName = DefaultGeo
		} else if l.GeoName == "" {
			return l, fail.New(api.NotFound, "geo %d does not exist", l.Geo)
		}
		return l, nil
	}, `SELECT `+listColumns+` FROM container`+where, args...)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	return list, nil
}

// scanMore scans further columns after those of a scan.
type scanMore struct {
	store.Scanner
	more []any
}

func (s scanMore) Scan(dest ...any) error { return s.Scanner.Scan(append(dest, s.more...)...) }
