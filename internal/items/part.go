package items

import (
	"context"
	"errors"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// Part is some items of a container with the keys of their first blobs.
type Part struct {
	List []WithFirstBlob
	Keys *Keyring
}

// OpenPart reads up to limit items after an id and opens their keys.
func (s *Store) OpenPart(ctx context.Context, c container.Container, which Which, after int64, limit int) (p Part, err error) {
	for range MaxAttempts {
		p, err = s.tryPart(ctx, c, which, after, limit)
		if errors.Is(err, store.ErrOutdated) {
			continue
		}
		if err != nil || !p.Keys.Stale {
			return p, err
		}
		p.Keys.Zero()
	}
	return Part{}, RolledMeanwhile()
}

// MaxAttempts is how often a read starts over because others replaced the keys that it
// depends on.
const MaxAttempts = 10

// RolledMeanwhile returns the error of a read that has started over MaxAttempts times.
func RolledMeanwhile() error {
	return fail.New(api.Conflict, "the container's keys were replaced %d times during the request", MaxAttempts).WithHint("try again")
}

func (s *Store) tryPart(ctx context.Context, c container.Container, which Which, after int64, limit int) (Part, error) {
	var p Part
	var blobs []Blob
	var pages PageSet
	var at container.Located
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		if at, err = s.keys.Locate(ctx, tx, c); err != nil {
			return err
		}
		if p.List, err = Select(ctx, tx, Range{Which: which, Tenant: c.Tenant, Container: c.ID, After: after, Limit: limit}); err != nil {
			return err
		}
		blobs = make([]Blob, len(p.List))
		for i, f := range p.List {
			blobs[i] = f.Blob
		}
		pages, err = PagesOf(ctx, tx, c.Tenant, blobs)
		return err
	})
	if err != nil {
		return Part{}, err
	}
	// Checked even if there is nothing to decrypt: an empty answer is information too.
	opened, err := s.keys.OpenLocated(ctx, at, api.ByUser)
	if err != nil {
		return Part{}, err
	}
	defer opened.Zero()
	p.Keys = OpenKeys(opened, pages, blobs)
	return p, nil
}

// CheckAccess fails if the container's key may no longer be used.
func (s *Store) CheckAccess(ctx context.Context, c container.Container) error {
	opened, err := s.keys.OpenKey(ctx, c, api.ByUser)
	if err != nil {
		return err
	}
	opened.Zero()
	return nil
}
