package availability

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/rootkey"
)

// Each version of an availability key is a key of its own in the vault, named
// keyroll-availability-ID-VERSION, so that it can be deleted and purged on its own.
// The service needs the permissions create, get, list, wrapKey, unwrapKey,
// delete and purge. A wrap is
//
//	length 1 | version of the vault's key | RSA-OAEP-256 of the bundle
//
// It names the vault's key version that made it, because the key may be rotated in the
// vault.
const (
	keyPrefix = "keyroll-availability-"
	keyBits   = 2048 // wraps 190 bytes; a bundle has 64
)

// A deleted key can be purged after a few seconds; the vault is polled every
// deletionPause, at most deletionPolls times.
const (
	deletionPause = 2 * time.Second
	deletionPolls = 30
)

// vault is the backend that keeps availability keys in a vault, from which they cannot
// be read.
type vault struct {
	*rootkey.OperatorVault
	host string
}

func openVault(host string) (*vault, error) {
	v, err := rootkey.OpenOperatorVault("https://" + strings.ToLower(host))
	if err != nil {
		return nil, err
	}
	return &vault{v, host}, nil
}

func vaultKey(id int64, version uint32) string { return fmt.Sprintf("%s%d-%d", keyPrefix, id, version) }

func (v *vault) close() { v.Close() }

func (v *vault) add(ctx context.Context, tenant, id int64, version uint32) error {
	name := vaultKey(id, version)
	err := v.Call(ctx, func(ctx context.Context, c *azkeys.Client) error {
		_, err := c.GetKey(ctx, name, "", nil)
		return err
	})
	if !answered(err, http.StatusNotFound) {
		return v.failure("find", name, err)
	}
	// A standard vault refuses hardware keys with status 400.
	for _, kind := range []azkeys.KeyType{azkeys.KeyTypeRSAHSM, azkeys.KeyTypeRSA} {
		err = v.Call(ctx, func(ctx context.Context, c *azkeys.Client) error {
			_, err := c.CreateKey(ctx, name, azkeys.CreateKeyParameters{
				Kty: to.Ptr(kind), KeySize: to.Ptr(int32(keyBits)),
				KeyOps: []*azkeys.KeyOperation{to.Ptr(azkeys.KeyOperationWrapKey), to.Ptr(azkeys.KeyOperationUnwrapKey)},
				Tags:   map[string]*string{"keyroll-tenant": to.Ptr(fmt.Sprint(tenant))},
			}, nil)
			return err
		})
		if !answered(err, http.StatusBadRequest) {
			break
		}
	}
	if answered(err, http.StatusConflict) {
		return fail.New(api.VaultDenied, "create %s: the vault holds a deleted key of that name", v.describe(name)).Because(err)
	}
	return v.failure("create", name, err)
}

func (v *vault) wrap(ctx context.Context, id int64, version uint32, _ envelope.EncryptionContext, plaintext []byte) ([]byte, error) {
	name := vaultKey(id, version)
	var wrapped []byte
	err := v.Call(ctx, func(ctx context.Context, c *azkeys.Client) error {
		answer, err := c.WrapKey(ctx, name, "", oaep256(plaintext), nil)
		if err != nil {
			return err
		}
		if answer.KID == nil || len(answer.Result) == 0 {
			return errors.New("the answer holds no value, or names no key")
		}
		made := answer.KID.Version()
		if made == "" || len(made) > 255 {
			return errors.New("the answer names no version of the key")
		}
		wrapped = append(append([]byte{byte(len(made))}, made...), answer.Result...)
		return nil
	})
	return wrapped, v.failure("wrap with", name, err)
}

func (v *vault) open(ctx context.Context, id int64, version uint32, _ envelope.EncryptionContext, wrapped []byte) ([]byte, error) {
	name := vaultKey(id, version)
	if len(wrapped) < 1 || len(wrapped) <= 1+int(wrapped[0]) {
		return nil, fail.New(api.Damaged, "unwrap with %s: the wrap is too short", v.describe(name))
	}
	made, wrapped := string(wrapped[1:1+wrapped[0]]), wrapped[1+wrapped[0]:]
	if strings.Trim(made, "0123456789abcdef") != "" { // it becomes part of a URL
		return nil, fail.New(api.Damaged, "unwrap with %s: the wrap names no version of a key", v.describe(name))
	}
	var plaintext []byte
	err := v.Call(ctx, func(ctx context.Context, c *azkeys.Client) error {
		answer, err := c.UnwrapKey(ctx, name, made, oaep256(wrapped), nil)
		plaintext = answer.Result
		return err
	})
	if answered(err, http.StatusBadRequest) {
		return nil, fail.New(api.Damaged, "unwrap with %s: the vault rejected the wrap", v.describe(name)).Because(err)
	}
	return plaintext, v.failure("unwrap with", name, err)
}

func oaep256(value []byte) azkeys.KeyOperationParameters {
	return azkeys.KeyOperationParameters{Algorithm: to.Ptr(azkeys.EncryptionAlgorithmRSAOAEP256), Value: value}
}

// destroy lists the versions in the vault, because a version that a roll created and
// never used is recorded nowhere else.
func (v *vault) destroy(ctx context.Context, id int64) error {
	names, err := v.versions(ctx, id)
	if err != nil {
		return err
	}
	var errs []error
	for name := range names {
		errs = append(errs, v.deleteAndPurge(ctx, name))
	}
	return errors.Join(errs...)
}

