package vault

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/vault/azure"
	"keyroll/internal/vault/material"
)

type wrapRequest struct {
	Algorithm string `json:"alg"`
	Value     string `json:"value"`
}

type wrapAnswer struct {
	ID    string `json:"kid"`
	Value string `json:"value"`
}

// wrapKey encrypts the value under the public key of a version.
func (v *Vaults) wrapKey(ctx context.Context, c *call) (any, error) {
	return v.runOperation(ctx, c, "wrapKey", func(a material.Algorithm, ver version, value []byte) ([]byte, error) {
		k, err := material.ParsePublicRSA(ver.public)
		if err != nil {
			return nil, damagedKey(ver, err.Error())
		}
		return a.Wrap(k, value)
	})
}

// unwrapKey decrypts the value under the private key of a version.
func (v *Vaults) unwrapKey(ctx context.Context, c *call) (any, error) {
	return v.runOperation(ctx, c, "unwrapKey", func(a material.Algorithm, ver version, value []byte) ([]byte, error) {
		k, err := v.openRSA(c.vault.id, ver)
		if err != nil {
			return nil, err
		}
		return a.Unwrap(k, value)
	})
}

// runOperation checks a wrap or unwrap request and runs act with the version that the
// path names.
func (v *Vaults) runOperation(ctx context.Context, c *call, operation string,
	act func(material.Algorithm, version, []byte) ([]byte, error),
) (any, error) {
	var request wrapRequest
	if err := azure.Decode(c.body, &request); err != nil {
		return nil, err
	}
	a, err := material.AlgorithmOf(request.Algorithm)
	if err != nil {
		return nil, err
	}
	value, err := azure.DecodeBytes("value", request.Value)
	if err != nil {
		return nil, err
	}
	defer clear(value)
	if len(value) == 0 {
		return nil, azure.Invalid("property \"value\" is missing")
	}
	k, found, err := v.findKeyVersion(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := checkUsable(found, operation, v.now()); err != nil {
		return nil, err
	}
	if strings.HasSuffix(found.kind, "-HSM") {
		if err := v.limits.HSM(ctx, c.vault.id); err != nil {
			return nil, err
		}
	}
	result, err := v.inTurn(ctx, c.vault.tenant, func() ([]byte, error) { return act(a, found, value) })
	if fail.Is(err, api.Damaged) {
		err = fmt.Errorf("key %q: %w", k.name, err)
	}
	if err != nil {
		return nil, err
	}
	defer clear(result)
	return wrapAnswer{c.keyID(k.name, found.version), base64.RawURLEncoding.EncodeToString(result)}, nil
}

// inTurn runs an RSA operation. As many run in parallel as there are processors, and
// tenants take turns: one operation of RSA 4096 takes milliseconds, and hundreds in
// parallel would all be slow.
func (v *Vaults) inTurn(ctx context.Context, tenant int64, act func() ([]byte, error)) ([]byte, error) {
	leave, err := v.operations.Enter(ctx, tenant)
	if err != nil {
		return nil, queueError(err)
	}
	defer leave()
	return act()
}

// checkUsable refuses an operation that a version does not allow at this time. A
// disabled version allows none. Outside the time between nbf and exp it still unwraps,
// so that a date makes no data unreadable, but does not wrap (Azure Key Vault
// documentation, key attributes).
func checkUsable(ver version, operation string, now time.Time) error {
	forbidden := func(inner, state string) error {
		return azure.Refuse(api.Forbidden, "Forbidden", inner, "operation %s is not allowed on %s key version %s", operation, state, ver.version)
	}
	switch {
	case !ver.enabled:
		return forbidden("KeyDisabled", "the disabled")
	case !material.IsRSA(ver.kind):
		return azure.Invalid("operation %s is not possible with a key of type %s", operation, ver.kind)
	case !slices.Contains(ver.operations, operation):
		return azure.Refuse(api.Forbidden, "Forbidden", "KeyOperationForbidden",
			"operation %s is not among the operations of key version %s", operation, ver.version)
	case operation == "wrapKey" && ver.notBefore != nil && now.UnixMilli() < *ver.notBefore:
		return forbidden("KeyNotYetValid", "the not yet valid")
	case operation == "wrapKey" && ver.expire != nil && now.UnixMilli() >= *ver.expire:
		return forbidden("KeyExpired", "the expired")
	}
	return nil
}
