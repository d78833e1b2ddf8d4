package vault

import (
	"context"
	"crypto"
	"crypto/rsa"
	"fmt"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/vault/azure"
	"keyroll/internal/vault/material"
)

// generate makes key material: PKCS #8 and PKIX. As many keys are generated in
// parallel as there are processors; tenants take turns.
func (v *Vaults) generate(ctx context.Context, tenant int64, r createRequest) (private, public []byte, err error) {
	leave, err := v.generations.Enter(ctx, tenant)
	if err != nil {
		return nil, nil, queueError(err)
	}
	defer leave()
	signer, err := r.material().Generate(v.makeRSA)
	if err != nil {
		return nil, nil, err
	}
	return material.Encode(signer)
}

// queueError is the error of a request that ended while it was waiting for its turn.
func queueError(err error) error {
	return fail.New(api.Unavailable, "the request ended before its turn came").Because(err)
}

// label binds sealed material to its tenant, vault, key and version.
func label(vault int64, v version) string {
	return fmt.Sprintf("vault key %d/%d/%d/%s", v.tenant, vault, v.key, v.version)
}

func (v *Vaults) sealKey(vault int64, ver version, private []byte) []byte {
	return v.seal.Seal(label(vault, ver), private)
}

// openRSA returns the private key of an RSA version.
func (v *Vaults) openRSA(vault int64, ver version) (*rsa.PrivateKey, error) {
	if k := v.opened.Get(ver.id, v.now()); k != nil {
		return k, nil
	}
	private, err := v.openPrivate(vault, ver)
	if err != nil {
		return nil, err
	}
	k, ok := private.(*rsa.PrivateKey)
	if !ok {
		return nil, damagedKey(ver, "it is not RSA")
	}
	v.opened.Put(ver.id, k, v.now())
	return k, nil
}

// openPrivate returns the private key of a version after it has checked that it fits
// the public key.
func (v *Vaults) openPrivate(vault int64, ver version) (crypto.Signer, error) {
	private, err := v.seal.Open(label(vault, ver), ver.sealed)
	if fail.Is(err, api.Damaged) {
		return nil, damagedKey(ver, "it cannot be decrypted under the seal")
	}
	if err != nil {
		return nil, err
	}
	defer clear(private)
	k, err := material.ParsePrivate(private, ver.public)
	if err != nil {
		return nil, damagedKey(ver, err.Error())
	}
	return k, nil
}

// damagedKey returns a refusal with the Azure error code KeyDamaged, by which the
// service distinguishes it from a failure of the vault.
func damagedKey(ver version, why string) error {
	return azure.Refuse(api.Damaged, "KeyDamaged", "", "the private key of key version %s is damaged: %s", ver.version, why)
}
