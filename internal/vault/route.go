package vault

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"keyroll/internal/httpcheck"
	"keyroll/internal/vault/azure"
)

// route is one row of the table of operations.
type route struct {
	of         target
	method     string
	path       azure.Pattern
	permission string // key permission that the vault's access policy must give, or the role in management; empty: none of its checks applies
	maxBody    int64
	act        action
}

// target is the interface that an operation belongs to.
type target int

const (
	ofVault      target = iota // served on the vault's own host
	ofManagement               // served under /subscriptions
)

// action is what an operation does.
type action struct {
	run         func(*Vaults, context.Context, request) (status int, answer any, err error)
	usesVersion bool // of a key: it is read in the same snapshot as the permission
}

// onKeys is an operation of a vault. Without an answer its status is 204.
func onKeys(act func(*Vaults, context.Context, *call) (any, error)) action {
	return action{run: func(v *Vaults, ctx context.Context, r request) (int, any, error) {
		answer, err := act(v, ctx, r.(*call))
		if answer == nil {
			return http.StatusNoContent, nil, err
		}
		return http.StatusOK, answer, err
	}}
}

// onVersion is an operation of a vault with an existing version of a key.
func onVersion(act func(*Vaults, context.Context, *call) (any, error)) action {
	a := onKeys(act)
	a.usesVersion = true
	return a
}

// onVaults is an operation of management.
func onVaults(act func(*Vaults, context.Context, *managementRequest) (int, any, error)) action {
	return action{run: func(v *Vaults, ctx context.Context, r request) (int, any, error) {
		return act(v, ctx, r.(*managementRequest))
	}}
}

// without refuses an operation of Azure that a vault here does not offer.
func without(operation string) action {
	return action{run: func(*Vaults, context.Context, request) (int, any, error) { return 0, nil, notOffered(operation) }}
}

// anyMethod is the method of rows that serve every method.
const anyMethod = ""

// Roles in management. The service's own principals read as Azure's role Reader does:
// they check a vault whose key a policy is to use.
const (
	toRead   = "read"
	toManage = "manage"
)

const (
	underSubscription = "subscriptions/{subscription}/providers/Microsoft.KeyVault/"
	underGroup        = "subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.KeyVault/"
	underFeatures     = "subscriptions/{subscription}/providers/Microsoft.Features/providers/{namespace}/features/{feature}"
	underProviders    = "subscriptions/{subscription}/providers/{namespace}"
)

