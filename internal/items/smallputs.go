package items

import (
	"bytes"
	"context"
	"io"
	"sync"

	"keyroll/internal/envelope"
	"keyroll/internal/together"
)

// A blob of up to smallBlob sealed bytes is held in memory until it is stored. Up to
// maxSmallPuts of them that are put at the same time are stored as one object.
const (
	smallBlob    = 2 * envelope.SegmentSize
	maxSmallPuts = 64
)

// Placed is a blob that is stored. If other blobs are in its object too, the transaction that
// inserts its row has to call InsertPlaced.
type Placed struct {
	Blob   Blob
	Object Object // the zero value: its own
}

// smallPut is a small blob that waits to be stored.
type smallPut struct {
	Placed
	sealed []byte
}

// readSmall reads up to smallBlob bytes of r, and reports whether those are all.
func readSmall(r io.Reader) (head []byte, all bool, err error) {
	head, err = io.ReadAll(io.LimitReader(r, smallBlob+1))
	return head, len(head) <= smallBlob, err
}

// putSmall stores a small sealed blob, together with others that are put at the same time.
func (s *Store) putSmall(ctx context.Context, b Blob, sealed []byte) (Placed, error) {
	p := &smallPut{Placed: Placed{Blob: b}, sealed: sealed}
	err := s.smallPuts.Do(ctx, p)
	return p.Placed, err
}

// storeSmall stores the blobs of some calls, those of each tenant as one object.
func (s *Store) storeSmall(calls []*together.Call[*smallPut]) {
	byTenant := map[int64][]*together.Call[*smallPut]{}
	for _, one := range calls {
		tenant := one.Value.Blob.Tenant
		byTenant[tenant] = append(byTenant[tenant], one)
	}
	var all sync.WaitGroup
	for _, part := range byTenant {
		all.Go(func() {
			err := s.storeObject(part)
			for _, one := range part {
				one.End(err)
			}
		})
	}
	all.Wait()
}

// storeObject stores some blobs of a tenant as one object, as long as one of their callers
// waits.
func (s *Store) storeObject(calls []*together.Call[*smallPut]) error {
	ctx, stop := together.Context(calls)
	defer stop()
	first := calls[0].Value.Blob
	o := Object{ID: first.ID, Tenant: first.Tenant}
	parts := make([]io.Reader, len(calls))
	ats := make([]int64, len(calls))
	for i, one := range calls {
		sealed := one.Value.sealed
		parts[i], ats[i] = bytes.NewReader(sealed), o.Size
		o.Size += int64(len(sealed))
	}
	if _, err := s.blobs.PutIfAbsent(ctx, blobName(o.Tenant, o.ID), io.MultiReader(parts...)); err != nil {
		return err
	}
	if len(calls) == 1 {
		return nil
	}
	for i, one := range calls {
		p := one.Value
		p.Object, p.Blob.Object, p.Blob.At = o, o.ID, ats[i]
	}
	return nil
}
