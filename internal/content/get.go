package content

import (
	"bytes"
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
	container container.Container
	item      int64
	blobs     []items.Blob
	pages     items.PageSet // sealed: the keys are opened one at a time
	closed    bool
}

// Open opens the file of c at path. The caller closes it. It fails NotFound.
func (s *Contents) Open(ctx context.Context, c container.Container, path string) (*Reader, error) {
	r, err := s.open(ctx, c, path)
	if err != nil {
		return nil, fmt.Errorf("open file: %w", err)
	}
	return r, nil
}

func (s *Contents) open(ctx context.Context, c container.Container, path string) (*Reader, error) {
	spelled, err := s.spellingsOf(ctx, c, path)
	if err != nil {
		return nil, err
	}
	for range items.MaxAttempts {
		id, hash, err := s.findFile(ctx, c, spelled)
		if err != nil {
			return nil, err
		}
		if id == 0 {
			// A caller who may not read must not learn which files exist.
			if err := s.items.CheckAccess(ctx, c); err != nil {
				return nil, err
			}
			return nil, fail.New(api.NotFound, "file %q does not exist", path)
		}
		r, found, err := s.openItem(ctx, c, id)
		if err != nil {
			return nil, err
		}
		if found && !spelled.matches(hash, r.Path) {
			r.Close()
			return nil, otherPath(id)
		}
		if found {
			return r, nil
		}
	}
	return nil, fail.New(api.Conflict, "the file is being replaced by other requests").WithHint("try again")
}

func otherPath(item int64) error {
	return fail.New(api.Damaged, "open item %d: its metadata belongs to another path", item)
}

// openItem opens a file by its id; not found means that it was replaced. The read
// is registered before the rows are read: a collection that runs after the file was
// replaced therefore sees the read and keeps the blobs.
func (s *Contents) openItem(ctx context.Context, c container.Container, id int64) (r *Reader, found bool, err error) {
	s.items.BeginRead(id)
	r = &Reader{contents: s, container: c, item: id}
	stale := true
	for try := 0; try < items.MaxAttempts && stale && err == nil; try++ {
		found, stale, err = r.open(ctx)
	}
	if err == nil && stale {
		err = items.RolledMeanwhile()
	}
	if err != nil || !found {
		r.Close()
		return nil, false, err
	}
	return r, true, nil
}

// open reads the file's rows and decrypts its metadata. Stale means that the
// container's key was replaced between the two.
func (r *Reader) open(ctx context.Context) (found, stale bool, err error) {
	s, c, id := r.contents, r.container, r.item
	var item items.Row
	err = s.db.View(ctx, func(tx *store.Tx) (err error) {
		if item, found, err = items.ByID(ctx, tx, c.Tenant, c.ID, id); err != nil || !found {
			return err
		}
		if r.blobs, err = items.BlobsOf(ctx, tx, c.Tenant, id); err != nil {
			return err
		}
		r.pages, err = items.PagesOf(ctx, tx, c.Tenant, r.blobs)
		return err
	})
	if err != nil || !found {
		return false, false, err
	}
	if err := items.CheckBlobs(item, r.blobs); err != nil {
		return false, false, err
	}
	opened, err := s.keys.OpenKey(ctx, c, api.ByUser)
	if err != nil {
		return false, false, err
	}
	ring := items.OpenKeys(opened, r.pages, r.blobs[:1])
	opened.Zero()
	defer ring.Zero()
	if ring.Stale {
		return true, true, nil
	}
	return true, false, r.readMetadata(item, ring)
}

func (r *Reader) readMetadata(item items.Row, ring *items.Keyring) error {
	key, err := ring.Key(r.blobs[0])
	if err != nil {
		return err
	}
	var m items.FileMetadata
	if err := item.OpenMetadata(key, &m); err != nil {
		return err
	}
	if m.Size != item.Size || !bytes.Equal(m.Blobs, items.DigestOf(r.blobs)) {
		return fail.New(api.Damaged, "open item %d: its blobs differ from those that were stored, or are out of order", item.ID)
	}
	r.File = File{Path: m.Path, Size: item.Size, Modified: m.Modified}
	return nil
}

// keys opens the container's key and with it the key of one blob. A roll may have
// put the pages under another key since they were read, or replaced the blob: then
// keys reads both again.
func (r *Reader) keys(ctx context.Context, sequence int64) (*items.Keyring, error) {
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
	return r.contents.items.CopyBlob(ctx, b, key, envelope.Range{Off: off, N: n}, w)
}

// Close ends the read. If the file was replaced in the meantime, its blobs may be
// collected from then on.
func (r *Reader) Close() error {
	if !r.closed {
		r.closed = true
		r.contents.items.EndRead(r.item)
	}
	return nil
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
