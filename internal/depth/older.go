package depth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/keypage"
	"keyroll/internal/renew"
	"keyroll/internal/store"
)

// olderBatch is for how many containers one scan of the key pages confirms that
// their older keys are no longer needed.
const olderBatch = 10_000

// rewrapped is the containers of a key page whose blob keys are under their new keys.
type rewrapped struct {
	page        int64
	generations map[int64]uint32 // by container: of its new key
}

func (w *work) shouldDropOlder() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	containers := 0
	for _, r := range w.rewrapped {
		containers += len(r.generations)
	}
	return containers >= olderBatch
}

// dropOlder deletes the older keys of the rewrapped containers. A page still under an
// older key would be lost with it. So the result of the index, that there is none, is
// confirmed by the table, which is compared with its indexes and read from end to end.
// New pages are never put under an older key.
func (w *work) dropOlder(ctx context.Context) error {
	w.mu.Lock()
	all := w.rewrapped
	w.rewrapped = nil
	w.mu.Unlock()
	free := map[int64]uint32{}
	for _, r := range all {
		maps.Copy(free, r.generations)
	}
	if len(free) == 0 {
		return nil
	}
	err := w.db.View(ctx, func(tx *store.Tx) error {
		left, err := renew.UnderOlder(ctx, tx, w.Tenant, free)
		for _, at := range left {
			delete(free, at.Parent)
		}
		return err
	})
	if err != nil || len(free) == 0 {
		return err
	}
	wrong, err := w.confirmOlder(ctx, free)
	if err != nil {
		return err
	}
	for id, err := range wrong {
		delete(free, id)
		w.Skip(id, fmt.Sprintf("container %d", id), err)
	}
	for _, r := range all {
		maps.DeleteFunc(r.generations, func(id int64, _ uint32) bool { return free[id] == 0 })
		if err := w.dropOlderOf(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// confirmOlder returns those containers whose older keys must stay, and why.
func (w *work) confirmOlder(ctx context.Context, free map[int64]uint32) (wrong map[int64]error, err error) {
	damaged := w.db.CheckTables(ctx, "key_page")
	if damaged == nil {
		return w.renewer.ConfirmNoneUnderOlder(ctx, w.Tenant, free)
	}
	if !fail.Is(damaged, api.Damaged) {
		return nil, damaged
	}
	wrong = map[int64]error{}
	for id := range free {
		wrong[id] = damaged
	}
	return wrong, nil
}

// dropOlderOf deletes the older keys of confirmed containers of one page.
func (w *work) dropOlderOf(ctx context.Context, r rewrapped) error {
	if len(r.generations) == 0 {
		return nil
	}
	g, err := w.containers.OpenGroup(ctx, w.Tenant, slices.Sorted(maps.Keys(r.generations)))
	defer g.Zero()
	if errors.Is(err, store.ErrOutdated) {
		return nil // left for another pass
	}
	if err != nil {
		return err
	}
	var opened []container.Opened
	for _, o := range g.Opened {
		if o.Older != 0 && o.Page == r.page && o.Generation == r.generations[o.ID] {
			opened = append(opened, o)
		}
	}
	if len(opened) == 0 {
		return nil
	}
	fault.Point("older.before-commit")
	err = w.db.InTx(ctx, func(tx *store.Tx) error {
		if err := w.LockRunning(tx); err != nil {
			return err
		}
		for _, o := range opened { // in id order
			if err := tx.Lock(ctx, o.ID, true); err != nil { // waits for AcceptsBlobs
				return err
			}
		}
		left, err := renew.UnderOlder(ctx, tx, w.Tenant, r.generations)
		if err != nil {
			return err
		}
		done := slices.DeleteFunc(slices.Clone(opened), func(o container.Opened) bool {
			return slices.ContainsFunc(left, func(at keypage.Location) bool { return at.Parent == o.ID })
		})
		if len(done) == 0 {
			return nil
		}
		if err := w.containers.DropOlder(ctx, tx, g, done); err != nil {
			return err
		}
		return w.Done(tx, w.finished(len(done)))
	})
	if errors.Is(err, store.ErrOutdated) {
		return nil // left for another pass
	}
	if err == nil {
		fault.Point("older.after-commit")
		w.didWork.Store(true)
	}
	return err
}
