// Package upkeep runs small jobs that tidy the data and on which correctness never
// depends: folding key pages, erasing wraps that are no longer needed. Each job has
// a name, runs at most once at a time, and may be lost when the process ends.
package upkeep

import (
	"context"
	"log/slog"
	"sync"
)

// Job is one piece of work. It may be run again at any time.
type Job func(ctx context.Context) error

// Queue holds the waiting jobs. Its zero value is not usable; call New.
type Queue struct {
	logger *slog.Logger
	mu     sync.Mutex
	idle   sync.Cond
	order  []string
	jobs   map[string]Job
	busy   bool
	wake   chan struct{}
}

// New returns an empty queue that logs the errors of jobs.
func New(logger *slog.Logger) *Queue {
	q := &Queue{logger: logger, jobs: map[string]Job{}, wake: make(chan struct{}, 1)}
	q.idle.L = &q.mu
	return q
}

// Add queues a job under a name; it replaces a waiting job of the same name.
func (q *Queue) Add(name string, job Job) {
	q.mu.Lock()
	if _, waits := q.jobs[name]; !waits {
		q.order = append(q.order, name)
	}
	q.jobs[name] = job
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Run runs the queued jobs, one after the other, until ctx is done.
func (q *Queue) Run(ctx context.Context) {
	for {
		name, job := q.next()
		if job == nil {
			select {
			case <-ctx.Done():
				return
			case <-q.wake:
			}
			continue
		}
		if err := job(ctx); err != nil && ctx.Err() == nil {
			q.logger.WarnContext(ctx, "an upkeep job failed; it runs again when it is next queued", "job", name, "error", err)
		}
	}
}

func (q *Queue) next() (string, Job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.order) == 0 {
		q.busy = false
		q.idle.Broadcast()
		return "", nil
	}
	q.busy = true
	name := q.order[0]
	q.order = q.order[1:]
	job := q.jobs[name]
	delete(q.jobs, name)
	return name, job
}

// Wait returns when no job is waiting or running.
func (q *Queue) Wait() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.busy || len(q.order) > 0 {
		q.idle.Wait()
	}
}
