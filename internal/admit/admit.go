package admit

import "context"

type ownKey struct{}

// Own marks the context of a call that keyroll makes to its own vaults.
func Own(ctx context.Context) context.Context { return context.WithValue(ctx, ownKey{}, true) }

// IsOwn reports whether Own marked ctx.
func IsOwn(ctx context.Context) bool { return ctx.Value(ownKey{}) != nil }

// Gate waits until a request of a tenant may run; its error says why it may not.
type Gate func(ctx context.Context, tenant int64) error

type gateKey struct{}

// WithGate makes gate decide about the request of ctx.
func WithGate(ctx context.Context, gate Gate) context.Context {
	return context.WithValue(ctx, gateKey{}, gate)
}

// Authenticated says that the request of ctx was authenticated as one of tenant,
// and waits until it may run; fail TooManyRequests or Unavailable. A request
// without a gate, as keyroll's own are, runs at once.
func Authenticated(ctx context.Context, tenant int64) error {
	if gate, ok := ctx.Value(gateKey{}).(Gate); ok {
		return gate(ctx, tenant)
	}
	return nil
}
