package availability

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/files"
)

// A file holds one version of one key, 85 bytes, integers big-endian:
//
//	format 1 | tenant 8 | id 8 | version 4 | key 32 | SHA-256 of all before 32
//
// The key is not encrypted. The checksum detects damage, not tampering, which is
// detected when a wrap cannot be decrypted with the changed key.
const (
	fileFormat = 1
	headSize   = 1 + 8 + 8 + 4
	fileSize   = headSize + envelope.KeySize + sha256.Size
)

// folder is a directory of key files, ID-VERSION.key, and of marks, empty
// files: ID.destroyed for each destroyed key, ID-VERSION.destroyed for each
// destroyed version of a key.
type folder struct {
	files files.FS
	path  string
}

// record is one version of a key.
type record struct {
	tenant, id int64
	version    uint32
	key        *envelope.Key
}

func keyFile(id int64, version uint32) string { return fmt.Sprintf("%d-%d.key", id, version) }

const destroyedSuffix = ".destroyed"

func destroyedFile(id int64) string { return fmt.Sprintf("%d%s", id, destroyedSuffix) }

func destroyedVersionFile(id int64, version uint32) string {
	return fmt.Sprintf("%d-%d%s", id, version, destroyedSuffix)
}

// earlierDraft is the prefix of the unfinished files of earlier versions of keyroll.
// They may hold a key, and their names do not say which.
const earlierDraft = "new-"

