package content

import (
	"bytes"
	"context"
	"fmt"

	"keyroll/internal/container"
	"keyroll/internal/items"
	"keyroll/internal/name"
	"keyroll/internal/store"
)

// spelling is a path in the forms by which a file may be found, and their hashes.
// A file of a site is found by its folded path. A file that was stored before paths
// were folded, and whose folded path another file has, is found by its exact path.
// In containers of other kinds each spelling is a different path.
type spelling struct {
	path          string
	fold          func(string) string
	exact, folded []byte
}

func (s *Contents) spellingsOf(ctx context.Context, c container.Container, path string) (p spelling, err error) {
	if err := checkPath(path); err != nil {
		return p, err
	}
	directory, err := s.keys.Directory(ctx, c.Tenant)
	if err != nil {
		return p, err
	}
	return spellingOf(directory, c, path), nil
}

func spellingOf(directory *container.Directory, c container.Container, path string) spelling {
	p := spelling{path: path, fold: foldFunc(c)}
	p.exact, p.folded = directory.Hash("path", c.ID, path), directory.Hash("path", c.ID, p.fold(path))
	return p
}

func foldFunc(c container.Container) func(string) string {
	if c.Kind == container.Site || c.Kind == container.Backup {
		return name.Fold
	}
	return func(s string) string { return s }
}

// find returns the id of the file with the path, and 0 if there is none, with the
// hash by which the file is, or would be, found.
func (p spelling) find(ctx context.Context, tx *store.Tx, c container.Container) (id int64, hash []byte, err error) {
	if id, err = items.FileID(ctx, tx, c.Tenant, c.ID, p.exact); err != nil || id != 0 || bytes.Equal(p.exact, p.folded) {
		return id, p.exact, err
	}
	id, err = items.FileID(ctx, tx, c.Tenant, c.ID, p.folded)
	return id, p.folded, err
}

// matches reports whether path, of a file that was found by hash, may be found by it.
func (p spelling) matches(hash []byte, path string) bool {
	if bytes.Equal(hash, p.folded) {
		return p.fold(path) == p.fold(p.path)
	}
	return path == p.path
}

// foldPaths makes the files of a site findable by their folded paths, including
// those that were stored before paths were folded. Files whose folded paths are equal
// keep their exact ones. It may be interrupted and run again at any point.
func (s *Contents) foldPaths(ctx context.Context, c container.Container) error {
	if c.Folded || c.Kind != container.Site {
		return nil
	}
	s.folding.Lock()
	defer s.folding.Unlock()
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		c.Folded, err = s.keys.IsFolded(ctx, tx, c)
		return err
	})
	if err != nil || c.Folded { // another request was first
		return err
	}
	directory, err := s.keys.Directory(ctx, c.Tenant)
	if err != nil {
		return err
	}
	err = name.Refold(func(visit func([]name.Hashed) error) error { return s.eachPath(ctx, c, directory, visit) }, func(part []name.Hashed) error {
		return s.db.InTx(ctx, func(tx *store.Tx) error { return items.SetPathHashes(ctx, tx, c, part) })
	})
	if err == nil {
		err = s.db.InTx(ctx, func(tx *store.Tx) error { return s.keys.SetFolded(ctx, tx, c) })
	}
	if err != nil {
		return fmt.Errorf("fold paths of site %d: %w", c.ID, err)
	}
	return nil
}

// eachPath passes the hashes of the files of c to visit, in parts. It skips files that
// cannot be decrypted.
func (s *Contents) eachPath(ctx context.Context, c container.Container, directory *container.Directory, visit func([]name.Hashed) error) error {
	for after := int64(0); ; {
		p, err := s.items.OpenPart(ctx, c, items.Files, after, s.sizes.Part)
		if err != nil || len(p.List) == 0 {
			return err
		}
		var part []name.Hashed
		for _, f := range p.List {
			var m items.FileMetadata
			if key, err := p.Keys.Key(f.Blob); err == nil && f.Item.OpenMetadata(key, &m) == nil {
				part = append(part, name.Hashed{ID: f.Item.ID, Now: f.Item.PathHash, Folded: directory.Hash("path", c.ID, name.Fold(m.Path))})
			}
		}
		p.Keys.Zero()
		if err := visit(part); err != nil {
			return err
		}
		after = p.List[len(p.List)-1].Item.ID
	}
}