// routes has all operations: those of a vault, as in the Key Vault REST API, with those
// that a vault here does not offer; and those of management, as in the Key Vault resource
// provider of Azure Resource Manager. An operation of management that is asynchronous in
// Azure is complete here before the answer, which polling clients understand. The first
// row that matches is served.
var routes = []route{
	{ofVault, anyMethod, azure.Path("keys/{name}/{version?}/encrypt"), "", 0, without("encrypt")},
	{ofVault, anyMethod, azure.Path("keys/{name}/{version?}/decrypt"), "", 0, without("decrypt")},
	{ofVault, anyMethod, azure.Path("keys/{name}/{version?}/sign"), "", 0, without("sign")},
	{ofVault, anyMethod, azure.Path("keys/{name}/{version?}/verify"), "", 0, without("verify")},
	{ofVault, anyMethod, azure.Path("keys/{name}/{version?}/release"), "", 0, without("release")},
	{ofVault, anyMethod, azure.Path("keys/{name}/{version?}/attestation"), "", 0, without("attestation")},
	{ofVault, anyMethod, azure.Path("keys/{name}/encrypt"), "", 0, without("encrypt")},
	{ofVault, anyMethod, azure.Path("keys/{name}/decrypt"), "", 0, without("decrypt")},
	{ofVault, anyMethod, azure.Path("keys/{name}/sign"), "", 0, without("sign")},
	{ofVault, anyMethod, azure.Path("keys/{name}/verify"), "", 0, without("verify")},
	{ofVault, anyMethod, azure.Path("keys/{name}/release"), "", 0, without("release")},
	{ofVault, anyMethod, azure.Path("keys/{name}/attestation"), "", 0, without("attestation")},
	{ofVault, anyMethod, azure.Path("keys/{name}/rotate"), "", 0, without("rotate")},
	{ofVault, anyMethod, azure.Path("keys/{name}/rotationpolicy"), "", 0, without("rotationpolicy")},
	{ofVault, anyMethod, azure.Path("rng"), "", 0, without("rng")},

	{ofVault, "GET", azure.Path("keys"), "list", maxBody, onKeys((*Vaults).listKeys)},
	{ofVault, "POST", azure.Path("keys/restore"), "restore", maxBackup, onKeys((*Vaults).restoreKey)},
	{ofVault, "POST", azure.Path("keys/{name}/create"), "create", maxBody, onKeys((*Vaults).createKey)},
	{ofVault, "POST", azure.Path("keys/{name}/backup"), "backup", maxBody, onKeys((*Vaults).backupKey)},
	{ofVault, "POST", azure.Path("keys/{name}/wrapkey"), "wrapKey", maxBody, onVersion((*Vaults).wrapKey)},
	{ofVault, "POST", azure.Path("keys/{name}/unwrapkey"), "unwrapKey", maxBody, onVersion((*Vaults).unwrapKey)},
	{ofVault, "POST", azure.Path("keys/{name}/{version?}/wrapkey"), "wrapKey", maxBody, onVersion((*Vaults).wrapKey)},
	{ofVault, "POST", azure.Path("keys/{name}/{version?}/unwrapkey"), "unwrapKey", maxBody, onVersion((*Vaults).unwrapKey)},
	{ofVault, "GET", azure.Path("keys/{name}/versions"), "list", maxBody, onKeys((*Vaults).listVersions)},
	{ofVault, "PUT", azure.Path("keys/{name}"), "import", maxBody, onKeys((*Vaults).importKey)},
	{ofVault, "DELETE", azure.Path("keys/{name}"), "delete", maxBody, onKeys((*Vaults).deleteKey)},
	{ofVault, "GET", azure.Path("keys/{name}/{version?}"), "get", maxBody, onVersion((*Vaults).getKey)},
	{ofVault, "PATCH", azure.Path("keys/{name}/{version?}"), "update", maxBody, onKeys((*Vaults).updateKey)},
	{ofVault, "GET", azure.Path("deletedkeys"), "list", maxBody, onKeys((*Vaults).listDeletedKeys)},
	{ofVault, "GET", azure.Path("deletedkeys/{name}"), "get", maxBody, onKeys((*Vaults).getDeletedKey)},
	{ofVault, "DELETE", azure.Path("deletedkeys/{name}"), "purge", maxBody, onKeys((*Vaults).purgeKey)},
	{ofVault, "POST", azure.Path("deletedkeys/{name}/recover"), "recover", maxBody, onKeys((*Vaults).recoverKey)},

	{ofManagement, "GET", azure.Path("subscriptions"), toRead, maxBody, onVaults((*Vaults).listSubscriptions)},
	{ofManagement, "GET", azure.Path(underSubscription + "vaults"), toRead, maxBody, onVaults((*Vaults).listVaults)},
	{ofManagement, "GET", azure.Path(underGroup + "vaults"), toRead, maxBody, onVaults((*Vaults).listVaults)},
	{ofManagement, "PUT", azure.Path(underGroup + "vaults/{vault}"), toManage, maxBody, onVaults((*Vaults).putVault)},
	{ofManagement, "PATCH", azure.Path(underGroup + "vaults/{vault}"), toManage, maxBody, onVaults((*Vaults).patchVault)},
	{ofManagement, "GET", azure.Path(underGroup + "vaults/{vault}"), toRead, maxBody, onVaults((*Vaults).getVault)},
	{ofManagement, "DELETE", azure.Path(underGroup + "vaults/{vault}"), toManage, maxBody, onVaults((*Vaults).deleteVault)},
	{ofManagement, "PUT", azure.Path(underGroup + "vaults/{vault}/accessPolicies/{operation}"), toManage, maxBody, onVaults((*Vaults).putAccessPolicies)},
	{ofManagement, "GET", azure.Path(underSubscription + "deletedVaults"), toManage, maxBody, onVaults((*Vaults).listDeletedVaults)},
	{ofManagement, "GET", azure.Path(underSubscription + "locations/{location}/deletedVaults/{vault}"), toManage, maxBody, onVaults((*Vaults).getDeletedVault)},
	{ofManagement, "POST", azure.Path(underSubscription + "locations/{location}/deletedVaults/{vault}/purge"), toManage, maxBody, onVaults((*Vaults).purgeVault)},
	{ofManagement, "GET", azure.Path(underFeatures), toManage, maxBody, onVaults((*Vaults).getFeature)},
	{ofManagement, "POST", azure.Path(underFeatures + "/register"), toManage, maxBody, onVaults((*Vaults).registerFeature)},
	{ofManagement, "GET", azure.Path(underProviders), toManage, maxBody, onVaults((*Vaults).getProvider)},
	{ofManagement, "POST", azure.Path(underProviders + "/register"), toManage, maxBody, onVaults((*Vaults).registerProvider)},
}

