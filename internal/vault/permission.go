package vault

import (
	"context"
	"slices"
	"strings"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/store"
	"keyroll/internal/vault/azure"
)

// allPermissions stands for every permission.
const allPermissions = "all"

// permissions are the key permissions of access policies (Azure Key Vault, vaults
// REST API, KeyPermissions). Some belong to operations that a vault here does not
// have, because policies written for Azure may name them.
var permissions = []string{
	allPermissions, "get", "list", "create", "import", "update", "delete", "recover", "backup", "restore", "purge",
	"wrapKey", "unwrapKey", "encrypt", "decrypt", "sign", "verify",
	"release", "rotate", "getrotationpolicy", "setrotationpolicy",
}

// parsePermissions accepts names in any case and returns them once each, in the
// spelling and order of the list above.
func parsePermissions(names []string) ([]string, error) {
	given := map[string]bool{}
	for _, name := range names {
		i := slices.IndexFunc(permissions, func(p string) bool { return strings.EqualFold(p, name) })
		if i < 0 {
			return nil, azure.Invalid("%.40q is not a valid key permission; it must be one of: %s", name, strings.Join(permissions, " "))
		}
		given[permissions[i]] = true
	}
	var list []string
	for _, p := range permissions {
		if given[p] {
			list = append(list, p)
		}
	}
	return list, nil
}

// grant has the permissions of one principal to the keys of a vault.
type grant struct {
	principal   uuid.UUID
	permissions []string
	name        string // of a person, or the display name in answers
}

// missing returns the refusal of an operation unless its permission is among those that
// the vault's access policy gives the caller. The policy is read for each request, so
// that removing a permission works at once.
func (s *state) missing(permission string, granted []string) error {
	if slices.Contains(granted, permission) || slices.Contains(granted, allPermissions) {
		return nil
	}
	return azure.Refuse(api.Forbidden, "Forbidden", "AccessDenied",
		"principal %q (application id %s, object id %s) does not have the keys permission %q on vault %q",
		s.who.Name, s.who.ID, s.who.ID, permission, s.vault.name)
}

// applyGrants changes the access policy of a vault by an operation of the management
// interface: add gives further permissions; replace gives exactly these to the named
// principals and does not change others; remove removes these, or all of a principal's
// if none is named.
func applyGrants(ctx context.Context, tx *store.Tx, vault vault, operation string, grants []grant) error {
	for _, g := range grants {
		has, err := findGrant(ctx, tx, vault.id, g.principal)
		if err != nil {
			return err
		}
		switch operation {
		case "add":
			has, err = parsePermissions(append(has, g.permissions...))
		case "replace":
			has = g.permissions
		case "remove":
			if slices.Contains(has, allPermissions) && !slices.Contains(g.permissions, allPermissions) {
				has = permissions[1:]
			}
			has = slices.DeleteFunc(slices.Clone(has), func(p string) bool {
				return len(g.permissions) == 0 || slices.Contains(g.permissions, allPermissions) || slices.Contains(g.permissions, p)
			})
		}
		if err != nil {
			return err
		}
		if err := putGrant(ctx, tx, vault, grant{principal: g.principal, permissions: has}); err != nil {
			return err
		}
	}
	return nil
}

// setGrants replaces the whole access policy of a vault by grants.
func setGrants(ctx context.Context, tx *store.Tx, vault vault, grants []grant) error {
	if err := deleteGrants(ctx, tx, vault.id); err != nil {
		return err
	}
	return applyGrants(ctx, tx, vault, "add", grants)
}

// putAccessPolicies adds to, replaces in or removes from a vault's access policy.
func (v *Vaults) putAccessPolicies(ctx context.Context, o *managementRequest) (int, any, error) {
	operation := strings.ToLower(o.path["operation"])
	if operation != "add" && operation != "replace" && operation != "remove" {
		return 0, nil, azure.Invalid("operation %.20q on access policies must be one of add, replace and remove", operation)
	}
	var request policiesRequest
	if err := azure.DecodeKnown(o.body, &request); err != nil {
		return 0, nil, err
	}
	grants, err := o.parsePolicies(request.Properties.AccessPolicies)
	if err != nil {
		return 0, nil, err
	}
	status, answer, err := v.changeLive(ctx, o, func(tx *store.Tx, found vault) (vault, error) {
		resolved, err := v.resolveGrants(ctx, tx, o.tenant.ID, grants, operation != "remove")
		if err != nil {
			return vault{}, err
		}
		return found, applyGrants(ctx, tx, found, operation, resolved)
	})
	if err != nil {
		return 0, nil, err
	}
	r := answer.(resource)
	return status, policiesAnswer{ID: r.ID + "/accessPolicies/", Type: resourceType + "/accessPolicies",
		Properties: policies{r.Properties.AccessPolicies}}, nil
}

// setResolvedGrants resolves the people in grants and replaces the whole access policy
// of a vault.
func (v *Vaults) setResolvedGrants(ctx context.Context, tx *store.Tx, vault vault, grants []grant) error {
	grants, err := v.resolveGrants(ctx, tx, vault.tenant, grants, true)
	if err != nil {
		return err
	}
	return setGrants(ctx, tx, vault, grants)
}
