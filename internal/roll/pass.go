package roll

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/keypage"
	"keyroll/internal/lease"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// batchPages is how many pages one transaction swaps. docs/performance.md
// shows the curve that it was chosen from.
const batchPages = 32

// errStopped ends a pass whose roll was paused or ended by another request meanwhile.
var errStopped = errors.New("roll: stopped")

// batches is how many batches a pass works on: one is read, one re-sealed, one
// written, and one is ready for the writer. Their memory is used again.
const batches = 4

// batch is a group of pages of one parent in a pass. It has the two policy keys
// until the pages are re-sealed.
type batch struct {
	from, to   *envelope.Key
	buffer     keypage.Buffer // has the bodies of olds, then of news
	olds, news []keypage.Row
	damaged    []damage
}

func (b *batch) zero() {
	b.from.Zero()
	b.to.Zero()
}

// damage is an object that cannot be decrypted: a key page, or a policy key with
// everything under it.
type damage struct {
	what string
	err  error
}

// outcome is the result of a pass.
type outcome struct {
	moved   int64
	damaged []damage
	// deepWorkRemains, unless nil, reports under the policy's lock whether a deep
	// stage still has work to do.
	deepWorkRemains func(ctx context.Context, tx *store.Tx) (bool, error)
}

// source selects the pages of a pass.
type source struct {
	parents []keypage.Parent
	classes []envelope.Class
}

