package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"

	"keyroll/api"
	"keyroll/internal/fail"
)

// A batch holds at most batchRoom bytes in memory while it stores them, with at most
// batchRequests concurrent requests.
const (
	batchBytes    = 2 * partSize
	batchRequests = 32
)

// remoteBatch stores each blob as soon as it has its content, and deletes all of them
// unless it is committed.
type remoteBatch struct {
	remote *remote
	ended  bool
	memory *semaphore.Weighted
	under  sync.WaitGroup

	mu     sync.Mutex
	stored []string
	failed error
}

func (r *remote) Batch() Batch {
	return &remoteBatch{remote: r, memory: semaphore.NewWeighted(batchBytes)}
}

func (b *remoteBatch) Put(ctx context.Context, name string, content io.Reader) (int64, error) {
	if b.ended {
		return 0, errEnded
	}
	if err := checkName(name); err != nil {
		return 0, err
	}
	body, full, err := readObject(content)
	if err != nil {
		return 0, fmt.Errorf("put blob %s: %w", name, err)
	}
	if full {
		defer body.release()
		size, err := b.remote.putParts(ctx, name, body, content)
		if err == nil {
			b.recordPut(name, nil)
		}
		return size, err
	}
	size := int64(len(body.bytes))
	weight := int64(batchBytes / batchRequests)
	if body.big {
		weight = partSize
	}
	if err := b.memory.Acquire(ctx, weight); err != nil {
		body.release()
		return 0, fmt.Errorf("put blob %s: %w", name, err)
	}
	b.under.Go(func() {
		defer b.memory.Release(weight)
		defer body.release()
		b.recordPut(name, b.remote.putObject(ctx, "put blob "+name, name, body.bytes))
	})
	return size, nil
}

// recordPut records the result of a put. A blob that may have been stored although its put
// failed is deleted with the others, but never a blob that existed before.
func (b *remoteBatch) recordPut(name string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !fail.Is(err, api.AlreadyExists) {
		b.stored = append(b.stored, name)
	}
	if b.failed == nil {
		b.failed = err
	}
}

func (b *remoteBatch) Commit(ctx context.Context) error {
	if b.ended {
		return errEnded
	}
	b.ended = true
	b.under.Wait()
	err := b.failed
	if err == nil && ctx.Err() != nil {
		err = fmt.Errorf("put blobs: %w", ctx.Err())
	}
	if err != nil {
		b.deleteStored()
	}
	return err
}

func (b *remoteBatch) Discard() {
	if !b.ended {
		b.ended = true
		b.under.Wait()
		b.deleteStored()
	}
}

// deleteStored deletes the stored blobs, as far as the store still responds. No row
// references the remaining ones.
func (b *remoteBatch) deleteStored() {
	ctx, cancel := context.WithTimeout(context.Background(), b.remote.requestTimeout)
	defer cancel()
	var under sync.WaitGroup
	for range min(batchRequests, len(b.stored)) {
		under.Go(func() {
			for {
				b.mu.Lock()
				left := b.stored
				if len(left) > 0 {
					b.stored = left[1:]
				}
				b.mu.Unlock()
				if len(left) == 0 || errors.Is(ctx.Err(), context.DeadlineExceeded) {
					return
				}
				_ = b.remote.Delete(ctx, left[0])
			}
		})
	}
	under.Wait()
}
