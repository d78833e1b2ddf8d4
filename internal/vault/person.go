package vault

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

const (
	insertPersonSQL = `INSERT INTO vault_person (tenant, id, name) VALUES (?1, ?2, ?3)`
	findPersonSQL   = `SELECT id, name FROM vault_person WHERE tenant = ?1 AND id = ?2`
	listPeopleSQL   = `SELECT id, name FROM vault_person WHERE tenant = ?1`
)

// personName is the form of a user principal name.
var personName = regexp.MustCompile(`^[^\s@/?#]{1,64}@[^\s@/?#]{1,189}$`)

// person is somebody whom access policies name. People are known here by their
// names alone: they have no secret, and nobody can log in as one.
type person struct {
	id   uuid.UUID
	name string // user principal name as first given
}

// known returns grants with the ids of the people whom they name. An id that no
// principal of the tenant has is refused: mistyped, it would silently give the
// permissions to nobody. A person who is not known yet becomes so, or, unless
// making, is left out.
func (v *Vaults) known(ctx context.Context, tx *store.Tx, tenant int64, grants []grant, making bool) ([]grant, error) {
	var known []grant
	for _, g := range grants {
		if g.name != "" {
			p, ok, err := v.person(ctx, tx, tenant, g.name, making)
			if err != nil {
				return nil, err
			}
			if ok {
				known = append(known, grant{principal: p.id, permissions: g.permissions})
			}
			continue
		}
		if making {
			name, err := v.nameOf(ctx, tx, tenant, g.principal)
			if err != nil {
				return nil, err
			}
			if name == "" {
				return nil, bad("access policy: principal %s does not exist in this tenant", g.principal)
			}
		}
		known = append(known, g)
	}
	return known, nil
}

// person returns the person of that name, made if need be.
func (v *Vaults) person(ctx context.Context, tx *store.Tx, tenant int64, name string, making bool) (person, bool, error) {
	if making {
		if err := lockWord(ctx, tx, fmt.Sprintf("people %d", tenant)); err != nil {
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
	if !making {
		return person{}, false, nil
	}
	p := person{uuid.New(), name}
	return p, true, execute(ctx, tx, insertPersonSQL, tenant, p.id.String(), v.seal.Seal(personLabel(tenant, p.id), []byte(name)))
}

// nameOf returns the name of a principal of the tenant or of a person, or
// nothing if there is neither.
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
