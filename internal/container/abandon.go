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
	"keyroll/internal/store"
)

// Abandon takes away a container whose key page is lost: it is missing, or does
// not open although its policy key does, or stands under a policy key that there
// is not. The page goes with the last container that points to it. A container
// whose page opens is refused: Conflict. also runs in the same transaction.
func (s *Containers) Abandon(ctx context.Context, c Container, also func(tx *store.Tx) error) error {
	return again("abandon "+string(c.Kind), func() error {
		at, err := s.lost(ctx, c)
		if err != nil {
			return err
		}
		return s.db.InTx(ctx, func(tx *store.Tx) error {
			if err := tx.Lock(ctx, at.Page, true); err != nil { // as all who take slots out of a page
				return err
			}
			now, err := pointed(ctx, tx, c)
			if err != nil {
				return err
			}
			if now.Page != at.Page || !same(now.page, at.page) {
				return errChanged
			}
			if _, err := tx.Exec(ctx, `DELETE FROM container`+whereID, c.Tenant, c.ID); err != nil {
				return fmt.Errorf("delete container %d: %w", c.ID, err)
			}
			left, err := selectRows(ctx, tx, wherePage, c.Tenant, at.Page)
			if err != nil {
				return err
			}
			if len(left) == 0 && at.page.ID != 0 {
				if gone, err := keypage.Delete(ctx, tx, at.page); err != nil {
					return err
				} else if !gone[0] {
					return errChanged
				}
			}
			return also(tx)
		})
	})
}

// lost returns a container with the page that it points to, which does not open.
func (s *Containers) lost(ctx context.Context, c Container) (at place, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) error {
		at, err = pointed(ctx, tx, c)
		return err
	})
	if err != nil || at.page.ID == 0 {
		return at, err
	}
	parent, err := s.openPolicyKey(ctx, c.Tenant, at.page.Parent)
	if errors.Is(err, errChanged) { // the page is looked at again before anything goes
		return at, nil
	}
	if err != nil {
		return at, err
	}
	defer parent.Zero()
	page, err := envelope.OpenPage(parent, at.page.Place(), at.page.Body)
	if fail.Is(err, api.Damaged) {
		return at, nil
	}
	if err != nil {
		return at, err
	}
	page.Zero()
	return at, fail.New(api.Conflict, "abandon %s %q: key page %d, where its key stands, opens", c.Kind, c.Name, at.page.ID).
		WithHint("keyroll verify names what is damaged, and docs/damage.md says how it comes back")
}

// pointed reads where a container points to now; the page is zero if it is missing.
func pointed(ctx context.Context, tx *store.Tx, c Container) (place, error) {
	r, found, err := selectRow(ctx, tx, whereID, c.Tenant, c.ID)
	if err != nil {
		return place{}, err
	}
	if !found {
		return place{}, fail.New(api.NotFound, "%s %q does not exist", c.Kind, c.Name)
	}
	page, err := keypage.Get(ctx, tx, c.Tenant, r.Page)
	if fail.Is(err, api.NotFound) {
		return place{Container: r.Container}, nil
	}
	return place{Container: r.Container, page: page}, err
}

// same reports whether a key page is as it was.
func same(a, b keypage.Row) bool {
	return a.ID == b.ID && a.Place() == b.Place() && bytes.Equal(a.Body, b.Body)
}
