package items

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"sync"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// Whole is the range of all bytes of a blob.
func (b Blob) Whole() envelope.Range { return envelope.Range{N: b.Size} }

// CopyBlob writes a range of a blob to w and returns how many bytes it wrote.
// A read error names item and blob; an error of w is returned unchanged.
func (s *Store) CopyBlob(ctx context.Context, b Blob, key *envelope.Key, at envelope.Range, w io.Writer) (written int64, err error) {
	bytes := Blob.wholeRange
	if at != b.Whole() {
		bytes = func(b Blob) (off, n int64) { return envelope.SealedRange(b.Size, at.Off, at.N) }
	}
	sealed, err := s.openBlob(ctx, &b, bytes)
	if err != nil {
		return 0, err
	}
	defer sealed.Close()
	// Checked before the first byte is written: after it, a server can only cut the connection.
	if err := checkLength(b, sealed); err != nil {
		return 0, err
	}
	return s.copyOpened(ctx, openedBlob{b, key, sealed}, at, w)
}

// openedBlob is a blob with its key and a reader of sealed bytes.
type openedBlob struct {
	Blob
	key    *envelope.Key
	sealed io.Reader
}

// copyOpened writes the range of a blob to w of which the sealed bytes were opened.
func (s *Store) copyOpened(ctx context.Context, b openedBlob, at envelope.Range, w io.Writer) (written int64, err error) {
	var plain io.Reader
	if at == b.Whole() {
		plain = envelope.NewReader(b.sealed, b.key, b.encryptionContext(), b.Size)
	} else if plain, err = envelope.NewRangeReader(b.sealed, b.key, b.encryptionContext(), b.Size, at); err != nil {
		return 0, fmt.Errorf("read item %d: %w", b.Item, err)
	}
	copyTo := copyContent
	if at.N >= readAheadFrom {
		copyTo = copyReadAhead
	}
	written, readErr, writeErr := copyTo(ctx, w, plain)
	if fail.Is(readErr, api.NotFound) { // deleted while it was read
		return written, s.missingBlob(ctx, b.Blob)
	}
	if readErr != nil {
		return written, fmt.Errorf("read item %d: %w", b.Item, readErr)
	}
	return written, writeErr
}

// wholeRange is the range of all sealed bytes of a blob in its object.
func (b Blob) wholeRange() (off, n int64) {
	if b.SharesObject() && b.hasValidSize() {
		return 0, b.SealedSize()
	}
	return 0, -1 // to the end, whatever its length should be
}

