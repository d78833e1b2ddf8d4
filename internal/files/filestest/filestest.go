// Package filestest has a file system that loses everything that was not synced, and
// a harness that stops a scenario at each of its operations.
//
// For every file and every folder it keeps both the state that a process sees and the
// state on stable storage. Start reading at Run.
package filestest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"keyroll/internal/files"
)

// FS is a file system in memory. Its root is durable.
type FS struct {
	mu      sync.Mutex
	root    *node
	life    int // number of the process; handles of earlier ones are dead
	locks   map[*node]bool
	noSync  bool // a volume cannot be synced as a whole
	ops     int
	at      int // the operation that fails; 0: none
	dies    bool
	reached string // the operation that failed
}

// node is a file or, with entries, a folder.
type node struct {
	data, durable   []byte
	entries, onDisk map[string]*node
}

func newFolder() *node { return &node{entries: map[string]*node{}, onDisk: map[string]*node{}} }

var (
	errStopped = errors.New("the process was stopped")
	errBroken  = errors.New("the operation failed")
)

// begin counts an operation, and fails the one that is to fail. The caller holds
// the lock.
func (m *FS) begin(op, name string) error {
	if m.dies && m.reached != "" {
		return &fs.PathError{Op: op, Path: name, Err: errStopped}
	}
	m.ops++
	if m.ops != m.at {
		return nil
	}
	m.reached = op + " " + name
	if m.dies {
		return &fs.PathError{Op: op, Path: name, Err: errStopped}
	}
	return &fs.PathError{Op: op, Path: name, Err: errBroken}
}

// find returns the file or folder with a name, and the folder that it is in.
func (m *FS) find(op, name string) (in *node, base string, found *node, err error) {
	if !filepath.IsAbs(name) || filepath.Clean(name) != name {
		panic("filestest: " + name + " is not an absolute path")
	}
	in, found = nil, m.root
	parts := strings.Split(strings.Trim(name, "/"), "/")
	if name == "/" {
		return nil, "", m.root, nil
	}
	for i, part := range parts {
		in = found
		if in.entries == nil {
			return nil, "", nil, &fs.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
		}
		base, found = part, in.entries[part]
		if found == nil && i < len(parts)-1 {
			return nil, "", nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
	}
	if found == nil {
		err = &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return in, base, found, err
}

// do begins an operation on an existing file or folder.
func (m *FS) do(op, name string) (in *node, base string, found *node, err error) {
	if err := m.begin(op, name); err != nil {
		return nil, "", nil, err
	}
	return m.find(op, name)
}

// add begins an operation that makes a name, which must be free.
func (m *FS) add(op, name string, made *node) error {
	in, base, found, err := m.do(op, name)
	if found != nil {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrExist}
	}
	if in == nil {
		return err
	}
	in.entries[base] = made
	return nil
}

func (m *FS) Create(name string) (files.Writer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := &node{}
	if err := m.add("create", name, n); err != nil {
		return nil, err
	}
	return &handle{m: m, life: m.life, name: name, node: n}, nil
}

func (m *FS) Mkdir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.add("mkdir", name, newFolder())
}

func (m *FS) Open(name string) (files.Reader, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _, n, err := m.do("open", name)
	if err != nil {
		return nil, err
	}
	return &handle{m: m, life: m.life, name: name, node: n, Reader: bytes.NewReader(n.data)}, nil
}

func (m *FS) Link(file, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _, n, err := m.find("link", file)
	if err != nil {
		return errors.Join(m.begin("link", name), err)
	}
	return m.add("link", name, n)
}

func (m *FS) Rename(file, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, old, n, err := m.do("rename", file)
	if err != nil {
		return err
	}
	to, base, _, err := m.find("rename", name)
	if to == nil {
		return err
	}
	delete(from.entries, old)
	to.entries[base] = n
	return nil
}

func (m *FS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	in, base, n, err := m.do("remove", name)
	if err != nil {
		return err
	}
	if len(n.entries) > 0 {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
	}
	delete(in.entries, base)
	return nil
}

