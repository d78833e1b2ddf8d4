package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/items"
	"keyroll/internal/store"
)

// Reader reads one file as it was when it was opened, even if the file is replaced
// in the meantime. It must be used by one goroutine only.
type Reader struct {
	File
	contents  *Contents
	from      blobCopier
	container container.Container
	item      int64
	blobs     []items.Blob
	pages     items.PageSet  // sealed: the keys are opened one at a time
	first     *items.Keyring // with the key of the first blob, until that is read
	reading   int64          // the item whose read is registered; 0: none
}

// Open opens the file of c at path. The caller closes it. It fails NotFound.
func (s *Contents) Open(ctx context.Context, c container.Container, path string) (*Reader, error) {
	return s.openPath(ctx, c.Tenant, path, func(tx *store.Tx) (container.Located, error) { return s.keys.Locate(ctx, tx, c) })
}

// OpenIn opens the file at a path in the container of a kind with the given name: in
// general with one snapshot of the database.
func (s *Contents) OpenIn(ctx context.Context, tenant int64, kind container.Kind, name, path string) (*Reader, error) {
	located := false
	r, err := s.openPath(ctx, tenant, path, func(tx *store.Tx) (at container.Located, err error) {
		at, err = s.keys.FindLocated(ctx, tx, tenant, kind, name)
		located = err == nil
		return at, err
	})
	if located || !fail.Is(err, api.NotFound) {
		return r, err
	}
	c, err := s.keys.Find(ctx, tenant, kind, name)
	if err != nil {
		return nil, err
	}
	return s.Open(ctx, c, path)
}

// openPath opens the file at path in the container that find returns.
func (s *Contents) openPath(ctx context.Context, tenant int64, path string, find func(tx *store.Tx) (container.Located, error)) (*Reader, error) {
	if err := checkPath(path); err != nil {
		return nil, fmt.Errorf("open file: %w", err)
	}
	directory, err := s.keys.Directory(ctx, tenant)
	if err != nil {
		return nil, fmt.Errorf("open file: %w", err)
	}
	for folded := false; ; folded = true {
		var spelled spelling
		var hash []byte
		r, err := s.openFound(ctx, func(tx *store.Tx) (at container.Located, item int64, err error) {
			if at, err = find(tx); err != nil {
				return at, 0, err
			}
			spelled = spellingOf(directory, at.Container(), path)
			item, hash, err = spelled.find(ctx, tx, at.Container())
			return at, item, err
		})
		switch {
		case err != nil:
			return nil, fmt.Errorf("open file: %w", err)
		case r.item != 0 && spelled.matches(hash, r.Path):
			return r, nil
		case r.item != 0:
			err = otherPath(r.item)
		case r.container.Kind == container.Site && !r.container.Folded && !folded:
			err = s.foldPaths(ctx, r.container)
		default:
			err = fail.New(api.NotFound, "file %q does not exist", path)
		}
		r.Close()
		if err != nil {
			return nil, fmt.Errorf("open file: %w", err)
		}
	}
}

func otherPath(item int64) error {
	return fail.New(api.Damaged, "open item %d: its metadata belongs to another path", item)
}

// finder finds a container and an item in it; 0: there is no such item.
type finder func(tx *store.Tx) (at container.Located, item int64, err error)

// openFound opens the file that find finds, in the snapshot from which the file is read.
// If there is no such file, the reader is no more than an answer to a caller who may read
// the container.
func (s *Contents) openFound(ctx context.Context, find finder) (*Reader, error) {
	r := &Reader{contents: s, from: s.items}
	for range items.MaxAttempts {
		again, err := r.open(ctx, find)
		if err != nil {
			r.Close()
			return nil, err
		}
		if !again {
			return r, nil
		}
	}
	r.Close()
	return nil, items.RolledMeanwhile()
}

