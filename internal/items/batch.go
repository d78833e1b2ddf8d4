package items

import (
	"bufio"
	"context"
	"io"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// ownObjectFrom is the size from which a blob of a known size gets an object of its own.
const ownObjectFrom = 1 << 20

// Batch stores blobs of a tenant that become durable together, in as few objects as their
// sizes allow. It must be used by one goroutine only, and ends with Commit or Discard.
type Batch struct {
	store   *Store
	alone   blob.Batch // of blobs with an object of their own
	shared  blob.Batch // of objects
	share   bool       // every node reads objects of several blobs
	open    *openObject
	stored  []Blob
	objects []Object
	failed  error // of an object; nothing can be committed any more
}

// NewBatch returns an empty batch.
func (s *Store) NewBatch(ctx context.Context) (*Batch, error) {
	share, err := s.MayShareObjects(ctx)
	if err != nil {
		return nil, err
	}
	return &Batch{store: s, alone: s.blobs.Batch(), shared: s.blobs.Batch(), share: share}, nil
}

// MayShareObjects reports whether every node reads objects of several blobs. Once that is
// so it stays so: a node of an earlier version refuses the newer database.
func (s *Store) MayShareObjects(ctx context.Context) (bool, error) {
	if s.sharing.Load() {
		return true, nil
	}
	var older bool
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		older, err = s.objectlessNodes(ctx, tx)
		return err
	})
	if err == nil && !older {
		s.sharing.Store(true)
	}
	return err == nil && !older, err
}

// Put adds a content as the blob b, and returns the number of its bytes. After an error of
// content the batch can be used without this blob.
func (p *Batch) Put(ctx context.Context, b Blob, key *envelope.Key, content io.Reader) (size int64, err error) {
	sealed := newSealing(content, key, b.encryptionContext())
	defer sealed.release()
	if b, err = p.add(ctx, b, b.ID, p.share, sealed); err != nil {
		return 0, err
	}
	b.Size = sealed.size
	p.stored = append(p.stored, b)
	return b.Size, nil
}

// Reencrypt adds the content of a blob, which it reads by a sequence, as a new blob under a
// new key.
func (p *Batch) Reencrypt(ctx context.Context, from *Sequence, old Blob, key *envelope.Key) (fresh *envelope.Key, err error) {
	sealed, err := from.openBlob(ctx, &old)
	if err != nil {
		return nil, err
	}
	row, fresh, err := p.store.reencryptOpened(ctx, openedBlob{old, key, sealed}, func(row Blob, sealed io.Reader) (Blob, error) {
		return p.add(ctx, row, row.ID, p.share && old.Size < ownObjectFrom, sealed)
	})
	if err != nil {
		return nil, err
	}
	p.stored = append(p.stored, row)
	return fresh, nil
}

// add adds a sealed blob and returns it with its place. If it begins an object, that has the
// given id.
func (p *Batch) add(ctx context.Context, b Blob, object int64, share bool, sealed io.Reader) (Blob, error) {
	if !share {
		_, err := p.alone.Put(ctx, blobName(b.Tenant, b.ID), sealed)
		return b, err
	}
	if p.failed != nil {
		return b, p.failed
	}
	if p.open == nil {
		p.open = openNewObject(ctx, p.shared, b.Tenant, object)
	}
	b.Object, b.At = p.open.ID, p.open.Size
	if err := p.open.append(sealed); err != nil {
		return b, err
	}
	if p.open.Size >= p.store.sizes.Object {
		p.closeObject()
	}
	return b, p.failed
}

// closeObject ends the object that is being written.
func (p *Batch) closeObject() {
	if p.open == nil {
		return
	}
	if err := p.open.close(); err != nil && p.failed == nil {
		p.failed = err
	}
	p.objects = append(p.objects, p.open.Object)
	p.open = nil
}

// Commit makes the blobs durable, and returns them with their places in the order in which
// they were added. After an error nothing is kept.
func (p *Batch) Commit(ctx context.Context) ([]Blob, error) {
	p.closeObject()
	err := p.failed
	if err == nil {
		err = p.shared.Commit(ctx)
	}
	if err == nil {
		if err = p.alone.Commit(ctx); err != nil {
			p.deleteObjects(ctx, p.objects)
		}
	}
	if err != nil {
		p.Discard()
		return nil, err
	}
	p.settle(ctx)
	return p.stored, nil
}

// settle gives a blob that is alone in its object the form of a blob with an object of its
// own, and deletes objects in which there is none.
func (p *Batch) settle(ctx context.Context) {
	in := map[int64][]*Blob{}
	for i := range p.stored {
		in[p.stored[i].Object] = append(in[p.stored[i].Object], &p.stored[i])
	}
	var several, none []Object
	for _, o := range p.objects {
		switch blobs := in[o.ID]; {
		case len(blobs) == 0:
			none = append(none, o)
		case len(blobs) == 1 && blobs[0].ID == o.ID && blobs[0].SealedSize() == o.Size:
			blobs[0].Object = 0
		default:
			several = append(several, o)
		}
	}
	p.objects = several
	p.deleteObjects(ctx, none)
}

func (p *Batch) deleteObjects(ctx context.Context, list []Object) {
	if len(list) == 0 {
		return
	}
	ids := make([]int64, len(list))
	for i, o := range list {
		ids[i] = o.ID
	}
	_ = p.store.DeleteStored(context.WithoutCancel(ctx), list[0].Tenant, ids)
}

// Objects returns the objects of the committed batch that need a row.
func (p *Batch) Objects() []Object { return p.objects }

// Discard deletes the blobs, unless they were committed.
func (p *Batch) Discard() {
	if p.open != nil {
		_ = p.open.abort()
		p.open = nil
	}
	p.shared.Discard()
	p.alone.Discard()
}

// openObject is an object that is being written. Its bytes go through a pipe to a goroutine
// that stores them, so that memory does not grow with it.
type openObject struct {
	Object
	pipe   *io.PipeWriter
	w      *bufio.Writer
	result chan error
}

// errAborted ends an object that is not to be kept.
var errAborted = fail.New(api.Internal, "the object was discarded")

func openNewObject(ctx context.Context, in blob.Batch, tenant, id int64) *openObject {
	r, w := io.Pipe()
	o := &openObject{Object: Object{ID: id, Tenant: tenant}, pipe: w, w: bufio.NewWriterSize(w, 2*envelope.SegmentSize), result: make(chan error, 1)}
	go func() {
		_, err := in.Put(ctx, blobName(tenant, id), r)
		r.CloseWithError(err) // the writer must not wait for a reader
		o.result <- err
	}()
	return o
}

// append adds the content of r. What it has written before an error stays in the object.
func (o *openObject) append(r io.Reader) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	n, err := io.CopyBuffer(struct{ io.Writer }{o.w}, struct{ io.Reader }{r}, *buf)
	o.Size += n
	return err
}

// close completes the object.
func (o *openObject) close() error {
	err := o.w.Flush()
	o.pipe.CloseWithError(err) // nil: the end
	if stored := <-o.result; stored != nil {
		return stored
	}
	return err
}

// abort ends the object without storing it.
func (o *openObject) abort() error {
	o.pipe.CloseWithError(errAborted)
	return <-o.result
}
