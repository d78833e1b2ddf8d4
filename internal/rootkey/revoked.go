package rootkey

import (
	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
)

// applications are the ids of the service's principals, by which a customer
// removes their permissions (Customer Key set-up documentation).
var applications = map[Identity]string{
	Exchange:             "00000002-0000-0ff1-ce00-000000000000",
	SharePoint:           "00000003-0000-0ff1-ce00-000000000000",
	DataAtRestEncryption: "c066d759-24ae-40e7-a56f-027002b5d3e4",
}

// CheckRevoked returns nil if the answer of a vault to an unwrap shows that the customer
// has removed the permission of a principal. With deletedToo a deleted key or vault counts
// as well.
func CheckRevoked(kv envelope.KeyVersion, by Identity, answer error, deletedToo bool) error {
	code, principal := fail.CodeOf(answer), applications[by]
	switch failure := Classify(answer); {
	case answer == nil:
		return fail.New(api.Conflict, "the service still has its permission on key %q in vault %q", kv.Key, kv.Vault).
			WithHint("remove it in both vaults: Remove-AzKeyVaultAccessPolicy -VaultName %s -ServicePrincipalName %s", kv.Vault, principal)
	case code != api.VaultDenied:
		return answer
	case failure == KeyDeleted, failure == VaultDeleted:
		if deletedToo {
			return nil
		}
		_, detail, _ := fail.Public(answer)
		return fail.New(api.Conflict, "%s", detail).WithHint("if it was deleted on purpose, repeat the request with -Force (keyroll purge request --force)").Because(answer)
	case failure == KeyDisabled, failure == KeyExpired, failure == NotYetValid, failure == OperationOff:
		_, detail, _ := fail.Public(answer)
		return fail.New(api.Conflict, "%s; the service still has its permission", detail).
			WithHint("remove it in both vaults: Remove-AzKeyVaultAccessPolicy -VaultName %s -ServicePrincipalName %s", kv.Vault, principal).Because(answer)
	}
	return nil
}