func (v *vault) destroyVersion(ctx context.Context, id int64, version uint32) error {
	return v.deleteAndPurge(ctx, vaultKey(id, version))
}

// versions returns the names of a key's versions, including deleted ones.
func (v *vault) versions(ctx context.Context, id int64) (map[string]bool, error) {
	prefix := fmt.Sprintf("%s%d-", keyPrefix, id)
	names := map[string]bool{}
	add := func(kid *azkeys.ID) {
		if kid != nil && strings.HasPrefix(kid.Name(), prefix) {
			names[kid.Name()] = true
		}
	}
	err := eachPage(ctx, v, func(c *azkeys.Client) *runtime.Pager[azkeys.ListKeyPropertiesResponse] {
		return c.NewListKeyPropertiesPager(nil)
	}, func(page azkeys.ListKeyPropertiesResponse) {
		for _, key := range page.Value {
			add(key.KID)
		}
	})
	if err == nil {
		err = eachPage(ctx, v, func(c *azkeys.Client) *runtime.Pager[azkeys.ListDeletedKeyPropertiesResponse] {
			return c.NewListDeletedKeyPropertiesPager(nil)
		}, func(page azkeys.ListDeletedKeyPropertiesResponse) {
			for _, key := range page.Value {
				add(key.KID)
			}
		})
	}
	return names, v.failure("list the versions of", prefix, err)
}

// eachPage reads a list of the vault and calls take with each page.
func eachPage[Page any](ctx context.Context, v *vault, open func(*azkeys.Client) *runtime.Pager[Page], take func(Page)) error {
	var pager *runtime.Pager[Page]
	for pager == nil || pager.More() {
		err := v.Call(ctx, func(ctx context.Context, c *azkeys.Client) error {
			if pager == nil {
				pager = open(c)
			}
			page, err := pager.NextPage(ctx)
			if err == nil {
				take(page)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// deleteAndPurge deletes and purges one key of the vault. It does nothing if the key
// does not exist, deleted or not.
func (v *vault) deleteAndPurge(ctx context.Context, name string) error {
	err := v.Call(ctx, func(ctx context.Context, c *azkeys.Client) error {
		_, err := c.DeleteKey(ctx, name, nil)
		return err
	})
	deleting := err == nil || answered(err, http.StatusConflict) // or was already
	if !deleting && !answered(err, http.StatusNotFound) {
		return v.failure("delete", name, err)
	}
	for poll := 1; ; poll++ {
		var deleted azkeys.GetDeletedKeyResponse
		err := v.Call(ctx, func(ctx context.Context, c *azkeys.Client) (err error) {
			deleted, err = c.GetDeletedKey(ctx, name, nil)
			return err
		})
		switch {
		case err == nil:
			return v.purge(ctx, name, deleted.DeletedKey)
		case !answered(err, http.StatusNotFound):
			return v.failure("find deleted", name, err)
		case !deleting:
			return nil
		case poll == deletionPolls:
			return fail.New(api.VaultUnavailable, "delete %s: the vault has not finished it yet", v.describe(name)).
				WithHint("try again")
		}
		select {
		case <-time.After(deletionPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// purge purges a deleted key, if the vault permits it.
func (v *vault) purge(ctx context.Context, name string, deleted azkeys.DeletedKey) error {
	if a := deleted.Attributes; a != nil && a.RecoveryLevel != nil && !strings.Contains(*a.RecoveryLevel, "Purgeable") {
		until := "its retention ends"
		if deleted.ScheduledPurgeDate != nil {
			until = deleted.ScheduledPurgeDate.UTC().Format(time.RFC3339)
		}
		return fail.New(api.Conflict, "purge %s: it is deleted, but the vault has purge protection and keeps it until %s", v.describe(name), until).
			WithHint("until then the administrators of that vault can recover it; try again afterwards")
	}
	err := v.Call(ctx, func(ctx context.Context, c *azkeys.Client) error {
		_, err := c.PurgeDeletedKey(ctx, name, nil)
		return err
	})
	if answered(err, http.StatusNotFound) {
		return nil
	}
	return v.failure("purge", name, err)
}

// describe names a key as all errors of this backend do.
func (v *vault) describe(name string) string {
	return fmt.Sprintf("key %q in the vault of availability keys %s", name, v.host)
}

// failure returns the error of a call as a fail.Error, nil if there is none.
func (v *vault) failure(act, name string, err error) error {
	if err == nil {
		return nil
	}
	what := act + " " + v.describe(name)
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", what, err)
	}
	f := rootkey.Classify(err)
	if f.Class == rootkey.Refusal {
		return fail.New(api.VaultDenied, "%s: %s", what, f.Reason).Because(err).
			WithHint("check that --availability names the vault that this database was used with, and that its access policy gives the service create, get, list, wrapKey, unwrapKey, delete and purge")
	}
	return fail.New(api.VaultUnavailable, "%s: %s", what, f.Reason).Because(err).
		WithHint("new policies, refreshes, updates, rolls of availability keys and purges wait for this vault; everything else continues")
}

// answered reports whether an error is an answer of the vault with the given status.
func answered(err error, status int) bool {
	var answer *azcore.ResponseError
	return errors.As(err, &answer) && answer.StatusCode == status
}
