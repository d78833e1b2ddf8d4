// Package keyhealth keeps a record of whether the vaults of customer keys let the
// service use them. All nodes share it.
//
// A definitive answer of a vault sets the record: a success or a refusal. An outage never
// replaces a refusal, and a problem of keyroll itself is not recorded. Each change is
// written with an entry of the audit log. Start reading at Observe and Apply.
package keyhealth

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"keyroll/api"
	"keyroll/internal/audit"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/rootkey"
	"keyroll/internal/store"
)

// Health is the recorded state of one customer key version as one policy uses it. All
// nodes share it. A definitive answer of the vault sets it: a successful unwrap, or a
// refusal. An outage never replaces a refusal, and a local problem of keyroll is not
// recorded at all.
type Health struct {
	State  api.HealthState // empty: the key has not been used successfully yet
	Reason string          // of a refusal or an outage
	Since  time.Time

	serial int64 // of the record; incremented by each change
}

// Root is a customer key version as a policy uses it.
type Root struct {
	Tenant, Policy int64
	Principal      rootkey.Identity
	Key            envelope.KeyVersion // the case of vault and key names is ignored
}

func (r Root) args(more ...any) []any {
	kv := r.Key.Fold()
	return append([]any{r.Tenant, r.Policy, string(r.Principal), kv.Vault, kv.Key, kv.Version}, more...)
}

const whereRoot = ` WHERE tenant = ?1 AND policy = ?2 AND principal = ?3 AND vault = ?4 AND key_name = ?5 AND version = ?6`

// Of reads a record; one that does not exist is the zero Health.
func Of(ctx context.Context, tx *store.Tx, r Root) (h Health, err error) {
	var since int64
	err = tx.QueryRow(ctx, `SELECT state, reason, since, serial FROM root_health`+whereRoot, r.args()...).Scan(&h.State, &h.Reason, &since, &h.serial)
	if errors.Is(err, sql.ErrNoRows) {
		return Health{}, nil
	}
	if err != nil {
		return h, fmt.Errorf("read the health of a customer key: %w", err)
	}
	h.Since = time.UnixMilli(since)
	return h, nil
}

// Observation is the result of one use of a customer key.
type Observation struct {
	root Root
	what string // names the key and its policy in messages
	// seen is the record from before the vault was called. A success that began
	// before a refusal was recorded does not clear it.
	seen  Health
	state api.HealthState // empty: nothing definitive
	why   string
}

// Result returns the observation with the outcome of an unwrap.
func (o Observation) Result(err error) Observation {
	switch {
	case err == nil:
		o.state = api.Serves
	case fail.Is(err, api.VaultDenied):
		o.state, o.why = api.Refused, reasonOf(err)
	case fail.Is(err, api.VaultUnavailable):
		o.state, o.why = api.Unreachable, reasonOf(err)
	}
	return o
}

// reasonOf describes a failure in words that are the same each time it happens.
func reasonOf(err error) string {
	if f := rootkey.Classify(err); f != rootkey.MalformedAnswer {
		return f.Reason
	}
	_, detail, _ := fail.Public(err)
	return detail
}

// next returns the state that follows from an observation, and whether that changes
// the record, which is now.
func (o Observation) next(now Health) (state api.HealthState, changed bool) {
	switch o.state {
	case api.Refused: // whatever was recorded meanwhile; the next success clears it
		return api.Refused, now.State != api.Refused || now.Reason != o.why
	case api.Serves:
		return api.Serves, now.State != api.Serves && now.serial == o.seen.serial
	case api.Unreachable:
		return api.Unreachable, now.State == api.Serves && now.serial == o.seen.serial
	}
	return now.State, false
}

// Observe reads the record of a customer key before its vault is called. what names the
// key and its policy in messages.
func Observe(ctx context.Context, db *store.DB, r Root, what string) (o Observation, err error) {
	o = Observation{root: r, what: what}
	err = db.View(ctx, func(tx *store.Tx) error {
		o.seen, err = Of(ctx, tx, r)
		return err
	})
	return o, err
}

