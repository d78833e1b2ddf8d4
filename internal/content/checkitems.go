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

// checkPart reads the items in the order in which the blob store has them, and reports them
// in that of the list.
func (s *Contents) checkPart(ctx context.Context, c container.Container, p items.Part, report func(Checked) error) error {
	defer p.Keys.Zero()
	list := slices.SortedStableFunc(slices.Values(p.List), func(a, b items.WithFirstBlob) int { return a.Blob.ComparePlace(b.Blob) })
	check := partCheck{contents: s, container: c, part: p, from: s.items.InOrder(firstBlobs(list))}
	defer check.from.Close()
	results, unreported := make(map[int64]checkResult, len(list)), p.List
	for _, f := range list {
		result, err := check.item(ctx, f)
		if err != nil {
			return err
		}
		results[f.Item.ID] = result
		for ; len(unreported) > 0; unreported = unreported[1:] {
			next, done := results[unreported[0].Item.ID]
			if !done {
				break
			}
			if next.gone {
				continue
			}
			if err := report(next.Checked); err != nil {
				return err
			}
		}
	}
	return nil
}

// partCheck is the check of some items.
type partCheck struct {
	contents  *Contents
	container container.Container
	part      items.Part
	from      *items.Sequence
	read      int64 // bytes since access to the container's key was checked
}

// checkResult is what a check found; nothing if the item is gone.
type checkResult struct {
	Checked
	gone bool // deleted or replaced since it was listed
}

// item checks an item. Its error is not about the item.
func (p *partCheck) item(ctx context.Context, f items.WithFirstBlob) (result checkResult, err error) {
	if p.read >= p.contents.sizes.Blob {
		if err := p.contents.items.CheckAccess(ctx, p.container); err != nil {
			return result, err
		}
		p.read = 0
	}
	result.Item = f.Item.ID
	if f.Item.PathHash == nil {
		p.message(ctx, f, &result)
	} else {
		p.file(ctx, f.Item, &result)
	}
	p.read += result.Bytes
	return result, ctx.Err()
}

// message checks a message. It is gone if it was deleted, as the messages of a backup are
// with the backup.
func (p *partCheck) message(ctx context.Context, f items.WithFirstBlob, result *checkResult) {
	_, err := p.part.Keys.Key(f.Blob)
	if err == nil {
		result.Keys++
		_, err = metadataOf(p.part, f)
	}
	if err == nil {
		err = p.contents.copyMessage(ctx, openedMessage{f, p.container, p.part.Keys, p.from}, f.Blob.Whole(), (*counter)(&result.Bytes))
	}
	if result.gone = fail.Is(err, api.Conflict); !result.gone {
		result.Err = err
	}
}

// file checks a file. It is gone if it was replaced.
func (p *partCheck) file(ctx context.Context, item items.Row, result *checkResult) {
	s, c := p.contents, p.container
	r, err := s.openFound(ctx, func(tx *store.Tx) (container.Located, int64, error) {
		at, err := s.keys.Locate(ctx, tx, c)
		return at, item.ID, err
	})
	if err != nil || r.item == 0 {
		result.Err, result.gone = err, err == nil
		return
	}
	defer r.Close()
	r.from = p.from
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
	if result.gone = fail.Is(err, api.Conflict); !result.gone { // by another node, while it was read
		result.Err = err
	}
}

// counter counts the bytes written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
