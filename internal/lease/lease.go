// Package lease makes one of several nodes do work that any of them could do.
//
// A lease has a name, a holder and an end by the database's clock, so nodes need no
// common clock. It only avoids double work: a node that was paused past the end of its
// lease continues for a moment before it notices, so work under a lease must be
// idempotent. InTx commits only if the holder still had its lease when the transaction
// began. Start reading at Hold.
package lease

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"keyroll/internal/store"
)

// Term is how long a lease lasts without renewal: the time after which a dead node is
// replaced, and for which a live one may be too busy to renew. A lease is renewed every
// fifth of it.
const Term = 5 * time.Second

// renewals is how often a lease is renewed in one term.
const renewals = 5

// ErrLost is the cause that ends the context of work whose lease another node may have.
var ErrLost = errors.New("lease: lost")

// Leases manages the leases of one node. A nil *Leases is for a node which is the only
// one on its database: it gets every lease.
type Leases struct {
	db     *store.DB
	holder string
	term   time.Duration

	mu   sync.Mutex
	held map[string]bool
}

// New returns the leases of a node. holder must be unique for each start of a node.
func New(db *store.DB, holder string, term time.Duration) *Leases {
	return &Leases{db: db, holder: holder, term: term, held: map[string]bool{}}
}

// Holder is the name of the node, empty for a single node.
func (l *Leases) Holder() string {
	if l == nil {
		return ""
	}
	return l.holder
}

// Hold runs work while this node holds the lease of that name, and releases it at once
// afterwards. If the lease is held already, by another node or in this process, work is
// not run. The context of work ends when the lease is lost; if work fails then, the
// error is ErrLost.
func (l *Leases) Hold(ctx context.Context, name string, work func(ctx context.Context) error) (held bool, err error) {
	h, err := l.Acquire(ctx, name)
	if h == nil || err != nil {
		return false, err
	}
	defer h.Release()
	err = work(h.ctx)
	if cause := context.Cause(h.ctx); err != nil && errors.Is(cause, ErrLost) && !errors.Is(err, ErrLost) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return true, err
}

// Held is a lease that this node holds and renews until it is released.
type Held struct {
	ctx     context.Context
	release func()
}

// Context returns the context of work under the lease. It ends when the lease is lost,
// with the cause ErrLost.
func (h *Held) Context() context.Context { return h.ctx }

// Release ends the lease. It may be called on nil, and only once.
func (h *Held) Release() {
	if h != nil {
		h.release()
	}
}

// Acquire takes the lease of that name. It returns nil if the lease is held already, by
// another node or in this process.
func (l *Leases) Acquire(ctx context.Context, name string) (*Held, error) {
	if l == nil {
		return &Held{ctx, func() {}}, nil
	}
	if !l.tryMark(name) {
		return nil, nil
	}
	began := time.Now()
	fence, ok, err := l.take(ctx, name)
	if err != nil || !ok {
		if err != nil { // the commit may have succeeded all the same, as when ctx ends during it
			l.release(ctx, name)
		}
		l.unmark(name)
		return nil, err
	}
	work, lose := context.WithCancelCause(ctx)
	end := time.AfterFunc(time.Until(began.Add(l.term)), func() { lose(fmt.Errorf("%w: %s was not renewed in time", ErrLost, name)) })
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		l.keep(work, name, fence, lose, end)
	}()
	release := func() {
		lose(nil)
		<-kept
		end.Stop()
		l.release(ctx, name)
		l.unmark(name)
	}
	return &Held{context.WithValue(work, heldKey{}, lease{name, l.holder, fence}), release}, nil
}

// lease is the value in the context of work under a lease.
type lease struct {
	name, holder string
	fence        int64
}

type heldKey struct{}

