package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keypage"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// PreparedAbandon is the deletion of a container one of whose key pages is lost. It
// holds keys.
type PreparedAbandon struct {
	containers *Containers
	container  Container
	at         []pointer
}

// PrepareAbandon prepares to delete a container one of whose key pages is lost: it is
// missing, or cannot be decrypted although its policy key can, or is under a policy key
// that does not exist. If all pages of the container can be decrypted, it fails Conflict.
func (s *Containers) PrepareAbandon(ctx context.Context, c Container) (*PreparedAbandon, error) {
	p := &PreparedAbandon{containers: s, container: c}
	err := store.Retry(func() error { return p.Prepare(ctx) })
	if err != nil {
		p.Close(ctx, store.NotCommitted)
		return nil, err
	}
	return p, nil
}

// Prepare reads the pages again.
func (p *PreparedAbandon) Prepare(ctx context.Context) (err error) {
	p.zero()
	p.at, err = p.containers.pagesToAbandon(ctx, p.container)
	return err
}

// Commit deletes the container in tx. A lost page is deleted with the last container that
// points to it.
func (p *PreparedAbandon) Commit(ctx context.Context, tx *store.Tx) error {
	c := p.container
	for _, page := range p.at {
		if err := tx.Lock(ctx, page.id, true); err != nil { // every removal of slots from a page takes this lock
			return err
		}
	}
	now, err := pointersOf(ctx, tx, c)
	if err != nil {
		return err
	}
	if len(now) != len(p.at) {
		return store.ErrOutdated
	}
	if _, err := tx.Exec(ctx, `DELETE FROM container`+whereID, c.Tenant, c.ID); err != nil {
		return fmt.Errorf("delete container %d: %w", c.ID, err)
	}
	for i, page := range p.at {
		if page.slot.generation != now[i].slot.generation || !samePage(page, now[i]) {
			return store.ErrOutdated
		}
		if err := page.removeSlot(ctx, tx, c); err != nil {
			return err
		}
	}
	return nil
}

// Close zeroes the keys.
func (p *PreparedAbandon) Close(context.Context, store.Outcome) { p.zero() }

func (p *PreparedAbandon) zero() {
	for _, page := range p.at {
		page.zero()
	}
	p.at = nil
}

// pointer is a key page that a container points to, with the container's slot in it.
type pointer struct {
	id   int64
	slot slot // its page is zero if the page is missing
	key  *envelope.Key
	page *envelope.Page // nil: the page is lost
}

func (p pointer) zero() {
	p.key.Zero()
	if p.page != nil {
		p.page.Zero()
	}
}

// removeSlot removes a container's slot from a page that can be decrypted, and deletes
// a lost page to which no container points any more.
func (p pointer) removeSlot(ctx context.Context, tx *store.Tx, c Container) error {
	if p.page != nil {
		p.page.Remove(c.ID, p.slot.generation)
		return writeRest(ctx, tx, p.slot.page, p.key, p.page)
	}
	if p.slot.page.ID == 0 {
		return nil
	}
	for _, where := range []string{wherePage, whereOlder} {
		if left, err := selectRows(ctx, tx, where, c.Tenant, p.id); err != nil || len(left) > 0 {
			return err
		}
	}
	deleted, err := keypage.Delete(ctx, tx, p.slot.page)
	if err == nil && !deleted[0] {
		err = store.ErrOutdated
	}
	return err
}

// pagesToAbandon returns the pages that a container points to, and fails unless at least one
// of them is lost. The caller zeroes them, also after an error.
func (s *Containers) pagesToAbandon(ctx context.Context, c Container) (at []pointer, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) error {
		at, err = pointersOf(ctx, tx, c)
		return err
	})
	if err != nil {
		return nil, err
	}
	any := false
	for i := range at {
		p := &at[i]
		if p.slot.page.ID != 0 {
			if p.key, err = s.openPolicyKey(ctx, c.Tenant, p.slot.page.Parent, policy.User); err == nil {
				p.page, err = envelope.OpenPage(p.key, p.slot.page.EncryptionContext(), p.slot.page.Body)
			}
			// If the policy key no longer exists, the page is read again before anything is deleted.
			if err != nil && !errors.Is(err, store.ErrOutdated) && (p.key == nil || !fail.Is(err, api.Damaged)) {
				return at, err
			}
		}
		any = any || p.page == nil
	}
	if !any {
		return at, fail.New(api.Conflict, "abandon %s %q: key page %d, which holds its key, can be decrypted", c.Kind, c.Name, at[0].id).
			WithHint("keyroll verify lists what is damaged; docs/damage.md describes how to restore it")
	}
	return at, nil
}

// pointersOf reads the pages that a container points to.
func pointersOf(ctx context.Context, tx *store.Tx, c Container) (at []pointer, err error) {
	r, found, err := selectRow(ctx, tx, whereID, c.Tenant, c.ID)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fail.New(api.NotFound, "%s %q does not exist", c.Kind, c.Name)
	}
	at = []pointer{{id: r.Page, slot: slot{generation: r.Generation}}}
	if r.Older != 0 {
		at = append(at, pointer{id: r.Older, slot: slot{generation: r.Generation - 1}})
	}
	for i := range at {
		at[i].slot.page, err = keypage.Get(ctx, tx, c.Tenant, at[i].id)
		if err != nil && !fail.Is(err, api.NotFound) {
			return nil, err
		}
	}
	return at, nil
}

// samePage reports whether a key page is unchanged.
func samePage(a, b pointer) bool {
	p, q := a.slot.page, b.slot.page
	return p.ID == q.ID && (p.ID == 0 || p.EncryptionContext() == q.EncryptionContext() && bytes.Equal(p.Body, q.Body))
}
