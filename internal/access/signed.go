package access

import (
	"crypto/ed25519"
	"crypto/sha256"
	"sync"

	"github.com/golang-jwt/jwt/v5"
)

// rememberedTokens bounds the tokens whose signatures are remembered.
const rememberedTokens = 1000

// signed reads signed tokens. It remembers which it has verified, by their hashes, so
// that a client's requests do not verify the same signature again and again. Only what
// never changes is remembered, the claims: whether a token has expired, and whether its
// principal still exists, is checked at each request.
type signed struct {
	key ed25519.PublicKey

	mu       sync.Mutex
	verified map[[sha256.Size]byte]claims
}

// claimsOf returns the claims of a token with a valid signature, and checks none of them.
func (s *signed) claimsOf(bearer string) (claims, error) {
	hash := sha256.Sum256([]byte(bearer))
	s.mu.Lock()
	c, ok := s.verified[hash]
	s.mu.Unlock()
	if ok {
		return c, nil
	}
	_, err := jwt.ParseWithClaims(bearer, &c, func(*jwt.Token) (any, error) { return s.key, nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation())
	if err != nil {
		return claims{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.verified == nil || len(s.verified) >= rememberedTokens {
		s.verified = map[[sha256.Size]byte]claims{}
	}
	s.verified[hash] = c
	return c, nil
}
