package vault

import (
	"slices"

	"keyroll/api"
	"keyroll/internal/vault/azure"
	"keyroll/internal/vault/material"
)

// azureOperations are the operations of keys that Azure has and this vault does not
// (Azure Key Vault documentation, about keys: key operations).
var azureOperations = []string{"encrypt", "decrypt", "sign", "verify", "import", "export"}

// notOffered returns the refusal of an Azure operation that this vault does not have.
// It has the form in which Azure refuses an operation that a key does not allow.
func notOffered(operation string) error {
	return azure.Refuse(api.Forbidden, "Forbidden", "KeyOperationForbidden", "this vault offers no operation %s: its keys wrap and unwrap", operation)
}

// operationsOf returns the operations of this vault with a key of that type, which are
// also the default of the key's key_ops. An EC key has none here.
func operationsOf(kind string) []string {
	if material.IsRSA(kind) {
		return []string{"wrapKey", "unwrapKey"}
	}
	return []string{}
}

// supported removes from stored operations those that this vault does not have:
// earlier versions stored more.
func supported(kind string, operations []string) []string {
	has := operationsOf(kind)
	return slices.DeleteFunc(slices.Clone(operations), func(o string) bool { return !slices.Contains(has, o) })
}
