package admit

import "context"

type ownKey struct{}

// Own marks the context of a call that keyroll makes to its own vaults.
func Own(ctx context.Context) context.Context { return context.WithValue(ctx, ownKey{}, true) }

// IsOwn reports whether Own marked ctx.
func IsOwn(ctx context.Context) bool { return ctx.Value(ownKey{}) != nil }
