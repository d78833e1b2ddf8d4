// Package container keeps what a policy protects as a unit: mailboxes, sites
// and workload stores. It knows each one's name, state and policy, and in which
// key page its key stands.
//
// A container's key is made once and only ever moves: every move takes its slot
// out of one key page, puts it into another, opened again and compared, and
// sets the container's pointer, in one transaction. A key goes under a policy
// key only while that is the policy's current one, under the policy's lock.
// Policy keys are opened before a transaction, never in one; what changed in
// between is seen and the work starts over. Names stand sealed. Everything is
// of one tenant: another tenant's container is not there. The package never
// reads content. Start reading at apply (move.go).
package container

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// PolicyKeys is what a container needs of policies.
type PolicyKeys interface {
	// Open returns a copy of a policy key, which the caller zeroes. It may call
	// a vault, so it is called outside transactions. A policy key that nothing
	// stands under any more may be gone: NotFound.
	Open(ctx context.Context, tenant, policyKey int64, who policy.Initiator) (*envelope.Key, error)
	// Current returns a policy's current policy key as it is at this moment.
	Current(ctx context.Context, tx *store.Tx, tenant, policy int64) (policy.KeyRow, error)
	// LockCurrent is Current, and holds off a change to the end of tx.
	LockCurrent(ctx context.Context, tx *store.Tx, tenant, policy int64) (policy.KeyRow, error)
	// Default returns the policy of containers of a kind, in a geo, without one
	// of their own.
	Default(ctx context.Context, tx *store.Tx, tenant int64, kind string, geo int64) (policy int64, err error)
	// LockDefault is Default and LockCurrent, and holds off a change of both.
	LockDefault(ctx context.Context, tx *store.Tx, tenant int64, kind string, geo int64) (int64, policy.KeyRow, error)
	// ServiceManaged returns the tenant's service-managed policy.
	ServiceManaged(ctx context.Context, tx *store.Tx, tenant int64) (policy int64, err error)
}

// Container is a mailbox, a site or a workload store.
type Container struct {
	ID, Tenant int64
	Kind       Kind
	Name       string // as given
	// State is the class of the key page that the container's key stands in:
	// for a mailbox its state, for a site ClassSite.
	State      envelope.Class
	Policy     int64  // 0: none of its own
	Page       int64  // key page with the slot of its key
	Generation uint32 // of its key, counted from 1
	Keyed      int64  // that key was made after this id was drawn
	Older      int64  // key page with the slot of the generation before, 0: none
	Renewed    int64  // all its blobs have this id or a higher one
	Created    time.Time
	Recipient  api.RecipientType // of a mailbox: what it serves
	External   string            // of a mail user: where its mail is
	Geo        int64             // of a site: the geo that it stands in
	Purged     time.Time         // when it was marked for deletion; zero: it was not
	// Folded says that what it holds is found by folded names, as Contents and
	// foldSites make them.
	Folded bool
	// Damaged says why a list has the container without its name; nil: it has it.
	Damaged error
}

// Containers is the room's only type with state: the opened directories.
type Containers struct {
	db        *store.DB
	policies  PolicyKeys
	pageSlots int
	now       func() time.Time

	mu          sync.Mutex
	directories map[int64]*Directory // by tenant
}

// New returns the containers of a database; new key pages get at most pageSlots
// slots, from 1 to envelope.MaxSlots.
func New(db *store.DB, policies PolicyKeys, pageSlots int, now func() time.Time) *Containers {
	return &Containers{db: db, policies: policies, pageSlots: pageSlots, now: now, directories: map[int64]*Directory{}}
}

// Close drops and zeroes what was kept open. Nothing else is called after it.
func (s *Containers) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for tenant, d := range s.directories {
		d.zero()
		delete(s.directories, tenant)
	}
}

// Find returns the container of a kind that a name names, in any of the
// spellings that count as one, or fails NotFound.
func (s *Containers) Find(ctx context.Context, tenant int64, kind Kind, name string) (Container, error) {
	d, err := s.Directory(ctx, tenant)
	if err != nil {
		return Container{}, err
	}
	spelled, err := normalise(kind, name)
	if err != nil {
		return Container{}, err
	}
	r, found, err := s.find(ctx, d, kind, spelled)
	if err == nil && !found && kind == Site && !d.folded.Load() {
		if err = s.foldSites(ctx, d); err == nil {
			r, found, err = s.find(ctx, d, kind, spelled)
		}
	}
	if err == nil && !found {
		err = fail.New(api.NotFound, "%s %q does not exist", kind, name).WithHint("keyroll %s list shows the %s", kind, rules[kind].plural)
	}
	if err != nil {
		return Container{}, err
	}
	c, err := r.open(d)
	if err != nil {
		return Container{}, err
	}
	return c, c.checkName(spelled)
}

