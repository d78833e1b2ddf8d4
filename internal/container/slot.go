package container

import (
	"context"
	"errors"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keypage"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// Opened is a container with its key, as read at one moment. While a roll re-wraps
// its blob keys from one generation to the next, it also has the older key.
type Opened struct {
	Container
	PolicyKey int64         // id of the policy key that its key is under
	Key       *envelope.Key // a copy
	older     *envelope.Key // of the previous generation; nil: there is none, or it cannot be decrypted
	olderErr  error
}

// ErrGeneration means that a key page is under a generation of its container's key
// that no longer exists, or did not yet exist when the key was opened: the caller must
// read page and key again.
var ErrGeneration = errors.New("container: the key is of another generation")

// KeyOf returns the key of a generation; o still owns it.
func (o Opened) KeyOf(generation uint32) (*envelope.Key, error) {
	switch {
	case generation == o.Generation:
		return o.Key, nil
	case generation+1 == o.Generation && o.older != nil:
		return o.older, nil
	case generation+1 == o.Generation && o.olderErr != nil:
		return nil, o.olderErr
	}
	return nil, ErrGeneration
}

// Zero wipes the keys.
func (o Opened) Zero() {
	o.Key.Zero()
	o.older.Zero()
}

// OpenKey opens the key of a container on behalf of who; the caller zeroes it. It
// reads the container's current location and does not rely on the fields of c. It may
// call a vault, so it must be called outside transactions.
func (s *Containers) OpenKey(ctx context.Context, c Container, who policy.Initiator) (o Opened, err error) {
	err = store.Retry(func() error {
		var at Located
		err := s.db.View(ctx, func(tx *store.Tx) (err error) {
			at, err = s.Locate(ctx, tx, c)
			return err
		})
		if err != nil {
			return err
		}
		o, err = s.OpenLocated(ctx, at, who)
		return err
	})
	return o, err
}

// Located is a container with the key pages that its keys were in, in one snapshot.
type Located struct {
	name string
	at   location
}

// Locate reads where the keys of a container are. It relies on no field of c but its id.
// It fails Gone for a purged container.
func (s *Containers) Locate(ctx context.Context, tx *store.Tx, c Container) (Located, error) {
	at, err := locateNotPurged(ctx, tx, c)
	return Located{c.Name, at}, err
}

// Container is the container as it was in the snapshot.
func (l Located) Container() Container { return l.at.named(l.name) }

// OpenLocated is OpenKey for a container that was located before. It fails with
// store.ErrOutdated if the container has to be located again, because the policy key that
// its key was under no longer exists.
func (s *Containers) OpenLocated(ctx context.Context, l Located, who policy.Initiator) (o Opened, err error) {
	at := l.at
	o = Opened{Container: at.Container, PolicyKey: at.page.Parent}
	o.Name = l.name
	for _, one := range at.slots() {
		parent, err := s.openParent(ctx, at, one.page, who)
		if err != nil {
			o.Zero()
			return o, err
		}
		page, key, err := at.open(one, parent)
		parent.Zero()
		if err == nil {
			page.Zero()
		}
		switch {
		case one.generation != at.Generation:
			o.older, o.olderErr = key, err
		case err != nil:
			return o, err
		default:
			o.Key = key
		}
	}
	if at.olderErr != nil {
		o.olderErr = at.olderErr
	}
	return o, nil
}

// PolicyKeyOf returns the policy key that a container's key is under.
func (s *Containers) PolicyKeyOf(ctx context.Context, tx *store.Tx, c Container) (policyKey int64, generation uint32, err error) {
	at, err := locate(ctx, tx, c)
	return at.page.Parent, at.page.Generation, err
}

// OnPage returns the containers that point to a key page, in id order and
// without their names. In an undamaged database each has exactly one slot of its
// generation there, and the page has no other slots.
func (s *Containers) OnPage(ctx context.Context, tx *store.Tx, tenant, page int64) ([]Container, error) {
	return containersOf(selectRows(ctx, tx, wherePage, tenant, page))
}

// OnOlderPage returns the containers whose older key is in a key page, as OnPage does.
func (s *Containers) OnOlderPage(ctx context.Context, tx *store.Tx, tenant, page int64) ([]Container, error) {
	return containersOf(selectRows(ctx, tx, ` WHERE tenant = ?1 AND older = ?2 AND older <> 0 ORDER BY id`, tenant, page))
}

// All returns the first limit containers of every kind, including the directory, with
// an id above after, in id order and without their names.
func (s *Containers) All(ctx context.Context, tx *store.Tx, tenant, after int64, limit int) ([]Container, error) {
	return containersOf(selectRows(ctx, tx, whereTenant, tenant, after, limit))
}

func containersOf(rows []row, err error) ([]Container, error) {
	list := make([]Container, len(rows))
	for i, r := range rows {
		list[i] = r.Container
	}
	return list, err
}

// Fold merges the small key pages of one policy key and class, updates the
// pointers of their containers, and returns how many pages it removed. A policy key
// that no longer exists, or whose policy was purged, has nothing to fold. The key of
// a backup always has a page of its own, which is deleted with it.
func (s *Containers) Fold(ctx context.Context, tenant int64, parent keypage.Parent, class envelope.Class) (int, error) {
	if class == envelope.ClassBackup {
		return 0, nil
	}
	key, err := s.policies.Open(ctx, tenant, parent.ID, policy.System)
	if fail.Is(err, api.NotFound) || fail.Is(err, api.Gone) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer key.Zero()
	return keypage.Fold(ctx, s.db, key, keypage.Foldable{Tenant: tenant, Parent: parent, Class: class, Slots: s.pageSlots}, func(ctx context.Context, tx *store.Tx, children []int64, page int64) error {
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
				return fail.New(api.Damaged, "fold into key page %d: container %d, whose key it holds, does not exist", page, children[i])
			}
		}
		return nil
	})
}

