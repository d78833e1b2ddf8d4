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

type refusalKey struct{}

// WithRefusals makes wait be called for each invalid token or secret that the
// request of ctx shows.
func WithRefusals(ctx context.Context, wait func(ctx context.Context)) context.Context {
	return context.WithValue(ctx, refusalKey{}, wait)
}

// Refused says that the request of ctx has shown a token or a secret that is not
// valid, and returns when it may be answered. One that shows none is not meant: the
// first request to a vault never does.
func Refused(ctx context.Context) {
	if wait, ok := ctx.Value(refusalKey{}).(func(context.Context)); ok {
		wait(ctx)
	}
}