// find returns the container that a name names.
func (s *Containers) find(ctx context.Context, d *Directory, kind Kind, spelled spelling) (r row, found bool, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) (err error) {
		r, found, err = selectNamed(ctx, tx, d, kind, spelled)
		return err
	})
	return r, found, err
}

// checkName says whether the container has the name that it was found by: a
// row's hash is no seal, so two of them could have been exchanged.
func (c Container) checkName(spelled spelling) error {
	if own, err := normalise(c.Kind, c.Name); err != nil || own.folded != spelled.folded {
		return fail.New(api.Damaged, "container %d is found under the name of another container", c.ID)
	}
	return nil
}

// CheckName says whether a container is found by its own name, and by no other;
// exact, that it is found by no other spelling of it, since those name another one.
func (s *Containers) CheckName(ctx context.Context, tx *store.Tx, c Container) (exact bool, err error) {
	r, found, err := selectRow(ctx, tx, whereID, c.Tenant, c.ID)
	if err != nil || !found || r.State == envelope.ClassDirectory {
		return false, err
	}
	d, err := s.opened(c.Tenant, "check the name of a container")
	if err != nil {
		return false, err
	}
	if r.Container, err = r.open(d); err != nil {
		return false, err
	}
	if r.Kind == Backup { // found by its id
		return false, nil
	}
	spelled, err := normalise(r.Kind, r.Name)
	if err != nil {
		return false, fail.New(api.Damaged, "container %d has an invalid name", c.ID)
	}
	for _, form := range []string{spelled.exact, spelled.folded} {
		by, found, err := selectNamed(ctx, tx, d, r.Kind, spelling{form, form})
		if err != nil || found && by.ID == c.ID {
			return d.folded.Load() && form != spelled.folded, err
		}
	}
	return false, fail.New(api.Damaged, "container %d cannot be found by its name", c.ID)
}

// List returns the first limit containers of a kind with an id above after, in
// id order, which is the order they were made in. One whose name does not open
// hides no other.
func (s *Containers) List(ctx context.Context, tenant int64, kind Kind, after int64, limit int) ([]Container, error) {
	if _, err := ruleOf(kind); err != nil {
		return nil, err
	}
	d, err := s.Directory(ctx, tenant)
	if err != nil {
		return nil, err
	}
	var rows []row
	err = s.db.View(ctx, func(tx *store.Tx) (err error) {
		rows, err = selectRows(ctx, tx, whereKind, tenant, string(kind), after, limit, envelope.ClassDirectory)
		return err
	})
	if err != nil {
		return nil, err
	}
	list := make([]Container, len(rows))
	for i, r := range rows {
		if list[i], err = r.open(d); err != nil {
			list[i].Damaged = fmt.Errorf("%s %d: %w", kind, r.ID, err)
		}
	}
	return list, nil
}

// open returns the container with its name and its external address.
func (r row) open(d *Directory) (c Container, err error) {
	c = r.Container
	if c.Name, err = d.Open(c.ID, r.name); err == nil && len(r.external) > 0 {
		c.External, err = d.openAddress(c.ID, r.external)
	}
	return c, err
}

// tries bounds how often work starts over because a key page, a policy or the
// container itself was changed meanwhile. Moves off one page wait for each
// other; a roll and a fold pass over a page once, a refresh is rare.
const tries = 10

// errChanged says that what was read before a transaction no longer holds in it.
var errChanged = errors.New("container: changed meanwhile")

// again runs try until nothing changed under its hands.
func again(what string, try func() error) error {
	for range tries {
		if err := try(); !errors.Is(err, errChanged) {
			return err
		}
	}
	return fail.New(api.Conflict, "%s: other requests changed keys or policies %d times in the meantime; nothing was changed", what, tries).
		WithHint("try again")
}

// openPolicyKey opens a policy key that was read before. One that is gone was
// left by everything under it meanwhile.
func (s *Containers) openPolicyKey(ctx context.Context, tenant, id int64, who policy.Initiator) (*envelope.Key, error) {
	key, err := s.policies.Open(ctx, tenant, id, who)
	if fail.Is(err, api.NotFound) {
		return nil, errors.Join(errChanged, err)
	}
	return key, err
}
