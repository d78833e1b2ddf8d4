// Package vault is the embedded key vault: a server that official Azure Key
// Vault clients use unmodified.
//
// It holds RSA and EC keys in versions, wraps and unwraps with the RSA ones, and
// keeps deleted keys and vaults until they are recovered or purged or their retention
// ends. Each vault's access policy determines the permissions. Private key material
// is stored in the database only under the seal, bound to its tenant, vault, key and
// version; it leaves the package only in a backup under the seal, and never reaches a
// log or an error. The rest of keyroll reaches a vault only over HTTPS, as it reaches
// one in Azure.
//
// Start reading at the table routes (route.go), which has all operations and their one
// dispatcher. Handler (call.go) serves requests to a vault; Management (management.go) is
// the Azure Resource Manager interface: vaults and their access policies.
package vault

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"net"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/admit"
	"keyroll/internal/seal"
	"keyroll/internal/store"
	"keyroll/internal/vault/azure"
	"keyroll/internal/vault/material"
)

// Config is what Vaults work with.
type Config struct {
	DB        *store.DB
	Seal      *seal.Seal
	Directory *access.Directory
	// Logger gets one line for each operation: the principal, the operation, the key
	// version and the result.
	Logger *slog.Logger
	Now    func() time.Time
	// Domain is the vault domain: the host of the vault NAME is NAME.Domain.
	Domain string
	// Authority is the https base URL of the token endpoint, without a slash at its
	// end. It is part of challenges.
	Authority string
	// KeyVaultLimits enforces the documented limits of Azure Key Vault.
	KeyVaultLimits bool
	// MakeRSA, unless nil, makes RSA keys in place of rsa.GenerateKey; only tests
	// set it.
	MakeRSA RSAMaker
}

// RSAMaker makes an RSA key of a size, as rsa.GenerateKey does.
type RSAMaker func(bits int) (*rsa.PrivateKey, error)

// Vaults are all vaults of all tenants. They are safe for concurrent use, and
// several nodes may serve the same ones.
type Vaults struct {
	db        *store.DB
	seal      *seal.Seal
	directory *access.Directory
	log       *slog.Logger
	now       func() time.Time
	domain    string // lower case
	authority string
	opened    *material.Cache
	limits    *azure.Limits // nil: none
	makeRSA   RSAMaker
	recent    time.Duration // as the constant; only tests change it

	generations admit.Queue // for generating keys
	operations  admit.Queue // for operations with private keys
}

// Open returns the vaults in a database.
func Open(c Config) *Vaults {
	v := &Vaults{
		db: c.DB, seal: c.Seal, directory: c.Directory, log: c.Logger, now: c.Now,
		domain:    strings.ToLower(c.Domain),
		authority: strings.TrimSuffix(c.Authority, "/"),
		opened:    material.NewCache(),
		makeRSA:   c.MakeRSA,
		recent:    recent,

		generations: admit.Queue{Capacity: runtime.GOMAXPROCS(0)},
		operations:  admit.Queue{Capacity: runtime.GOMAXPROCS(0)},
	}
	if v.makeRSA == nil {
		v.makeRSA = func(bits int) (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, bits) }
	}
	if c.KeyVaultLimits {
		v.limits = azure.NewLimits(c.Now)
	}
	return v
}

// Serves reports whether host, with or without a port, is that of a vault, so that
// Handler serves its requests.
func (v *Vaults) Serves(host string) bool {
	name, _ := v.splitHost(host)
	return name != ""
}

// premium is the SKU of vaults that are served as Managed HSMs too.
const premium = "premium"

// isManagedHSM reports whether DOMAIN[:PORT], as splitHost returns it, is that of
// Managed HSMs.
func (v *Vaults) isManagedHSM(domain string) bool {
	return strings.HasPrefix(domain, access.ManagedHSMDomain(v.domain))
}

// splitHost splits NAME.DOMAIN[:PORT] into the vault's name and DOMAIN[:PORT], which
// is the vault domain or that of Managed HSMs. Both are empty for any other host.
func (v *Vaults) splitHost(host string) (name, domain string) {
	name, domain, _ = strings.Cut(host, ".")
	bare := domain
	if h, _, err := net.SplitHostPort(domain); err == nil {
		bare = h
	}
	if !strings.EqualFold(bare, v.domain) && !strings.EqualFold(bare, access.ManagedHSMDomain(v.domain)) {
		return "", ""
	}
	return name, strings.ToLower(domain)
}

// vaultName is the rule for new vaults: 3 to 127 letters, digits, hyphens and
// underscores, as part of a host name neither beginning nor ending with one of
// the latter. Azure has no underscores, but the documentation's examples do.
var vaultName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z_-]{1,125}[0-9A-Za-z]$`) })

// vault is a row of the table. Times are Unix milliseconds, 0 for never.
type vault struct {
	id, tenant       int64
	name             string // as given
	subscription     string // GUID
	protected        bool   // the subscription cannot end before the retention does
	group, location  string
	sku              string
	retentionDays    int64
	purgeProtection  bool
	tags             map[string]string
	created, updated int64
	deleted, purgeAt int64
}

// recoveryLevel returns Azure's deletion recovery level of the vault's keys.
func (v vault) recoveryLevel() string {
	level := "Recoverable"
	if v.retentionDays < maxRetention {
		level = "CustomizedRecoverable"
	}
	switch {
	case !v.purgeProtection:
		return level + "+Purgeable"
	case v.protected:
		return level + "+ProtectedSubscription"
	}
	return level
}

// endOfRetention returns when a key or vault that is deleted now is purged.
func (v vault) endOfRetention(now time.Time) int64 {
	return now.Add(time.Duration(v.retentionDays) * 24 * time.Hour).UnixMilli()
}

// inLockedVault runs fn in a transaction that holds the lock of one vault, after keys
// whose retention has ended are purged. A vault that was deleted meanwhile is refused.
func (v *Vaults) inLockedVault(ctx context.Context, vault vault, fn func(tx *store.Tx) error) error {
	return v.db.InTx(ctx, func(tx *store.Tx) error {
		if err := lockName(ctx, tx, vault.name); err != nil {
			return err
		}
		current, err := findVault(ctx, tx, vault.name)
		if err != nil {
			return err
		}
		if current.id != vault.id || current.deleted != 0 {
			return vaultNotFound(vault.name)
		}
		if err := purgeExpiredKeys(ctx, tx, vault.id, v.now().UnixMilli()); err != nil {
			return err
		}
		return fn(tx)
	})
}

// lockName takes the lock under which a vault of that name, existing or not, is
// changed. Two names with the same hash only wait for each other.
func lockName(ctx context.Context, tx *store.Tx, name string) error {
	return lockText(ctx, tx, "vault "+strings.ToLower(name))
}

// lockText takes the lock whose number is the hash of a text.
func lockText(ctx context.Context, tx *store.Tx, text string) error {
	digest := sha256.Sum256([]byte(text))
	return tx.Lock(ctx, int64(binary.BigEndian.Uint64(digest[:8])), true)
}

func vaultNotFound(name string) error {
	return azure.Refuse(api.NotFound, "VaultNotFound", "", "vault %q does not exist", name)
}
