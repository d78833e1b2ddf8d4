package roll

import (
	"context"
	"time"

	"keyroll/api"
	"keyroll/internal/store"
)

// End ends the unfinished rolls to and from a policy: their state becomes
// superseded, with message as the reason. Containers stay where they are, moved or
// not. The caller holds the policy's lock, so that no page is swapped afterwards.
func End(ctx context.Context, tx *store.Tx, tenant, policy int64, message string, now time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE roll SET state = ?3, finished = ?4, message = ?5
		WHERE tenant = ?1 AND (policy = ?2 OR source = ?2) AND state IN (?6, ?7, ?8)`,
		tenant, policy, string(api.RollSuperseded), now.UnixMilli(), message,
		string(api.RollRunning), string(api.RollPaused), string(api.RollFailed))
	return err
}

// IncomingRoll returns the unfinished roll that moves containers of another policy
// to this one, and false if there is none.
func IncomingRoll(ctx context.Context, tx *store.Tx, tenant, policy int64) (Roll, bool, error) {
	latest, ok, err := Latest(ctx, tx, tenant, policy)
	return latest, ok && latest.Source != 0 && latest.Unfinished(), err
}
