package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/admit"
	"keyroll/internal/fail"
	"keyroll/internal/httpcheck"
	"keyroll/internal/store"
	"keyroll/internal/vault/azure"
)

const (
	maxBody = 64 << 10
	// maxBackup bounds a restore request: it is enough for 500 versions of RSA 4096
	// in two layers of base64.
	maxBackup = 4 << 20
)

// call is one authenticated request to a vault.
type call struct {
	asked
	state
	name, domain string // NAME and DOMAIN[:PORT] of the request's host
	token        access.Token
	tokenErr     error     // Unauthenticated
	pathErr      error     // a name in the path that is not valid
	read         time.Time // when state was read
	base         string    // https://NAME.DOMAIN[:PORT], the beginning of ids in answers
	used         string    // the key version that was used, for the log
}

// state is what the database has about a call, in one snapshot.
type state struct {
	vault   vault
	tenant  access.Tenant
	who     access.Principal
	whoErr  error // Unauthenticated, with who empty or of another tenant; the following members are empty then
	denied  error // why the caller has no permission; the following members are empty then
	key     key
	version version
	keyErr  error // why there is no key version, or none that the operation uses
}

// Handler serves requests to hosts of the form NAME.DOMAIN[:PORT], which are those for
// which Serves returns true.
func (v *Vaults) Handler() http.Handler { return v.handler(v.authenticate) }

// authenticate finds the vault and the caller. Without a token that is valid for this
// vault the answer has a challenge, which says where to get one.
func (v *Vaults) authenticate(w http.ResponseWriter, r *http.Request) (request, error) {
	w.Header().Set("X-Ms-Keyvault-Service-Version", serviceVersion)
	c := &call{asked: find(ofVault, r)}
	c.name, c.domain = v.splitHost(r.Host)
	if !vaultName().MatchString(c.name) {
		return nil, vaultNotFound(c.name)
	}
	c.pathErr = checkNames(c.path)
	bearer, resource := httpcheck.Bearer(r), access.VaultAudience(c.domain)
	c.token, c.tokenErr = v.directory.CheckToken(bearer, resource)
	if err := v.readState(r.Context(), c); err != nil {
		return nil, err
	}
	if c.whoErr != nil {
		if bearer != "" && c.who.Tenant == 0 {
			admit.Refused(r.Context())
		}
		challenge := fmt.Sprintf("Bearer authorization=%q, resource=%q", v.authority+"/"+c.tenant.GUID.String(), resource)
		if bearer != "" {
			challenge += `, error="invalid_token"`
		}
		w.Header().Set("WWW-Authenticate", challenge)
		return nil, c.whoErr
	}
	w.Header().Set("X-Ms-Keyvault-Region", c.vault.location)
	c.base = "https://" + c.vault.name + "." + c.domain
	return c, admit.Authenticated(r.Context(), c.vault.tenant)
}

// readState reads all that decides whether the call is permitted, and the key version
// that it uses, in one snapshot. It fails if the vault does not exist.
func (v *Vaults) readState(ctx context.Context, c *call) error {
	var s state
	var part *error // of s, that a failure belongs to
	c.read = time.Now()
	err := v.db.View(ctx, func(tx *store.Tx) (err error) {
		s, part = state{}, nil
		if s.vault, err = findVault(ctx, tx, c.name); err != nil {
			return err
		}
		if s.vault.deleted != 0 || s.vault.sku != premium && v.isManagedHSM(c.domain) {
			return vaultNotFound(c.name)
		}
		if s.tenant, err = v.directory.Tenant(ctx, tx, s.vault.tenant); err != nil {
			return err
		}
		if s.whoErr = c.tokenErr; s.whoErr != nil {
			return nil
		}
		if s.who, err = v.directory.TokenPrincipal(ctx, tx, c.token); err != nil {
			if fail.Is(err, api.Unauthenticated) {
				s.whoErr, err = err, nil
			}
			return err
		}
		if s.who.Tenant != s.vault.tenant {
			s.whoErr = fail.New(api.Unauthenticated, "the token belongs to another tenant than vault %q", s.vault.name)
		}
		if s.whoErr != nil || c.route == nil {
			return nil
		}
		part = &s.denied
		granted, err := findGrant(ctx, tx, s.vault.id, s.who.ID)
		if err != nil {
			return err
		}
		if s.denied = s.missing(c.route.permission, granted); s.denied != nil {
			return nil
		}
		if !c.route.act.usesVersion || c.pathErr != nil {
			return nil
		}
		part = &s.keyErr
		if s.key, err = liveKey(ctx, tx, s.vault, c.path["name"]); err != nil {
			return err
		}
		s.version, err = findVersion(ctx, tx, s.key, c.path["version"])
		return err
	})
	if part != nil && err != nil {
		*part, err = err, nil
	}
	c.state = s
	return err
}