func openFolder(on files.FS, path string) (folder, error) {
	d := folder{on, path}
	if err := files.MkdirAll(on, path); err != nil {
		return d, fmt.Errorf("create folder of availability keys: %w", err)
	}
	info, err := on.Stat(path)
	if err != nil {
		return d, fmt.Errorf("open folder of availability keys: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return d, fail.New(api.InvalidArgument, "open availability keys: folder %s has mode %04o; users other than its owner have access to it", path, mode).
			WithHint("chmod 700 %s", path)
	}
	left, err := d.list(func(name string) bool { return strings.HasPrefix(name, earlierDraft) })
	if err == nil && len(left) > 0 {
		err = d.remove(left)
	}
	return d, err
}

// list returns the names of the files for which match returns true.
func (d folder) list(match func(name string) bool) (names []string, err error) {
	entries, err := d.files.ReadDir(d.path)
	if err != nil {
		return nil, fmt.Errorf("list availability keys: %w", err)
	}
	for _, entry := range entries {
		if match(entry.Name()) {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// add stores a new version of a key so that after a crash it is either complete or
// absent.
func (d folder) add(ctx context.Context, tenant, id int64, version uint32) error {
	switch r, err := d.key(ctx, tenant, id, version); {
	case err == nil: // perhaps from a roll that was interrupted before the file was durable
		r.Zero()
		return d.sync()
	case !fail.Is(err, api.NotFound):
		return err
	}
	key := envelope.NewKey()
	defer key.Zero()
	body := record{tenant: tenant, id: id, version: version, key: key}.encode()
	defer clear(body)
	err := d.create(keyFile(id, version), body)
	if errors.Is(err, fs.ErrExist) { // another roll created it meanwhile
		return nil
	}
	return err
}

func (d folder) wrap(ctx context.Context, id int64, version uint32, ec envelope.EncryptionContext, plaintext []byte) ([]byte, error) {
	key, err := d.key(ctx, ec.Tenant, id, version)
	if err != nil {
		return nil, err
	}
	defer key.Zero()
	return envelope.Seal(key, envelope.PurposePolicyKey, ec, plaintext), nil
}

func (d folder) open(ctx context.Context, id int64, version uint32, ec envelope.EncryptionContext, wrapped []byte) ([]byte, error) {
	key, err := d.key(ctx, ec.Tenant, id, version)
	if err != nil {
		return nil, err
	}
	defer key.Zero()
	return envelope.Open(key, envelope.PurposePolicyKey, ec, wrapped)
}

func (folder) close() {}

// key reads a version of a tenant's key. The caller must zero it.
func (d folder) key(ctx context.Context, tenant, id int64, version uint32) (*envelope.Key, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := d.read(id, version)
	if err != nil {
		return nil, err
	}
	if r.tenant != tenant {
		r.key.Zero()
		return nil, notFound(id, version) // the owner is not revealed
	}
	return r.key, nil
}

func (d folder) read(id int64, version uint32) (record, error) {
	for mark, what := range map[string]string{
		destroyedFile(id):                 fmt.Sprintf("availability key %d", id),
		destroyedVersionFile(id, version): fmt.Sprintf("availability key %d version %d", id, version),
	} {
		switch marked, err := d.exists(mark); {
		case err != nil:
			return record{}, err
		case marked:
			return record{}, fail.New(api.VaultDenied, "%s was destroyed", what)
		}
	}
	name := keyFile(id, version)
	file, err := d.files.Open(filepath.Join(d.path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, notFound(id, version)
	}
	if err != nil {
		return record{}, fmt.Errorf("read availability key: %w", err)
	}
	defer file.Close()
	body := make([]byte, fileSize+1)
	defer clear(body)
	n, err := io.ReadFull(file, body)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF { // a good file ends one byte early
		return record{}, fmt.Errorf("read availability key: %w", err)
	}
	r, ok := decode(body[:n])
	if !ok {
		return record{}, fail.New(api.Damaged, "availability key file %s is damaged", name).
			WithHint("restore the file from a copy")
	}
	if r.id != id || r.version != version {
		r.key.Zero()
		return record{}, fail.New(api.Damaged, "availability key file %s holds key %d version %d", name, r.id, r.version)
	}
	return r, nil
}

// exists reports whether a file is in the folder.
func (d folder) exists(name string) (bool, error) {
	_, err := d.files.Stat(filepath.Join(d.path, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("find availability key: %w", err)
	}
	return err == nil, nil
}

func (d folder) destroy(ctx context.Context, id int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	prefix := fmt.Sprintf("%d-", id)
	known, err := d.list(func(name string) bool { return strings.HasPrefix(name, prefix) })
	if err != nil {
		return err
	}
	return d.markAndRemove(destroyedFile(id), len(known) > 0, notFound(id, firstVersion), prefix)
}

func (d folder) destroyVersion(ctx context.Context, id int64, version uint32) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	file := keyFile(id, version)
	known, err := d.exists(file)
	if err != nil {
		return err
	}
	return d.markAndRemove(destroyedVersionFile(id, version), known, notFound(id, version), file)
}

// markAndRemove creates a mark and then removes the files with a key whose names begin
// with prefix, unfinished files too. Once the mark exists the key is destroyed for every
// reader; if a crash prevents the removal, the next destroy repeats it. If there is no
// mark, and known says that there is no key either, it fails with missing.
func (d folder) markAndRemove(mark string, known bool, missing error, prefix string) error {
	switch marked, err := d.exists(mark); {
	case err != nil:
		return err
	case !marked && !known:
		return missing
	case marked: // perhaps by a process that was stopped before the mark was durable
		err = d.sync()
		if err != nil {
			return err
		}
	default:
		if err := d.create(mark, nil); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	names, err := d.list(func(name string) bool {
		return strings.HasPrefix(name, prefix) && !strings.HasSuffix(name, destroyedSuffix)
	})
	if err != nil {
		return err
	}
	return d.remove(names)
}

// remove removes files and makes that durable.
func (d folder) remove(names []string) error {
	for _, name := range names {
		if err := d.files.Remove(filepath.Join(d.path, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("destroy availability key: %w", err)
		}
	}
	return d.sync()
}

// create creates a file; it fails with fs.ErrExist if the name is in use.
func (d folder) create(name string, body []byte) error {
	if err := files.WriteNew(d.files, filepath.Join(d.path, name), body); err != nil {
		return fmt.Errorf("write availability key: %w", err)
	}
	return nil
}

// sync makes the folder's entries durable.
func (d folder) sync() error {
	if err := d.files.SyncFolder(d.path); err != nil {
		return fmt.Errorf("sync folder of availability keys: %w", err)
	}
	return nil
}

func (r record) encode() []byte {
	key := r.key.Bytes()
	defer clear(key)
	b := make([]byte, 0, fileSize)
	b = append(b, fileFormat)
	b = binary.BigEndian.AppendUint64(b, uint64(r.tenant))
	b = binary.BigEndian.AppendUint64(b, uint64(r.id))
	b = binary.BigEndian.AppendUint32(b, r.version)
	b = append(b, key...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// decode returns the record in a file's body, and whether the body is valid.
func decode(b []byte) (record, bool) {
	if len(b) != fileSize || b[0] != fileFormat {
		return record{}, false
	}
	sum := sha256.Sum256(b[:fileSize-sha256.Size])
	if !bytes.Equal(sum[:], b[fileSize-sha256.Size:]) {
		return record{}, false
	}
	key, err := envelope.KeyFrom(b[headSize : headSize+envelope.KeySize])
	if err != nil {
		return record{}, false
	}
	return record{
		tenant:  int64(binary.BigEndian.Uint64(b[1:])),
		id:      int64(binary.BigEndian.Uint64(b[9:])),
		version: binary.BigEndian.Uint32(b[17:]),
		key:     key,
	}, true
}
