package roll

import (
	"context"

	"keyroll/internal/store"
)

// End ends the unfinished rolls to and from a policy: their state becomes
// superseded. Containers stay where they are, moved or not. The caller holds the
// policy's lock, so that no page is swapped afterwards.
func End(ctx context.Context, tx *store.Tx, e Ending) error {
	return endUnfinished(ctx, tx, `policy = ?2 OR source = ?2`, e)
}

// IncomingRoll returns the unfinished roll that moves containers of another policy
// to this one, and false if there is none.
func IncomingRoll(ctx context.Context, tx *store.Tx, tenant, policy int64) (Roll, bool, error) {
	latest, ok, err := Latest(ctx, tx, tenant, policy)
	return latest, ok && latest.Source != 0 && latest.Unfinished(), err
}
