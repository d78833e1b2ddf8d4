package admit

import "context"

type ownKey struct{}

// Own marks the context of a call that keyroll makes to its own vaults.
func Own(ctx context.Context) context.Context { return context.WithValue(ctx, ownKey{}, true) }

// IsOwn reports whether Own marked ctx.
func IsOwn(ctx context.Context) bool { return ctx.Value(ownKey{}) != nil }

// Gate waits until a request of a tenant may run, or returns why it may not.
type Gate func(ctx context.Context, tenant int64) error

type gateKey struct{}

// WithGate returns a context whose request must pass gate.
func WithGate(ctx context.Context, gate Gate) context.Context {
	return context.WithValue(ctx, gateKey{}, gate)
}

// Authenticated reports that the request of ctx was authenticated as one of tenant, and
// waits until it may run; fail TooManyRequests or Unavailable. A request without a gate,
// such as keyroll's own, runs at once.
func Authenticated(ctx context.Context, tenant int64) error {
	if gate, ok := ctx.Value(gateKey{}).(Gate); ok {
		return gate(ctx, tenant)
	}
	return nil
}

type refusalKey struct{}

// WithRefusals returns a context in which wait is called for each invalid token or
// secret of the request.
func WithRefusals(ctx context.Context, wait func(ctx context.Context)) context.Context {
	return context.WithValue(ctx, refusalKey{}, wait)
}

// Refused reports that the request of ctx had an invalid token or secret, and returns
// when it may be answered. It must not be called for a request without one: the first
// request to a vault never has one.
func Refused(ctx context.Context) {
	if wait, ok := ctx.Value(refusalKey{}).(func(context.Context)); ok {
		wait(ctx)
	}
}
