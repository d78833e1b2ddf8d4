package vault

import (
	"context"
	"encoding/base64"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/admit"
	"keyroll/internal/fail"
	"keyroll/internal/httpcheck"
	"keyroll/internal/store"
	"keyroll/internal/vault/azure"
)

// managementRequest is one authenticated request to the management interface.
type managementRequest struct {
	asked
	tenant       access.Tenant
	who          access.Principal
	subscription string // GUID in lower case, of the path
	host         string // the request's
	url          *url.URL
}

// Management serves the management of vaults under /subscriptions to admins and, for
// reading, to the service's principals; each only in the subscriptions of its tenant. A
// subscription is any GUID that an admin uses.
func (v *Vaults) Management() http.Handler { return v.handler(v.authenticateManagement) }

func (v *Vaults) authenticateManagement(w http.ResponseWriter, r *http.Request) (request, error) {
	ctx, bearer := r.Context(), httpcheck.Bearer(r)
	o := &managementRequest{asked: find(ofManagement, r), host: r.Host, url: r.URL}
	token, err := v.directory.CheckToken(bearer, access.ServiceAudience)
	if err == nil {
		err = v.db.View(ctx, func(tx *store.Tx) (err error) {
			if o.who, err = v.directory.TokenPrincipal(ctx, tx, token); err != nil {
				return err
			}
			o.tenant, err = v.directory.Tenant(ctx, tx, o.who.Tenant)
			return err
		})
	}
	if fail.Is(err, api.Unauthenticated) {
		if bearer != "" {
			admit.Refused(ctx)
		}
		w.Header().Set("WWW-Authenticate", "Bearer")
		err = azure.Refuse(api.Unauthenticated, "AuthenticationFailed", "", "%s", err.Error())
	}
	if err != nil {
		return nil, err
	}
	return o, admit.Authenticated(ctx, o.who.Tenant)
}

func (o *managementRequest) authorize(context.Context, *Vaults) error {
	return o.checkRole(o.route.permission)
}

// checkRole refuses a caller that is neither an admin of the tenant or of its vaults nor, for
// reading, one of the service's principals.
func (o *managementRequest) checkRole(role string) error {
	err := o.who.Check(api.Global, api.Vault)
	if err == nil || role == toRead && o.who.Check(access.Service) == nil {
		return nil
	}
	return azure.Refuse(api.Forbidden, "AuthorizationFailed", "", "%s", err.Error())
}

func (o *managementRequest) checkVersion() error {
	if !managementVersion().MatchString(o.query.Get("api-version")) {
		return azure.Refuse(api.InvalidArgument, "MissingApiVersionParameter", "", "the query parameter api-version is missing or is not a date")
	}
	return nil
}

func (o *managementRequest) check(context.Context, *Vaults) error {
	if s, ok := o.path["subscription"]; ok {
		id, err := uuid.Parse(s)
		if err != nil || len(s) != len(id.String()) {
			return azure.Refuse(api.InvalidArgument, "InvalidSubscriptionId", "", "subscription %.40q is not a GUID", s)
		}
		o.subscription = id.String()
	}
	if g, ok := o.path["group"]; ok && !groupName().MatchString(g) {
		return azure.Refuse(api.InvalidArgument, "InvalidResourceGroup", "", "a resource group's name has 1 to 90 letters, digits, dots, hyphens, underscores and brackets")
	}
	if n, ok := o.path["vault"]; ok && !vaultName().MatchString(n) {
		return azure.Refuse(api.InvalidArgument, "VaultNameNotValid", "", "a vault's name has 3 to 127 letters, digits, hyphens and underscores, and begins and ends with a letter or a digit")
	}
	return nil
}

func (o *managementRequest) noRoute(w http.ResponseWriter, method string) error {
	if err := o.checkRole(toManage); err != nil {
		return err
	}
	if o.allowed != nil {
		return azure.NotAllowed(w, method, o.allowed)
	}
	return azure.Refuse(api.NotFound, "InvalidResourceType", "", "vault management has no operation %s on this path", method)
}

func (o *managementRequest) logged() (string, []any) {
	return "vault management", []any{"vault", o.path["vault"], "principal", o.who.ID, "tenant", o.tenant.GUID}
}

