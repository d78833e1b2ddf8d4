package container

import (
	"context"
	"errors"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/keypage"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// PrepareState prepares a change of the state of a mailbox. If it becomes active, its
// key is moved under its policy's current policy key; otherwise the key stays under the
// policy key that it is under.
func (s *Containers) PrepareState(ctx context.Context, tenant int64, c Container, state envelope.Class) (*PreparedMove, error) {
	if _, ok := mailboxStates[state]; !ok {
		return nil, fail.New(api.InvalidArgument, "%v is not a valid mailbox state", state)
	}
	if c.Kind != Mailbox {
		return nil, fail.New(api.InvalidArgument, "a %s has no state", c.Kind)
	}
	return s.prepareMove(ctx, tenant, c, "state", func(now Container) plan {
		becomesActive := state == envelope.ClassActive && now.State != envelope.ClassActive
		return plan{state: state, policy: now.Policy, keepPolicyKey: !becomesActive, initiator: policy.User}
	})
}

// PrepareAssign prepares to give a container a policy of its own, or with policy 0 to
// return it to the default one, and to move its key under that policy's current policy
// key, on behalf of who.
func (s *Containers) PrepareAssign(ctx context.Context, tenant int64, c Container, policy int64, who policy.Initiator) (*PreparedMove, error) {
	return s.prepareMove(ctx, tenant, c, "assign", func(now Container) plan {
		return plan{state: now.State, policy: policy, initiator: who}
	})
}

// CountWithPolicy counts the mailboxes whose own policy is the given one.
func (s *Containers) CountWithPolicy(ctx context.Context, tx *store.Tx, tenant, policy int64) (n int64, err error) {
	return n, tx.QueryRow(ctx, countWithPolicy, tenant, policy).Scan(&n)
}

// Release removes a policy from every container that has it as its own and returns
// their number; their keys stay where they are. The caller holds the policy's lock
// and arranges that the keys are moved under the default policy.
func (s *Containers) Release(ctx context.Context, tx *store.Tx, tenant, policy int64) (int64, error) {
	return tx.Exec(ctx, releasePolicy, tenant, policy)
}

// MoveKeyAfterAccess is called after a container was accessed. By default rolls do not move a
// mailbox that is not active; MoveKeyAfterAccess moves its key under its policy's
// current policy key and reports that it did. If another change interferes, that is
// no error: the next access tries again.
func (s *Containers) MoveKeyAfterAccess(ctx context.Context, c Container) (moved bool, err error) {
	m := &PreparedMove{containers: s, container: c, points: pointsOf("move"), planned: func(now Container) plan {
		return plan{state: now.State, policy: now.Policy, initiator: policy.System}
	}}
	outcome := store.NotCommitted
	defer func() { m.Close(ctx, outcome) }()
	if err := m.snapshot(ctx); err != nil || !mailboxStates[m.at.State].follows || len(m.moves()) == 0 {
		return false, err
	}
	if err = m.openKeys(ctx); err == nil {
		err = s.db.InTx(ctx, func(tx *store.Tx) error {
			_, err := m.Commit(ctx, tx)
			return err
		})
	}
	if errors.Is(err, store.ErrOutdated) {
		return false, nil
	}
	if err == nil {
		outcome = store.Committed
	}
	return err == nil, err
}

// plan is the intended state and policy of a container.
type plan struct {
	state         envelope.Class
	policy        int64 // 0: the default
	keepPolicyKey bool  // the key stays under the policy key that it is under
	initiator     policy.Initiator
}

// PreparedMove is a change of a container's state or policy, with the policy keys that
// the moves of its keys need.
type PreparedMove struct {
	containers *Containers
	container  Container
	points     movePoints
	planned    func(now Container) plan

	at        location // where the keys are
	plan      plan
	policyKey policy.KeyRow // where they are to be moved
	keys      []movedKeys   // of each of moves()
}

// From is the policy key that the container's key is under before the move.
func (p *PreparedMove) From() int64 { return p.at.page.Parent }

// movePoints are the fault points before and after the commit of a move.
type movePoints struct{ before, after func() }

func pointsOf(act string) movePoints {
	return movePoints{func() { fault.Point(act + ".before-commit") }, func() { fault.Point(act + ".after-commit") }}
}

// movedKeys are the policy keys from which and to which a key is moved.
type movedKeys struct{ from, to *envelope.Key }

// keyMove is the move of one of the container's keys to a page of its own.
type keyMove struct {
	from  slot
	to    keypage.Parent
	class envelope.Class
}

// moves returns the moves of those keys that must change their page: the present key,
// and the older one while there is one.
func (p *PreparedMove) moves() (moves []keyMove) {
	for _, from := range p.at.slots() {
		m := keyMove{from: from, to: from.parent(), class: p.plan.state}
		if !p.plan.keepPolicyKey {
			m.to = keypage.Parent{ID: p.policyKey.ID, Generation: p.policyKey.Generation}
		}
		if from.generation != p.at.Generation {
			m.class = m.class.Older()
		}
		if m.to != from.parent() || m.class != from.page.Class {
			moves = append(moves, m)
		}
	}
	return moves
}

func (p *PreparedMove) target() target {
	return target{p.at.Tenant, p.at.Kind, p.plan.policy, p.at.Geo}
}

func (s *Containers) prepareMove(ctx context.Context, tenant int64, c Container, act string, planned func(now Container) plan) (*PreparedMove, error) {
	if c.Tenant != tenant {
		return nil, fail.New(api.NotFound, "%s %q does not exist", c.Kind, c.Name)
	}
	p := &PreparedMove{containers: s, container: c, points: pointsOf(act), planned: planned}
	err := store.Retry(func() error { return p.Prepare(ctx) })
	if err != nil {
		p.Close(ctx, store.NotCommitted)
		return nil, err
	}
	return p, nil
}

// Prepare reads where the container's keys are, and opens the policy keys that their
// moves need.
func (p *PreparedMove) Prepare(ctx context.Context) error {
	p.zero()
	if err := p.snapshot(ctx); err != nil {
		return err
	}
	return p.openKeys(ctx)
}

// snapshot reads in one View where a container's keys are and where they are to be moved.
func (p *PreparedMove) snapshot(ctx context.Context) error {
	return p.containers.db.View(ctx, func(tx *store.Tx) (err error) {
		if p.at, err = locateNotPurged(ctx, tx, p.container); err != nil {
			return err
		}
		p.at.Name = p.container.Name
		p.plan = p.planned(p.at.Container)
		if !p.plan.keepPolicyKey {
			p.policyKey, err = p.containers.currentKey(ctx, tx, p.target())
		}
		return err
	})
}

// openKeys opens the policy keys of the moves.
func (p *PreparedMove) openKeys(ctx context.Context) (err error) {
	moves := p.moves()
	p.keys = make([]movedKeys, len(moves))
	for i, m := range moves {
		if p.keys[i].from, err = p.containers.openParent(ctx, p.at, m.from.page, p.plan.initiator); err != nil {
			return err
		}
		// A container is put under a policy key only while users may use that key,
		// also if the service initiates the move.
		if p.keys[i].to, err = p.containers.openPolicyKey(ctx, p.at.Tenant, m.to.ID, policy.User); err != nil {
			return err
		}
	}
	return nil
}

func (p *PreparedMove) zero() {
	for _, k := range p.keys {
		k.from.Zero()
		k.to.Zero()
	}
	p.keys = nil
}

// Commit takes the locks, reads everything again, moves the keys and changes the
// container, all in tx. It fails with store.ErrOutdated, and changes nothing, if the
// change is out of date.
func (p *PreparedMove) Commit(ctx context.Context, tx *store.Tx) (next Container, err error) {
	at, err := p.lockAndReread(ctx, tx)
	if err != nil {
		return next, err
	}
	next = at.Container
	next.Name = p.at.Name
	next.State, next.Policy = p.plan.state, p.plan.policy
	for i, m := range p.moves() {
		page, err := at.moveKey(ctx, tx, m, p.keys[i])
		if err != nil {
			return next, err
		}
		if m.from.generation == at.Generation {
			next.Page = page
		} else {
			next.Older = page
		}
	}
	updated, err := tx.Exec(ctx, updateContainer, at.Tenant, at.ID, at.Page, next.State, next.Policy, next.Page, at.Policy, next.Older, at.Older)
	if err != nil {
		return next, err
	}
	if updated != 1 {
		return next, store.ErrOutdated
	}
	p.points.before()
	return next, nil
}

// Close zeroes the policy keys.
func (p *PreparedMove) Close(_ context.Context, outcome store.Outcome) {
	p.zero()
	if outcome == store.Committed {
		p.points.after()
	}
}

// lockAndReread takes the locks of a move and reads the container's location again. It locks
// the policy, so that its policy key stays current, and then the pages, so that moves
// from one page run one after the other and none starves.
func (p *PreparedMove) lockAndReread(ctx context.Context, tx *store.Tx) (location, error) {
	if !p.plan.keepPolicyKey {
		if target, err := p.containers.lockCurrentKey(ctx, tx, p.target()); err != nil {
			return location{}, err
		} else if target != p.policyKey {
			return location{}, store.ErrOutdated
		}
	}
	for _, one := range p.at.slots() {
		if err := tx.Lock(ctx, one.page.ID, true); err != nil {
			return location{}, err
		}
	}
	at, err := locateNotPurged(ctx, tx, p.at.Container)
	if fail.Is(err, api.Damaged) {
		return location{}, errors.Join(store.ErrOutdated, err) // a fold came between the two reads
	}
	if err != nil {
		return location{}, err
	}
	was, is := p.at, at
	if is.Page != was.Page || is.State != was.State || is.Policy != was.Policy || is.Generation != was.Generation || is.Older != was.Older {
		return location{}, store.ErrOutdated
	}
	for i, one := range is.slots() {
		if one.parent() != was.slots()[i].parent() {
			return location{}, store.ErrOutdated
		}
	}
	return at, nil
}

// moveKey removes one of a container's slots from its page and puts it into a new page
// of its own, whose id it returns.
func (p location) moveKey(ctx context.Context, tx *store.Tx, m keyMove, keys movedKeys) (page int64, err error) {
	at := p.slots()[0]
	if m.from.generation != at.generation {
		at = p.slots()[1]
	}
	rest, key, err := p.open(at, keys.from)
	if err != nil {
		return 0, err
	}
	defer rest.Zero()
	defer key.Zero()
	fresh, err := sealNew(keys.to, keypage.Row{ID: store.NewID(), Tenant: p.Tenant, Parent: m.to.ID, Generation: m.to.Generation, Class: m.class},
		[]envelope.Slot{{Child: p.ID, Generation: at.generation, Key: *key}})
	if err != nil {
		return 0, err
	}
	rest.Remove(p.ID, at.generation)
	if err := writeRest(ctx, tx, at.page, keys.from, rest); err != nil {
		return 0, err
	}
	return fresh.ID, keypage.Put(ctx, tx, fresh)
}

// writeRest replaces a page by rest, or deletes it if rest has no slots.
func writeRest(ctx context.Context, tx *store.Tx, page keypage.Row, key *envelope.Key, rest *envelope.Page) (err error) {
	var won []bool
	if rest.Len() == 0 {
		won, err = keypage.Delete(ctx, tx, page)
	} else {
		left := page
		left.Version++
		left.Count = uint32(rest.Len())
		if left.Body, err = envelope.SealPage(key, left.EncryptionContext(), rest); err != nil {
			return err
		}
		won, err = keypage.Swap(ctx, tx, []keypage.Row{page}, []keypage.Row{left})
	}
	if err != nil {
		return err
	}
	if !won[0] {
		return store.ErrOutdated
	}
	return nil
}
