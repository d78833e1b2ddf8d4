package vault

import (
	"net/http"
	"slices"
	"strings"

	"keyroll/api"
	"keyroll/internal/fail"
)

// azureOperations are the operations of keys that Azure has and this vault does not
// (Azure Key Vault documentation, about keys: key operations).
var azureOperations = []string{"encrypt", "decrypt", "sign", "verify", "import", "export"}

// notOfferedRoutes are the paths of Azure's REST interface whose operations this
// vault does not offer, with the name of each.
var notOfferedRoutes = []struct{ path, operation string }{
	{"keys/{name}/{version?}/encrypt", "encrypt"},
	{"keys/{name}/{version?}/decrypt", "decrypt"},
	{"keys/{name}/{version?}/sign", "sign"},
	{"keys/{name}/{version?}/verify", "verify"},
	{"keys/{name}/{version?}/release", "release"},
	{"keys/{name}/{version?}/attestation", "attestation"},
	{"keys/{name}/encrypt", "encrypt"},
	{"keys/{name}/decrypt", "decrypt"},
	{"keys/{name}/sign", "sign"},
	{"keys/{name}/verify", "verify"},
	{"keys/{name}/release", "release"},
	{"keys/{name}/attestation", "attestation"},
	{"keys/{name}/rotate", "rotate"},
	{"keys/{name}/rotationpolicy", "rotationpolicy"},
	{"rng", "rng"},
}

// notOffered returns the refusal of an Azure operation that this vault does not have.
// It has the form in which Azure refuses an operation that a key does not allow.
func notOffered(operation string) error {
	return refuse(api.Forbidden, "Forbidden", "KeyOperationForbidden", "this vault offers no operation %s: its keys wrap and unwrap", operation)
}

// notOfferedOn returns the operation of a path if this vault does not offer it, empty
// otherwise.
func notOfferedOn(path string) string {
	for _, route := range notOfferedRoutes {
		if _, ok := matchPath(route.path, path); ok {
			return route.operation
		}
	}
	return ""
}

// hasValidVersion reports whether the version in a path is valid or absent.
func hasValidVersion(path map[string]string) bool {
	version := strings.ToLower(path["version"])
	return version == "" || keyVersion.MatchString(version)
}

// allowedOn returns the methods that a path has. A path with an invalid version has
// none.
func allowedOn(path string) (methods []string) {
	for _, route := range routes {
		if values, ok := matchPath(route.path, path); ok && hasValidVersion(values) && !slices.Contains(methods, route.method) {
			methods = append(methods, route.method)
		}
	}
	return methods
}

// noRoute returns the refusal of a request that no route serves: its path has other
// methods, or none.
func noRoute(w http.ResponseWriter, r *http.Request) error {
	if methods := allowedOn(r.URL.EscapedPath()); methods != nil {
		return notAllowed(w, r.Method, methods)
	}
	return fail.New(api.NotFound, "a vault has no operation %s on this path", r.Method)
}

// notAllowed refuses a method on a path that has others (RFC 9110 section 15.5.6).
func notAllowed(w http.ResponseWriter, method string, allowed []string) error {
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	return fail.New(api.MethodNotAllowed, "this path has no operation %.20s", method).WithHint("it has %s", strings.Join(allowed, ", "))
}
