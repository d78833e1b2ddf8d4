// Package containertest gives tests policies that need no vault, and that change at the
// points that a test chooses. Start reading at Policies.
package containertest

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keypage"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// Policies replaces package policy: it has its own tables and the same locks, and
// keeps policy keys in memory. Like the real one, Open has a read-write transaction of
// its own (in package policy for the audit entry of a root key's use), so that a call
// from within a transaction hangs on SQLite.
type Policies struct {
	DB *store.DB
	// Opening, when set, is called before each Open; its error is the result.
	Opening func(policyKey int64) error
	// Locking, when set, may change the result of LockCurrent and LockDefault.
	Locking func(now *policy.KeyRow)

	mu   sync.Mutex
	keys map[int64]*envelope.Key
}

// NewPolicies makes the tables in a database; there are no policies yet.
func NewPolicies(t testing.TB, db *store.DB) *Policies {
	t.Helper()
	err := db.InTx(t.Context(), func(tx *store.Tx) error {
		for _, table := range []string{
			`CREATE TABLE fake_policy (id BIGINT PRIMARY KEY, tenant BIGINT NOT NULL, kind TEXT NOT NULL, current BIGINT NOT NULL, geo BIGINT NOT NULL)`,
			`CREATE TABLE fake_policy_key (id BIGINT PRIMARY KEY, tenant BIGINT NOT NULL, policy BIGINT NOT NULL, generation BIGINT NOT NULL)`,
		} {
			if _, err := tx.Exec(t.Context(), table); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return &Policies{DB: db, keys: map[int64]*envelope.Key{}}
}

// ServiceManaged is the kind of the policy that every tenant has.
const ServiceManaged = "service-managed"

// Create makes a policy with its first policy key.
func (f *Policies) Create(t testing.TB, tenant int64, kind string) int64 {
	t.Helper()
	return f.CreateIn(t, tenant, kind, 0)
}

// CreateIn makes a policy of a geo.
func (f *Policies) CreateIn(t testing.TB, tenant int64, kind string, geo int64) int64 {
	t.Helper()
	id, key := store.NewID(), f.newKey()
	err := f.DB.InTx(context.Background(), func(tx *store.Tx) error {
		if kind != ServiceManaged {
			managed, err := f.ServiceManaged(context.Background(), tx, tenant)
			if err != nil {
				return err
			}
			if err := tx.Lock(context.Background(), managed, true); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(context.Background(), `INSERT INTO fake_policy_key VALUES (?1, ?2, ?3, 1)`, key, tenant, id); err != nil {
			return err
		}
		_, err := tx.Exec(context.Background(), `INSERT INTO fake_policy VALUES (?1, ?2, ?3, ?4, ?5)`, id, tenant, kind, key, geo)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (f *Policies) newKey() (id int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id = store.NewID()
	f.keys[id] = envelope.NewKey()
	return id
}

// Refresh makes a new policy key current, under the policy's exclusive lock.
func (f *Policies) Refresh(t testing.TB, tenant, id int64) policy.KeyRow {
	t.Helper()
	ctx := context.Background()
	next := policy.KeyRow{ID: f.newKey(), Tenant: tenant, Policy: id}
	err := f.DB.InTx(ctx, func(tx *store.Tx) error {
		if err := tx.Lock(ctx, id, true); err != nil {
			return err
		}
		now, err := f.Current(ctx, tx, tenant, id)
		if err != nil {
			return err
		}
		next.Generation = now.Generation + 1
		if _, err := tx.Exec(ctx, `INSERT INTO fake_policy_key VALUES (?1, ?2, ?3, ?4)`, next.ID, tenant, id, next.Generation); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE fake_policy SET current = ?2 WHERE id = ?1`, id, next.ID)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return next
}

// Older returns the policy's policy keys except the current one.
func (f *Policies) Older(ctx context.Context, tx *store.Tx, tenant, id int64) (parents []keypage.Parent, err error) {
	rows, err := tx.Query(ctx, `SELECT k.id, k.generation FROM fake_policy_key k JOIN fake_policy p ON p.id = k.policy
		WHERE p.tenant = ?1 AND p.id = ?2 AND k.id <> p.current ORDER BY k.id`, tenant, id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var p keypage.Parent
		if err := rows.Scan(&p.ID, &p.Generation); err != nil {
			return nil, err
		}
		parents = append(parents, p)
	}
	return parents, rows.Err()
}

// Roll makes one pass over the policy's pages of some classes under older policy
// keys, like package roll: at most limit pages, resealed to the current policy
// key, swapped under the policy's lock. It returns the moved containers.
func (f *Policies) Roll(ctx context.Context, tenant, id int64, limit int, classes ...envelope.Class) (moved []keypage.Row, err error) {
	var target policy.KeyRow
	var olds []keypage.Row
	err = f.DB.ViewOnce(ctx, func(tx *store.Tx) error {
		if target, err = f.Current(ctx, tx, tenant, id); err != nil {
			return err
		}
		from, err := f.Older(ctx, tx, tenant, id)
		if err != nil || len(from) == 0 {
			return err
		}
		olds, err = keypage.Under(ctx, tx, keypage.Set{Tenant: tenant, Parents: from, Classes: classes}, 0, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	news := make([]keypage.Row, len(olds))
	for i, old := range olds {
		news[i] = old
		news[i].Parent, news[i].Generation, news[i].Version = target.ID, target.Generation, old.Version+1
		if news[i].Body, err = envelope.Reseal(f.Key(old.Parent), f.Key(target.ID), old.EncryptionContext(), news[i].EncryptionContext(), old.Body); err != nil {
			return nil, err
		}
	}
	err = f.DB.InTx(ctx, func(tx *store.Tx) error {
		moved = nil
		now, err := f.LockCurrent(ctx, tx, tenant, id)
		if err != nil || now != target {
			return err
		}
		swapped, err := keypage.Swap(ctx, tx, olds, news)
		for i, ok := range swapped {
			if ok {
				moved = append(moved, news[i])
			}
		}
		return err
	})
	return moved, err
}

// Key returns a policy key.
func (f *Policies) Key(id int64) *envelope.Key {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.keys[id]
}

func (f *Policies) Open(ctx context.Context, tenant, policyKey int64, _ policy.Initiator) (*envelope.Key, error) {
	if f.Opening != nil {
		if err := f.Opening(policyKey); err != nil {
			return nil, err
		}
	}
	var found int64
	err := f.DB.InTx(ctx, func(tx *store.Tx) error {
		return tx.QueryRow(ctx, `SELECT COUNT(*) FROM fake_policy_key WHERE id = ?1 AND tenant = ?2`, policyKey, tenant).Scan(&found)
	})
	if err != nil {
		return nil, err
	}
	key := f.Key(policyKey)
	if found == 0 || key == nil {
		return nil, fail.New(api.NotFound, "policy key %d is gone", policyKey)
	}
	return key.Clone(), nil
}

func (f *Policies) Current(ctx context.Context, tx *store.Tx, tenant, id int64) (policy.KeyRow, error) {
	k := policy.KeyRow{Tenant: tenant, Policy: id}
	err := tx.QueryRow(ctx, `SELECT k.id, k.generation FROM fake_policy p JOIN fake_policy_key k ON k.id = p.current
		WHERE p.tenant = ?1 AND p.id = ?2`, tenant, id).Scan(&k.ID, &k.Generation)
	if errors.Is(err, sql.ErrNoRows) {
		return k, fail.New(api.NotFound, "the policy does not exist")
	}
	return k, err
}

func (f *Policies) LockCurrent(ctx context.Context, tx *store.Tx, tenant, id int64) (policy.KeyRow, error) {
	if err := tx.Lock(ctx, id, false); err != nil {
		return policy.KeyRow{}, err
	}
	now, err := f.Current(ctx, tx, tenant, id)
	if f.Locking != nil {
		f.Locking(&now)
	}
	return now, err
}

func (f *Policies) ServiceManaged(ctx context.Context, tx *store.Tx, tenant int64) (int64, error) {
	return f.byKind(ctx, tx, tenant, ServiceManaged, 0)
}

func (f *Policies) byKind(ctx context.Context, tx *store.Tx, tenant int64, kind string, geo int64) (id int64, err error) {
	err = tx.QueryRow(ctx, `SELECT id FROM fake_policy WHERE tenant = ?1 AND kind = ?2 AND geo = ?3`, tenant, kind, geo).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, fail.New(api.NotFound, "no policy of kind %s", kind)
	}
	return id, err
}

func (f *Policies) Default(ctx context.Context, tx *store.Tx, tenant int64, kind string, geo int64) (int64, error) {
	if kind == "site" {
		if id, err := f.byKind(ctx, tx, tenant, "site", geo); !fail.Is(err, api.NotFound) {
			return id, err
		}
	}
	return f.byKind(ctx, tx, tenant, ServiceManaged, geo)
}

func (f *Policies) LockDefault(ctx context.Context, tx *store.Tx, tenant int64, kind string, geo int64) (int64, policy.KeyRow, error) {
	managed, err := f.ServiceManaged(ctx, tx, tenant)
	if err != nil {
		return 0, policy.KeyRow{}, err
	}
	if err := tx.Lock(ctx, managed, false); err != nil {
		return 0, policy.KeyRow{}, err
	}
	id, err := f.Default(ctx, tx, tenant, kind, geo)
	if err != nil {
		return 0, policy.KeyRow{}, err
	}
	k, err := f.LockCurrent(ctx, tx, tenant, id)
	return id, k, err
}

// Drop deletes a policy key, as package policy does when it is no longer needed.
func (f *Policies) Drop(id int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.keys, id)
}

// Pages returns the key pages of a tenant in id order.
func Pages(ctx context.Context, tx *store.Tx, tenant int64) (pages []keypage.Row, err error) {
	rows, err := tx.Query(ctx, `SELECT id, tenant, parent, generation, class, version, count, body FROM key_page WHERE tenant = ?1 ORDER BY id`, tenant)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r keypage.Row
		if err := rows.Scan(&r.ID, &r.Tenant, &r.Parent, &r.Generation, &r.Class, &r.Version, &r.Count, &r.Body); err != nil {
			return nil, err
		}
		pages = append(pages, r)
	}
	return pages, rows.Err()
}

// Containers commits each change of containers in a transaction of its own.
type Containers struct {
	*container.Containers
	DB *store.DB
}

// List is List in a transaction of its own.
func (s Containers) List(ctx context.Context, tenant int64, kind container.Kind, after int64, limit int) (list []container.Container, err error) {
	if _, err := s.Directory(ctx, tenant); err != nil {
		return nil, err
	}
	return list, s.DB.View(ctx, func(tx *store.Tx) error {
		listed, err := s.Containers.List(ctx, tx, tenant, container.Page{Kind: kind, After: after, Limit: limit})
		list = nil
		for _, l := range listed {
			list = append(list, l.Container)
		}
		return err
	})
}

// Within runs in the transaction of a change; nil does nothing.
type Within func(tx *store.Tx, c container.Container) error

// commit commits a prepared change.
func (s Containers) commit(ctx context.Context, p interface {
	store.Prepared
	Commit(ctx context.Context, tx *store.Tx) (container.Container, error)
}, within Within) (c container.Container, err error) {
	return c, s.DB.Commit(ctx, p, func(tx *store.Tx) (err error) {
		if c, err = p.Commit(ctx, tx); err == nil && within != nil {
			err = within(tx, c)
		}
		return err
	})
}

// Create makes a container.
func (s Containers) Create(ctx context.Context, tenant int64, kind container.Kind, name string, pol int64, within ...Within) (container.Container, error) {
	p, err := s.PrepareCreate(ctx, tenant, kind, name, pol)
	if err != nil {
		return container.Container{}, err
	}
	return s.commit(ctx, p, append(within, nil)[0])
}

// CreateMailbox makes a mailbox.
func (s Containers) CreateMailbox(ctx context.Context, tenant int64, m container.NewMailbox) (container.Container, error) {
	p, err := s.PrepareMailbox(ctx, tenant, m)
	if err != nil {
		return container.Container{}, err
	}
	return s.commit(ctx, p, nil)
}

// SetState changes the state of a mailbox. If it fails, it returns the mailbox as it was.
func (s Containers) SetState(ctx context.Context, tenant int64, c container.Container, state envelope.Class, within ...Within) (container.Container, error) {
	p, err := s.PrepareState(ctx, tenant, c, state)
	if err != nil {
		return c, err
	}
	return s.move(ctx, c, p, within)
}

// Assign changes the policy of a container. If it fails, it returns the container as it
// was.
func (s Containers) Assign(ctx context.Context, tenant int64, c container.Container, pol int64, who policy.Initiator, within ...Within) (container.Container, error) {
	p, err := s.PrepareAssign(ctx, tenant, c, pol, who)
	if err != nil {
		return c, err
	}
	return s.move(ctx, c, p, within)
}

func (s Containers) move(ctx context.Context, was container.Container, p *container.PreparedMove, within []Within) (container.Container, error) {
	next, err := s.commit(ctx, p, append(within, nil)[0])
	if err != nil {
		return was, err
	}
	return next, nil
}

// Abandon deletes a container whose key page is lost.
func (s Containers) Abandon(ctx context.Context, c container.Container) error {
	p, err := s.PrepareAbandon(ctx, c)
	if err != nil {
		return err
	}
	return s.DB.Commit(ctx, p, func(tx *store.Tx) error { return p.Commit(ctx, tx) })
}
