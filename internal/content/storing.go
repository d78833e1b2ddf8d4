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

// storing is a blob that is being written to stable storage.
type storing struct {
	name string
	read chan struct{} // closed once all its content has been read, or it has failed
	done chan struct{} // closed once it is durable, or has failed
	err  error         // valid once done is closed
}

// underWay is how many blobs of one file may wait for stable storage while the
// next one is read.
const underWay = 4

// store begins to store the sealed form of a content, and returns when the content
// has been read. It fails if this or an earlier blob of the upload has failed; blobs
// for which waitPuts has not yet waited may still be written.
func (u *upload) store(ctx context.Context, name string, sealed *sealing) error {
	next := &storing{name: name, read: make(chan struct{}), done: make(chan struct{})}
	u.underWay = append(u.underWay, next)
	go next.run(func(ended func()) error {
		defer sealed.release()
		_, err := u.contents.blobs.PutIfAbsent(ctx, name, &toItsEnd{sealed, ended})
		return err
	})
	<-next.read
	if err := next.failed(); err != nil {
		return err
	}
	return u.settle(underWay)
}

// run calls put, which calls ended once it has read the content to its end.
func (b *storing) run(put func(ended func()) error) {
	end := sync.OnceFunc(func() { close(b.read) })
	b.err = put(end)
	close(b.done)
	end()
}

// failed returns why the blob cannot be stored, if that is already known.
func (b *storing) failed() error {
	select {
	case <-b.done:
		return b.err
	default:
		return nil
	}
}

// settle waits until at most `most` blobs are not yet durable, or one has failed.
func (u *upload) settle(most int) error {
	for len(u.underWay) > most {
		first := u.underWay[0]
		<-first.done
		if first.err != nil {
			return first.err
		}
		u.underWay = u.underWay[1:]
		fault.Point("put.blob-durable")
	}
	return nil
}

// rest waits until no blob of the upload is being written, whether or not it failed.
func (u *upload) rest() {
	for _, b := range u.underWay {
		<-b.done
	}
}

// own returns the blobs that an upload has stored, without one whose name was
// already in use: two nodes may, very rarely, draw the same id. No put may be under way.
func (u *upload) own() []blobRow {
	return slices.DeleteFunc(slices.Clone(u.blobs), func(b blobRow) bool {
		return slices.ContainsFunc(u.underWay, func(s *storing) bool {
			return s.name == blobName(b.Tenant, b.ID) && fail.Is(s.err, api.AlreadyExists)
		})
	})
}

// toItsEnd calls ended when its reader is at its end.
type toItsEnd struct {
	io.Reader
	ended func()
}

func (e *toItsEnd) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if err == io.EOF {
		e.ended()
	}
	return n, err
}
