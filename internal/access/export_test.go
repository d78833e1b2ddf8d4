package access

import "github.com/golang-jwt/jwt/v5"

// Sign signs any claims as the directory signs those of its tokens.
func (d *Directory) Sign(claims jwt.Claims) (string, error) {
	return jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims).SignedString(d.signer)
}
