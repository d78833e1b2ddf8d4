package container

import (
	"context"
	"errors"
	"fmt"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/keypage"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// SetState changes the state of a mailbox. If it becomes active, its key is moved
// under its policy's current policy key; otherwise the key stays under the policy key
// that it is under. also, unless nil, runs in the same transaction, and again if
// that is run again.
func (s *Containers) SetState(ctx context.Context, tenant int64, c Container, state envelope.Class, also func(tx *store.Tx, c Container) error) (Container, error) {
	if _, ok := mailboxStates[state]; !ok {
		return c, fail.New(api.InvalidArgument, "%v is not a valid mailbox state", state)
	}
	if c.Kind != Mailbox {
		return c, fail.New(api.InvalidArgument, "a %s has no state", c.Kind)
	}
	return s.change(ctx, tenant, c, "state", func(now Container) plan {
		becomesActive := state == envelope.ClassActive && now.State != envelope.ClassActive
		return plan{state: state, policy: now.Policy, keepPolicyKey: !becomesActive, initiator: policy.User}
	}, also)
}

// Assign gives a container a policy of its own, or with policy 0 returns it to the
// default one, and immediately moves its key under that policy's current policy key,
// on behalf of who. also is as for SetState.
func (s *Containers) Assign(ctx context.Context, tenant int64, c Container, policy int64, who policy.Initiator, also func(tx *store.Tx, c Container) error) (Container, error) {
	return s.change(ctx, tenant, c, "assign", func(now Container) plan {
		return plan{state: now.State, policy: policy, initiator: who}
	}, also)
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
	sv, err := s.snapshot(ctx, c, func(now Container) plan { return plan{state: now.State, policy: now.Policy, initiator: policy.System} })
	if err != nil || !mailboxStates[sv.at.State].follows || len(sv.moves()) == 0 {
		return false, err
	}
	_, err = s.apply(ctx, sv, "move", nil)
	if errors.Is(err, errChanged) {
		return false, nil
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

// snapshot is the location of a container's keys, and where they are to be moved.
type snapshot struct {
	at        location
	plan      plan
	policyKey policy.KeyRow
}

// keyMove is the move of one of the container's keys to a page of its own.
type keyMove struct {
	from  slot
	to    keypage.Parent
	class envelope.Class
}

// moves returns the moves of those keys that must change their page: the present key,
// and the older one while there is one.
func (sv snapshot) moves() (moves []keyMove) {
	for _, from := range sv.at.slots() {
		m := keyMove{from: from, to: from.parent(), class: sv.plan.state}
		if !sv.plan.keepPolicyKey {
			m.to = keypage.Parent{ID: sv.policyKey.ID, Generation: sv.policyKey.Generation}
		}
		if from.generation != sv.at.Generation {
			m.class = m.class.Older()
		}
		if m.to != from.parent() || m.class != from.page.Class {
			moves = append(moves, m)
		}
	}
	return moves
}

func (sv snapshot) target() target {
	return target{sv.at.Tenant, sv.at.Kind, sv.plan.policy, sv.at.Geo}
}

func (s *Containers) change(ctx context.Context, tenant int64, c Container, act string, planned func(now Container) plan, also func(*store.Tx, Container) error) (next Container, err error) {
	if c.Tenant != tenant {
		return c, fail.New(api.NotFound, "%s %q does not exist", c.Kind, c.Name)
	}
	err = retry(fmt.Sprintf("change %s %q", c.Kind, c.Name), func() error {
		sv, err := s.snapshot(ctx, c, planned)
		if err != nil {
			return err
		}
		next, err = s.apply(ctx, sv, act, also)
		return err
	})
	if err != nil {
		return c, err
	}
	return next, nil
}

// snapshot reads in one View where a container's keys are and where they are to be moved.
func (s *Containers) snapshot(ctx context.Context, c Container, planned func(now Container) plan) (sv snapshot, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) (err error) {
		if sv.at, err = locateNotPurged(ctx, tx, c); err != nil {
			return err
		}
		sv.at.Name = c.Name
		sv.plan = planned(sv.at.Container)
		if !sv.plan.keepPolicyKey {
			sv.policyKey, err = s.currentKey(ctx, tx, sv.target())
		}
		return err
	})
	return sv, err
}

// apply makes the moves of a snapshot. It opens the policy keys, then in one
// transaction takes the locks, reads everything again, and moves the keys. It
// fails with errChanged, and changes nothing, if the snapshot is out of date.
func (s *Containers) apply(ctx context.Context, sv snapshot, act string, also func(*store.Tx, Container) error) (next Container, err error) {
	moves := sv.moves()
	keys := make([]struct{ from, to *envelope.Key }, len(moves))
	for i, m := range moves {
		if keys[i].from, err = s.openParent(ctx, sv.at, m.from.page, sv.plan.initiator); err != nil {
			return next, err
		}
		defer keys[i].from.Zero()
		// A container is put under a policy key only while users may use that key,
		// also if the service initiates the move.
		if keys[i].to, err = s.openPolicyKey(ctx, sv.at.Tenant, m.to.ID, policy.User); err != nil {
			return next, err
		}
		defer keys[i].to.Zero()
	}
	err = s.db.InTx(ctx, func(tx *store.Tx) error {
		at, err := s.lockAndReread(ctx, tx, sv)
		if err != nil {
			return err
		}
		next = at.Container
		next.Name = sv.at.Name
		next.State, next.Policy = sv.plan.state, sv.plan.policy
		for i, m := range moves {
			page, err := at.moveKey(ctx, tx, m, keys[i].from, keys[i].to)
			if err != nil {
				return err
			}
			if m.from.generation == at.Generation {
				next.Page = page
			} else {
				next.Older = page
			}
		}
		updated, err := tx.Exec(ctx, updateContainer, at.Tenant, at.ID, at.Page, next.State, next.Policy, next.Page, at.Policy, next.Older, at.Older)
		if err != nil {
			return err
		}
		if updated != 1 {
			return errChanged
		}
		if also != nil {
			if err := also(tx, next); err != nil {
				return err
			}
		}
		fault.Point(act + ".before-commit")
		return nil
	})
	if err == nil {
		fault.Point(act + ".after-commit")
	}
	return next, err
}

// lockAndReread takes the locks of a move and reads the container's location again. It locks
// the policy, so that its policy key stays current, and then the pages, so that moves
// from one page run one after the other and none starves.
func (s *Containers) lockAndReread(ctx context.Context, tx *store.Tx, sv snapshot) (location, error) {
	if !sv.plan.keepPolicyKey {
		if target, err := s.lockCurrentKey(ctx, tx, sv.target()); err != nil {
			return location{}, err
		} else if target != sv.policyKey {
			return location{}, errChanged
		}
	}
	for _, one := range sv.at.slots() {
		if err := tx.Lock(ctx, one.page.ID, true); err != nil {
			return location{}, err
		}
	}
	at, err := locateNotPurged(ctx, tx, sv.at.Container)
	if fail.Is(err, api.Damaged) {
		return location{}, errors.Join(errChanged, err) // a fold came between the two reads
	}
	if err != nil {
		return location{}, err
	}
	was, is := sv.at, at
	if is.Page != was.Page || is.State != was.State || is.Policy != was.Policy || is.Generation != was.Generation || is.Older != was.Older {
		return location{}, errChanged
	}
	for i, one := range is.slots() {
		if one.parent() != was.slots()[i].parent() {
			return location{}, errChanged
		}
	}
	return at, nil
}

// moveKey removes one of a container's slots from its page and puts it into a new page
// of its own, whose id it returns.
func (p location) moveKey(ctx context.Context, tx *store.Tx, m keyMove, from, to *envelope.Key) (page int64, err error) {
	at := p.slots()[0]
	if m.from.generation != at.generation {
		at = p.slots()[1]
	}
	rest, key, err := p.open(at, from)
	if err != nil {
		return 0, err
	}
	defer rest.Zero()
	defer key.Zero()
	fresh, err := sealNew(to, keypage.Row{ID: store.NewID(), Tenant: p.Tenant, Parent: m.to.ID, Generation: m.to.Generation, Class: m.class},
		[]envelope.Slot{{Child: p.ID, Generation: at.generation, Key: *key}})
	if err != nil {
		return 0, err
	}
	rest.Remove(p.ID, at.generation)
	if err := writeRest(ctx, tx, at.page, from, rest); err != nil {
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
		return errChanged
	}
	return nil
}
