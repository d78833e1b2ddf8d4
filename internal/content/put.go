package content

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
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
	"keyroll/internal/keypage"
	"keyroll/internal/name"
	"keyroll/internal/store"
)

// File is what a list shows of a file.
type File struct {
	Path     string
	Size     int64 // bytes
	Modified time.Time
	Damaged  error // in a list: why the other fields are empty; nil: they are valid
}

// fileMetadata is the sealed metadata of a file. Size and Blobs bind the file to
// exactly its blobs in their order: changed rows can neither swap nor remove them.
type fileMetadata struct {
	Path     string    `json:"path"`
	Modified time.Time `json:"modified"`
	Size     int64     `json:"size"`
	Blobs    []byte    `json:"blobs"` // digestOf
}

// digestOf is SHA-256 over the ids and sizes of blobs in their order, 8 bytes
// big-endian each.
func digestOf(blobs []blobRow) []byte {
	h := sha256.New()
	for _, b := range blobs {
		var pair [16]byte
		binary.BigEndian.PutUint64(pair[:8], uint64(b.ID))
		binary.BigEndian.PutUint64(pair[8:], uint64(b.Size))
		h.Write(pair[:])
	}
	return h.Sum(nil)
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

// Put stores the content of r as the file at path and replaces a file that is
// there. The content has size bytes; a negative size means that it is not known.
// Until Put returns, the path has the whole old file; a read of the old file that
// has begun can finish. also, if not nil, runs in Put's transaction. On any failure
// nothing is kept and nothing is changed; a transfer that ended early fails Truncated.
func (s *Contents) Put(ctx context.Context, c container.Container, path string, size int64, r io.Reader, also func(tx *store.Tx) error) (File, error) {
	f, err := s.put(ctx, c, path, size, r, also)
	if err != nil {
		return File{}, fmt.Errorf("put file: %w", err)
	}
	return f, nil
}

func (s *Contents) put(ctx context.Context, c container.Container, path string, size int64, r io.Reader, also func(tx *store.Tx) error) (File, error) {
	if err := notAPath(path, name.Refusal(path)); err != nil {
		return File{}, err
	}
	found, err := s.spellingsOf(ctx, c, path)
	if err != nil {
		return File{}, err
	}
	now := s.writtenTime()
	u := &upload{contents: s, container: c, found: found, transit: envelope.NewKey(), pages: newPages{slots: s.slots}, metadata: fileMetadata{Path: path, Modified: now},
		item: itemRow{ID: store.NewID(), Tenant: c.Tenant, Container: c.ID, Version: 1, Created: now}}
	defer u.transit.Zero()
	defer u.waitAllPuts()
	in := newTransfer(ctx, r, size)
	err = u.storeContent(ctx, in)
	if err == nil {
		err = u.waitPuts(0)
	}
	if err == nil {
		err = s.foldPaths(ctx, c)
	}
	if err != nil {
		u.waitAllPuts()
		u.pages.zero()
		s.deleteBlobs(ctx, u.storedBlobs())
		return File{}, in.failure(err)
	}
	if err := u.commit(ctx, also); err != nil {
		return File{}, err
	}
	return File{Path: path, Size: u.item.Size, Modified: now}, nil
}

// upload is a file that is being stored. Meanwhile a roll may give its container
// another key, or re-encrypt everything in the container: so its pages are under a
// key of their own, which exists only in memory, until the file is committed.
type upload struct {
	contents  *Contents
	container container.Container
	found     spelling // of the path
	item      itemRow
	metadata  fileMetadata
	blobs     []blobRow
	pages     newPages
	transit   *envelope.Key
	pending   []*pendingPut // in order; those before it are durable
	first     *envelope.Key // of the first blob, until the metadata is sealed under it
}

// storeContent stores the content as blobs; waitPuts then waits for the last of them. At
// most one page of their keys is open in memory, the others are sealed.
func (u *upload) storeContent(ctx context.Context, in *transfer) error {
	defer func() { u.first.Zero() }()
	ahead := bufio.NewReader(in)
	for {
		if err := u.contents.checkAccess(ctx, u.container); err != nil {
			return err
		}
		if err := u.addBlob(ctx, io.LimitReader(ahead, u.contents.blobSize)); err != nil {
			return err
		}
		switch _, err := ahead.Peek(1); {
		case err == io.EOF:
			u.metadata.Size, u.metadata.Blobs = u.item.Size, digestOf(u.blobs)
			if err := u.item.sealMetadata(u.first, u.metadata); err != nil {
				return err
			}
			return u.sealPage()
		case err != nil:
			return err
		case u.pages.full():
			if err := u.sealPage(); err != nil {
				return err
			}
		}
	}
}

// addBlob stores the next blob.
func (u *upload) addBlob(ctx context.Context, content io.Reader) error {
	row := blobRow{ID: store.NewID(), Tenant: u.item.Tenant, Item: u.item.ID, Sequence: int64(len(u.blobs))}
	key := envelope.NewKey()
	defer key.Zero()
	sealed := newSealing(content, key, envelope.BlobContext{Tenant: row.Tenant, Blob: row.ID})
	u.blobs = append(u.blobs, row) // before it is stored: on a failure it is deleted with the others
	if err := u.startPut(ctx, blobName(row.Tenant, row.ID), sealed); err != nil {
		return err
	}
	row.Size = sealed.size
	u.blobs[row.Sequence].Size = row.Size
	u.item.Size += row.Size
	if row.Sequence == 0 {
		u.first = key.Clone()
	}
	var err error
	u.blobs[row.Sequence].Page, err = u.pages.add(row.ID, key)
	return err
}

func (u *upload) sealPage() error { return u.pages.seal(u.transitParent()) }

// transitParent returns the parent of the pages until they are committed: no container
// has a generation 0.
func (u *upload) transitParent() container.Opened {
	c := u.container
	c.Generation = 0
	return container.Opened{Container: c, Key: u.transit}
}

// resealedPages returns the pages resealed under the container's key.
func (u *upload) resealedPages(opened container.Opened) ([]keypage.Row, error) {
	rows := slices.Clone(u.pages.sealed)
	for i, old := range rows {
		rows[i].Generation = opened.Generation
		var err error
		if rows[i].Body, err = envelope.Reseal(u.transit, opened.Key, old.EncryptionContext(), rows[i].EncryptionContext(), old.Body); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// commit replaces the old file by the new one. The old file's keys are deleted in
// the same transaction, its blobs by the next collection.
func (u *upload) commit(ctx context.Context, also func(tx *store.Tx) error) error {
	s := u.contents
	err := s.insertNewBlobs(ctx, func(run inTx) error {
		err := u.replaceFile(ctx, run, also)
		if store.IsUnique(err) { // another request has stored a file at the same path
			err = errors.Join(errRetry, err)
		}
		return retryIfStale(err, func(mark int64) error { return u.renewStale(ctx, mark) })
	}, func() []blobRow { return u.blobs })
	if errors.Is(err, errRetry) {
		return fail.New(api.Conflict, "the file is being replaced by other requests").WithHint("try again").Because(err)
	}
	if err != nil {
		return err
	}
	fault.Point("put.after-commit")
	return nil
}

// replaceFile runs the transaction of commit.
func (u *upload) replaceFile(ctx context.Context, run inTx, also func(tx *store.Tx) error) error {
	s, tenant := u.contents, u.item.Tenant
	opened, err := s.keys.OpenKey(ctx, u.container, api.ByUser)
	if err != nil {
		return err
	}
	defer opened.Zero()
	pages, err := u.resealedPages(opened)
	if err != nil {
		return err
	}
	return run(func(tx *store.Tx) error {
		if err := s.acceptsBlobs(ctx, tx, opened, u.blobs); err != nil {
			return err
		}
		id, hash, err := u.found.find(ctx, tx, u.container)
		if err != nil {
			return err
		}
		u.item.PathHash = hash
		if id != 0 {
			if err := confirmFile(ctx, tx, u.item, id); err != nil {
				return err
			}
			old, err := blobsOf(ctx, tx, tenant, id)
			if err != nil {
				return err
			}
			if err := removeKeys(ctx, tx, opened, old); err != nil {
				return err
			}
			if err := removeItems(ctx, tx, tenant, u.item.Container, []int64{id}, old); err != nil {
				return err
			}
		}
		if err := checkGCFence(ctx, tx, u.blobs); err != nil {
			return err
		}
		if err := insert(ctx, tx, []itemRow{u.item}, u.blobs, pages); err != nil {
			return err
		}
		if also != nil {
			if err := also(tx); err != nil {
				return err
			}
		}
		fault.Point("put.before-commit")
		return nil
	})
}
