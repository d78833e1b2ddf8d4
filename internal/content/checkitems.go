package content

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/items"
	"keyroll/internal/store"
)

// Checked is what Check found of one item.
type Checked struct {
	Item  int64
	Keys  int64 // blob keys that could be decrypted
	Bytes int64 // of content that was read
	Exact bool  // found only by the exact spelling of its path: another file has the folded one
	Err   error // nil, or why the item cannot be read; Damaged names item and blob
}

// Check reads every item of c, its metadata and all of its content, and calls
// report for each; an error of report stops it. Items that are added or removed in
// the meantime may be missed. The error of Check itself is never about one item: the
// container's key may not be used, or the database fails.
func (s *Contents) Check(ctx context.Context, c container.Container, report func(Checked) error) error {
	if err := s.checkAll(ctx, c, report); err != nil {
		return fmt.Errorf("check container %d: %w", c.ID, err)
	}
	return nil
}

func (s *Contents) checkAll(ctx context.Context, c container.Container, report func(Checked) error) error {
	for after := int64(0); ; {
		p, err := s.items.OpenPart(ctx, c, items.All, after, s.sizes.Part)
		if err != nil {
			return err
		}
		if len(p.List) == 0 {
			return s.checkRest(ctx, c, report)
		}
		if err := s.checkPart(ctx, c, p, report); err != nil {
			return err
		}
		after = p.List[len(p.List)-1].Item.ID
	}
}

// checkRest reports the items without a first blob, which no list shows.
func (s *Contents) checkRest(ctx context.Context, c container.Container, report func(Checked) error) error {
	lost, err := s.items.ItemsWithoutBlob(ctx, c, items.All)
	if err != nil {
		return err
	}
	for _, l := range lost {
		if err := report(Checked{Item: l.ID, Err: l.Err()}); err != nil {
			return err
		}
	}
	return nil
}

func (s *Contents) checkPart(ctx context.Context, c container.Container, p items.Part, report func(Checked) error) error {
	defer p.Keys.Zero()
	var read int64 // since access to the container's key was checked
	for _, f := range p.List {
		if read >= s.sizes.Blob {
			if err := s.items.CheckAccess(ctx, c); err != nil {
				return err
			}
			read = 0
		}
		result, gone := Checked{Item: f.Item.ID}, false
		if f.Item.PathHash == nil {
			gone = s.checkMessage(ctx, c, p, f, &result)
		} else {
			gone = s.checkFile(ctx, c, f.Item, &result)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if gone {
			continue
		}
		read += result.Bytes
		if err := report(result); err != nil {
			return err
		}
	}
	return nil
}

// checkMessage reports whether the message was deleted since it was listed, as the
// messages of a backup are with the backup.
func (s *Contents) checkMessage(ctx context.Context, c container.Container, p items.Part, f items.WithFirstBlob, result *Checked) (gone bool) {
	_, err := p.Keys.Key(f.Blob)
	if err == nil {
		result.Keys++
		_, err = metadataOf(p, f)
	}
	if err == nil {
		err = s.copyMessage(ctx, openedMessage{f, c, p.Keys}, f.Blob.Whole(), (*counter)(&result.Bytes))
	}
	if fail.Is(err, api.Conflict) {
		return true
	}
	result.Err = err
	return false
}

// checkFile reports whether the file was replaced since it was listed.
func (s *Contents) checkFile(ctx context.Context, c container.Container, item items.Row, result *Checked) (gone bool) {
	r, err := s.openFound(ctx, func(tx *store.Tx) (container.Located, int64, error) {
		at, err := s.keys.Locate(ctx, tx, c)
		return at, item.ID, err
	})
	if err != nil || r.item == 0 {
		result.Err = err
		return err == nil
	}
	defer r.Close()
	spelled, err := s.spellingsOf(ctx, c, r.Path)
	if err == nil && !bytes.Equal(item.PathHash, spelled.exact) && !bytes.Equal(item.PathHash, spelled.folded) {
		err = otherPath(item.ID)
	}
	result.Exact = c.Folded && !bytes.Equal(item.PathHash, spelled.folded)
	for i, b := range slices.Clone(r.blobs) {
		if err != nil {
			break
		}
		if err = r.writeBlob(ctx, int64(i), 0, b.Size, (*counter)(&result.Bytes)); err == nil {
			result.Keys++
		}
	}
	if fail.Is(err, api.Conflict) { // replaced by another node, while it was read
		return true
	}
	result.Err = err
	return false
}

// counter counts the bytes written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
