package contenttest

import (
	"context"
	"io"
	"sync"
	"sync/atomic"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/fail"
)

// Opens is a blob store that counts how often objects are opened, and how many of the
// readers have not been closed. A reader fails NotFound once its object was deleted.
type Opens struct {
	blob.Store
	Count, Unclosed atomic.Int64

	// AtFirstRead, unless nil, is called once, when bytes of an object are read.
	AtFirstRead func()

	deleted sync.Map // names
}

// GetRange counts.
func (o *Opens) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	o.Count.Add(1)
	r, err := o.Store.GetRange(ctx, name, off, n)
	if err != nil {
		return nil, err
	}
	o.Unclosed.Add(1)
	return &opened{r, o, name}, nil
}

// Delete makes the readers of an object fail.
func (o *Opens) Delete(ctx context.Context, name string) error {
	o.deleted.Store(name, true)
	return o.Store.Delete(ctx, name)
}

// opened is a reader of Opens.
type opened struct {
	io.ReadCloser
	store *Opens
	name  string
}

// Size is that of the object.
func (r *opened) Size() int64 { return r.ReadCloser.(blob.Sized).Size() }

func (r *opened) Read(p []byte) (int, error) {
	if first := r.store.AtFirstRead; first != nil {
		r.store.AtFirstRead = nil
		n, err := r.ReadCloser.Read(p)
		first()
		return n, err
	}
	if _, deleted := r.store.deleted.Load(r.name); deleted {
		return 0, fail.New(api.NotFound, "the object was deleted")
	}
	return r.ReadCloser.Read(p)
}

func (r *opened) Close() error {
	r.store.Unclosed.Add(-1)
	return r.ReadCloser.Close()
}

// CountOpens makes the fixture count how often objects are opened.
func (w *Small) CountOpens() *Opens {
	opens := &Opens{Store: w.Blobs}
	w.Contents = w.Connect(opens)
	return opens
}
