// Package depth performs the stages of a roll of depth container or content below
// policy keys: it gives containers new keys, re-wraps the keys of their blobs under
// those, and re-encrypts renew.
//
// The remaining work is the result of a query, as in every roll: containers whose key
// is older than the roll's watermark or that still have an older key, and containers
// that may have older blobs. So it can be stopped at any point and continued on any
// node. Several nodes share a stage by claims, which only avoid duplicate work; keys
// and content are protected by compare-and-swap in the packages below. Start reading
// at Work.
package depth

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/items"
	"keyroll/internal/keypage"
	"keyroll/internal/renew"
	"keyroll/internal/roll"
	"keyroll/internal/store"
)

// Deep performs the stages container and content of rolls.
type Deep struct {
	db         *store.DB
	containers *container.Containers
	renewer    *renew.Renewer
}

// New returns a Deep that works on the given containers.
func New(db *store.DB, containers *container.Containers, renewer *renew.Renewer) *Deep {
	return &Deep{db, containers, renewer}
}

// NewestKey returns an id that no existing key of a container or a blob exceeds. It is a
// roll.Start's NewestKey.
func NewestKey(ctx context.Context, tx *store.Tx) (int64, error) {
	blob, err := items.NewestBlob(ctx, tx)
	if err != nil {
		return 0, err
	}
	newest, err := container.Newest(ctx, tx)
	return max(blob, newest), err
}

// due returns the condition for containers on which a stage has work to do.
func due(stage api.RollStage, watermark int64) container.Due {
	if stage == api.StageContent {
		return container.DueContent(watermark)
	}
	return container.DueKey(watermark)
}

// Size returns the work of a stage in a scope: bytes of content or blob keys.
func (d *Deep) Size(ctx context.Context, tx *store.Tx, stage api.RollStage, sc roll.Scope) (int64, error) {
	if stage == api.StageContent {
		return items.CountBytes(ctx, tx, sc.Tenant, container.Select(sc.Set, due(stage, sc.Watermark)), sc.Watermark)
	}
	return container.CountBlobKeys(ctx, tx, sc.Set, sc.Watermark)
}

// Remaining returns up to limit containers on which a stage has work to do.
func (d *Deep) Remaining(ctx context.Context, tx *store.Tx, stage api.RollStage, sc roll.Scope, limit int) ([]int64, error) {
	return container.Remaining(ctx, tx, sc.Set, due(stage, sc.Watermark), limit)
}

const (
	// atOnce is how many groups of containers a node processes concurrently: while
	// one waits for the database, the keys of the other are opened and sealed.
	atOnce = 2
	// claimInterval is the interval at which claims are renewed.
	claimInterval = 5 * time.Second
)

// work is one pass over the containers of a stage.
type work struct {
	*Deep
	roll.Share
	didWork atomic.Bool
	mu      sync.Mutex
	claimed map[int64]bool

	rewrapped []rewrapped // containers whose older keys have not been deleted yet
}

