package roll

import (
	"context"
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

// batches is how many batches a pass works on beside those that are written: one is
// read, one re-sealed, and one is ready for a writer. Their memory is used again.
const batches = 3

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

// outcome is the result of a pass.
type outcome struct {
	moved   int64
	damaged []damage
	// deepWorkRemains, unless nil, reports under the policy's lock whether a deep
	// stage still has work to do.
	deepWorkRemains func(ctx context.Context, tx *store.Tx) (bool, error)
}

// pass goes once over every page that a roll has to move. A reader, the cryptography and
// writers overlap; each batch is one transaction, which checks under the policy's lock
// that its target is still current. moved is called after each batch.
func (r *Roller) pass(ctx context.Context, ro Roll, moved func(containers int64) error) (outcome, error) {
	p := pipeline{Roller: r, roll: ro, moved: moved}
	if err := p.prepare(ctx); err != nil {
		return outcome{}, err
	}
	writers := r.config.DB.Writers()
	p.free, p.read, p.sealed = make(chan *batch, batches+writers), make(chan *batch, 1), make(chan *batch, 1)
	for range batches + writers {
		p.free <- &batch{}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(p.read)
		return p.readAll(gctx)
	})
	g.Go(func() error {
		defer close(p.sealed)
		return p.resealAll(gctx)
	})
	for range writers {
		g.Go(func() error { return p.writeAll(gctx) })
	}
	err := g.Wait()
	for b := range p.read { // batches that were read and not processed
		b.zero()
	}
	p.out.damaged = append(p.out.damaged, p.unread...)
	return p.out, err
}

// pipeline is one pass over the pages of a roll.
type pipeline struct {
	*Roller
	roll   Roll
	scope  Scope
	target policy.KeyRow
	moved  func(containers int64) error

	free, read, sealed chan *batch

	unread []damage // parents that cannot be opened

	mu  sync.Mutex
	out outcome
}

// prepare reads what the pass has to move. It fails with errStopped if the roll no
// longer runs.
func (p *pipeline) prepare(ctx context.Context) error {
	var now Roll
	err := p.config.DB.View(ctx, func(tx *store.Tx) (err error) {
		if now, err = byID(ctx, tx, p.roll.Tenant, p.roll.ID); err != nil {
			return err
		}
		if p.scope, err = now.scope(ctx, tx, p.config.Policies); err != nil {
			return err
		}
		p.scope = p.scope.withOlder()
		if p.scope.Parents, err = keypage.WithPages(ctx, tx, p.scope.Tenant, p.scope.Parents, p.scope.Classes); err != nil {
			return err
		}
		p.target, err = p.config.Policies.Current(ctx, tx, now.Tenant, now.Policy)
		return err
	})
	if err == nil && (now.State != api.RollRunning || p.target.ID != p.roll.Target) {
		err = errStopped
	}
	return err
}

// readAll reads the pages under each parent, a batch at a time. A damaged parent does not
// block the others.
func (p *pipeline) readAll(ctx context.Context) error {
	for _, parent := range p.scope.Parents {
		for after, more := int64(0), true; more; {
			b, err := receive(ctx, p.free)
			if err != nil {
				return err
			}
			if more, err = p.readBatch(ctx, b, parent, after); err != nil {
				return err
			}
			if len(b.olds) == 0 {
				p.free <- b
				break
			}
			after = b.olds[len(b.olds)-1].ID
			if b.from, err = p.config.Policies.Open(ctx, p.roll.Tenant, parent.ID, p.roll.initiator()); fail.Is(err, api.Damaged) {
				p.unread = append(p.unread, damage{fmt.Sprintf("policy key %d", parent.ID), err})
				p.free <- b
				break
			}
			if err == nil {
				b.to, err = p.config.Policies.Open(ctx, p.roll.Tenant, p.roll.Target, policy.User)
			}
			if err == nil {
				err = send(ctx, p.read, b)
			}
			if err != nil {
				b.zero()
				return err
			}
		}
	}
	return nil
}

// readBatch reads the next pages under a parent, and reports whether there may be more.
func (p *pipeline) readBatch(ctx context.Context, b *batch, parent keypage.Parent, after int64) (more bool, err error) {
	size := p.batchSize(p.roll)
	err = p.config.DB.View(ctx, func(tx *store.Tx) (err error) {
		b.olds, err = b.buffer.Under(ctx, tx, p.scope.Tenant, []keypage.Parent{parent}, p.scope.Classes, after, size)
		return err
	})
	return len(b.olds) == size, err
}

// resealAll re-seals the batches that were read.
func (p *pipeline) resealAll(ctx context.Context) error {
	for b := range p.read {
		p.reseal(b, p.target)
		if err := send(ctx, p.sealed, b); err != nil {
			return err
		}
	}
	return nil
}

// writeAll writes batches that were re-sealed.
func (p *pipeline) writeAll(ctx context.Context) error {
	for b := range p.sealed {
		n, err := p.write(ctx, p.roll, b)
		if err != nil {
			return err
		}
		if err := p.recordSkipped(ctx, p.roll, b.damaged); err != nil {
			return err
		}
		if err := p.written(n, b.damaged); err != nil {
			return err
		}
		p.free <- b
	}
	return nil
}

// written adds the result of a batch to that of the pass.
func (p *pipeline) written(moved int64, damaged []damage) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out.moved += moved
	p.out.damaged = append(p.out.damaged, damaged...)
	return p.moved(moved)
}

func receive(ctx context.Context, from <-chan *batch) (*batch, error) {
	select {
	case b := <-from:
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func send(ctx context.Context, to chan<- *batch, b *batch) error {
	select {
	case to <- b:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
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
	row.Body, err = r.config.Reseal(from, to, old.EncryptionContext(), row.EncryptionContext(), old.Body)
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
	err := lease.InTx(ctx, r.config.DB, func(tx *store.Tx) error {
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
		if err := recordProgress(ctx, tx, now, progress{moved > 0, conflicts}, r.config.Now()); err != nil {
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
