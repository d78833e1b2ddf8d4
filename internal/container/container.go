// Package container keeps the units that a policy protects: mailboxes, sites and
// workload stores. It stores the name, state and policy of each, and which key page
// holds its key.
//
// A container's key is made once and then only moved: every move removes its slot
// from one key page, adds it to another, whose sealed form is decrypted again and
// compared, and sets the container's pointer, in one transaction. A key is put under
// a policy key only while that is the policy's current one, under the policy's lock.
// Policy keys are opened before a transaction, never in one; a change in between is
// detected and the work starts over. Names are stored sealed. Every call is for one
// tenant: to it, another tenant's container does not exist. The package never reads
// content. Start reading at apply (move.go).
package container

import (
	"context"
	"errors"
	"sync"
	"time"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// PolicyKeys is the part of the policies that this package uses.
type PolicyKeys interface {
	// Open returns a copy of a policy key, which the caller zeroes. It may call
	// a vault, so it must be called outside transactions. A policy key under which
	// there are no keys any more may have been deleted: NotFound.
	Open(ctx context.Context, tenant, policyKey int64, who policy.Initiator) (*envelope.Key, error)
	// Current returns a policy's current policy key as it is at this moment.
	Current(ctx context.Context, tx *store.Tx, tenant, policy int64) (policy.KeyRow, error)
	// LockCurrent is Current, and prevents a change until the end of tx.
	LockCurrent(ctx context.Context, tx *store.Tx, tenant, policy int64) (policy.KeyRow, error)
	// Default returns the policy of containers of a kind, in a geo, without one
	// of their own.
	Default(ctx context.Context, tx *store.Tx, tenant int64, kind string, geo int64) (policy int64, err error)
	// LockDefault is Default and LockCurrent, and prevents a change of both.
	LockDefault(ctx context.Context, tx *store.Tx, tenant int64, kind string, geo int64) (int64, policy.KeyRow, error)
	// ServiceManaged returns the tenant's service-managed policy.
	ServiceManaged(ctx context.Context, tx *store.Tx, tenant int64) (policy int64, err error)
}

// Container is a mailbox, a site or a workload store.
type Container struct {
	ID, Tenant int64
	Kind       Kind
	Name       string // as given
	// State is the class of the key page that holds the container's key: for a
	// mailbox its state, for a site ClassSite.
	State      envelope.Class
	Policy     int64  // 0: none of its own
	Page       int64  // key page with the slot of its key
	Generation uint32 // of its key, counted from 1
	Keyed      int64  // an id drawn before that key was made
	Older      int64  // key page with the slot of the generation before, 0: none
	Renewed    int64  // all its blobs have this id or a higher one
	Created    time.Time
	Recipient  api.RecipientType // of a mailbox: what it serves
	External   string            // of a mail user: the address of its mail
	Geo        int64             // of a site: its geo
	Purged     time.Time         // when it was marked for deletion; zero: it was not
	// Folded means that everything in it is found by folded names, as package content
	// and foldSites make them.
	Folded bool
	// Damaged is, in a list, why the container's name is not known; nil: it is known.
	Damaged error
}

// Containers is the package's only type with state: the opened directories.
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

// Close zeroes and drops the open directories. No other method may be called after it.
func (s *Containers) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for tenant, d := range s.directories {
		d.zero()
		delete(s.directories, tenant)
	}
}

// Find returns the container of a kind with the given name, in any spelling that
// counts as the same name, or fails NotFound.
func (s *Containers) Find(ctx context.Context, tenant int64, kind Kind, name string) (c Container, err error) {
	d, err := s.Directory(ctx, tenant)
	if err != nil {
		return Container{}, err
	}
	find := func() error {
		return s.db.View(ctx, func(tx *store.Tx) error {
			_, c, err = findIn(ctx, tx, d, kind, name)
			return err
		})
	}
	err = find()
	if fail.Is(err, api.NotFound) && kind == Site && !d.folded.Load() {
		if err = s.foldSites(ctx, d); err == nil {
			err = find()
		}
	}
	return c, err
}

// FindLocated is Find and Locate in a transaction, except that it may not find a site by
// another spelling as long as the names of sites have not been folded. The tenant's
// directory must have been opened before.
func (s *Containers) FindLocated(ctx context.Context, tx *store.Tx, tenant int64, kind Kind, name string) (Located, error) {
	d, err := s.openedDirectory(tenant, "find "+string(kind))
	if err != nil {
		return Located{}, err
	}
	r, c, err := findIn(ctx, tx, d, kind, name)
	if err != nil {
		return Located{}, err
	}
	if err := checkNotPurged(c); err != nil {
		return Located{}, err
	}
	at, err := locateRow(ctx, tx, r)
	return Located{c.Name, at}, err
}

// findIn returns the row of the container with a name, and the container.
func findIn(ctx context.Context, tx *store.Tx, d *Directory, kind Kind, name string) (row, Container, error) {
	spelled, err := normalise(kind, name)
	if err != nil {
		return row{}, Container{}, err
	}
	r, found, err := selectNamed(ctx, tx, d, kind, spelled)
	if err == nil && !found {
		err = fail.New(api.NotFound, "%s %q does not exist", kind, name).WithHint("keyroll %s list shows the %s", kind, rules[kind].plural)
	}
	if err != nil {
		return row{}, Container{}, err
	}
	c, err := r.open(d)
	if err != nil {
		return row{}, Container{}, err
	}
	return r, c, c.checkName(spelled)
}

// checkName fails unless the container has the name by which it was found: the hash
// in a row is not sealed, so the hashes of two rows could have been exchanged.
func (c Container) checkName(spelled spelling) error {
	if own, err := normalise(c.Kind, c.Name); err != nil || own.folded != spelled.folded {
		return fail.New(api.Damaged, "container %d is found under the name of another container", c.ID)
	}
	return nil
}

// CheckName fails unless a container is found by its own name. exact means that only
// the exact spelling finds it, because the folded spelling finds another container.
func (s *Containers) CheckName(ctx context.Context, tx *store.Tx, c Container) (exact bool, err error) {
	r, found, err := selectRow(ctx, tx, whereID, c.Tenant, c.ID)
	if err != nil || !found || r.State == envelope.ClassDirectory {
		return false, err
	}
	d, err := s.openedDirectory(c.Tenant, "check the name of a container")
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

// open returns the container with its name and external address decrypted.
func (r row) open(d *Directory) (c Container, err error) {
	c = r.Container
	if c.Name, err = d.Open(c.ID, r.name); err == nil && len(r.external) > 0 {
		c.External, err = d.openAddress(c.ID, r.external)
	}
	return c, err
}

// openPolicyKey opens a policy key whose id was read before. If it no longer exists,
// every key under it was moved in the meantime: store.ErrOutdated.
func (s *Containers) openPolicyKey(ctx context.Context, tenant, id int64, who policy.Initiator) (*envelope.Key, error) {
	key, err := s.policies.Open(ctx, tenant, id, who)
	if fail.Is(err, api.NotFound) {
		return nil, errors.Join(store.ErrOutdated, err)
	}
	return key, err
}