// InTx is db.InTx for work under the lease in ctx: it fails with ErrLost if the lease has
// ended, so that a node which slept changes nothing when it wakes up. Without a lease in
// ctx it is db.InTx.
func InTx(ctx context.Context, db *store.DB, fn func(tx *store.Tx) error) error {
	return db.InTx(ctx, func(tx *store.Tx) error {
		if l, ok := ctx.Value(heldKey{}).(lease); ok {
			var n int64
			err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM lease WHERE name = ?1 AND holder = ?2 AND fence = ?3 AND until >= `+tx.Clock(), l.name, l.holder, l.fence).Scan(&n)
			if err != nil {
				return fmt.Errorf("read lease %s: %w", l.name, err)
			}
			if n == 0 {
				return fmt.Errorf("%w: %s", ErrLost, l.name)
			}
		}
		return fn(tx)
	})
}

// keep renews a lease until ctx is done. A failed renewal is tried again until end, the
// timer of the lease's term, has fired.
func (l *Leases) keep(ctx context.Context, name string, fence int64, lose context.CancelCauseFunc, end *time.Timer) {
	tick := time.NewTicker(l.term / renewals)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		began := time.Now()
		now, ok, err := l.take(ctx, name)
		switch {
		case err != nil:
		case !ok || now != fence:
			lose(fmt.Errorf("%w: %s has another holder", ErrLost, name))
			return
		case end.Stop(): // otherwise the term has ended meanwhile
			end.Reset(time.Until(began.Add(l.term)))
		}
	}
}

// tryMark marks a name as held in this process, and reports false if it is already.
func (l *Leases) tryMark(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[name] {
		return false
	}
	l.held[name] = true
	return true
}

func (l *Leases) unmark(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, name)
}

func (l *Leases) take(ctx context.Context, name string) (fence int64, ok bool, err error) {
	err = l.db.InTx(ctx, func(tx *store.Tx) error {
		fence, ok, err = Take(ctx, tx, name, l.holder, l.term)
		return err
	})
	return fence, ok, err
}

// release releases a lease even if ctx is done, so that a node that stops is replaced at
// once. The caller has marked the name: no other work of this holder has the lease,
// whatever its fence. A lease that cannot be released expires.
func (l *Leases) release(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.term)
	defer cancel()
	_ = l.db.InTx(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE lease SET until = 0 WHERE name = ?1 AND holder = ?2`, name, l.holder)
		return err
	})
}

// OfNode returns the name of the lease by which a node shows that it is live.
func OfNode(node string) string { return NodePrefix + node }

// NodePrefix is the prefix of the names of such leases.
const NodePrefix = "node/"

// NodeLives is an SQL condition: the node whose name is in a column is live.
func NodeLives(tx *store.Tx, column string) string {
	return `EXISTS (SELECT 1 FROM lease WHERE name = '` + NodePrefix + `' || ` + column + ` AND until >= ` + tx.Clock() + `)`
}

// Forget deletes leases that ended more than age ago, which must be long enough
// for the database's clock to be past any fence that they had.
func (l *Leases) Forget(ctx context.Context, age time.Duration) error {
	if l == nil {
		return nil
	}
	return l.db.InTx(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM lease WHERE until < `+tx.Clock()+` - ?1`, age.Milliseconds()); err != nil {
			return fmt.Errorf("delete ended leases: %w", err)
		}
		return nil
	})
}

// Take acquires or renews a lease, unless another holder has it. The returned fence
// grows whenever the holder changes; the first one is the database's time, so that it
// grows after Forget too.
func Take(ctx context.Context, tx *store.Tx, name, holder string, term time.Duration) (fence int64, ok bool, err error) {
	now := tx.Clock()
	err = tx.QueryRow(ctx, `INSERT INTO lease (name, holder, fence, until) VALUES (?1, ?2, `+now+`, `+now+` + ?3)
		ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until,
			fence = CASE WHEN lease.holder = excluded.holder THEN lease.fence ELSE lease.fence + 1 END
		WHERE lease.holder = excluded.holder OR lease.until < `+now+`
		RETURNING fence`, name, holder, term.Milliseconds()).Scan(&fence)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return 0, false, nil
	case err != nil:
		return 0, false, fmt.Errorf("take lease %s: %w", name, err)
	}
	return fence, true, nil
}

// Release ends a lease, if it is still the one that Take returned.
func Release(ctx context.Context, tx *store.Tx, name, holder string, fence int64) error {
	_, err := tx.Exec(ctx, `UPDATE lease SET until = 0 WHERE name = ?1 AND holder = ?2 AND fence = ?3`, name, holder, fence)
	if err != nil {
		return fmt.Errorf("release lease %s: %w", name, err)
	}
	return nil
}

// End ends all leases of a dead holder.
func End(ctx context.Context, tx *store.Tx, holder string) error {
	if _, err := tx.Exec(ctx, `UPDATE lease SET until = 0 WHERE holder = ?1 AND until > 0`, holder); err != nil {
		return fmt.Errorf("end the leases of %s: %w", holder, err)
	}
	return nil
}

// Live returns the holders of the leases that have not ended and whose names
// begin with prefix, by the rest of their names.
func Live(ctx context.Context, tx *store.Tx, prefix string) (map[string]string, error) {
	rows, err := tx.Query(ctx, `SELECT name, holder FROM lease WHERE name >= ?1 AND substr(name, 1, ?2) = ?1 AND until >= `+tx.Clock(), prefix, len(prefix))
	if err != nil {
		return nil, fmt.Errorf("read leases %s: %w", prefix, err)
	}
	defer rows.Close()
	live := map[string]string{}
	for rows.Next() {
		var name, holder string
		if err := rows.Scan(&name, &holder); err != nil {
			return nil, fmt.Errorf("read leases %s: %w", prefix, err)
		}
		live[name[len(prefix):]] = holder
	}
	return live, rows.Err()
}
