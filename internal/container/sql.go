package container

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"keyroll/internal/store"
)

const columns = `id, tenant, kind, name, class, policy, page, generation, created, recipient, external, geo, purged, keyed, older, renewed, names`

// If a name is taken, the statement changes no row and does not fail, so that the
// transaction stays usable and the caller can report the name.
const insertContainer = `INSERT INTO container (` + columns + `, name_hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
	ON CONFLICT (tenant, kind, name_hash) DO NOTHING`

const (
	whereID     = ` WHERE tenant = ?1 AND id = ?2`
	whereName   = ` WHERE tenant = ?1 AND kind = ?2 AND name_hash = ?3`
	whereKind   = ` WHERE tenant = ?1 AND kind = ?2 AND id > ?3 AND class <> ?5 ORDER BY id LIMIT ?4`
	whereTenant = ` WHERE tenant = ?1 AND id > ?2 ORDER BY id LIMIT ?3`
	whereOlder  = ` WHERE tenant = ?1 AND older = ?2 ORDER BY id`
	wherePage   = ` WHERE tenant = ?1 AND page = ?2 ORDER BY id`
)

// updateContainer changes a container only if it still has the pages and the policy
// that were read, and was not purged.
const updateContainer = `UPDATE container SET class = ?4, policy = ?5, page = ?6, older = ?8
	WHERE tenant = ?1 AND id = ?2 AND page = ?3 AND policy = ?7 AND older = ?9 AND purged = 0`

const (
	countWithPolicy = `SELECT count(*) FROM container WHERE tenant = ?1 AND policy = ?2 AND kind = 'mailbox'`
	releasePolicy   = `UPDATE container SET policy = 0 WHERE tenant = ?1 AND policy = ?2`
)

const updateRecipient = `UPDATE container SET recipient = ?3, external = ?4 WHERE tenant = ?1 AND id = ?2`

// markContainers marks the unmarked containers that point to a key page.
const markContainers = `UPDATE container SET purged = ?3 WHERE tenant = ?1 AND page = ?2 AND purged = 0`

const updatePage = `UPDATE container SET page = ?3 WHERE tenant = ?1 AND id = ?2`

// row is a container with its name and its external address as they are stored.
type row struct {
	Container
	name     []byte
	external []byte // empty: none
}

func (r row) values(nameHash []byte) []any {
	return []any{r.ID, r.Tenant, string(r.Kind), r.name, r.State, r.Policy, r.Page, r.Generation, r.Created.UnixMilli(),
		string(r.Recipient), append([]byte{}, r.external...), r.Geo, unixMilli(r.Purged), r.Keyed, r.Older, r.Renewed, foldedValue(r.Folded), nameHash}
}

// selectRows returns the containers that a where clause selects, with their names
// still sealed.
func selectRows(ctx context.Context, tx *store.Tx, where string, args ...any) ([]row, error) {
	list, err := store.Collect(ctx, tx, scanRow, `SELECT `+columns+` FROM container`+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read containers: %w", err)
	}
	return list, nil
}

// selectRow returns one container, and false if there is none.
func selectRow(ctx context.Context, tx *store.Tx, where string, args ...any) (r row, found bool, err error) {
	r, err = scanRow(tx.QueryRow(ctx, `SELECT `+columns+` FROM container`+where, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return row{}, false, nil
	}
	if err != nil {
		return row{}, false, fmt.Errorf("read container: %w", err)
	}
	return r, true, nil
}

func scanRow(from store.Scanner) (r row, err error) {
	var created, purged, names int64
	err = from.Scan(&r.ID, &r.Tenant, &r.Kind, &r.name, &r.State, &r.Policy, &r.Page, &r.Generation, &created, &r.Recipient, &r.external, &r.Geo, &purged,
		&r.Keyed, &r.Older, &r.Renewed, &names)
	r.Created, r.Folded = time.UnixMilli(created), names == folded
	if purged != 0 {
		r.Purged = time.UnixMilli(purged)
	}
	return r, err
}

// selectNamed returns the container with a name: first by its exact form, and then
// by its folded form.
func selectNamed(ctx context.Context, tx *store.Tx, d *Directory, kind Kind, spelled spelling) (r row, found bool, err error) {
	r, found, err = selectRow(ctx, tx, whereName, d.tenant, string(kind), d.Hash(string(kind), 0, spelled.exact))
	if err == nil && !found && spelled.folded != spelled.exact {
		r, found, err = selectRow(ctx, tx, whereName, d.tenant, string(kind), d.Hash(string(kind), 0, spelled.folded))
	}
	return r, found, err
}

// unixMilli returns a time as it is stored: 0 for the zero time.
func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
