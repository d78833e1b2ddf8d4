package content

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/items"
	"keyroll/internal/keypage"
	"keyroll/internal/name"
	"keyroll/internal/store"
)

// File is what a list shows of a file.
type File struct {
	Path     string
	Size     int64 // bytes
	Modified time.Time
	ID       int64 // in a list: by which the list can be continued
	Damaged  error // in a list: why only the ID is valid; nil: all fields are
	Lost     bool  // damaged, and listed after all others: its position is not known
}

// maxPath is the longest path of a file, in bytes.
const maxPath = 1024

// checkPath fails unless path is a valid path of a file: parts between single
// slashes, none of them empty, "." or "..".
func checkPath(path string) error {
	var why string
	switch {
	case path == "":
		why = "is empty"
	case len(path) > maxPath:
		why = fmt.Sprintf("is longer than %d bytes", maxPath)
	case !utf8.ValidString(path):
		why = "is not UTF-8"
	case strings.ContainsFunc(path, unicode.IsControl):
		why = "has a control character"
	}
	for part := range strings.SplitSeq(path, "/") {
		if why == "" && (part == "" || part == "." || part == "..") {
			why = fmt.Sprintf("has a part %q", part)
		}
	}
	return notAPath(path, why)
}

func notAPath(path, why string) error {
	if why == "" {
		return nil
	}
	return fail.New(api.InvalidArgument, "%.80q is not a valid file path: it %s", path, why)
}

// PreparedFile is a file whose content is stored and which no row refers to. Until it is
// committed, a roll may give its container another key, or re-encrypt everything in the
// container: so the pages of its blobs are under a key of their own, which exists only in
// memory, and are resealed by Prepare.
type PreparedFile struct {
	contents  *Contents
	container container.Container
	found     spelling // of the path
	item      items.Row
	metadata  items.FileMetadata
	blobs     []items.Blob
	pending   []*pendingPut  // in order; those before it are durable
	shared    []items.Placed // blobs in objects with other blobs
	first     *envelope.Key  // of the first blob, until the metadata is sealed under it

	transit      *envelope.Key
	transitPages *items.KeyPages

	opened container.Opened // the container with its key
	pages  []keypage.Row    // resealed under it
	stale  int64            // blobs that are older than this watermark have to be re-encrypted
}

// PrepareFile stores the content of r for a file at path. The content has size bytes; a
// negative size means that it is not known. Until the file is committed, the path has
// the whole old file, if there is one; a read of the old file that has begun can finish.
// On any failure nothing is kept and nothing is changed; a transfer that ended early
// fails Truncated.
func (s *Contents) PrepareFile(ctx context.Context, c container.Container, path string, size int64, r io.Reader) (*PreparedFile, error) {
	u, err := s.prepareFile(ctx, c, path, newTransfer(ctx, r, size))
	if err != nil {
		return nil, fmt.Errorf("put file: %w", err)
	}
	return u, nil
}

func (s *Contents) prepareFile(ctx context.Context, c container.Container, path string, in *transfer) (*PreparedFile, error) {
	if err := notAPath(path, name.Refusal(path)); err != nil {
		return nil, err
	}
	found, err := s.spellingsOf(ctx, c, path)
	if err != nil {
		return nil, err
	}
	now := s.writtenTime()
	u := &PreparedFile{contents: s, container: c, found: found, transit: envelope.NewKey(), transitPages: s.items.NewKeyPages(),
		metadata: items.FileMetadata{Path: path, Modified: now}, item: items.Row{ID: store.NewID(), Tenant: c.Tenant, Container: c.ID, Version: 1, Created: now}}
	err = u.storeContent(ctx, in)
	if err == nil {
		err = u.waitPuts(0)
	}
	if err == nil {
		err = s.foldPaths(ctx, c)
	}
	if err == nil {
		err = u.Prepare(ctx)
	}
	if err != nil {
		u.Close(ctx, store.NotCommitted)
		return nil, in.failure(err)
	}
	return u, nil
}

// storeContent stores the content as blobs; waitPuts then waits for the last of them. At
// most one page of their keys is open in memory, the others are sealed.
func (u *PreparedFile) storeContent(ctx context.Context, in *transfer) error {
	defer func() { u.first.Zero() }()
	ahead := bufio.NewReader(in)
	for {
		if err := u.contents.items.CheckAccess(ctx, u.container); err != nil {
			return err
		}
		if err := u.addBlob(ctx, io.LimitReader(ahead, u.contents.sizes.Blob)); err != nil {
			return err
		}
		switch _, err := ahead.Peek(1); {
		case err == io.EOF:
			u.metadata.Size, u.metadata.Blobs = u.item.Size, items.DigestOf(u.blobs)
			if err := u.item.SealMetadata(u.first, u.metadata); err != nil {
				return err
			}
			return u.sealPage()
		case err != nil:
			return err
		case u.transitPages.Full():
			if err := u.sealPage(); err != nil {
				return err
			}
		}
	}
}