// open finds the file, reads its rows and decrypts its metadata. It has to be called again
// if keys were replaced at the same time.
func (r *Reader) open(ctx context.Context, find finder) (again bool, err error) {
	s := r.contents
	var item items.Row
	var at container.Located
	checks := s.items.ReadChecks()
	err = s.db.View(ctx, func(tx *store.Tx) (err error) {
		r.Close()
		if at, r.item, err = find(tx); err != nil {
			return err
		}
		if r.container = at.Container(); r.item == 0 {
			return nil
		}
		item, err = r.read(ctx, tx)
		return err
	})
	if err != nil {
		return false, err
	}
	opened, err := s.keys.OpenLocated(ctx, at, api.ByUser)
	if errors.Is(err, store.ErrOutdated) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer opened.Zero()
	if r.item == 0 {
		return false, nil
	}
	if s.items.ReadChecks() != checks { // a collection may have asked before the read was registered
		if there, err := r.isThere(ctx); err != nil || !there {
			return err == nil, err
		}
	}
	if err := items.CheckBlobs(item, r.blobs); err != nil {
		return false, err
	}
	r.first = items.OpenKeys(opened, r.pages, r.blobs[:1])
	if r.first.Stale {
		return true, nil
	}
	return false, r.readMetadata(item, r.first)
}

// read registers the read of the reader's item, so that a collection that runs after the
// file was replaced keeps its blobs, and reads the item with its blobs and their pages. An
// item that does not exist becomes 0.
func (r *Reader) read(ctx context.Context, tx *store.Tx) (item items.Row, err error) {
	c := r.container
	item, found, err := items.ByID(ctx, tx, c.Tenant, c.ID, r.item)
	if err != nil || !found {
		r.item = 0
		return item, err
	}
	r.contents.items.BeginRead(r.item)
	r.reading = r.item
	if r.blobs, err = items.BlobsOf(ctx, tx, c.Tenant, r.item); err != nil {
		return item, err
	}
	r.pages, err = items.PagesOf(ctx, tx, c.Tenant, r.blobs)
	return item, err
}

// isThere reports whether the file has not been replaced since.
func (r *Reader) isThere(ctx context.Context) (found bool, err error) {
	err = r.contents.db.View(ctx, func(tx *store.Tx) (err error) {
		_, found, err = items.ByID(ctx, tx, r.container.Tenant, r.container.ID, r.item)
		return err
	})
	return found, err
}

// Container is the container that has the file.
func (r *Reader) Container() container.Container { return r.container }

func (r *Reader) readMetadata(item items.Row, ring *items.Keyring) error {
	key, err := ring.Key(r.blobs[0])
	if err != nil {
		return err
	}
	var m items.FileMetadata
	if err := item.OpenMetadata(key, &m); err != nil {
		return err
	}
	if !m.Describes(item, r.blobs) {
		return fail.New(api.Damaged, "open item %d: its blobs differ from those that were stored, or are out of order", item.ID)
	}
	r.File = File{Path: m.Path, Size: item.Size, Modified: m.Modified}
	return nil
}

// keys opens the container's key and with it the key of one blob; the first one is open
// already when it is read for the first time. A roll may have
// put the pages under another key since they were read, or replaced the blob: then
// keys reads both again.
func (r *Reader) keys(ctx context.Context, sequence int64) (*items.Keyring, error) {
	if ring := r.first; ring != nil && sequence == 0 {
		r.first = nil
		return ring, nil
	}
	for range items.MaxAttempts {
		opened, err := r.contents.keys.OpenKey(ctx, r.container, api.ByUser)
		if err != nil {
			return nil, err
		}
		ring := items.OpenKeys(opened, r.pages, r.blobs[sequence:sequence+1])
		opened.Zero()
		if !ring.Stale {
			return ring, nil
		}
		if err := r.reload(ctx); err != nil {
			return nil, err
		}
	}
	return nil, items.RolledMeanwhile()
}

// reload reads the file's blobs and pages again. The content and its division into
// blobs must be unchanged.
func (r *Reader) reload(ctx context.Context) error {
	var blobs []items.Blob
	var pages items.PageSet
	err := r.contents.db.View(ctx, func(tx *store.Tx) (err error) {
		if blobs, err = items.BlobsOf(ctx, tx, r.container.Tenant, r.item); err != nil {
			return err
		}
		pages, err = items.PagesOf(ctx, tx, r.container.Tenant, blobs)
		return err
	})
	if err != nil {
		return err
	}
	if !slices.EqualFunc(r.blobs, blobs, func(a, b items.Blob) bool { return a.Size == b.Size && a.Sequence == b.Sequence }) {
		return fmt.Errorf("read item %d: %w", r.item, items.ErrReplaced)
	}
	r.zero()
	r.blobs, r.pages = blobs, pages
	return nil
}

