package vault

import (
	"net/http"
	"strings"

	"keyroll/api"
	"keyroll/internal/fail"
)

// azureOperations are the operations of keys that Azure has and this vault does not
// (Azure Key Vault documentation, about keys: key operations).
var azureOperations = []string{"encrypt", "decrypt", "sign", "verify", "import", "export"}

// notOffered returns the refusal of an Azure operation that this vault does not have.
// It has the form in which Azure refuses an operation that a key does not allow.
func notOffered(operation string) error {
	return refuse(api.Forbidden, "Forbidden", "KeyOperationForbidden", "this vault offers no operation %s: its keys wrap and unwrap", operation)
}

// notAllowed refuses a method on a path that has others (RFC 9110 section 15.5.6).
func notAllowed(w http.ResponseWriter, method string, allowed []string) error {
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	return fail.New(api.MethodNotAllowed, "this path has no operation %.20s", method).WithHint("it has %s", strings.Join(allowed, ", "))
}
