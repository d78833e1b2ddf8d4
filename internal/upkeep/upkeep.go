// Package upkeep runs small jobs that tidy the data and on which correctness never
// depends: folding key pages, erasing wraps that are no longer needed. Each job has
// a name, runs at most once at a time, and may be lost when the process ends.
package upkeep

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// settleTime is how long a job of AddLater waits for others of its name.
const settleTime = time.Second

// Job is one piece of work. It may be run again at any time.
type Job func(ctx context.Context) error

// Queue holds the waiting jobs. Its zero value is not usable; call New.
type Queue struct {
	logger *slog.Logger
	mu     sync.Mutex
	idle   sync.Cond
	order  []string
	later  []settling // in the order in which they are due
	rush   int        // callers of Wait
	jobs   map[string]Job
	busy   bool
	wake   chan struct{}
}

// settling is a job of AddLater that is not due yet.
type settling struct {
	name string
	due  time.Time
}

// New returns an empty queue that logs the errors of jobs.
func New(logger *slog.Logger) *Queue {
	q := &Queue{logger: logger, jobs: map[string]Job{}, wake: make(chan struct{}, 1)}
	q.idle.L = &q.mu
	return q
}

// Add queues a job under a name; it replaces a waiting job of the same name.
func (q *Queue) Add(name string, job Job) {
	q.add(name, job, func() { q.order = append(q.order, name) })
}

// AddLater is Add for a job that follows each of many requests: it waits a second, so that
// it serves those that come meanwhile too.
func (q *Queue) AddLater(name string, job Job) {
	q.add(name, job, func() { q.later = append(q.later, settling{name, time.Now().Add(settleTime)}) })
}

// add queues a job, with enqueue unless one of its name waits already.
func (q *Queue) add(name string, job Job, enqueue func()) {
	q.mu.Lock()
	if _, waits := q.jobs[name]; !waits {
		enqueue()
	}
	q.jobs[name] = job
	q.mu.Unlock()
	q.notify()
}

func (q *Queue) notify() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Run runs the queued jobs, one after the other, until ctx is done.
func (q *Queue) Run(ctx context.Context) {
	for {
		name, job, pause := q.next()
		if job == nil {
			var due <-chan time.Time
			if pause > 0 {
				due = time.After(pause)
			}
			select {
			case <-ctx.Done():
				return
			case <-q.wake:
			case <-due:
			}
			continue
		}
		if err := job(ctx); err != nil && ctx.Err() == nil {
			q.logger.WarnContext(ctx, "an upkeep job failed; it runs again when it is next queued", "job", name, "error", err)
		}
	}
}

// next returns the next job; if none is due, how long it takes until the first one is, 0
// if there is none.
func (q *Queue) next() (name string, job Job, pause time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.later) > 0 {
		if pause = time.Until(q.later[0].due); pause > 0 && q.rush == 0 {
			break
		}
		pause = 0
		q.order = append(q.order, q.later[0].name)
		q.later = q.later[1:]
	}
	if len(q.order) == 0 {
		q.busy = false
		q.idle.Broadcast()
		return "", nil, pause
	}
	q.busy = true
	name = q.order[0]
	q.order = q.order[1:]
	job = q.jobs[name]
	delete(q.jobs, name)
	return name, job, 0
}

// Wait returns when no job is waiting or running. Until then no job waits for others of
// its name.
func (q *Queue) Wait() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.rush++
	defer func() { q.rush-- }()
	q.notify()
	for q.busy || len(q.order) > 0 || len(q.later) > 0 {
		q.idle.Wait()
	}
}
