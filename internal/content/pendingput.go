package content

import (
	"context"
	"io"
	"slices"
	"sync"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/items"
)

// pendingPut is a blob that is being written to stable storage.
type pendingPut struct {
	blob int64         // its id
	read chan struct{} // closed once all its content has been read, or it has failed
	done chan struct{} // closed once it is durable, or has failed
	size int64         // valid once read is closed, unless it has failed
	err  error         // valid once done is closed
	at   items.Placed  // valid once done is closed, unless it has failed
}

// maxPendingPuts is how many blobs of one file may wait for stable storage while the
// next one is read.
const maxPendingPuts = 4

// startPut begins to store a content as a blob, and returns its size when the content
// has been read. It fails if this or an earlier blob of the file has failed; blobs
// for which waitPuts has not yet waited may still be written.
func (u *PreparedFile) startPut(ctx context.Context, b items.Blob, key *envelope.Key, content io.Reader) (size int64, err error) {
	next := &pendingPut{blob: b.ID, read: make(chan struct{}), done: make(chan struct{})}
	u.pending = append(u.pending, next)
	go next.run(func(read func(size int64)) (items.Placed, error) {
		return u.contents.items.PutBlob(ctx, b, key, content, read)
	})
	<-next.read
	if err := next.failed(); err != nil {
		return 0, err
	}
	return next.size, u.waitPuts(maxPendingPuts)
}

// run calls put, which calls read once it has read the content to its end.
func (b *pendingPut) run(put func(read func(size int64)) (items.Placed, error)) {
	end := sync.OnceFunc(func() { close(b.read) })
	b.at, b.err = put(func(size int64) {
		b.size = size
		end()
	})
	close(b.done)
	end()
}

// failed returns why the blob cannot be stored, if that is already known.
func (b *pendingPut) failed() error {
	select {
	case <-b.done:
		return b.err
	default:
		return nil
	}
}

// waitPuts waits until at most limit blobs are not yet durable, or one has failed.
func (u *PreparedFile) waitPuts(limit int) error {
	for len(u.pending) > limit {
		first := u.pending[0]
		<-first.done
		if first.err != nil {
			return first.err
		}
		u.place(first.at)
		u.pending = u.pending[1:]
		fault.Point("put.blob-durable")
	}
	return nil
}

// place records where a blob is stored.
func (u *PreparedFile) place(p items.Placed) {
	if p.Object.ID == 0 {
		return
	}
	b := &u.blobs[p.Blob.Sequence]
	b.Object, b.At = p.Blob.Object, p.Blob.At
	u.shared = append(u.shared, p)
}

// waitAllPuts waits until no blob of the file is being written, whether or not it failed.
func (u *PreparedFile) waitAllPuts() {
	for _, b := range u.pending {
		if <-b.done; b.err == nil {
			u.place(b.at)
		}
	}
}

// storedBlobs returns the blobs that a file has stored in objects of their own, without one
// whose name was already in use: two nodes may, very rarely, draw the same id. No put may
// be under way.
func (u *PreparedFile) storedBlobs() []items.Blob {
	return slices.DeleteFunc(slices.Clone(u.blobs), func(b items.Blob) bool {
		return b.SharesObject() || slices.ContainsFunc(u.pending, func(s *pendingPut) bool {
			return s.blob == b.ID && fail.Is(s.err, api.AlreadyExists)
		})
	})
}
