package chaostest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/node/clustertest"
)

// graceSeconds is longer than any upload takes here, even with failures.
const graceSeconds = 60

// longestCollection is when a user gives up waiting for a node that may be paused.
const longestCollection = 20 * time.Second

// collections is an operator who lets two nodes collect blobs and compact objects at the
// same time, repeatedly.
type collections struct {
	user
	mu                   sync.Mutex
	done, removed, moved int64
}

func (u *collections) collect(ctx context.Context) error {
	var both sync.WaitGroup
	errs := make([]error, 2)
	for i := range errs {
		both.Go(func() { errs[i] = u.collectOnce(ctx, u.cluster.Nodes[i]) })
	}
	both.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	sleep(ctx, 500*time.Millisecond)
	return nil
}

// collectOnce collects on a node. It fails if that is refused for another reason than that
// the node, its database or its blob store has a failure.
func (u *collections) collectOnce(ctx context.Context, n *clustertest.Node) error {
	ctx, stop := context.WithTimeout(ctx, longestCollection)
	defer stop()
	var in api.CollectBlobsInput
	in.Body.GraceSeconds = graceSeconds
	out, err := n.World().Client.CollectBlobs(ctx, in, nil)
	var p *api.Problem
	if errors.As(err, &p) && p.Code != api.Truncated && !fail.Lookup(p.Code).Retry {
		return fmt.Errorf("collect blobs: %w", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil {
		u.done++
	}
	u.removed, u.moved = u.removed+out.Removed, u.moved+out.Moved
	return nil
}
