package access

import (
	"context"

	"keyroll/api"
	"keyroll/internal/fail"
)

type principalKey struct{}

// WithPrincipal returns a context that carries the principal of a request.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// PrincipalOf returns the principal that ctx carries; without one, it fails
// Unauthenticated.
func PrincipalOf(ctx context.Context) (Principal, error) {
	p, ok := ctx.Value(principalKey{}).(Principal)
	if !ok {
		return Principal{}, fail.New(api.Unauthenticated, "the request has no principal")
	}
	return p, nil
}
