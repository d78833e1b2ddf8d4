package vault

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/vault/azure"
)

const (
	insertPersonSQL = `INSERT INTO vault_person (tenant, id, name) VALUES (?1, ?2, ?3)`
	findPersonSQL   = `SELECT id, name FROM vault_person WHERE tenant = ?1 AND id = ?2`
	listPeopleSQL   = `SELECT id, name FROM vault_person WHERE tenant = ?1`
)

// personName is the form of a user principal name.
var personName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[^\s@/?#]{1,64}@[^\s@/?#]{1,189}$`) })

// person is a user whom access policies name. Only the name is stored: a person has
// no secret and cannot log in.
type person struct {
	id   uuid.UUID
	name string // user principal name as first given
}

// resolveGrants returns grants with the ids of the people that they name. An id of no
// principal of the tenant is refused, because a mistyped one would silently have no
// effect. A person who does not exist is created if create is set, and left
// out otherwise.
func (v *Vaults) resolveGrants(ctx context.Context, tx *store.Tx, tenant int64, grants []grant, create bool) ([]grant, error) {
	var resolved []grant
	for _, g := range grants {
		if g.name != "" {
			p, ok, err := v.findPerson(ctx, tx, tenant, g.name, create)
			if err != nil {
				return nil, err
			}
			if ok {
				resolved = append(resolved, grant{principal: p.id, permissions: g.permissions})
			}
			continue
		}
		if create {
			name, err := v.nameOf(ctx, tx, tenant, g.principal)
			if err != nil {
				return nil, err
			}
			if name == "" {
				return nil, azure.Invalid("access policy: principal %s does not exist in this tenant", g.principal)
			}
		}
		resolved = append(resolved, g)
	}
	return resolved, nil
}

// findPerson returns the person of that name. With create it creates one that does not
// exist.
func (v *Vaults) findPerson(ctx context.Context, tx *store.Tx, tenant int64, name string, create bool) (person, bool, error) {
	if create {
		if err := lockText(ctx, tx, fmt.Sprintf("people %d", tenant)); err != nil {
			return person{}, false, err
		}
	}
	all, err := store.Collect(ctx, tx, func(row store.Scanner) (person, error) { return v.scanPerson(tenant, row) }, listPeopleSQL, tenant)
	if err != nil {
		return person{}, false, err
	}
	for _, p := range all {
		if strings.EqualFold(p.name, name) {
			return p, true, nil
		}
	}
	if !create {
		return person{}, false, nil
	}
	p := person{uuid.New(), name}
	return p, true, execute(ctx, tx, insertPersonSQL, tenant, p.id.String(), v.seal.Seal(personLabel(tenant, p.id), []byte(name)))
}

// nameOf returns the name of a principal of the tenant or of a person, empty if there
// is neither.
func (v *Vaults) nameOf(ctx context.Context, tx *store.Tx, tenant int64, id uuid.UUID) (string, error) {
	principal, err := v.directory.Principal(ctx, tx, tenant, id)
	if !fail.Is(err, api.NotFound) {
		return principal.Name, err
	}
	p, err := v.scanPerson(tenant, tx.QueryRow(ctx, findPersonSQL, tenant, id.String()))
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return p.name, err
}

func (v *Vaults) scanPerson(tenant int64, row store.Scanner) (p person, err error) {
	var id string
	var sealed []byte
	if err = row.Scan(&id, &sealed); err != nil {
		return p, err
	}
	if p.id, err = uuid.Parse(id); err != nil {
		return p, err
	}
	name, err := v.seal.Open(personLabel(tenant, p.id), sealed)
	p.name = string(name)
	return p, err
}

func personLabel(tenant int64, id uuid.UUID) string {
	return fmt.Sprintf("vault person %d/%s", tenant, id)
}
