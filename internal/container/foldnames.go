package container

import (
	"context"
	"fmt"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/name"
	"keyroll/internal/store"
)

// folded is the value of the column names of a container in which everything is found
// by folded names. It is never reset.
const folded = 1

func foldedValue(f bool) int64 {
	if f {
		return folded
	}
	return 0
}

const (
	setNames       = `UPDATE container SET names = ?3 WHERE tenant = ?1 AND id = ?2`
	updateNameHash = `UPDATE container SET name_hash = ?4 WHERE tenant = ?1 AND id = ?2 AND name_hash = ?3
		AND NOT EXISTS (SELECT 1 FROM container o WHERE o.tenant = ?1 AND o.kind = 'site' AND o.name_hash = ?4)`
)

// SetFolded records that everything in a container is found by folded names.
func (s *Containers) SetFolded(ctx context.Context, tx *store.Tx, c Container) error {
	if _, err := tx.Exec(ctx, setNames, c.Tenant, c.ID, folded); err != nil {
		return fmt.Errorf("mark the names in container %d as folded: %w", c.ID, err)
	}
	return nil
}

// IsFolded reports whether everything in a container is found by folded names.
func (s *Containers) IsFolded(ctx context.Context, tx *store.Tx, c Container) (bool, error) {
	r, found, err := selectRow(ctx, tx, whereID, c.Tenant, c.ID)
	return found && r.Folded, err
}

// checkSites refuses new sites whose URL an existing site has that is found by the
// exact form of its URL. For sites found by the folded form the index refuses them.
func (s *Containers) checkSites(ctx context.Context, d *Directory, names []string) error {
	if err := s.foldSites(ctx, d); err != nil {
		return err
	}
	for _, url := range names {
		spelled, err := normalise(Site, url)
		if err != nil {
			return err
		}
		if spelled.exact == spelled.folded {
			continue
		}
		var found bool
		err = s.db.View(ctx, func(tx *store.Tx) (err error) {
			_, found, err = selectNamed(ctx, tx, d, Site, spelling{spelled.exact, spelled.exact})
			return err
		})
		if err == nil && found {
			err = fail.New(api.AlreadyExists, "%s %q exists", Site, url)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// foldSites makes a tenant's sites findable by their folded URLs, including those
// made by nodes that did not fold names. Sites whose folded URLs are equal keep their
// exact ones. It may be interrupted and run again at any point.
func (s *Containers) foldSites(ctx context.Context, d *Directory) error {
	if d.folded.Load() {
		return nil
	}
	err := name.Refold(func(visit func([]name.Hashed) error) error { return s.eachSitePart(ctx, d, visit) }, func(part []name.Hashed) error {
		args := make([][]any, len(part))
		for i, h := range part {
			args[i] = []any{d.tenant, h.ID, h.Now, h.Folded}
		}
		return s.db.InTx(ctx, func(tx *store.Tx) error {
			_, err := tx.ExecMany(ctx, updateNameHash, args)
			return err
		})
	})
	if err != nil {
		return err
	}
	err = s.db.InTx(ctx, func(tx *store.Tx) error {
		return s.SetFolded(ctx, tx, Container{ID: d.container, Tenant: d.tenant})
	})
	if err == nil {
		d.folded.Store(true)
	}
	return err
}

// eachSitePart passes the sites of a tenant to visit, in parts. It skips sites whose
// names cannot be decrypted; verify reports them.
func (s *Containers) eachSitePart(ctx context.Context, d *Directory, visit func([]name.Hashed) error) error {
	for after := int64(0); ; {
		var rows []row
		err := s.db.View(ctx, func(tx *store.Tx) (err error) {
			rows, err = selectRows(ctx, tx, whereKind, d.tenant, string(Site), after, 1000, -1)
			return err
		})
		if err != nil || len(rows) == 0 {
			return err
		}
		var part []name.Hashed
		for _, r := range rows {
			c, err := r.open(d)
			if err != nil {
				continue
			}
			if spelled, err := normalise(Site, c.Name); err == nil {
				part = append(part, name.Hashed{ID: r.ID, Now: d.Hash(string(Site), 0, spelled.exact), Folded: d.Hash(string(Site), 0, spelled.folded)})
			}
		}
		if err := visit(part); err != nil {
			return err
		}
		after = rows[len(rows)-1].ID
	}
}
