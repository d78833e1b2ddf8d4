// Package purge irrevocably destroys the data that a policy protects.
//
// A purge is requested, waits for two approvals, and is then carried out in the
// documented order: the policy is deleted, its containers are marked as purged, its
// availability key is destroyed. Each step is durable and may be repeated, so an
// interrupted purge continues where it was; no step can be undone. The package makes
// no wrap, opens no key and touches no content. Start reading at Work.
package purge

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/audit"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/lease"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// Approvals is the number of approvals that a purge needs.
const Approvals = 2

// Purge is a purge as it is stored in the database. A step that is not done has the
// zero time.
type Purge struct {
	ID, Policy, Tenant int64
	Requester          uuid.UUID
	Reason, Contact    []byte // sealed for ID
	Requested          time.Time
	PolicyDeleted      time.Time
	ContainersMarked   time.Time
	KeyDestroyed       time.Time
	Containers         int64  // marked containers
	Message            string // why it waits
	Approvals          []Approval
}

// Approval is the approval of one approver.
type Approval struct {
	Approver uuid.UUID
	Name     string // of the approver, when the approval is read; empty: it does not exist
	At       time.Time
}

// State returns the state of a purge.
func (p Purge) State() api.PurgeState {
	switch {
	case !p.KeyDestroyed.IsZero():
		return api.Purged
	case len(p.Approvals) >= Approvals:
		return api.PurgeApproved
	}
	return api.PurgeRequested
}

// Config holds the dependencies of a Purger.
type Config struct {
	DB         *store.DB
	Policies   *policy.Policies
	Containers *container.Containers
	Audit      *audit.Log
	// KeysInFiles means that availability keys are files, which may have been copied.
	KeysInFiles bool
	// Leases are those of this node; nil means that it is the only node.
	Leases *lease.Leases
	Now    func() time.Time
	Logger *slog.Logger
}

// Purger carries out approved purges.
type Purger struct {
	config Config
	wake   chan struct{}
}

// New returns a purger; Run starts it.
func New(c Config) *Purger { return &Purger{config: c, wake: make(chan struct{}, 1)} }

// KeysInFiles reports whether availability keys are files, which may have been copied.
func (p *Purger) KeysInFiles() bool { return p.config.KeysInFiles }

// Wake makes Run look for approved purges at once.
func (p *Purger) Wake() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Find returns the purge of a policy, or fails NotFound.
func Find(ctx context.Context, tx *store.Tx, tenant, policy int64) (Purge, error) {
	list, err := selectPurges(ctx, tx, `tenant = ?1 AND policy = ?2`, tenant, policy)
	if err == nil && len(list) == 0 {
		err = fail.New(api.NotFound, "no purge of the policy was requested").WithHint("keyroll purge status lists the purges")
	}
	if err != nil {
		return Purge{}, err
	}
	return list[0], nil
}

// List returns the first limit purges of a tenant with an id above after, the oldest first.
func List(ctx context.Context, tx *store.Tx, tenant, after int64, limit int) ([]Purge, error) {
	return selectPurges(ctx, tx, `tenant = ?1 AND id > ?2 ORDER BY id LIMIT ?3`, tenant, after, limit)
}

// ByID returns a purge of a tenant; fail NotFound.
func ByID(ctx context.Context, tx *store.Tx, tenant, id int64) (Purge, error) {
	list, err := selectPurges(ctx, tx, `tenant = ?1 AND id = ?2`, tenant, id)
	if err == nil && len(list) == 0 {
		err = fail.New(api.NotFound, "purge %d does not exist", id)
	}
	if err != nil {
		return Purge{}, err
	}
	return list[0], nil
}

// Withdraw removes a purge that is not approved, and returns its policy.
func Withdraw(ctx context.Context, tx *store.Tx, tenant, id int64) (policy int64, err error) {
	p, err := ByID(ctx, tx, tenant, id)
	if err != nil {
		return 0, err
	}
	if err := tx.Lock(ctx, p.Policy, true); err != nil {
		return 0, err
	}
	if p, err = ByID(ctx, tx, tenant, id); err != nil {
		return 0, err
	}
	if p.State() != api.PurgeRequested {
		return 0, fail.New(api.Conflict, "the purge is %s and can no longer be withdrawn", p.State())
	}
	return p.Policy, remove(ctx, tx, p)
}

// Request inserts a purge in the transaction that records it at its policy.
func Request(ctx context.Context, tx *store.Tx, p Purge) error { return insert(ctx, tx, p) }

// Approve adds an approval, whose approver must not be the requester and must
// not have approved the purge before, and returns the updated purge.
func Approve(ctx context.Context, tx *store.Tx, tenant, policy int64, by Approval) (Purge, error) {
	if err := tx.Lock(ctx, policy, true); err != nil {
		return Purge{}, err
	}
	p, err := Find(ctx, tx, tenant, policy)
	if err != nil {
		return p, err
	}
	if p.State() != api.PurgeRequested {
		return p, fail.New(api.Conflict, "the purge already has its approvals; it is %s", p.State())
	}
	if p.Requester == by.Approver {
		return p, fail.New(api.Forbidden, "the requester of a purge cannot approve it")
	}
	for _, a := range p.Approvals {
		if a.Approver == by.Approver {
			return p, fail.New(api.Conflict, "this approver has already approved the purge; another approver is required")
		}
	}
	if err := insertApproval(ctx, tx, p, by); err != nil {
		return p, err
	}
	return Find(ctx, tx, tenant, policy)
}
