package items

import (
	"context"
	"errors"
	"fmt"
	"io"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// placeLock is the lock that transactions hold while blobs keep their places: shared by
// those that depend on it, exclusively by one that moves blobs.
const placeLock = 3

func lockPlaces(ctx context.Context, tx *store.Tx, move bool) error {
	return tx.Lock(ctx, placeLock, move)
}

const (
	moveBlob    = `UPDATE blob SET object = ?5, at = ?6 WHERE id = ?1 AND tenant = ?2 AND object = ?3 AND at = ?4`
	moveDropped = `UPDATE dropped SET object = ?5, at = ?6 WHERE blob = ?1 AND tenant = ?2 AND object = ?3 AND at = ?4`
)

// Copy adds blobs, sealed as they are, and returns those that it has added. It leaves out
// those that the blob store does not have as their rows say. Blobs that follow each other
// in one object are read together.
func (p *Batch) Copy(ctx context.Context, blobs []Blob) (copied []Blob, err error) {
	from := p.store.InOrder(blobs)
	defer from.Close()
	for _, b := range blobs {
		row, whole, err := p.copyBlob(ctx, from, b)
		if err != nil {
			return nil, fmt.Errorf("copy blobs: %w", err)
		}
		if whole {
			p.stored = append(p.stored, row)
			copied = append(copied, b)
		}
	}
	return copied, nil
}

// copyBlob reports whether it has added the whole blob; what it has added of another one is
// dead.
func (p *Batch) copyBlob(ctx context.Context, from *Sequence, b Blob) (row Blob, whole bool, err error) {
	if !b.hasValidSize() {
		return row, false, nil
	}
	now := b
	sealed, err := from.openBlob(ctx, &now)
	if err == nil && now.samePlace(b) {
		one := &io.LimitedReader{R: sealed, N: b.SealedSize()}
		row, err = p.add(ctx, b, store.NewID(), true, one)
		whole = err == nil && one.N == 0
	}
	if errors.Is(err, ErrRenewed) || errors.Is(err, ErrReplaced) || fail.Is(err, api.NotFound) || fail.Is(err, api.Damaged) {
		return row, false, nil // deleted, or cut
	}
	return row, whole, err
}

// Move is a blob at its present place and at a new one.
type Move struct{ Old, New Blob }

// MoveBlobs changes the rows of blobs of a tenant that were copied into new objects, all
// those of a blob together, also the dropped ones, and inserts the rows of these objects. It returns the blobs that
// were moved; the others were moved or deleted by other transactions. It moves none while a
// copy is under way in the tenant, which may yet insert rows with the present places.
func MoveBlobs(ctx context.Context, tx *store.Tx, tenant int64, objects []Object, moves []Move) (moved []Blob, err error) {
	news := make([]Blob, len(moves))
	args := make([][]any, len(moves))
	for i, m := range moves {
		news[i] = m.New
		args[i] = []any{m.Old.ID, tenant, m.Old.Object, m.Old.At, m.New.Object, m.New.At}
	}
	if err := checkObjectsFence(ctx, tx, news); err != nil {
		return nil, err
	}
	if err := lockPlaces(ctx, tx, true); err != nil {
		return nil, err
	}
	if busy, err := AnyCopying(ctx, tx, tenant); err != nil || busy {
		return nil, err
	}
	changed, err := tx.ExecMany(ctx, moveBlob, args)
	if err != nil {
		return nil, fmt.Errorf("move blobs: %w", err)
	}
	var also [][]any
	dead := map[int64]int64{} // by object
	for i, n := range changed {
		if n == 0 {
			continue
		}
		moved, also = append(moved, news[i]), append(also, args[i])
		if old := moves[i].Old; old.SharesObject() {
			dead[old.Object] += old.SealedSize()
		}
	}
	if _, err := tx.ExecMany(ctx, moveDropped, also); err != nil {
		return nil, fmt.Errorf("move blobs: %w", err)
	}
	if err := addDeadBytes(ctx, tx, tenant, dead); err != nil {
		return nil, err
	}
	return moved, InsertObjects(ctx, tx, objects, moved)
}