// pass goes once over every page that a roll has to move. A reader, the
// cryptography and a writer overlap; each batch is one transaction, which
// checks under the policy's lock that its target is still current.
func (r *Roller) pass(ctx context.Context, ro Roll, moved func(containers int64) error) (outcome, error) {
	var from source
	var target policy.KeyRow
	var now Roll
	err := r.DB.View(ctx, func(tx *store.Tx) (err error) {
		if now, err = byID(ctx, tx, ro.Tenant, ro.ID); err != nil {
			return err
		}
		all, err := parents(ctx, tx, r.Policies, ro)
		if err != nil {
			return err
		}
		from.classes = slices.Concat(now.Classes, olderClasses(now.Classes))
		if from.parents, err = keypage.WithPages(ctx, tx, ro.Tenant, all, from.classes); err != nil {
			return err
		}
		target, err = r.Policies.Current(ctx, tx, ro.Tenant, ro.Policy)
		return err
	})
	if err != nil {
		return outcome{}, err
	}
	if now.State != api.RollRunning || target.ID != ro.Target {
		return outcome{}, errStopped
	}

	var out outcome
	var unread []damage
	free, read, sealed := make(chan *batch, batches), make(chan *batch, 1), make(chan *batch, 1)
	for range batches {
		free <- &batch{}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		defer close(read)
		unread, err = r.read(gctx, ro, from, free, read)
		return err
	})
	g.Go(func() error {
		defer close(sealed)
		for b := range read {
			r.reseal(b, target)
			select {
			case sealed <- b:
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		return nil
	})
	var mu sync.Mutex
	for range r.DB.Writers() {
		g.Go(func() error {
			for b := range sealed {
				n, err := r.write(gctx, ro, b)
				if err == nil {
					err = r.recordSkipped(gctx, ro, b.damaged)
				}
				if err != nil {
					return err
				}
				mu.Lock()
				out.moved += n
				out.damaged = append(out.damaged, b.damaged...)
				err = moved(n)
				mu.Unlock()
				if err != nil {
					return err
				}
				free <- b
			}
			return nil
		})
	}
	err = g.Wait()
	for b := range read { // batches that were read and not processed
		b.zero()
	}
	out.damaged = append(out.damaged, unread...)
	return out, err
}

// read sends the pages under each parent, a batch at a time. A damaged parent does
// not block the others.
func (r *Roller) read(ctx context.Context, ro Roll, from source, free chan *batch, to chan<- *batch) (damaged []damage, err error) {
	size := r.batchSize(ro)
	for _, parent := range from.parents {
		for after, more := int64(0), true; more; {
			var b *batch
			select {
			case b = <-free:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			err := r.DB.View(ctx, func(tx *store.Tx) (err error) {
				b.olds, err = b.buffer.Under(ctx, tx, ro.Tenant, []keypage.Parent{parent}, from.classes, after, size)
				return err
			})
			if err != nil {
				return nil, err
			}
			if len(b.olds) == 0 {
				free <- b
				break
			}
			after, more = b.olds[len(b.olds)-1].ID, len(b.olds) == size
			if b.from, err = r.Policies.Open(ctx, ro.Tenant, parent.ID, ro.initiator()); fail.Is(err, api.Damaged) {
				damaged = append(damaged, damage{fmt.Sprintf("policy key %d", parent.ID), err})
				free <- b
				break
			}
			if err == nil {
				b.to, err = r.Policies.Open(ctx, ro.Tenant, ro.Target, policy.User)
			}
			if err != nil {
				b.zero()
				return nil, err
			}
			select {
			case to <- b:
			case <-ctx.Done():
				b.zero()
				return nil, ctx.Err()
			}
		}
	}
	return damaged, nil
}

// reseal makes the new rows of a batch on all cores. A page that cannot be
// decrypted is added to the damaged ones and does not block the others.
func (r *Roller) reseal(b *batch, target policy.KeyRow) {
	defer b.zero()
	b.news = slices.Grow(b.news[:0], len(b.olds))[:len(b.olds)]
	errs := make([]error, len(b.olds))
	var g errgroup.Group
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		g.Go(func() error {
			for i := w; i < len(b.olds); i += workers {
				b.news[i], errs[i] = r.resealRow(b.from, b.to, b.olds[i], target)
			}
			return nil
		})
	}
	g.Wait()
	b.damaged = nil
	sound := 0
	for i, err := range errs {
		if err != nil {
			b.damaged = append(b.damaged, damage{fmt.Sprintf("key page %d", b.olds[i].ID), err})
			continue
		}
		b.olds[sound], b.news[sound] = b.olds[i], b.news[i]
		sound++
	}
	b.olds, b.news = b.olds[:sound], b.news[:sound]
}

func (r *Roller) resealRow(from, to *envelope.Key, old keypage.Row, target policy.KeyRow) (keypage.Row, error) {
	row := old
	row.Parent, row.Generation, row.Version = target.ID, target.Generation, old.Version+1
	var err error
	row.Body, err = r.Reseal(from, to, old.EncryptionContext(), row.EncryptionContext(), old.Body)
	return row, err
}

// write swaps the pages of a batch in one transaction and returns how many
// containers that moved. A page that was replaced by another transaction meanwhile
// is left to the next pass.
func (r *Roller) write(ctx context.Context, ro Roll, b *batch) (int64, error) {
	if len(b.olds) == 0 {
		return 0, nil
	}
	if err := r.throttle(ctx, ro, containers(b.news), 0); err != nil {
		return 0, err
	}
	var moved int64
	fault.Point("roll.before-commit")
	err := lease.InTx(ctx, r.DB, func(tx *store.Tx) error {
		moved = 0
		now, err := r.lockRunning(ctx, tx, ro)
		if err != nil {
			return err
		}
		swapped, err := keypage.Swap(ctx, tx, b.olds, b.news)
		if err != nil {
			return err
		}
		conflicts := 0
		for i, ok := range swapped {
			if ok {
				moved += int64(b.news[i].Count)
			} else {
				conflicts++
			}
		}
		if err := recordProgress(ctx, tx, now, moved > 0, conflicts, r.Now()); err != nil {
			return err
		}
		if err := r.clearMessage(ctx, tx, now); err != nil {
			return err
		}
		fault.Point("roll.in-transaction")
		return nil
	})
	if err == nil {
		fault.Point("roll.after-commit")
	}
	return moved, err
}

// containers counts the children of key pages.
func containers(pages []keypage.Row) (n int64) {
	for _, row := range pages {
		n += int64(row.Count)
	}
	return n
}