// location is a container and the key pages that it points to.
type location struct {
	Container
	page     keypage.Row
	older    keypage.Row // of a container with an older generation
	olderErr error       // that page is missing
}

// slot is the location of one of a container's keys.
type slot struct {
	page       keypage.Row
	generation uint32 // of the key
}

func (s slot) parent() keypage.Parent {
	return keypage.Parent{ID: s.page.Parent, Generation: s.page.Generation}
}

// slots returns the slot of the present key and, if there is one, of the older key.
func (p location) slots() []slot {
	slots := []slot{{p.page, p.Generation}}
	if p.Older != 0 && p.olderErr == nil {
		slots = append(slots, slot{p.older, p.Generation - 1})
	}
	return slots
}

// locate reads the current location of a container. Without a snapshot, a page that is
// deleted between the reads of container and page is reported as missing: Damaged.
func locate(ctx context.Context, tx *store.Tx, c Container) (location, error) {
	r, found, err := selectRow(ctx, tx, whereID, c.Tenant, c.ID)
	if err != nil {
		return location{}, err
	}
	if !found {
		return location{}, fail.New(api.NotFound, "%s %q does not exist", c.Kind, c.Name)
	}
	return locateRow(ctx, tx, r)
}

// named returns the container with its name.
func (p location) named(name string) Container {
	c := p.Container
	c.Name = name
	return c
}

// locateRow reads the key pages of a container.
func locateRow(ctx context.Context, tx *store.Tx, r row) (at location, err error) {
	at.Container = r.Container
	ids := []int64{r.Page}
	if r.Older != 0 && r.Older != r.Page {
		ids = append(ids, r.Older)
	}
	pages, err := keypage.GetAll(ctx, tx, r.Tenant, ids)
	if err != nil {
		return at, err
	}
	found := map[int64]keypage.Row{}
	for _, page := range pages {
		found[page.ID] = page
	}
	var there bool
	if at.page, there = found[r.Page]; !there {
		return at, fail.New(api.Damaged, "container %d points to key page %d, which does not exist", r.ID, r.Page)
	}
	if at.older, there = found[r.Older]; !there && r.Older != 0 {
		at.olderErr = fail.New(api.Damaged, "container %d points to key page %d with its older key, which does not exist", r.ID, r.Older)
	}
	return at, nil
}

// openParent opens the policy key that a page is under. If it no longer exists, every
// key under it should have been moved in the meantime: store.ErrOutdated. If the page is
// still under it, keyroll did not put it there: Damaged.
func (s *Containers) openParent(ctx context.Context, at location, page keypage.Row, who policy.Initiator) (*envelope.Key, error) {
	key, err := s.openPolicyKey(ctx, at.Tenant, page.Parent, who)
	if !errors.Is(err, store.ErrOutdated) {
		return key, err
	}
	var now location
	readErr := s.db.View(ctx, func(tx *store.Tx) (err error) {
		now, err = locate(ctx, tx, at.Container)
		return err
	})
	if readErr != nil {
		return nil, readErr
	}
	for _, one := range now.slots() {
		if one.page.ID == page.ID && one.page.Parent == page.Parent {
			return nil, fail.New(api.Damaged, "container %d points to key page %d, which is under policy key %d, which has no wrap in this tenant", at.ID, page.ID, page.Parent)
		}
	}
	return nil, err
}

// open decrypts the page of one of the container's slots and returns it with a copy
// of the key in the slot.
func (p location) open(at slot, parent *envelope.Key) (*envelope.Page, *envelope.Key, error) {
	if err := p.checkClass(at); err != nil {
		return nil, nil, err
	}
	page, err := envelope.OpenPage(parent, at.page.EncryptionContext(), at.page.Body)
	if err != nil {
		return nil, nil, err
	}
	key, err := p.keyIn(at, page)
	if err != nil {
		page.Zero()
		return nil, nil, err
	}
	return page, key, nil
}

func (p location) checkClass(at slot) error {
	class := p.State
	if at.generation != p.Generation {
		class = class.Older()
	}
	if at.page.Class != class {
		return fail.New(api.Damaged, "container %d has class %v, but its key page %d has class %v", p.ID, p.State, at.page.ID, at.page.Class)
	}
	return nil
}

// keyIn returns a copy of the key in one of the container's slots.
func (p location) keyIn(at slot, page *envelope.Page) (*envelope.Key, error) {
	key, ok := page.Find(p.ID, at.generation)
	if !ok {
		return nil, fail.New(api.Damaged, "key page %d has no key for generation %d of container %d, which points to it", at.page.ID, at.generation, p.ID)
	}
	return key, nil
}