// groupName is Azure's rule. A group need not be created: it is only a name.
var groupName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9A-Za-z_.()-]{0,89}[0-9A-Za-z_()-]$`) })

// findLive returns the vault of the tenant that the path names and that is not
// deleted.
func (o *managementRequest) findLive(ctx context.Context, tx *store.Tx) (vault, error) {
	found, err := findVault(ctx, tx, o.path["vault"])
	if fail.Is(err, api.NotFound) {
		return vault{}, o.notFound()
	}
	if err == nil && (found.tenant != o.tenant.ID || found.deleted != 0 || found.subscription != o.subscription ||
		!strings.EqualFold(found.group, o.path["group"])) {
		return vault{}, o.notFound()
	}
	return found, err
}

func (o *managementRequest) notFound() error {
	return azure.Refuse(api.NotFound, "ResourceNotFound", "", "vault %q does not exist in resource group %q", o.path["vault"], o.path["group"])
}

// describe returns a vault with its access policy in the form of answers.
func (v *Vaults) describe(ctx context.Context, tx *store.Tx, o *managementRequest, found vault) (resource, error) {
	grants, err := listGrants(ctx, tx, found.id)
	if err != nil {
		return resource{}, err
	}
	for i, g := range grants {
		if grants[i].name, err = v.nameOf(ctx, tx, o.tenant.ID, g.principal); err != nil {
			return resource{}, err
		}
	}
	return o.resource(v.domain, found, grants), nil
}

// putVault creates a vault, changes one, or with createMode recover restores a
// deleted one unchanged.
func (v *Vaults) putVault(ctx context.Context, o *managementRequest) (int, any, error) {
	var request vaultRequest
	if err := azure.DecodeKnown(o.body, &request); err != nil {
		return 0, nil, err
	}
	p, err := o.parse(request)
	if err != nil {
		return 0, nil, err
	}
	if request.Location == "" {
		return 0, nil, azure.Refuse(api.InvalidArgument, "LocationRequired", "", "property \"location\" is missing")
	}
	status := http.StatusOK
	var answer resource
	err = v.db.InTx(ctx, func(tx *store.Tx) error {
		existing, err := v.lockVault(ctx, tx, o.path["vault"])
		if err != nil {
			return err
		}
		var result vault
		switch {
		case p.recover:
			result, err = v.recoverVault(ctx, tx, o, existing)
		case existing == nil:
			status = http.StatusCreated
			result, err = v.createVault(ctx, tx, o, p)
		default:
			status = http.StatusOK
			result, err = v.updateVault(ctx, tx, o, p, existing)
		}
		if err != nil {
			return err
		}
		answer, err = v.describe(ctx, tx, o, result)
		return err
	})
	return status, answer, err
}

// lockVault takes the lock of a name and returns the vault that has it, if any.
// One whose retention has ended is purged first.
func (v *Vaults) lockVault(ctx context.Context, tx *store.Tx, name string) (*vault, error) {
	if err := lockName(ctx, tx, name); err != nil {
		return nil, err
	}
	found, err := findVault(ctx, tx, name)
	if fail.Is(err, api.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if found.deleted != 0 && found.purgeAt <= v.now().UnixMilli() {
		return nil, deleteVaultRows(ctx, tx, found)
	}
	return &found, nil
}

// createVault creates a vault. Without access policies in the request, the caller
// gets all permissions to its keys.
func (v *Vaults) createVault(ctx context.Context, tx *store.Tx, o *managementRequest, p parsed) (vault, error) {
	now := v.now().UnixMilli()
	made := vault{
		id: store.NewID(), tenant: o.tenant.ID, name: o.path["vault"], subscription: o.subscription, group: o.path["group"],
		location: p.location, sku: "standard", retentionDays: maxRetention, created: now,
	}
	if p.retention != nil {
		made.retentionDays = *p.retention
	}
	if err := p.apply(&made, now); err != nil {
		return vault{}, err
	}
	if err := insertVault(ctx, tx, made); err != nil {
		return vault{}, err
	}
	grants := p.grants
	if !p.setGrants {
		grants = []grant{{principal: o.who.ID, permissions: []string{allPermissions}}}
	}
	return made, v.setResolvedGrants(ctx, tx, made, grants)
}

// updateVault applies the properties in the request to an existing vault.
func (v *Vaults) updateVault(ctx context.Context, tx *store.Tx, o *managementRequest, p parsed, existing *vault) (vault, error) {
	if err := o.checkTenant(*existing); err != nil {
		return vault{}, err
	}
	changed := *existing
	if changed.deleted != 0 {
		return vault{}, azure.Refuse(api.Conflict, "ConflictError", "", "vault %q exists in deleted state: recover or purge it", changed.name)
	}
	if changed.subscription != o.subscription || !strings.EqualFold(changed.group, o.path["group"]) {
		return vault{}, nameInUse(changed.name)
	}
	if p.location != "" && p.location != changed.location {
		return vault{}, azure.Refuse(api.Conflict, "InvalidResourceLocation", "", "vault %q is in location %q, which cannot be changed", changed.name, changed.location)
	}
	if p.retention != nil && *p.retention != changed.retentionDays {
		return vault{}, azure.Invalid("softDeleteRetentionInDays of vault %q is %d and cannot be changed", changed.name, changed.retentionDays)
	}
	if err := p.apply(&changed, v.now().UnixMilli()); err != nil {
		return vault{}, err
	}
	if p.setGrants {
		if err := v.setResolvedGrants(ctx, tx, changed, p.grants); err != nil {
			return vault{}, err
		}
	}
	return changed, updateVault(ctx, tx, changed)
}

// checkTenant refuses a vault of another tenant, of which it reveals only that the
// name is in use.
func (o *managementRequest) checkTenant(v vault) error {
	if v.tenant != o.tenant.ID {
		return nameInUse(o.path["vault"])
	}
	return nil
}

func nameInUse(name string) error {
	return azure.Refuse(api.AlreadyExists, "VaultAlreadyExists", "", "the vault name %q is already in use; vault names are shared by all tenants", name)
}

func (v *Vaults) patchVault(ctx context.Context, o *managementRequest) (int, any, error) {
	var request vaultRequest
	if err := azure.DecodeKnown(o.body, &request); err != nil {
		return 0, nil, err
	}
	p, err := o.parse(request)
	if err != nil {
		return 0, nil, err
	}
	return v.changeLive(ctx, o, func(tx *store.Tx, found vault) (vault, error) {
		return v.updateVault(ctx, tx, o, p, &found)
	})
}

// changeLive changes a vault that is not deleted, and returns it after the change.
func (v *Vaults) changeLive(ctx context.Context, o *managementRequest, change func(*store.Tx, vault) (vault, error)) (int, any, error) {
	var answer resource
	err := v.db.InTx(ctx, func(tx *store.Tx) error {
		if err := lockName(ctx, tx, o.path["vault"]); err != nil {
			return err
		}
		found, err := o.findLive(ctx, tx)
		if err != nil {
			return err
		}
		if found, err = change(tx, found); err != nil {
			return err
		}
		answer, err = v.describe(ctx, tx, o, found)
		return err
	})
	return http.StatusOK, answer, err
}

func (v *Vaults) getVault(ctx context.Context, o *managementRequest) (int, any, error) {
	var answer resource
	err := v.db.View(ctx, func(tx *store.Tx) error {
		found, err := o.findLive(ctx, tx)
		if err != nil {
			return err
		}
		answer, err = v.describe(ctx, tx, o, found)
		return err
	})
	return http.StatusOK, answer, err
}

const vaultPageSize = 100

func (v *Vaults) listVaults(ctx context.Context, o *managementRequest) (int, any, error) {
	query, args := listVaultsSQL, []any{o.subscription}
	if group, ok := o.path["group"]; ok {
		query, args = listGroupSQL, []any{o.subscription, strings.ToLower(group)}
	}
	return v.listPage(ctx, o, query, args, func(tx *store.Tx, found vault) (any, error) {
		return v.describe(ctx, tx, o, found)
	})
}

func (v *Vaults) listPage(ctx context.Context, o *managementRequest, query string, args []any, show func(*store.Tx, vault) (any, error)) (int, any, error) {
	after, err := base64.RawURLEncoding.DecodeString(o.query.Get("$skiptoken"))
	if err != nil || len(after) > 0 && !vaultName().Match(after) {
		return 0, nil, azure.Invalid("the query parameter $skiptoken is not from a nextLink")
	}
	answer := struct {
		Value []any  `json:"value"`
		Next  string `json:"nextLink,omitempty"`
	}{Value: []any{}}
	err = v.db.View(ctx, func(tx *store.Tx) error {
		answer.Value = []any{}
		args := append([]any{o.tenant.ID, string(after), vaultPageSize + 1}, args...)
		found, err := store.Collect(ctx, tx, scanVault, query, args...)
		if err != nil {
			return err
		}
		for _, one := range found[:min(vaultPageSize, len(found))] {
			shown, err := show(tx, one)
			if err != nil {
				return err
			}
			answer.Value = append(answer.Value, shown)
		}
		if len(found) > vaultPageSize {
			last := strings.ToLower(found[vaultPageSize-1].name)
			answer.Next = o.nextLink(base64.RawURLEncoding.EncodeToString([]byte(last)))
		}
		return nil
	})
	return http.StatusOK, answer, err
}

// port returns the port of the request with its colon, empty if there is none.
func (o *managementRequest) port() string {
	if _, port, err := net.SplitHostPort(o.host); err == nil {
		return ":" + port
	}
	return ""
}
