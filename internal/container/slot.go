package container

import (
	"context"
	"errors"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
)

// Opened is a container with its key, as they stood at one moment.
type Opened struct {
	Container
	PolicyKey int64         // id of the policy key that its key stands under
	Key       *envelope.Key // a copy: the caller zeroes it
}

// OpenKey opens the key of a container where it stands now, whatever c says of
// it. It may call a vault, so it is called outside transactions.
func (s *Containers) OpenKey(ctx context.Context, c Container) (o Opened, err error) {
	err = again("open the key of "+string(c.Kind), func() error {
		var at place
		err := s.db.View(ctx, func(tx *store.Tx) (err error) {
			at, err = findKept(ctx, tx, c)
			return err
		})
		if err != nil {
			return err
		}
		parent, err := s.openParent(ctx, at)
		if err != nil {
			return err
		}
		defer parent.Zero()
		page, key, err := at.open(parent)
		if err != nil {
			return err
		}
		page.Zero()
		o = Opened{Container: at.Container, PolicyKey: at.page.Parent, Key: key}
		o.Name = c.Name
		return nil
	})
	return o, err
}

// PolicyKeyOf returns the policy key that a container's key stands under.
func (s *Containers) PolicyKeyOf(ctx context.Context, tx *store.Tx, c Container) (policyKey int64, generation uint32, err error) {
	at, err := find(ctx, tx, c)
	return at.page.Parent, at.page.Generation, err
}

// OnPage returns the containers that point to a key page, in id order and
// without their names: each has exactly one slot of its generation there, and
// no other slot is there.
func (s *Containers) OnPage(ctx context.Context, tx *store.Tx, tenant, page int64) ([]Container, error) {
	return unnamed(selectRows(ctx, tx, wherePage, tenant, page))
}

// All returns the first limit containers of every kind, the directory too, with
// an id above after, in id order and without their names.
func (s *Containers) All(ctx context.Context, tx *store.Tx, tenant, after int64, limit int) ([]Container, error) {
	return unnamed(selectRows(ctx, tx, whereTenant, tenant, after, limit))
}

func unnamed(rows []row, err error) ([]Container, error) {
	list := make([]Container, len(rows))
	for i, r := range rows {
		list[i] = r.Container
	}
	return list, err
}

// Fold merges the small key pages of one policy key and class, with the
// pointers of their containers, and returns how many pages went away. A policy
// key that nothing stands under any more has nothing to fold. A backup keeps a
// page of its own, with which it goes.
// key that nothing stands under any more, or whose policy was purged, has nothing
// to fold.
func (s *Containers) Fold(ctx context.Context, tenant int64, parent keypage.Parent, class envelope.Class) (int, error) {
	if class == envelope.ClassBackup {
		return 0, nil
	}
	key, err := s.policies.Open(ctx, tenant, parent.ID)
	if fail.Is(err, api.NotFound) || fail.Is(err, api.Gone) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer key.Zero()
	return keypage.Fold(ctx, s.db, key, tenant, parent, class, s.pageSlots, func(ctx context.Context, tx *store.Tx, children []int64, page int64) error {
		args := make([][]any, len(children))
		for i, id := range children {
			args[i] = []any{tenant, id, page}
		}
		updated, err := tx.ExecMany(ctx, updatePage, args)
		if err != nil {
			return err
		}
		for i, n := range updated {
			if n != 1 {
				return fail.New(api.Damaged, "fold into key page %d: container %d, whose key is there, does not exist", page, children[i])
			}
		}
		return nil
	})
}

// place is a container and the key page that it points to.
type place struct {
	Container
	page keypage.Row
}

func (p place) parent() keypage.Parent {
	return keypage.Parent{ID: p.page.Parent, Generation: p.page.Generation}
}

// find reads where a container stands now. Where containers and pages are read
// one after the other outside a snapshot, a page that went in between is
// NotFound.
func find(ctx context.Context, tx *store.Tx, c Container) (place, error) {
	r, found, err := selectRow(ctx, tx, whereID, c.Tenant, c.ID)
	if err != nil {
		return place{}, err
	}
	if !found {
		return place{}, fail.New(api.NotFound, "%s %q does not exist", c.Kind, c.Name)
	}
	page, err := keypage.Get(ctx, tx, c.Tenant, r.Page)
	if fail.Is(err, api.NotFound) {
		err = fail.New(api.Damaged, "container %d points to key page %d, which does not exist", r.ID, r.Page)
	}
	return place{r.Container, page}, err
}

// openParent opens the policy key that a page was read under. One that is gone
// was left by everything under it meanwhile; a page that stands there all the
// same never went there by keyroll's hand.
func (s *Containers) openParent(ctx context.Context, at place) (*envelope.Key, error) {
	key, err := s.openPolicyKey(ctx, at.Tenant, at.page.Parent)
	if !errors.Is(err, errChanged) {
		return key, err
	}
	var now place
	again := s.db.View(ctx, func(tx *store.Tx) (err error) {
		now, err = find(ctx, tx, at.Container)
		return err
	})
	switch {
	case again != nil:
		return nil, again
	case now.page.ID == at.page.ID && now.parent() == at.parent():
		return nil, fail.New(api.Damaged, "container %d points to key page %d, which stands under policy key %d, and that has no wrap in this tenant", at.ID, at.page.ID, at.page.Parent)
	}
	return nil, err
}

// open opens the page and returns it with a copy of the container's key.
func (p place) open(parent *envelope.Key) (*envelope.Page, *envelope.Key, error) {
	if p.page.Class != p.State {
		return nil, nil, fail.New(api.Damaged, "container %d is of class %v and its key page %d of class %v", p.ID, p.State, p.page.ID, p.page.Class)
	}
	page, err := envelope.OpenPage(parent, p.page.Place(), p.page.Body)
	if err != nil {
		return nil, nil, err
	}
	key, ok := page.Find(p.ID, p.Generation)
	if !ok {
		page.Zero()
		return nil, nil, fail.New(api.Damaged, "key page %d has no key for generation %d of container %d, which points to it", p.page.ID, p.Generation, p.ID)
	}
	return page, key, nil
}
