package availability

// VaultKey is the name of a version's key in a vault.
var VaultKey = vaultKey