// addBlob stores the next blob.
func (u *PreparedFile) addBlob(ctx context.Context, content io.Reader) error {
	row := items.Blob{ID: store.NewID(), Tenant: u.item.Tenant, Item: u.item.ID, Sequence: int64(len(u.blobs))}
	key := envelope.NewKey()
	defer key.Zero()
	u.blobs = append(u.blobs, row) // before it is stored: on a failure it is deleted with the others
	size, err := u.startPut(ctx, row, key, content)
	if err != nil {
		return err
	}
	row.Size = size
	u.blobs[row.Sequence].Size = row.Size
	u.item.Size += row.Size
	if row.Sequence == 0 {
		u.first = key.Clone()
	}
	u.blobs[row.Sequence].Page, err = u.transitPages.Add(row.ID, key)
	return err
}

func (u *PreparedFile) sealPage() error { return u.transitPages.Seal(u.transitParent()) }

// transitParent returns the parent of the pages until they are committed: no container
// has a generation 0.
func (u *PreparedFile) transitParent() container.Opened {
	c := u.container
	c.Generation = 0
	return container.Opened{Container: c, Key: u.transit}
}

// Small reports whether the file is one blob, so that its transaction changes few rows.
func (u *PreparedFile) Small() bool { return len(u.blobs) == 1 }

// Prepare opens the container's key and reseals the pages under it.
func (u *PreparedFile) Prepare(ctx context.Context) (err error) {
	if u.stale != 0 {
		if err := u.renewStale(ctx, u.stale); err != nil {
			return err
		}
		u.stale = 0
	}
	u.opened.Zero()
	if u.opened, err = u.contents.keys.OpenKey(ctx, u.container, api.ByUser); err != nil {
		return err
	}
	u.pages = slices.Clone(u.transitPages.Sealed)
	for i, old := range u.pages {
		u.pages[i].Generation = u.opened.Generation
		if u.pages[i].Body, err = envelope.Reseal(u.transit, u.opened.Key, old.EncryptionContext(), u.pages[i].EncryptionContext(), old.Body); err != nil {
			return err
		}
	}
	return nil
}

// Commit puts the file in place of the old one in tx. The old file's keys are deleted in
// the same transaction, its blobs by the next collection.
func (u *PreparedFile) Commit(ctx context.Context, tx *store.Tx) (File, error) {
	err := u.replaceFile(ctx, tx)
	if store.IsUnique(err) { // another request has stored a file at the same path
		err = errors.Join(store.ErrOutdated, err)
	}
	if err != nil {
		return File{}, fmt.Errorf("put file: %w", err)
	}
	fault.Point("put.before-commit")
	return File{Path: u.metadata.Path, Size: u.item.Size, Modified: u.metadata.Modified}, nil
}

func (u *PreparedFile) replaceFile(ctx context.Context, tx *store.Tx) (err error) {
	tenant := u.item.Tenant
	if u.stale, err = u.contents.items.AcceptsBlobs(ctx, tx, u.opened, u.blobs); err != nil {
		return err
	}
	id, hash, err := u.found.find(ctx, tx, u.container)
	if err != nil {
		return err
	}
	u.item.PathHash = hash
	add := items.Total{Items: 1, Bytes: u.item.Size}
	if id != 0 {
		if err := items.ConfirmFile(ctx, tx, u.item, id); err != nil {
			return err
		}
		replaced, _, err := items.ByID(ctx, tx, tenant, u.item.Container, id)
		if err != nil {
			return err
		}
		add = items.Total{Bytes: u.item.Size - replaced.Size}
		old, err := items.BlobsOf(ctx, tx, tenant, id)
		if err != nil {
			return err
		}
		if err := items.RemoveKeys(ctx, tx, u.opened, old); err != nil {
			return err
		}
		if err := (items.Rows{Tenant: tenant, Container: u.item.Container, Items: []int64{id}, Blobs: old}).Remove(ctx, tx); err != nil {
			return err
		}
	}
	if err := items.CheckGCFence(ctx, tx, u.blobs); err != nil {
		return err
	}
	if err := items.Insert(ctx, tx, []items.Row{u.item}, u.blobs, u.pages); err != nil {
		return err
	}
	if err := items.InsertPlaced(ctx, tx, u.shared); err != nil {
		return err
	}
	return items.ChangeTotal(ctx, tx, tenant, u.item.Container, add)
}

// Close zeroes keys. Unless the file was or may have been committed, its blobs are
// deleted; those that no row refers to after an unknown outcome are left for a collection
// of orphans.
func (u *PreparedFile) Close(ctx context.Context, outcome store.Outcome) {
	u.waitAllPuts()
	u.transit.Zero()
	u.transitPages.Zero()
	u.opened.Zero()
	switch outcome {
	case store.NotCommitted:
		u.contents.items.DeleteUnused(ctx, u.storedBlobs(), nil)
	case store.Committed:
		fault.Point("put.after-commit")
	}
}