func (m *FS) Stat(name string) (fs.FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _, n, err := m.do("stat", name)
	if err != nil {
		return nil, err
	}
	return n.info(filepath.Base(name)), nil
}

func (m *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _, n, err := m.do("readdir", name)
	if err != nil {
		return nil, err
	}
	if n.entries == nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: syscall.ENOTDIR}
	}
	var list []fs.DirEntry
	for _, base := range slices.Sorted(maps.Keys(n.entries)) {
		list = append(list, fs.FileInfoToDirEntry(n.entries[base].info(base)))
	}
	return list, nil
}

func (m *FS) SyncFolder(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _, n, err := m.do("sync folder", name)
	if err != nil {
		return err
	}
	n.onDisk = maps.Clone(n.entries)
	return nil
}

func (m *FS) OpenVolume(folder string) (files.Volume, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.noSync {
		return nil, errors.ErrUnsupported
	}
	if _, _, _, err := m.do("open volume", folder); err != nil {
		return nil, err
	}
	return &handle{m: m, life: m.life, name: folder}, nil
}

func (m *FS) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	in, base, n, err := m.do("lock", name)
	if in == nil {
		return nil, err
	}
	if n == nil {
		n = &node{}
		in.entries[base] = n
	}
	if m.locks[n] {
		return nil, &fs.PathError{Op: "lock", Path: name, Err: files.ErrLocked}
	}
	m.locks[n] = true
	return &handle{m: m, life: m.life, name: name, node: n, lock: true}, nil
}

// handle is an open file, a lock or, without a node, a volume.
type handle struct {
	m    *FS
	life int
	name string
	node *node
	lock bool
	*bytes.Reader
}

// begin is FS.begin for a handle, which dies with its process.
func (h *handle) begin(op string) error {
	if h.life != h.m.life {
		return &fs.PathError{Op: op, Path: h.name, Err: errStopped}
	}
	return h.m.begin(op, h.name)
}

func (h *handle) Write(p []byte) (int, error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.begin("write"); err != nil {
		if h.life == h.m.life { // a part of it may have come through
			h.node.data = append(h.node.data, p[:len(p)/2]...)
		}
		return 0, err
	}
	h.node.data = append(h.node.data, p...)
	return len(p), nil
}

func (h *handle) Sync() error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.begin("sync"); err != nil {
		return err
	}
	if h.node != nil {
		h.node.durable = bytes.Clone(h.node.data)
		return nil
	}
	h.m.each(func(_ string, n *node) {
		n.durable, n.onDisk = bytes.Clone(n.data), maps.Clone(n.entries)
	})
	return nil
}

func (h *handle) Stat() (fs.FileInfo, error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.begin("stat"); err != nil {
		return nil, err
	}
	return h.node.info(filepath.Base(h.name)), nil
}

func (h *handle) Close() error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	err := h.begin("close")
	if h.lock && h.life == h.m.life && (err == nil || !h.m.dies) {
		delete(h.m.locks, h.node)
	}
	return err
}

// each calls f for every file and folder, once for each of its names.
func (m *FS) each(f func(name string, n *node)) {
	var walk func(string, *node)
	walk = func(name string, n *node) {
		f(name, n)
		for base, child := range n.entries {
			walk(filepath.Join(name, base), child)
		}
	}
	walk("/", m.root)
}

// Files returns the contents of all files by their names.
func (m *FS) Files() map[string][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[string][]byte{}
	m.each(func(name string, n *node) {
		if n.entries == nil {
			all[name] = bytes.Clone(n.data)
		}
	})
	return all
}

type info struct {
	name   string
	size   int64
	folder bool
}

func (n *node) info(name string) fs.FileInfo { return info{name, int64(len(n.data)), n.entries != nil} }

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) IsDir() bool        { return i.folder }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) Sys() any           { return nil }
func (i info) Mode() fs.FileMode {
	if i.folder {
		return fs.ModeDir | 0o700
	}
	return 0o600
}
