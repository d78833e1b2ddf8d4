package blob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/files"
)

// tmpName cannot be the first part of a blob name: it has letters that names cannot
// have.
const tmpName = "tmp"

// folder keeps each blob in a file of its name. A blob is written under tmp,
// synced, and linked to its name; the link fails if the name exists.
type folder struct {
	files     files.FS
	root, tmp string
	lock      io.Closer // of tmp, held while the store is used
	identity  string
}

// openFolder opens file:///FOLDER.
func openFolder(ctx context.Context, u *url.URL) (Store, error) {
	root := filepath.Clean(u.Path)
	if u.Host != "" || !filepath.IsAbs(u.Path) || root == "/" || u.RawQuery != "" {
		return nil, badAddress("file:///FOLDER, as file:///var/lib/keyroll/blobs")
	}
	f, err := openFolderOn(files.OS, root)
	if err != nil {
		return nil, openFailure(root, err)
	}
	return f, ctx.Err()
}

func openFolderOn(on files.FS, root string) (*folder, error) {
	f := &folder{files: on, root: root}
	err := files.MkdirAll(on, root)
	if err == nil {
		err = f.ownTmp()
	}
	if err != nil {
		return nil, err
	}
	if err := f.mark(); err != nil {
		return nil, errors.Join(err, f.lock.Close())
	}
	return f, nil
}

