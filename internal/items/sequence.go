package items

import (
	"bufio"
	"context"
	"io"
	"slices"

	"keyroll/internal/envelope"
)

// Sequence reads blobs of a tenant in an order that is known beforehand. Blobs that follow
// each other in an object are read through one request to the blob store, in constant
// memory. A sequence must be used by one goroutine only, and be closed; all its calls must
// have the same context.
type Sequence struct {
	store *Store
	rest  []Blob // that may still be read
	open  openRange
}

// openRange is a range of an object that is being read.
type openRange struct {
	object  io.ReadCloser // nil: none is open
	sealed  *bufio.Reader // of object
	id      int64         // of the object
	at, end int64         // where in the object the next byte and the end of the range are
}

// InOrder returns a sequence of blobs. Each may be left out, and others may be read too.
func (s *Store) InOrder(blobs []Blob) *Sequence { return &Sequence{store: s, rest: blobs} }

// Close ends the reads.
func (q *Sequence) Close() {
	if q.open.object != nil {
		q.open.object.Close()
		q.open.object = nil
	}
}

// CopyBlob does what Store.CopyBlob does.
func (q *Sequence) CopyBlob(ctx context.Context, b Blob, key *envelope.Key, at envelope.Range, w io.Writer) (written int64, err error) {
	if at != b.Whole() {
		return q.store.CopyBlob(ctx, b, key, at, w)
	}
	sealed, err := q.openBlob(ctx, &b)
	if err != nil {
		return 0, err
	}
	return q.store.copyOpened(ctx, openedBlob{b, key, sealed}, at, w)
}

// openBlob opens all sealed bytes of a blob; they can be read until the next call. If the
// blob was moved, openBlob sets its new place. An object that does not have the blob's length
// is Damaged.
func (q *Sequence) openBlob(ctx context.Context, b *Blob) (io.Reader, error) {
	if !q.open.reaches(*b) || q.open.skipTo(b.At) != nil {
		if err := q.openRun(ctx, b); err != nil {
			return nil, err
		}
	}
	if err := checkLength(*b, q.open.object); err != nil {
		return nil, err
	}
	if !b.SharesObject() {
		return q.open.object, nil // to its end, which must be that of the blob
	}
	return io.LimitReader(&q.open, b.SealedSize()), nil
}

// openRun opens a blob, and with it those of the sequence that follow it in its object.
func (q *Sequence) openRun(ctx context.Context, b *Blob) (err error) {
	q.Close()
	first, n := *b, q.runLength(*b)
	q.open.object, err = q.store.openBlob(ctx, b, func(now Blob) (int64, int64) {
		if n > 0 && now.samePlace(first) {
			return 0, n
		}
		return now.wholeRange()
	})
	if err != nil {
		q.open.object = nil
		return err
	}
	q.open.id, q.open.at, q.open.end = b.Object, b.At, b.At
	if b.samePlace(first) {
		q.open.end += n
	}
	if q.open.sealed == nil {
		q.open.sealed = bufio.NewReaderSize(q.open.object, maxGap)
	} else {
		q.open.sealed.Reset(q.open.object)
	}
	return nil
}

// maxGap is how many bytes between two blobs are read in order to save a request.
const maxGap = 64 << 10

// runLength returns how many bytes a blob and those of the sequence that follow it in its
// object have; 0 if the blob does not share its object, or is not one of the sequence.
func (q *Sequence) runLength(b Blob) int64 {
	i := slices.IndexFunc(q.rest, func(o Blob) bool { return o.ID == b.ID && o.samePlace(b) })
	if i < 0 || !b.SharesObject() || !b.hasValidSize() {
		return 0
	}
	q.rest = q.rest[i:]
	last := b
	for _, next := range q.rest[1:] {
		if gap, ok := next.gapAfter(last); !ok || gap > maxGap || !next.hasValidSize() {
			break
		}
		last = next
	}
	return last.At + last.SealedSize() - b.At
}

// gapAfter returns how many bytes are between a blob and an earlier one in its object; false
// if that is not one.
func (b Blob) gapAfter(o Blob) (gap int64, ok bool) {
	if !b.SharesObject() || b.Object != o.Object || !o.hasValidSize() {
		return 0, false
	}
	gap = b.At - o.At - o.SealedSize()
	return gap, gap >= 0
}

// reaches reports whether a blob is in what has not yet been read of the range.
func (o *openRange) reaches(b Blob) bool {
	return o.object != nil && b.SharesObject() && b.Object == o.id && b.hasValidSize() && b.At >= o.at && b.At <= o.end-b.SealedSize()
}

// skipTo reads up to a place in the object.
func (o *openRange) skipTo(at int64) error {
	n, err := o.sealed.Discard(int(at - o.at))
	o.at += int64(n)
	return err
}

func (o *openRange) Read(p []byte) (int, error) {
	n, err := o.sealed.Read(p)
	o.at += int64(n)
	return n, err
}
