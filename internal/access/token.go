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

// issue signs a token for p with EdDSA (RFC 8037).
func (d *Directory) issue(p Principal, tenant uuid.UUID, issuer, audience string) (string, error) {
	now := d.now()
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
	return d.AuthenticateFor(ctx, bearer, serviceAudience)
}

// AuthenticateFor returns the principal of a bearer token: an opaque token of an admin,
// or an unexpired signed token whose audience is exactly the given one and whose
// principal still exists. Everything else is fail Unauthenticated. The caller must check
// that the principal belongs to the tenant of the request.
func (d *Directory) AuthenticateFor(ctx context.Context, bearer, audience string) (Principal, error) {
	if bearer == "" {
		return Principal{}, fail.New(api.Unauthenticated, "the request has no bearer token")
	}
	p, err := d.authenticate(ctx, bearer, audience)
	if fail.Is(err, api.Unauthenticated) {
		admit.Refused(ctx)
	}
	return p, err
}

func (d *Directory) authenticate(ctx context.Context, bearer, audience string) (Principal, error) {
	if len(bearer) > maxBearer {
		return Principal{}, fail.New(api.Unauthenticated, "the token has more than %d bytes", maxBearer)
	}
	if strings.HasPrefix(bearer, adminTokenPrefix) {
		return d.byAdminToken(ctx, bearer)
	}
	var c claims
	_, err := jwt.ParseWithClaims(bearer, &c,
		func(*jwt.Token) (any, error) { return d.signer.Public(), nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
		jwt.WithAudience(audience), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithTimeFunc(d.now), jwt.WithStrictDecoding())
	if err != nil {
		return Principal{}, fail.New(api.Unauthenticated, "the token is not valid for %s", audience).Because(err)
	}
	return d.principalOf(ctx, c)
}

// principalOf returns the principal in the claims of a verified token.
func (d *Directory) principalOf(ctx context.Context, c claims) (Principal, error) {
	tenant, errTenant := uuid.Parse(c.TenantID)
	id, errID := uuid.Parse(c.ObjectID)
	if errTenant != nil || errID != nil {
		return Principal{}, fail.New(api.Unauthenticated, "the token names no principal")
	}
	var p Principal
	err := d.db.View(ctx, func(tx *store.Tx) error {
		t, err := d.findByGUID(ctx, tx, tenant)
		if err != nil {
			return err
		}
		p, err = d.Principal(ctx, tx, t.ID, id)
		return err
	})
	if fail.Is(err, api.NotFound) {
		return Principal{}, fail.New(api.Unauthenticated, "the token's principal %s no longer exists", id)
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
