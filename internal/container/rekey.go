package container

import (
	"context"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/keypage"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// Rekey gives new keys to the containers of one key page whose keys are older
// than mark, and returns their number. The page keeps its children; their former
// keys are in a page of the older class until DropOlder. Both pages are written in
// one transaction, which first calls hold. A container that still has an older key
// is left for later. The error is Damaged if the page cannot be decrypted or lacks a
// slot; the containers of the other slots have new keys. It is store.ErrOutdated if
// another transaction changed the page meanwhile: then nothing was written.
func (s *Containers) Rekey(ctx context.Context, tenant, page, mark int64, hold func(tx *store.Tx) error) (rekeyed int, err error) {
	var row keypage.Row
	var due []Container
	err = s.db.View(ctx, func(tx *store.Tx) error {
		due, err = containersOf(selectRows(ctx, tx, whereDue, tenant, page, mark))
		if err != nil || len(due) == 0 {
			return err
		}
		if row, err = keypage.Get(ctx, tx, tenant, page); fail.Is(err, api.NotFound) {
			due, err = nil, nil // folded in the meantime
		}
		return err
	})
	if err != nil || len(due) == 0 {
		return 0, err
	}
	parent, err := s.openPolicyKey(ctx, tenant, row.Parent, policy.User)
	if err != nil {
		return 0, err
	}
	defer parent.Zero()
	next, older, due, damaged := nextKeys(parent, row, due)
	if len(due) == 0 {
		return 0, damaged
	}
	args := make([][]any, len(due))
	for i, c := range due {
		args[i] = []any{tenant, c.ID, page, c.Generation, older.ID, mark}
	}
	fault.Point("rekey.before-commit")
	err = s.db.InTx(ctx, func(tx *store.Tx) error {
		if err := hold(tx); err != nil {
			return err
		}
		swapped, err := keypage.Swap(ctx, tx, []keypage.Row{row}, []keypage.Row{next})
		if err != nil {
			return err
		}
		if !swapped[0] {
			return store.ErrOutdated
		}
		if err := keypage.Put(ctx, tx, older); err != nil {
			return err
		}
		return oneRowEach(tx.ExecMany(ctx, updateKeyed, args))
	})
	if err != nil {
		return 0, err
	}
	fault.Point("rekey.after-commit")
	return len(due), damaged
}

// nextKeys returns a page with keys of the next generation for those containers of
// due whose keys it holds, a page with their former keys, and these containers.
func nextKeys(parent *envelope.Key, row keypage.Row, due []Container) (next, older keypage.Row, _ []Container, err error) {
	page, err := envelope.OpenPage(parent, row.EncryptionContext(), row.Body)
	if err != nil {
		return next, older, nil, err
	}
	defer page.Zero()
	kept, err := envelope.NewPage()
	if err != nil {
		return next, older, nil, err
	}
	defer kept.Zero()
	var damaged error
	present := due[:0]
	for _, c := range due {
		at := slot{row, c.Generation}
		key, err := location{Container: c}.keyIn(at, page)
		if err == nil {
			err = location{Container: c}.checkClass(at)
		}
		if err != nil {
			damaged = err
			continue
		}
		if err := replaceKey(page, kept, c, key); err != nil {
			return next, older, nil, err
		}
		present = append(present, c)
	}
	if len(present) == 0 {
		return next, older, nil, damaged
	}
	next = row
	next.Version++
	if next.Body, err = envelope.SealPage(parent, next.EncryptionContext(), page); err != nil {
		return next, older, nil, err
	}
	older = keypage.Row{ID: store.NewID(), Tenant: row.Tenant, Parent: row.Parent, Generation: row.Generation, Class: row.Class.Older(),
		Version: 1, Count: uint32(kept.Len())}
	if older.Body, err = envelope.SealPage(parent, older.EncryptionContext(), kept); err != nil {
		return next, older, nil, err
	}
	return next, older, present, damaged
}

// replaceKey replaces c's key in page by a new key of the next generation, and adds the
// former key to kept.
func replaceKey(page, kept *envelope.Page, c Container, key *envelope.Key) error {
	defer key.Zero()
	if err := kept.Add(envelope.Slot{Child: c.ID, Generation: c.Generation, Key: *key}); err != nil {
		return err
	}
	page.Remove(c.ID, c.Generation)
	fresh := envelope.NewKey()
	defer fresh.Zero()
	return page.Add(envelope.Slot{Child: c.ID, Generation: c.Generation + 1, Key: *fresh})
}

// oneRowEach fails with store.ErrOutdated unless each statement changed exactly one row.
func oneRowEach(affected []int64, err error) error {
	for _, n := range affected {
		if n != 1 {
			return store.ErrOutdated
		}
	}
	return err
}