// asked has what every request to an interface of the vaults has.
type asked struct {
	route   *route            // nil: no operation
	path    map[string]string // values of the variables in its path
	allowed []string          // methods that the path has, if it has no operation with the request's
	query   url.Values
	body    io.Reader
}

func (a *asked) common() *asked { return a }

// find looks a request up in the table. A path with an invalid version of a key has an
// operation only if no other reading of the path has any.
func find(of target, r *http.Request) asked {
	a := asked{query: r.URL.Query(), body: r.Body}
	escaped := r.URL.EscapedPath()
	if !strings.HasPrefix(escaped, "/") {
		return a
	}
	given := strings.Split(strings.Trim(escaped, "/"), "/")
	var invalid asked
	for i := range routes {
		row := &routes[i]
		if row.of != of {
			continue
		}
		values, ok := row.path.Match(given)
		switch same := row.method == r.Method; {
		case !ok:
		case row.method == anyMethod:
			a.route, a.path = row, values
			return a
		case !hasValidVersion(values):
			if same && invalid.route == nil {
				invalid.route, invalid.path = row, values
			}
		case same:
			a.route, a.path = row, values
			return a
		case !slices.Contains(a.allowed, row.method):
			a.allowed = append(a.allowed, row.method)
		}
	}
	if a.allowed == nil {
		a.route, a.path = invalid.route, invalid.path
	}
	return a
}

// hasValidVersion reports whether the version in a path is valid or absent.
func hasValidVersion(path map[string]string) bool {
	version := strings.ToLower(path["version"])
	return version == "" || keyVersion().MatchString(version)
}

// request is an authenticated request to an interface of the vaults.
type request interface {
	common() *asked
	// authorize refuses a caller without the permission of the operation.
	authorize(ctx context.Context, v *Vaults) error
	checkVersion() error
	// check refuses names in the path that are not valid, and requests above the limits.
	check(ctx context.Context, v *Vaults) error
	// noRoute is the refusal if there is no operation.
	noRoute(w http.ResponseWriter, method string) error
	// logged returns the message and the attributes of the request's line in the log.
	logged() (message string, attributes []any)
}

// handler serves an interface, whose requests authenticate returns.
func (v *Vaults) handler(authenticate func(w http.ResponseWriter, r *http.Request) (request, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := azure.RequestID(w, r)
		q, err := authenticate(w, r)
		if err != nil {
			v.logInternal(r.Context(), id, err)
			azure.WriteError(w, err)
			return
		}
		status, answer, err := v.dispatch(w, r, q)
		v.logInternal(r.Context(), id, err)
		operation := "unknown"
		if found := q.common().route; found != nil {
			operation = strings.TrimSpace(found.method + " " + found.path.Text)
		}
		message, attributes := q.logged()
		v.log.InfoContext(r.Context(), message, slices.Concat([]any{"operation", operation}, attributes, []any{"request", id, "result", azure.Outcome(err)})...)
		switch {
		case err != nil:
			azure.WriteError(w, err)
		case answer == nil:
			w.WriteHeader(status)
		default:
			azure.WriteJSON(w, status, answer)
		}
	})
}

// dispatch runs the operation of a request after its checks.
func (v *Vaults) dispatch(w http.ResponseWriter, r *http.Request, q request) (status int, answer any, err error) {
	a, ctx := q.common(), r.Context()
	if a.route == nil {
		return 0, nil, q.noRoute(w, r.Method)
	}
	if a.route.permission == "" {
		return a.route.act.run(v, ctx, q)
	}
	if err := q.authorize(ctx, v); err != nil {
		return 0, nil, err
	}
	if err := q.checkVersion(); err != nil {
		return 0, nil, err
	}
	if err := httpcheck.CheckCoding(r); err != nil {
		return 0, nil, err
	}
	if err := q.check(ctx, v); err != nil {
		return 0, nil, err
	}
	a.body = http.MaxBytesReader(w, r.Body, a.route.maxBody)
	return a.route.act.run(v, ctx, q)
}