// Work makes one pass over the containers of a scope and does the work of a stage on
// those that no other node has claimed. It reports whether it did anything.
func (d *Deep) Work(ctx context.Context, share roll.Share) (did bool, err error) {
	w := &work{Deep: d, Share: share, claimed: map[int64]bool{}}
	done := share.Done
	w.Done = func(tx *store.Tx, d roll.Done) error {
		w.didWork.Store(w.didWork.Load() || d != roll.Done{})
		return done(tx, d)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	if share.Node != "" {
		kept, stop := context.WithCancel(gctx)
		var keeper sync.WaitGroup
		keeper.Go(func() { w.keepClaims(kept) })
		defer keeper.Wait()
		defer stop()
	}
	err = w.eachGroup(gctx, func(page int64, ids []int64) error {
		group := func() error {
			defer w.release(ids)
			return w.runGroup(gctx, page, ids)
		}
		if share.Limited {
			return group()
		}
		g.Go(group)
		return nil
	})
	if failed := g.Wait(); failed != nil {
		err = failed
	}
	if err == nil {
		err = w.dropOlder(ctx)
	}
	return w.didWork.Load(), err
}

// eachGroup calls group for the containers of each key page of the scope, several times
// per page. At stage container it first gives the containers of the page new keys.
func (w *work) eachGroup(ctx context.Context, group func(page int64, ids []int64) error) error {
	for after := int64(0); ; {
		var rows []keypage.Row
		err := w.db.View(ctx, func(tx *store.Tx) (err error) {
			rows, err = keypage.Under(ctx, tx, w.Set, after, 1)
			return err
		})
		if err != nil || len(rows) == 0 {
			return err
		}
		after = rows[0].ID
		if w.Stage == api.StageContainer {
			if err := w.rekey(ctx, after); err != nil {
				return err
			}
		}
		for last := int64(0); ; {
			ids, err := w.containers.Claim(ctx, container.Claimable{Tenant: w.Tenant, Page: after, Due: due(w.Stage, w.Watermark),
				After: last, Limit: w.groupSize()}, w.Node)
			if err != nil {
				return err
			}
			if len(ids) == 0 {
				break
			}
			last = ids[len(ids)-1]
			w.claim(ids)
			if err := group(after, ids); err != nil {
				return err
			}
			if w.shouldDropOlder() {
				if err := w.dropOlder(ctx); err != nil {
					return err
				}
			}
		}
	}
}

// groupSize is how many containers are opened, and finished, at a time: one at stage
// content if other nodes could claim the next one.
func (w *work) groupSize() int {
	if w.Stage == api.StageContent && w.Node != "" {
		return 1
	}
	return w.AtOnce
}

// rekey gives new keys to the containers of a page. Damaged keys are not reported
// here but when the containers are opened as a group.
func (w *work) rekey(ctx context.Context, page int64) error {
	n, err := w.containers.Rekey(ctx, w.Tenant, page, w.Watermark, w.LockRunning)
	if n > 0 {
		w.didWork.Store(true)
	}
	if errors.Is(err, store.ErrOutdated) || fail.Is(err, api.Damaged) {
		return nil
	}
	return err
}

func (w *work) runGroup(ctx context.Context, page int64, ids []int64) error {
	if err := w.Throttle(ctx, int64(len(ids)), 0); err != nil {
		return err
	}
	g, err := w.containers.OpenGroup(ctx, w.Tenant, ids)
	defer g.Zero()
	if errors.Is(err, store.ErrOutdated) {
		return nil // left for another pass
	}
	if err != nil {
		return err
	}
	for id, err := range g.Failed {
		w.Skip(id, fmt.Sprintf("container %d", id), err)
	}
	if w.Stage == api.StageContainer {
		return w.rewrap(ctx, page, g)
	}
	return w.renew(ctx, g)
}

// rewrap re-wraps the blob keys of a group under the new keys of their containers.
// The older keys are deleted later (dropOlder).
func (w *work) rewrap(ctx context.Context, page int64, g *container.Group) error {
	rewrapped := rewrapped{page: page, generations: map[int64]uint32{}}
	var opened []container.Opened
	for _, o := range g.Opened {
		if o.Older != 0 && o.Page == page { // otherwise it was moved in the meantime, and is left for another pass
			opened = append(opened, o)
			rewrapped.generations[o.ID] = o.Generation
		}
	}
	if len(opened) == 0 {
		return nil
	}
	err := w.renewer.Rewrap(ctx, w.Tenant, opened, renew.Rewrapping{LockRunning: w.LockRunning,
		Done: func(tx *store.Tx, blobs int64) error { return w.Done(tx, roll.Done{Blobs: blobs}) },
		Skip: func(container, page int64, err error) { w.Skip(container, fmt.Sprintf("key page %d", page), err) }})
	if err == nil {
		w.mu.Lock()
		w.rewrapped = append(w.rewrapped, rewrapped)
		w.mu.Unlock()
	}
	return err
}

// finished returns the progress to record when a stage has finished some containers.
func (w *work) finished(containers int) roll.Done {
	if !w.Counts {
		return roll.Done{}
	}
	return roll.Done{Containers: int64(containers)}
}

// renew re-encrypts the content of a group.
func (w *work) renew(ctx context.Context, g *container.Group) error {
	var list []container.Container
	for _, o := range g.Opened {
		err := w.renewer.Renew(ctx, o.Container, renew.Renewal{Watermark: w.Watermark, LockRunning: w.LockRunning,
			Throttle: func(ctx context.Context, bytes int64) error { return w.Throttle(ctx, 0, bytes) },
			Done:     func(tx *store.Tx, bytes int64) error { return w.Done(tx, roll.Done{Bytes: bytes}) },
			Skip:     func(item int64, err error) { w.Skip(o.ID, fmt.Sprintf("item %d", item), err) }})
		if err != nil {
			return err
		}
		list = append(list, o.Container)
	}
	if len(list) == 0 {
		return nil
	}
	n, err := w.renewer.Finish(ctx, list, w.Watermark, w.LockRunning, func(tx *store.Tx, containers int64) error { return w.Done(tx, w.finished(int(containers))) })
	if n > 0 {
		w.didWork.Store(true)
	}
	if err != nil {
		return err
	}
	for _, c := range list {
		if _, err := w.renewer.FoldSparse(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (w *work) claim(ids []int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		w.claimed[id] = true
	}
}

func (w *work) release(ids []int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		delete(w.claimed, id)
	}
}

// keepClaims renews the claims of the containers being processed. If it cannot renew
// one, another node may process the container too, which is harmless.
func (w *work) keepClaims(ctx context.Context) {
	tick := time.NewTicker(claimInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		w.mu.Lock()
		ids := make([]int64, 0, len(w.claimed))
		for id := range w.claimed {
			ids = append(ids, id)
		}
		w.mu.Unlock()
		_ = w.containers.KeepClaims(ctx, w.Tenant, ids, w.Node)
	}
}
