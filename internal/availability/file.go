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
	"os"
	"path/filepath"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
)

// A file holds one version of one key, 85 bytes, integers big-endian:
//
//	format 1 | tenant 8 | id 8 | version 4 | key 32 | SHA-256 of all before 32
//
// The key is not encrypted. The checksum finds damage, not tampering: a wrap
// finds that, since another key does not open it.
const (
	fileFormat = 1
	headSize   = 1 + 8 + 8 + 4
	fileSize   = headSize + envelope.KeySize + sha256.Size
)

// folder is a directory of key files, ID-VERSION.key, and of marks, empty
// files: ID.destroyed for each destroyed key, ID-VERSION.destroyed for each
// destroyed version of a key.
type folder string

// record is one version of a key.
type record struct {
	tenant, id int64
	version    uint32
	key        *envelope.Key
}

func keyFile(id int64, version uint32) string { return fmt.Sprintf("%d-%d.key", id, version) }

func destroyedFile(id int64) string { return fmt.Sprintf("%d.destroyed", id) }

func destroyedVersionFile(id int64, version uint32) string {
	return fmt.Sprintf("%d-%d.destroyed", id, version)
}

func openFolder(path string) (folder, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return "", fmt.Errorf("make folder of availability keys: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("open folder of availability keys: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return "", fail.New(api.InvalidArgument, "open availability keys: folder %s has mode %04o; others than its owner may use it", path, mode).
			WithHint("chmod 700 %s", path)
	}
	return folder(path), nil
}

// add stores a new version of a key so that after a crash it is there whole or
// not at all.
func (d folder) add(ctx context.Context, tenant, id int64, version uint32) error {
	switch r, err := d.key(ctx, tenant, id, version); {
	case err == nil:
		r.Zero()
		return nil
	case !fail.Is(err, api.NotFound):
		return err
	}
	key := envelope.NewKey()
	defer key.Zero()
	body := record{tenant: tenant, id: id, version: version, key: key}.encode()
	defer clear(body)
	err := d.create(keyFile(id, version), body)
	if errors.Is(err, fs.ErrExist) { // another roll was first
		return nil
	}
	return err
}

func (d folder) wrap(ctx context.Context, id int64, version uint32, place envelope.Place, plaintext []byte) ([]byte, error) {
	key, err := d.key(ctx, place.Tenant, id, version)
	if err != nil {
		return nil, err
	}
	defer key.Zero()
	return envelope.Seal(key, envelope.PurposePolicyKey, place, plaintext), nil
}

func (d folder) open(ctx context.Context, id int64, version uint32, place envelope.Place, wrapped []byte) ([]byte, error) {
	key, err := d.key(ctx, place.Tenant, id, version)
	if err != nil {
		return nil, err
	}
	defer key.Zero()
	return envelope.Open(key, envelope.PurposePolicyKey, place, wrapped)
}

func (folder) close() {}

// key reads a version of a tenant's key. The caller zeroes it.
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
		return nil, notFound(id, version) // whose it is, is not told
	}
	return r.key, nil
}

func (d folder) read(id int64, version uint32) (record, error) {
	for mark, what := range map[string]string{
		destroyedFile(id):                 fmt.Sprintf("availability key %d", id),
		destroyedVersionFile(id, version): fmt.Sprintf("availability key %d version %d", id, version),
	} {
		switch marked, err := d.has(mark); {
		case err != nil:
			return record{}, err
		case marked:
			return record{}, fail.New(api.VaultDenied, "%s was destroyed", what)
		}
	}
	name := keyFile(id, version)
	file, err := os.Open(filepath.Join(string(d), name))
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
			WithHint("put a copy of the file back")
	}
	if r.id != id || r.version != version {
		r.key.Zero()
		return record{}, fail.New(api.Damaged, "availability key file %s holds key %d version %d", name, r.id, r.version)
	}
	return r, nil
}

// has reports whether a file is in the folder.
func (d folder) has(name string) (bool, error) {
	_, err := os.Stat(filepath.Join(string(d), name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("look for availability key: %w", err)
	}
	return err == nil, nil
}

func (d folder) destroy(ctx context.Context, id int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var files []string
	known := false
	for _, kind := range []string{"key", "destroyed"} {
		found, err := filepath.Glob(filepath.Join(string(d), fmt.Sprintf("%d-*.%s", id, kind)))
		if err != nil {
			return err
		}
		known = known || len(found) > 0
		if kind == "key" {
			files = found
		}
	}
	return d.markAndRemove(destroyedFile(id), known, notFound(id, firstVersion), files)
}

func (d folder) destroyVersion(ctx context.Context, id int64, version uint32) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	file := keyFile(id, version)
	known, err := d.has(file)
	if err != nil {
		return err
	}
	return d.markAndRemove(destroyedVersionFile(id, version), known, notFound(id, version), []string{filepath.Join(string(d), file)})
}

// markAndRemove marks what is destroyed and then removes its files. Once the
// mark is there it is gone for every reader; a crash before the files are
// removed is mended by destroying again. Without a mark, and with nothing known
// that it could stand for, it fails with missing.
func (d folder) markAndRemove(mark string, known bool, missing error, files []string) error {
	switch marked, err := d.has(mark); {
	case err != nil:
		return err
	case !marked && !known:
		return missing
	case !marked:
		if err := d.create(mark, nil); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("destroy availability key: %w", err)
		}
	}
	return d.sync()
}

// create writes a file under a temporary name, makes it durable, and gives it
// its own, which must be free (fs.ErrExist).
func (d folder) create(name string, body []byte) (err error) {
	file, err := os.CreateTemp(string(d), "new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write availability key: %w", err)
	}
	defer func() {
		if err != nil {
			file.Close()
			err = fmt.Errorf("write availability key: %w", err)
		}
		os.Remove(file.Name())
	}()
	if _, err := file.Write(body); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := os.Link(file.Name(), filepath.Join(string(d), name)); err != nil {
		return err
	}
	return d.sync()
}

// sync makes the folder's entries durable.
func (d folder) sync() error {
	dir, err := os.Open(string(d))
	if err != nil {
		return fmt.Errorf("sync folder of availability keys: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
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

// decode returns the record in a file's body, and whether there is one.
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