// openBlob opens a range of the sealed bytes of a blob. If the blob was moved, openBlob sets
// its new place.
func (s *Store) openBlob(ctx context.Context, b *Blob, bytes func(b Blob) (off, n int64)) (io.ReadCloser, error) {
	for range MaxAttempts {
		off, n := bytes(*b)
		sealed, err := s.blobs.GetRange(ctx, blobName(b.Tenant, b.ObjectID()), b.At+off, n)
		if err == nil {
			return sealed, nil
		}
		var moved bool
		if fail.Is(err, api.NotFound) {
			if moved, err = s.setPlace(ctx, b); err == nil && !moved {
				return nil, s.missingBlob(ctx, *b)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("read item %d: %w", b.Item, err)
		}
	}
	return nil, ErrRenewed
}

// placeNow selects the place of a blob of an item, also of one that was dropped and may
// still be read.
const placeNow = `SELECT object, at FROM blob WHERE id = ?1 AND tenant = ?2 AND item = ?3
	UNION ALL SELECT object, at FROM dropped WHERE blob = ?1 AND tenant = ?2 AND item = ?3`

// setPlace sets the present place of a blob, and reports whether it is another one.
func (s *Store) setPlace(ctx context.Context, b *Blob) (moved bool, err error) {
	now := *b
	err = s.db.View(ctx, func(tx *store.Tx) error {
		places, err := store.Collect(ctx, tx, func(row store.Scanner) (p Blob, err error) {
			return p, row.Scan(&p.Object, &p.At)
		}, placeNow, b.ID, b.Tenant, b.Item)
		if now = *b; len(places) > 0 {
			now.Object, now.At = places[0].Object, places[0].At
		}
		return err
	})
	moved = err == nil && !now.samePlace(*b)
	*b = now
	return moved, err
}

func (b Blob) hasValidSize() bool { return b.Size >= 0 && b.Size <= envelope.MaxBlob }

// checkLength fails if an object ends before the blob's end. The object of a single blob
// must have exactly its length.
func checkLength(b Blob, sealed io.Reader) error {
	s, ok := sealed.(blob.Sized)
	if !ok || !b.hasValidSize() {
		return nil // the reader detects it
	}
	switch is, want := max(0, s.Size()-b.At), b.SealedSize(); {
	case is < want:
		return fail.New(api.Damaged, "read item %d: blob %d is truncated: it has %d of its %d bytes", b.Item, b.ID, is, want)
	case is > want && !b.SharesObject():
		return fail.New(api.Damaged, "read item %d: blob %d is %d bytes longer than its %d bytes", b.Item, b.ID, is-want, want)
	}
	return nil
}

// missingBlob returns why a blob is not in the blob store. It looks up the row again,
// since another node may have replaced the item or moved the blob in the meantime.
func (s *Store) missingBlob(ctx context.Context, b Blob) error {
	err := s.db.View(ctx, func(tx *store.Tx) error {
		now, err := currentBlob(ctx, tx, b)
		switch {
		case err == nil && now.ID == 0:
			return ErrReplaced
		case err == nil && (now.ID != b.ID || !now.samePlace(b)):
			return ErrRenewed
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read item %d: %w", b.Item, err)
	}
	return fail.New(api.Damaged, "read item %d: blob %d is missing from the blob store", b.Item, b.ID)
}

// ErrRenewed means that a roll replaced a blob by another one with the same content, or
// that the blob was moved to another object, and that the old one has been deleted.
var ErrRenewed = errors.New("it was re-encrypted or moved while it was being read")

// ErrReplaced means that the item of a blob was replaced.
var ErrReplaced = fail.New(api.Conflict, "it was replaced while it was being read").WithHint("read it again")

// blobName returns the name of an object in the blob store: one folder per tenant, in it
// one per 18 hours and one per 16 seconds of ids, so that no folder grows forever
// and a batch uses few folders.
func blobName(tenant, object int64) string {
	return fmt.Sprintf("%s%04x/%03x/%016x", tenantPrefix(tenant), object>>48, object>>36&0xfff, object)
}

// tenantPrefix returns the prefix of the names of all objects of a tenant, and of no
// others.
func tenantPrefix(tenant int64) string { return fmt.Sprintf("%x/", tenant) }

// Reencrypt stores the content of a blob as a new blob under a new key, in an object of its
// own.
func (s *Store) Reencrypt(ctx context.Context, old Blob, key *envelope.Key) (row Blob, fresh *envelope.Key, err error) {
	sealed, err := s.openBlob(ctx, &old, Blob.wholeRange)
	if err != nil {
		return row, nil, err
	}
	defer sealed.Close()
	return s.reencryptOpened(ctx, openedBlob{old, key, sealed}, func(row Blob, sealed io.Reader) (Blob, error) {
		_, err := s.blobs.PutIfAbsent(ctx, blobName(row.Tenant, row.ID), sealed)
		return row, err
	})
}

// reencryptOpened calls put with the new blob, which put returns with its place.
func (s *Store) reencryptOpened(ctx context.Context, old openedBlob, put func(row Blob, sealed io.Reader) (Blob, error)) (row Blob, fresh *envelope.Key, err error) {
	row = old.Blob
	row.ID, row.Object, row.At = store.NewID(), 0, 0
	fresh = envelope.NewKey()
	plain := envelope.NewReader(old.sealed, old.key, old.encryptionContext(), old.Size)
	resealed := newSealing(plain, fresh, row.encryptionContext())
	defer resealed.release()
	if row, err = put(row, resealed); err != nil {
		fresh.Zero()
		if fail.Is(err, api.NotFound) { // deleted while it was read
			return row, nil, s.missingBlob(ctx, old.Blob)
		}
		return row, nil, fmt.Errorf("re-encrypt item %d: %w", old.Item, err)
	}
	return row, fresh, nil
}

// DeleteUnused deletes the objects of blobs that no row references or ever will, except
// those in which a used blob is too. Objects that it cannot delete are harmless orphans in
// the blob store.
func (s *Store) DeleteUnused(ctx context.Context, unused, used []Blob) {
	if len(unused) == 0 {
		return
	}
	needed := map[int64]bool{}
	for _, b := range used {
		needed[b.ObjectID()] = true
	}
	var ids []int64
	for _, b := range unused {
		if id := b.ObjectID(); !needed[id] {
			needed[id] = true // once
			ids = append(ids, id)
		}
	}
	_ = s.DeleteStored(context.WithoutCancel(ctx), unused[0].Tenant, ids)
}

// deletesAtOnce is how many objects are deleted concurrently.
const deletesAtOnce = 16

// DeleteStored deletes objects of a tenant from the blob store. If the store does not respond, it gives up
// after one attempt per goroutine.
func (s *Store) DeleteStored(ctx context.Context, tenant int64, ids []int64) error {
	var under sync.WaitGroup
	next, errs := make(chan int64), make([]error, min(deletesAtOnce, len(ids)))
	for i := range errs {
		under.Go(func() {
			for id := range next {
				if errs[i] == nil {
					errs[i] = s.blobs.Delete(ctx, blobName(tenant, id))
				}
			}
		})
	}
	for _, id := range ids {
		next <- id
	}
	close(next)
	under.Wait()
	return errors.Join(errs...)
}

// encryptionContext returns what the seal of the blob is bound to.
func (b Blob) encryptionContext() envelope.BlobContext {
	return envelope.BlobContext{Tenant: b.Tenant, Blob: b.ID}
}

// PutBlob stores a content as the blob b: the only one of a small file in an object with
// others that are put at the same time, and any other in an object of its own. It calls
// read, with the number of bytes, once all of the content has been read; the blob is
// durable when PutBlob returns. It fails AlreadyExists if another object has its name.
func (s *Store) PutBlob(ctx context.Context, b Blob, key *envelope.Key, content io.Reader, read func(size int64)) (Placed, error) {
	share, err := s.MayShareObjects(ctx)
	if err != nil {
		return Placed{Blob: b}, err
	}
	sealed := newSealing(content, key, b.encryptionContext())
	defer sealed.release()
	ended := sync.OnceFunc(func() { b.Size = sealed.size; read(sealed.size) })
	var rest io.Reader = &endNotifier{sealed, ended}
	if share && b.Sequence == 0 {
		head, all, err := readSmall(rest)
		if err != nil {
			return Placed{Blob: b}, err
		}
		if all && b.Size < s.sizes.Blob { // no other blob follows
			return s.putSmall(ctx, b, head)
		}
		rest = io.MultiReader(bytes.NewReader(head), rest)
	}
	_, err = s.blobs.PutIfAbsent(ctx, blobName(b.Tenant, b.ID), rest)
	return Placed{Blob: b}, err
}

// ListStored calls each for every object of a tenant in the blob store, in any order; not for
// what keyroll did not write.
func (s *Store) ListStored(ctx context.Context, tenant int64, each func(id, size int64) error) error {
	return s.blobs.List(ctx, tenantPrefix(tenant), func(name string, size int64) error {
		id, err := strconv.ParseInt(path.Base(name), 16, 64)
		if err != nil || blobName(tenant, id) != name {
			return nil // not written by keyroll
		}
		return each(id, size)
	})
}

// endNotifier calls ended when its reader is at its end.
type endNotifier struct {
	io.Reader
	ended func()
}

func (e *endNotifier) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if err == io.EOF {
		e.ended()
	}
	return n, err
}