// WriteRange writes the bytes of the file from off on to w, at most n of them,
// or with n < 0 all. It decrypts only the blobs that it needs and checks access to
// the container's key at each. It fails RangeNotSatisfiable if off is outside the
// file (RFC 9110 section 14.1.2), but not if the file is empty and off is 0.
func (r *Reader) WriteRange(ctx context.Context, off, n int64, w io.Writer) error {
	if off < 0 || off > r.Size || off == r.Size && r.Size > 0 {
		return fail.New(api.RangeNotSatisfiable, "read file: byte %d is outside its %d bytes", off, r.Size)
	}
	if n < 0 || n > r.Size-off {
		n = r.Size - off
	}
	start := int64(0)                         // offset of the blob in the file
	for i, b := range slices.Clone(r.blobs) { // a read may find them replaced
		from, to := max(off, start), min(off+n, start+b.Size)
		if from < to || r.Size == 0 {
			if err := r.writeBlob(ctx, int64(i), from-start, to-from, w); err != nil {
				return fmt.Errorf("read file: %w", err)
			}
		}
		start += b.Size
	}
	return nil
}

func (r *Reader) writeBlob(ctx context.Context, sequence, off, n int64, w io.Writer) error {
	for range items.MaxAttempts {
		written, err := r.tryBlob(ctx, sequence, off, n, w)
		if !errors.Is(err, items.ErrRenewed) {
			return err
		}
		if off, n = off+written, n-written; written > 0 && n == 0 {
			return nil
		}
		if err := r.reload(ctx); err != nil {
			return err
		}
	}
	return items.RolledMeanwhile()
}

func (r *Reader) tryBlob(ctx context.Context, sequence, off, n int64, w io.Writer) (written int64, err error) {
	ring, err := r.keys(ctx, sequence)
	if err != nil {
		return 0, err
	}
	defer ring.Zero()
	b := r.blobs[sequence]
	key, err := ring.Key(b)
	if err != nil {
		return 0, err
	}
	return r.from.CopyBlob(ctx, b, key, envelope.Range{Off: off, N: n}, w)
}

// Close ends the read. If the file was replaced in the meantime, its blobs may be
// collected from then on.
func (r *Reader) Close() error {
	r.zero()
	if r.reading != 0 {
		r.contents.items.EndRead(r.reading)
		r.reading = 0
	}
	return nil
}

// zero wipes the key of the first blob.
func (r *Reader) zero() {
	if r.first != nil {
		r.first.Zero()
		r.first = nil
	}
}

// Stat returns path, size and time of the file of c at path. It fails NotFound.
func (s *Contents) Stat(ctx context.Context, c container.Container, path string) (File, error) {
	r, err := s.Open(ctx, c, path)
	if err != nil {
		return File{}, err
	}
	return r.File, r.Close()
}

// Files returns up to limit of c's files with ids above after, in the order in which they
// were stored. A file that is replaced between two calls may be returned by both, as it
// was and as it is. One that cannot be decrypted is listed as Damaged. Lost ones are added
// to the last part, beyond the limit.
func (s *Contents) Files(ctx context.Context, c container.Container, after int64, limit int) ([]File, error) {
	p, err := s.items.OpenPart(ctx, c, items.Files, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list files: %w", err)
	}
	defer p.Keys.Zero()
	list := make([]File, len(p.List))
	for i, f := range p.List {
		var m items.FileMetadata
		key, err := p.Keys.Key(f.Blob)
		if err == nil {
			err = f.Item.OpenMetadata(key, &m)
		}
		if err != nil {
			list[i] = File{ID: f.Item.ID, Damaged: err}
			continue
		}
		list[i] = File{ID: f.Item.ID, Path: m.Path, Size: m.Size, Modified: m.Modified}
	}
	if len(list) < limit {
		lost, err := s.items.ItemsWithoutBlob(ctx, c, items.Files)
		if err != nil {
			return nil, fmt.Errorf("list files: %w", err)
		}
		for _, l := range lost {
			list = append(list, File{ID: l.ID, Damaged: l.Err(), Lost: true})
		}
	}
	return list, nil
}
