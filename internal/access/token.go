package access

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/admit"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

const (
	tokenLifetime = time.Hour
	// maxBearer bounds the length of a token; keyroll's own have some 500 bytes.
	maxBearer = 4 << 10
)

// claims are the claims of a token, with the names that Azure uses (tid, oid, appid).
type claims struct {
	jwt.RegisteredClaims
	TenantID string `json:"tid"`
	ObjectID string `json:"oid"`
	AppID    string `json:"appid"`
}

// issue signs a token for p with EdDSA (RFC 8037), valid from now on.
func (d *Directory) issue(p Principal, tenant uuid.UUID, issuer, audience string, now time.Time) (string, error) {
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    issuer,
			Subject:   p.ID.String(),
			Audience:  jwt.ClaimStrings{audience},
			IssuedAt:  jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(now.Add(tokenLifetime)),
			ID:        uuid.NewString(),
		},
		TenantID: tenant.String(),
		ObjectID: p.ID.String(),
		AppID:    p.ID.String(),
	})
	token.Header["kid"] = d.signerID
	return token.SignedString(d.signer)
}

// Authenticate returns the principal of a bearer token for keyroll's own interfaces;
// fail Unauthenticated.
func (d *Directory) Authenticate(ctx context.Context, bearer string) (Principal, error) {
	return d.AuthenticateFor(ctx, bearer, ServiceAudience)
}

// AuthenticateFor returns the principal of a bearer token: an opaque token of an admin,
// or an unexpired signed token whose audience is exactly the given one and whose
// principal still exists. Everything else is fail Unauthenticated. The caller must check
// that the principal belongs to the tenant of the request.
func (d *Directory) AuthenticateFor(ctx context.Context, bearer, audience string) (Principal, error) {
	token, err := d.CheckToken(bearer, audience)
	var p Principal
	if err == nil {
		err = d.db.View(ctx, func(tx *store.Tx) (err error) {
			p, err = d.TokenPrincipal(ctx, tx, token)
			return err
		})
	}
	if fail.Is(err, api.Unauthenticated) && bearer != "" {
		admit.Refused(ctx)
	}
	if err == nil && token.opaque != "" {
		err = d.recordUse(ctx, p)
	}
	return p, err
}

// usedEvery is how exactly the last use of a token is recorded.
const usedEvery = time.Minute

// recordUse records when a token was last used.
func (d *Directory) recordUse(ctx context.Context, p Principal) error {
	now := d.now()
	if p.Kind == ByService || now.Sub(p.Used) < usedEvery {
		return nil
	}
	return d.db.Append(ctx, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.Exec(ctx, updateUsed, p.Tenant, p.ID.String(), now.UnixMilli())
		return err
	})
}

// Token is a bearer token after the checks that need no database.
type Token struct {
	opaque     string // empty: it is signed, for the principal below
	tenant, id uuid.UUID
}

// CheckToken makes the checks of AuthenticateFor that need no database, for callers that
// then use TokenPrincipal in a transaction of theirs. They must call admit.Refused if
// either fails with Unauthenticated.
func (d *Directory) CheckToken(bearer, audience string) (Token, error) {
	switch {
	case bearer == "":
		return Token{}, fail.New(api.Unauthenticated, "the request has no bearer token")
	case len(bearer) > maxBearer:
		return Token{}, fail.New(api.Unauthenticated, "the token has more than %d bytes", maxBearer)
	case strings.HasPrefix(bearer, adminTokenPrefix):
		return Token{opaque: bearer}, nil
	}
	c, err := d.signed.claimsOf(bearer)
	if err == nil {
		err = jwt.NewValidator(jwt.WithAudience(audience), jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithTimeFunc(d.now)).Validate(c)
	}
	if err != nil {
		return Token{}, fail.New(api.Unauthenticated, "the token is not valid for %s", audience).Because(err)
	}
	tenant, errTenant := uuid.Parse(c.TenantID)
	id, errID := uuid.Parse(c.ObjectID)
	if errTenant != nil || errID != nil {
		return Token{}, fail.New(api.Unauthenticated, "the token names no principal")
	}
	return Token{tenant: tenant, id: id}, nil
}

// TokenPrincipal returns the principal of a token that CheckToken has checked; fail
// Unauthenticated if there is none.
func (d *Directory) TokenPrincipal(ctx context.Context, tx *store.Tx, t Token) (Principal, error) {
	if t.opaque != "" {
		p, err := findBySecret(ctx, tx, hashSecret(t.opaque))
		if fail.Is(err, api.NotFound) {
			err = fail.New(api.Unauthenticated, "the token is not known, or it was revoked")
		}
		if err == nil && !p.Expires.IsZero() && !d.now().Before(p.Expires) {
			err = fail.New(api.Unauthenticated, "the token of %q expired at %s", p.Name, p.Expires.UTC().Format(time.RFC3339)).WithHint("ask for a new one: keyroll token rotate")
		}
		return p, err
	}
	p, err := findPrincipalOf(ctx, tx, t.tenant, t.id)
	if fail.Is(err, api.NotFound) {
		err = fail.New(api.Unauthenticated, "the token's principal %s no longer exists", t.id)
	}
	return p, err
}

func hashSecret(secret string) []byte {
	h := sha256.Sum256([]byte(secret))
	return h[:]
}

func sameHash(hash []byte, secret string) bool {
	return subtle.ConstantTimeCompare(hash, hashSecret(secret)) == 1
}