// Seen returns the state that was recorded before the vault was called.
func (o Observation) Seen() api.HealthState { return o.seen.State }

// Apply writes an observation if it changes the record, together with an entry of
// the audit log. It returns a line for the log, empty if nothing changed.
func (o Observation) Apply(ctx context.Context, tx *store.Tx, at time.Time) (change string, err error) {
	for {
		now, err := Of(ctx, tx, o.root)
		if err != nil {
			return "", err
		}
		state, changed := o.next(now)
		if !changed {
			return "", nil
		}
		write := updateHealth // an upsert would add a second record if an index has lost the first
		if now.State == "" {
			write = insertHealth
		}
		written, err := tx.Exec(ctx, write, o.root.args(string(state), o.why, at.UnixMilli(), now.serial)...)
		if err != nil {
			return "", fmt.Errorf("record the health of a customer key: %w", err)
		}
		if written == 0 {
			continue // another node has recorded something since the read
		}
		if now.State == "" && state == api.Serves {
			return "", nil // its first use
		}
		change = o.what + ": " + Health{State: state, Reason: o.why}.describe()
		return change, audit.RootKeyUse(ctx, tx, audit.Entry{Tenant: o.root.Tenant, Outcome: string(state), Detail: "health of the " + change}, at)
	}
}

const (
	insertHealth = `INSERT INTO root_health (tenant, policy, principal, vault, key_name, version, state, reason, since, serial)
	VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10 + 1)
	ON CONFLICT (tenant, policy, principal, vault, key_name, version) DO NOTHING`
	updateHealth = `UPDATE root_health SET state = ?7, reason = ?8, since = ?9, serial = ?10 + 1` + whereRoot + ` AND serial = ?10`
)

// describe returns the state in words.
func (h Health) describe() string {
	switch h.State {
	case api.Refused, api.Unreachable:
		return string(h.State) + ": " + h.Reason
	case "":
		return "has not been used successfully yet"
	}
	return string(h.State)
}

// API returns the health as the service shows it.
func (h Health) API() *api.KeyHealth {
	if h.State == "" {
		return &api.KeyHealth{State: api.HealthUnknown}
	}
	since := h.Since.UTC()
	return &api.KeyHealth{State: h.State, Since: &since, Reason: h.Reason}
}

// All returns all records of a tenant.
func All(ctx context.Context, tx *store.Tx, tenant int64) (Healths, error) {
	return read(ctx, tx, tenant, "")
}

// OfPolicies returns the records of some policies of a tenant: with one query.
func OfPolicies(ctx context.Context, tx *store.Tx, tenant int64, policies []int64) (Healths, error) {
	if len(policies) == 0 {
		return nil, nil
	}
	in, args := store.InList(policies, []any{tenant})
	return read(ctx, tx, tenant, ` AND policy IN `+in, args[1:]...)
}

// Healths has records by the keys as they are stored.
type Healths map[Root]Health

// Of returns a record; one that does not exist is the zero Health.
func (h Healths) Of(r Root) Health {
	r.Key = r.Key.Fold()
	return h[r]
}

func read(ctx context.Context, tx *store.Tx, tenant int64, and string, args ...any) (Healths, error) {
	type record struct {
		Root
		Health
	}
	list, err := store.Collect(ctx, tx, func(row store.Scanner) (r record, err error) {
		var since int64
		err = row.Scan(&r.Policy, &r.Principal, &r.Key.Vault, &r.Key.Key, &r.Key.Version, &r.State, &r.Reason, &since)
		r.Tenant, r.Since = tenant, time.UnixMilli(since)
		return r, err
	}, `SELECT policy, principal, vault, key_name, version, state, reason, since FROM root_health WHERE tenant = ?1`+and, append([]any{tenant}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("read the health of customer keys: %w", err)
	}
	all := Healths{}
	for _, r := range list {
		all[r.Root] = r.Health
	}
	return all, nil
}
