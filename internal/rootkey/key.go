package rootkey

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyroll/internal/envelope"
)

// KeyInfo describes one key version as its vault reports it.
type KeyInfo struct {
	KeyVersion envelope.KeyVersion
	Type       string // as in JWK: RSA, RSA-HSM, EC …
	Bits       int    // length of an RSA modulus; 0 for other types
	// Public is the RSA key that the vault publishes, unchecked; nil: there is none.
	Public    *rsa.PublicKey
	Ops       []string
	Enabled   bool
	NotBefore *time.Time
	Expires   *time.Time
	Created   time.Time
	// RecoveryLevel is Azure's deletion recovery level of the key, and
	// RecoverableDays how long a deleted key is kept.
	RecoveryLevel   string
	RecoverableDays int32
}

// keyInfo checks an answer and returns the parts that keyroll uses. An answer without
// attributes is refused, because the key may not be usable.
func keyInfo(kv envelope.KeyVersion, bundle azkeys.KeyBundle) (KeyInfo, error) {
	key, attributes := bundle.Key, bundle.Attributes
	if key == nil || key.KID == nil || key.Kty == nil || attributes == nil || attributes.Enabled == nil {
		return KeyInfo{}, errors.New("the answer is not a key")
	}
	version := lastVersion(string(*key.KID))
	if version == "" || kv.Version != "" && kv.Version != version {
		return KeyInfo{}, errors.New("the answer names another key version")
	}
	info := KeyInfo{
		KeyVersion: envelope.KeyVersion{Vault: kv.Vault, Key: kv.Key, Version: version},
		Type:       string(*key.Kty),
		Bits:       new(big.Int).SetBytes(key.N).BitLen(),
		Enabled:    *attributes.Enabled,
		NotBefore:  attributes.NotBefore,
		Expires:    attributes.Expires,
	}
	if isRSA(info.Type) {
		info.Public = publicKey(key.N, key.E)
	}
	for _, op := range key.KeyOps {
		if op != nil {
			info.Ops = append(info.Ops, string(*op))
		}
	}
	if attributes.Created != nil {
		info.Created = *attributes.Created
	}
	if attributes.RecoveryLevel != nil {
		info.RecoveryLevel = *attributes.RecoveryLevel
	}
	if attributes.RecoverableDays != nil {
		info.RecoverableDays = *attributes.RecoverableDays
	}
	return info, nil
}

// keyArguments returns the parameters that name a key version in a cmdlet.
func keyArguments(kv envelope.KeyVersion) string {
	arguments := fmt.Sprintf("-VaultName %s -Name %s", vaultLabel(kv.Vault), kv.Key)
	if kv.Version != "" {
		arguments += " -Version " + kv.Version
	}
	return arguments
}

// vaultLabel returns the bare name of a vault.
func vaultLabel(vault string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(vault, "https://"), ".")
	return name
}
