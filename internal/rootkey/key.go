package rootkey

import (
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
)

// minimumBits is the smallest RSA key that may serve as a customer key (NIST SP
// 800-131A revision 2 section 6; also the smallest that Azure makes).
const minimumBits = 2048

// KeyInfo is what a vault tells about one key version.
type KeyInfo struct {
	KeyVersion    envelope.KeyVersion
	Type          string // as in JWK: RSA, RSA-HSM, EC …
	Bits          int    // length of an RSA modulus; 0 for other types
	Ops           []string
	Enabled       bool
	NotBefore     *time.Time
	Expires       *time.Time
	Created       time.Time
	RecoveryLevel string
}

// keyInfo checks an answer and takes from it what keyroll uses. A vault that
// leaves attributes out is not trusted to have a usable key.
func keyInfo(kv envelope.KeyVersion, bundle azkeys.KeyBundle) (KeyInfo, error) {
	key, attributes := bundle.Key, bundle.Attributes
	if key == nil || key.KID == nil || key.Kty == nil || attributes == nil || attributes.Enabled == nil {
		return KeyInfo{}, errors.New("the answer is no key")
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
	return info, nil
}

// Usable tells whether a key version can serve as a customer key at the time
// now: RSA of 2048 bits or more, enabled, inside its validity (not before <= now
// < expiry), allowed to wrap and to unwrap. The error is KeyUnusable and its
// hint is the line that repairs the key.
func Usable(info KeyInfo, now time.Time) error {
	unusable := func(hint, format string, args ...any) error {
		return fail.New(api.KeyUnusable, "%s %s", describe(info.KeyVersion), fmt.Sprintf(format, args...)).WithHint("%s", hint)
	}
	update := func(arguments string) string {
		return fmt.Sprintf("Update-AzKeyVaultKey %s %s", keyArguments(info.KeyVersion), arguments)
	}
	add := fmt.Sprintf("add one to a new name: Add-AzKeyVaultKey -VaultName %s -Name NAME -Destination HSM -KeyOps wrapKey,unwrapKey", vaultLabel(info.KeyVersion.Vault))
	const day = "2006-01-02 15:04:05Z07:00"
	switch {
	case info.Type != string(azkeys.KeyTypeRSA) && info.Type != string(azkeys.KeyTypeRSAHSM):
		return unusable(add, "is of type %s; a customer key is an RSA key", info.Type)
	case info.Bits < minimumBits:
		return unusable(add, "has %d bits; a customer key has %d or more", info.Bits, minimumBits)
	case !info.Enabled:
		return unusable(update("-Enable $true"), "is disabled")
	case info.NotBefore != nil && now.Before(*info.NotBefore):
		return unusable(update("-NotBefore (Get-Date)"), "is not valid before %s", info.NotBefore.UTC().Format(day))
	case info.Expires != nil && !now.Before(*info.Expires):
		return unusable(update(`-Expires (Get-Date -Date "12/31/9999")`), "expired at %s", info.Expires.UTC().Format(day))
	}
	for _, op := range []azkeys.KeyOperation{azkeys.KeyOperationWrapKey, azkeys.KeyOperationUnwrapKey} {
		if !slices.Contains(info.Ops, string(op)) {
			return unusable(update("-KeyOps wrapKey,unwrapKey"), "does not allow the operation %s", op)
		}
	}
	return nil
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
