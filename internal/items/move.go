package items

import (
	"context"
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
	for len(blobs) > 0 {
		n := 1
		for n < len(blobs) && blobs[n].follows(blobs[n-1]) {
			n++
		}
		added, err := p.copyRun(ctx, blobs[:n])
		if err != nil {
			return nil, fmt.Errorf("copy blobs: %w", err)
		}
		copied, blobs = append(copied, added...), blobs[n:]
	}
	return copied, nil
}

// follows reports whether a blob begins where another one ends.
func (b Blob) follows(o Blob) bool {
	return b.SharesObject() && b.Object == o.Object && o.hasValidSize() && b.At == o.At+o.SealedSize()
}

func (p *Batch) copyRun(ctx context.Context, run []Blob) (copied []Blob, err error) {
	var length int64
	for _, b := range run {
		if !b.hasValidSize() {
			return nil, nil
		}
		length += b.SealedSize()
	}
	first := run[0]
	sealed, err := p.store.blobs.GetRange(ctx, blobName(first.Tenant, first.ObjectID()), first.At, length)
	if fail.Is(err, api.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer sealed.Close()
	for _, b := range run {
		if checkLength(b, sealed) != nil {
			break
		}
		one := &io.LimitedReader{R: sealed, N: b.SealedSize()}
		row, err := p.add(ctx, b, store.NewID(), true, one)
		if fail.Is(err, api.NotFound) || fail.Is(err, api.Damaged) || err == nil && one.N > 0 {
			break // deleted or cut in the meantime: what was copied of it is dead
		}
		if err != nil {
			return nil, err
		}
		p.stored = append(p.stored, row)
		copied = append(copied, b)
	}
	return copied, nil
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
