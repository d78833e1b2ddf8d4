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

// KeyInfo is what a vault tells about one key version.
type KeyInfo struct {
	KeyVersion envelope.KeyVersion
	Type       string // as in JWK: RSA, RSA-HSM, EC …
	Bits       int    // length of an RSA modulus; 0 for other types
	// Public is the RSA key as the vault publishes it, unchecked; nil: there is none.
	Public    *rsa.PublicKey
	Ops       []string
	Enabled   bool
	NotBefore *time.Time
	Expires   *time.Time
	Created   time.Time
	// RecoveryLevel says what becomes of the key once it is deleted, as Azure
	// words it, and RecoverableDays for how long.
	RecoveryLevel   string
	RecoverableDays int32
}

// keyInfo checks an answer and takes from it what keyroll uses. A vault that
// leaves attributes out is not trusted to have a usable key.
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

// keyArguments names a key version to a cmdlet.
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
