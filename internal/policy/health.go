package policy

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
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

// rootID names a customer key version as a policy uses it.
type rootID struct {
	tenant, policy int64
	principal      rootkey.Identity
	key            envelope.KeyVersion
}

func (r revisionRow) rootID(tenant int64, root root) rootID {
	return rootID{tenant, r.Policy, ProfileOf(r.Kind).Identity, root.kv}
}

func (id rootID) args(more ...any) []any {
	kv := foldCase(id.key)
	return append([]any{id.tenant, id.policy, string(id.principal), kv.Vault, kv.Key, kv.Version}, more...)
}

const whereRoot = ` WHERE tenant = ?1 AND policy = ?2 AND principal = ?3 AND vault = ?4 AND key_name = ?5 AND version = ?6`

// healthOf reads a record; one that does not exist is the zero Health.
func healthOf(ctx context.Context, tx *store.Tx, id rootID) (h Health, err error) {
	var since int64
	err = tx.QueryRow(ctx, `SELECT state, reason, since, serial FROM root_health`+whereRoot, id.args()...).Scan(&h.State, &h.Reason, &since, &h.serial)
	if errors.Is(err, sql.ErrNoRows) {
		return Health{}, nil
	}
	if err != nil {
		return h, fmt.Errorf("read the health of a customer key: %w", err)
	}
	h.Since = time.UnixMilli(since)
	return h, nil
}

// observation is the result of one use of a customer key.
type observation struct {
	root rootID
	what string // names the key and its policy in messages
	// seen is the record from before the vault was called. A success that began
	// before a refusal was recorded does not clear it.
	seen  Health
	state api.HealthState // empty: nothing definitive
	why   string
}

// result returns the observation with the outcome of an unwrap.
func (o observation) result(err error) observation {
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
func (o observation) next(now Health) (state api.HealthState, changed bool) {
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

// observe reads the record of a customer key before its vault is called.
func (p *Policies) observe(ctx context.Context, id rootID, what string) (o observation, err error) {
	o = observation{root: id, what: what}
	err = p.db.View(ctx, func(tx *store.Tx) error {
		o.seen, err = healthOf(ctx, tx, id)
		return err
	})
	return o, err
}

// apply writes an observation if it changes the record, together with an entry of
// the audit log. It returns a line for the log, empty if nothing changed.
func (p *Policies) apply(ctx context.Context, tx *store.Tx, o observation) (change string, err error) {
	at := p.now()
	for {
		now, err := healthOf(ctx, tx, o.root)
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
		return change, audit.RootKeyUse(ctx, tx, audit.Entry{Tenant: o.root.tenant, Outcome: string(state), Detail: "health of the " + change}, at)
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

// warn logs a change of health that has been committed.
func (p *Policies) warn(ctx context.Context, change string) {
	if change != "" {
		p.logger.LogAttrs(ctx, slog.LevelWarn, "the health of a customer key changed", slog.String("change", change))
	}
}

// classifyFailure returns the class of the failure of both customer keys of a
// revision, and an error that explains it. It is a refusal if the last definitive
// answer of either key was one, whatever its vault answers now; an outage only if
// both keys have been used successfully before and both vaults are unreachable; and
// otherwise a local problem of keyroll.
func (p *Policies) classifyFailure(ctx context.Context, tenant int64, r revisionRow, failed error) (rootkey.Class, error) {
	if fail.Is(failed, api.VaultDenied) {
		return rootkey.Refusal, failed
	}
	var refused, unused []string
	err := p.db.View(ctx, func(tx *store.Tx) error {
		refused, unused = nil, nil
		for _, root := range customerRoots(ProfileOf(r.Kind), r) {
			h, err := healthOf(ctx, tx, r.rootID(tenant, root))
			if err != nil {
				return err
			}
			switch h.State {
			case api.Refused:
				refused = append(refused, fmt.Sprintf("the %s key has refused since %s: %s", root.name, h.Since.UTC().Format(time.RFC3339), h.Reason))
			case "":
				unused = append(unused, fmt.Sprintf("the %s key has not been used successfully since this database began to keep records", root.name))
			}
		}
		return nil
	})
	if err != nil {
		return rootkey.Local, errors.Join(err, failed)
	}
	outage := fail.Is(failed, api.VaultUnavailable)
	if outage {
		refused = append(refused, unused...)
	}
	switch {
	case len(refused) > 0:
		_, detail, _ := fail.Public(failed)
		return rootkey.Refusal, fail.New(api.VaultDenied, "%s; %s", detail, strings.Join(refused, "; ")).
			WithHint("a refusal lasts until one of the keys can be used again: restore the service's permission, or assign another policy").Because(failed)
	case outage:
		return rootkey.Outage, failed
	}
	return rootkey.Local, failed
}

// HealthOf returns the health of a customer key version of a policy, nil if kv names
// no key.
func (p *Policies) HealthOf(ctx context.Context, tx *store.Tx, pol Policy, kv envelope.KeyVersion) (*api.KeyHealth, error) {
	if kv.Key == "" {
		return nil, nil
	}
	h, err := healthOf(ctx, tx, rootID{pol.Tenant, pol.ID, ProfileOf(pol.Kind).Identity, kv})
	return h.toAPI(), err
}

func (h Health) toAPI() *api.KeyHealth {
	if h.State == "" {
		return &api.KeyHealth{State: api.HealthUnknown}
	}
	since := h.Since.UTC()
	return &api.KeyHealth{State: h.State, Since: &since, Reason: h.Reason}
}

// selectHealth returns all records of a tenant.
func selectHealth(ctx context.Context, tx *store.Tx, tenant int64) (map[rootID]Health, error) {
	type record struct {
		rootID
		Health
	}
	list, err := store.Collect(ctx, tx, func(row store.Scanner) (r record, err error) {
		var since int64
		err = row.Scan(&r.policy, &r.principal, &r.key.Vault, &r.key.Key, &r.key.Version, &r.State, &r.Reason, &since)
		r.tenant, r.Since = tenant, time.UnixMilli(since)
		return r, err
	}, `SELECT policy, principal, vault, key_name, version, state, reason, since FROM root_health WHERE tenant = ?1`, tenant)
	if err != nil {
		return nil, fmt.Errorf("read the health of customer keys: %w", err)
	}
	all := map[rootID]Health{}
	for _, r := range list {
		all[r.rootID] = r.Health
	}
	return all, nil
}
