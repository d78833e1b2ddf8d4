package availability

import (
	"bytes"
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

// folder is a directory of key files, ID-VERSION.key, and of ID.destroyed, an
// empty file for each destroyed key.
type folder string

// record is one version of a key.
type record struct {
	tenant, id int64
	version    uint32
	key        *envelope.Key
}

func keyFile(id int64, version uint32) string { return fmt.Sprintf("%d-%d.key", id, version) }

func destroyedFile(id int64) string { return fmt.Sprintf("%d.destroyed", id) }

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

// write stores a new version of a key so that after a crash it is there whole
// or not at all.
func (d folder) write(r record) error {
	body := r.encode()
	defer clear(body)
	return d.create(keyFile(r.id, r.version), body)
}

func (d folder) read(id int64, version uint32) (record, error) {
	switch _, err := os.Stat(filepath.Join(string(d), destroyedFile(id))); {
	case err == nil:
		return record{}, fail.New(api.VaultDenied, "availability key %d was destroyed", id)
	case !errors.Is(err, fs.ErrNotExist):
		return record{}, fmt.Errorf("read availability key: %w", err)
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

// destroy marks a key as destroyed and then removes its files. Once the mark is
// there the key is gone for every reader; a crash before the files are removed
// is mended by destroying again.
func (d folder) destroy(id int64) error {
	files, err := filepath.Glob(filepath.Join(string(d), fmt.Sprintf("%d-*.key", id)))
	if err != nil {
		return err
	}
	mark := destroyedFile(id)
	if _, err := os.Stat(filepath.Join(string(d), mark)); errors.Is(err, fs.ErrNotExist) {
		if len(files) == 0 {
			return notFound(id, firstVersion)
		}
		if err := d.create(mark, nil); err != nil {
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

// create writes a file under a temporary name, makes it durable, and renames it.
func (d folder) create(name string, body []byte) (err error) {
	file, err := os.CreateTemp(string(d), "new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write availability key: %w", err)
	}
	defer func() {
		if err != nil {
			file.Close()
			os.Remove(file.Name())
			err = fmt.Errorf("write availability key: %w", err)
		}
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
	if err := os.Rename(file.Name(), filepath.Join(string(d), name)); err != nil {
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
