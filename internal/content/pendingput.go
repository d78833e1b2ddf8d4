package content

import (
	"context"
	"io"
	"slices"
	"sync"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
)

// pendingPut is a blob that is being written to stable storage.
type pendingPut struct {
	name string
	read chan struct{} // closed once all its content has been read, or it has failed
	done chan struct{} // closed once it is durable, or has failed
	err  error         // valid once done is closed
}

// maxPendingPuts is how many blobs of one file may wait for stable storage while the
// next one is read.
const maxPendingPuts = 4

// startPut begins to store the sealed form of a content, and returns when the content
// has been read. It fails if this or an earlier blob of the file has failed; blobs
// for which waitPuts has not yet waited may still be written.
func (u *PreparedFile) startPut(ctx context.Context, name string, sealed *sealing) error {
	next := &pendingPut{name: name, read: make(chan struct{}), done: make(chan struct{})}
	u.pending = append(u.pending, next)
	go next.run(func(ended func()) error {
		defer sealed.release()
		_, err := u.contents.blobs.PutIfAbsent(ctx, name, &endNotifier{sealed, ended})
		return err
	})
	<-next.read
	if err := next.failed(); err != nil {
		return err
	}
	return u.waitPuts(maxPendingPuts)
}

// run calls put, which calls ended once it has read the content to its end.
func (b *pendingPut) run(put func(ended func()) error) {
	end := sync.OnceFunc(func() { close(b.read) })
	b.err = put(end)
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
		u.pending = u.pending[1:]
		fault.Point("put.blob-durable")
	}
	return nil
}

// waitAllPuts waits until no blob of the file is being written, whether or not it failed.
func (u *PreparedFile) waitAllPuts() {
	for _, b := range u.pending {
		<-b.done
	}
}

// storedBlobs returns the blobs that a file has stored, without one whose name was
// already in use: two nodes may, very rarely, draw the same id. No put may be under way.
func (u *PreparedFile) storedBlobs() []blobRow {
	return slices.DeleteFunc(slices.Clone(u.blobs), func(b blobRow) bool {
		return slices.ContainsFunc(u.pending, func(s *pendingPut) bool {
			return s.name == blobName(b.Tenant, b.ID) && fail.Is(s.err, api.AlreadyExists)
		})
	})
}

// endNotifier calls ended when its reader is at its end.
type endNotifier struct {
	io.Reader
	ended func()
}

func (e *endNotifier) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if err == io.EOF {
		e.ended()
	}
	return n, err
}