// mark reads the identity of the store, and makes it first if the store is new.
func (f *folder) mark() error {
	draft, err := files.NewDraft(f.files, f.tmp, "")
	if err != nil {
		return err
	}
	mark := f.path(MarkName)
	if _, err = io.WriteString(draft, rand.Text()+"\n"); err == nil {
		err = draft.Link(mark)
	}
	discarded := draft.Discard()
	if err == nil {
		err = discarded
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	file, err := f.files.Open(mark)
	if err != nil {
		return err
	}
	defer file.Close()
	f.identity, err = readMark(file)
	return err
}

func openFailure(root string, err error) error {
	return fail.New(api.Unavailable, "open blob store %s: %w", root, withoutPath(err))
}

// withoutPath returns a system error without the path that package os put before it.
func withoutPath(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

func (f *folder) Identity() string { return f.identity }

func (f *folder) Close() error { return errors.Join(f.removeAll(f.tmp), f.lock.Close()) }

func (f *folder) path(name string) string { return filepath.Join(f.root, filepath.FromSlash(name)) }

func (f *folder) PutIfAbsent(ctx context.Context, name string, r io.Reader) (int64, error) {
	b := &folderBatch{folder: f, syncEach: true}
	size, err := b.Put(ctx, name, r)
	if err == nil {
		err = b.Commit(ctx)
	}
	if err != nil {
		b.Discard()
		return 0, err
	}
	return size, nil
}

func (f *folder) Batch() Batch { return &folderBatch{folder: f} }

func (f *folder) GetRange(_ context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	file, err := f.files.Open(f.path(name))
	if err != nil {
		return nil, f.readFailure(name, err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err == nil && off != 0 {
		_, err = file.Seek(off, io.SeekStart)
	}
	if err != nil {
		file.Close()
		return nil, f.readFailure(name, err)
	}
	if n < 0 {
		return sized{file, file, info.Size()}, nil
	}
	return sized{io.LimitReader(file, n), file, info.Size()}, nil
}

// sized implements Sized.
type sized struct {
	io.Reader
	io.Closer
	size int64
}

// Size is the length of the blob.
func (s sized) Size() int64 { return s.size }

func (f *folder) Stat(_ context.Context, name string) (int64, error) {
	if err := checkName(name); err != nil {
		return 0, err
	}
	info, err := f.files.Stat(f.path(name))
	if err != nil {
		return 0, f.readFailure(name, err)
	}
	if !info.Mode().IsRegular() {
		return 0, notFound(name)
	}
	return info.Size(), nil
}

func (f *folder) readFailure(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return notFound(name)
	}
	return fmt.Errorf("read blob %s: %w", name, err)
}

func (f *folder) Delete(_ context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := f.files.Remove(f.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete blob %s: %w", name, err)
	}
	return nil
}

func (f *folder) List(ctx context.Context, prefix string, each func(name string, size int64) error) error {
	top := ""
	if i := strings.LastIndexByte(prefix, '/'); i > 0 {
		top = prefix[:i]
		if err := checkName(top); err != nil {
			return err
		}
	}
	return f.list(ctx, top, func(name string, entry fs.DirEntry) error {
		if !strings.HasPrefix(name, prefix) || checkName(name) != nil {
			return nil
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list blobs: %w", err)
		}
		return each(name, info.Size())
	})
}

// list calls each for every file in a folder and its subfolders, in the order of
// their names.
func (f *folder) list(ctx context.Context, top string, each func(name string, entry fs.DirEntry) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := f.files.ReadDir(f.path(top))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil // no such folder, or deleted since it was listed
	}
	if err != nil {
		return fmt.Errorf("list blobs: %w", err)
	}
	for _, entry := range entries {
		name := path.Join(top, entry.Name())
		switch {
		case name == tmpName:
		case entry.IsDir():
			err = f.list(ctx, name, each)
		default:
			err = each(name, entry)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// folderBatch holds files in tmp until Commit links them to their names.
type folderBatch struct {
	folder   *folder
	syncEach bool         // sync each file when it is written instead of all in Commit
	volume   files.Volume // opened before the first write, so that a sync reports its failure
	puts     []pending
	ended    bool
}

type pending struct{ tmp, name string }

var errEnded = errors.New("put blob: the batch was committed or discarded")

func (b *folderBatch) Put(ctx context.Context, name string, r io.Reader) (int64, error) {
	if b.ended {
		return 0, errEnded
	}
	if err := checkName(name); err != nil {
		return 0, err
	}
	err := ctx.Err()
	if err == nil && !b.syncEach && b.volume == nil {
		b.volume, err = b.folder.files.OpenVolume(b.folder.tmp)
		if errors.Is(err, errors.ErrUnsupported) {
			b.syncEach, err = true, nil
		}
	}
	if err != nil {
		return 0, fmt.Errorf("put blob %s: %w", name, err)
	}
	tmp := filepath.Join(b.folder.tmp, rand.Text())
	size, err := writeFile(b.folder.files, tmp, r, b.syncEach)
	if err != nil {
		b.folder.files.Remove(tmp)
		return 0, fmt.Errorf("put blob %s: %w", name, osWriteError(err))
	}
	b.puts = append(b.puts, pending{tmp, name})
	return size, nil
}

// buffers are copy buffers for sealed content.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, 128<<10)
	return &b
}}

// writeFile writes a new file; durable syncs it.
func writeFile(on files.FS, path string, r io.Reader, durable bool) (int64, error) {
	file, err := on.Create(path)
	if err != nil {
		return 0, err
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	// Hide all methods but Write and Read: otherwise io.CopyBuffer would ignore buf and allocate one for each blob.
	size, err := io.CopyBuffer(struct{ io.Writer }{file}, struct{ io.Reader }{r}, *buf)
	if err == nil && durable {
		err = file.Sync()
	}
	return size, errors.Join(err, file.Close())
}

func (b *folderBatch) Commit(ctx context.Context) error {
	if b.ended {
		return errEnded
	}
	defer b.end()
	linked, err := b.publish(ctx)
	if err != nil {
		for _, p := range b.puts[:linked] {
			b.folder.files.Remove(b.folder.path(p.name))
		}
	}
	return err
}

// publish syncs the files, gives them their names, and syncs the folders above
// those. It returns how many got their names.
func (b *folderBatch) publish(ctx context.Context) (linked int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("put blobs: %w", err)
	}
	if b.volume != nil {
		if err := b.volume.Sync(); err != nil {
			return 0, fmt.Errorf("put blobs: %w", osWriteError(err))
		}
	}
	folders := make(map[string]bool)
	for i, p := range b.puts {
		path := b.folder.path(p.name)
		if err := b.folder.link(p.tmp, path); err != nil {
			if errors.Is(err, fs.ErrExist) {
				return i, alreadyExists(p.name)
			}
			return i, fmt.Errorf("put blob %s: %w", p.name, osWriteError(err))
		}
		folders[filepath.Dir(path)] = true
	}
	// All folders up to the root: another batch may have made one and not synced it yet.
	// Syncing an unchanged folder costs next to nothing.
	for path := range folders {
		for ; len(path) >= len(b.folder.root); path = filepath.Dir(path) {
			if err := b.folder.files.SyncFolder(path); err != nil {
				return len(b.puts), fmt.Errorf("put blobs: %w", osWriteError(err))
			}
		}
	}
	return len(b.puts), nil
}

// link gives a file one more name, and makes the folder if it is missing. The caller
// syncs the folders.
func (f *folder) link(file, name string) error {
	err := f.files.Link(file, name)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := f.mkdirs(filepath.Dir(name)); err != nil {
		return err
	}
	return f.files.Link(file, name)
}

// mkdirs makes a folder below the root and its missing parents.
func (f *folder) mkdirs(folder string) error {
	err := f.files.Mkdir(folder)
	if errors.Is(err, fs.ErrNotExist) && len(folder) > len(f.root) {
		if err = f.mkdirs(filepath.Dir(folder)); err == nil {
			err = f.files.Mkdir(folder)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func (b *folderBatch) Discard() {
	if !b.ended {
		b.end()
	}
}

func (b *folderBatch) end() {
	b.ended = true
	for _, p := range b.puts {
		b.folder.files.Remove(p.tmp)
	}
	if b.volume != nil {
		b.volume.Close()
	}
}