// recent is how old the state of a call may be when it is used. A call that has waited
// for longer, for its turn or for its body, reads it again.
const recent = 100 * time.Millisecond

// current refuses a call that is not permitted.
func (v *Vaults) current(ctx context.Context, c *call) error {
	if time.Since(c.read) >= v.recent {
		if err := v.readState(ctx, c); err != nil {
			return err
		}
	}
	if c.whoErr != nil {
		return c.whoErr
	}
	return c.denied
}

func (c *call) authorize(ctx context.Context, v *Vaults) error { return v.current(ctx, c) }

func (c *call) checkVersion() error {
	version := c.query.Get("api-version")
	if version == "" {
		return azure.Invalid("the query parameter api-version is missing")
	}
	if !dataVersion().MatchString(version) {
		return azure.Invalid("api-version %.20q is not supported", version).WithHint("vaults support 7.4 and later")
	}
	return nil
}

func (c *call) check(ctx context.Context, v *Vaults) error {
	if c.pathErr != nil {
		return c.pathErr
	}
	return v.limits.General(ctx, c.vault.id)
}

func (c *call) noRoute(w http.ResponseWriter, method string) error {
	if c.allowed != nil {
		return azure.NotAllowed(w, method, c.allowed)
	}
	return fail.New(api.NotFound, "a vault has no operation %s on this path", method)
}

func (c *call) logged() (string, []any) {
	return "vault operation", []any{"vault", c.vault.name, "key", c.path["name"], "version", c.used, "principal", c.who.ID, "tenant", c.tenant.GUID}
}

// keyName and keyVersion are Azure's rules for names, with the underscore of the
// documentation's own example key, Key_01. Versions are printed in lower case and
// accepted in either.
var (
	keyName    = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9A-Za-z_-]{1,127}$`) })
	keyVersion = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9a-f]{32}$`) })
)

func checkNames(path map[string]string) error {
	if name, ok := path["name"]; ok && !keyName().MatchString(name) {
		return azure.Invalid("a key's name has 1 to 127 letters, digits, hyphens and underscores")
	}
	version, ok := path["version"]
	if !ok {
		return nil
	}
	path["version"] = strings.ToLower(version)
	if !hasValidVersion(path) {
		return azure.Invalid("a key's version has 32 hexadecimal digits")
	}
	return nil
}

// Versions of the interfaces by their form: numbered up to 7.6, dated since.
var (
	dataVersion = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(7\.[4-9]|202[5-9]-\d\d-\d\d|20[3-9]\d-\d\d-\d\d)(-preview(\.\d)?)?$`)
	})
	managementVersion = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^20\d\d-\d\d-\d\d(-preview)?$`) })
)

// serviceVersion is the version of the interface in answers, in the form of Azure's.
const serviceVersion = "1.9.0.0"

// logInternal logs the cause of an internal error, which the client does not get.
func (v *Vaults) logInternal(ctx context.Context, request string, err error) {
	if fail.Abandoned(ctx, err) {
		return
	}
	if fail.Is(err, api.Internal) || fail.Is(err, api.Damaged) {
		v.log.ErrorContext(ctx, "vault failed", "request", request, "error", err, "cause", errors.Unwrap(err))
	}
}
