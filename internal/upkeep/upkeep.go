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

// restTime is how long no other job of the name begins after a job of AddPaced has begun.
const restTime = time.Second

// Job is one piece of work. It may be run again at any time.
type Job func(ctx context.Context) error

// Queue holds the waiting jobs. Its zero value is not usable; call New.
type Queue struct {
	logger  *slog.Logger
	mu      sync.Mutex
	idle    sync.Cond
	jobs    map[string]waiting
	order   []string        // of the waiting jobs whose names do not rest
	resting map[string]bool // names
	rests   []rest          // in the order of their ends
	rush    int             // callers of Wait
	busy    bool
	wake    chan struct{}
}

// waiting is a job that has not begun.
type waiting struct {
	job   Job
	paced bool // its name rests once it has begun
}

// rest is the time in which no job of a name begins.
type rest struct {
	name string
	end  time.Time
}

// New returns an empty queue that logs the errors of jobs.
func New(logger *slog.Logger) *Queue {
	q := &Queue{logger: logger, jobs: map[string]waiting{}, resting: map[string]bool{}, wake: make(chan struct{}, 1)}
	q.idle.L = &q.mu
	return q
}

// Add queues a job under a name; it replaces a waiting job of the same name.
func (q *Queue) Add(name string, job Job) { q.add(name, waiting{job: job}) }

// AddPaced is Add for a job that follows each of many requests: jobs of its name begin at
// most once a second, and the last one serves all that have come meanwhile.
func (q *Queue) AddPaced(name string, job Job) { q.add(name, waiting{job, true}) }

func (q *Queue) add(name string, w waiting) {
	q.mu.Lock()
	if _, waits := q.jobs[name]; !waits && !q.resting[name] {
		q.order = append(q.order, name)
	}
	q.jobs[name] = w
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

// next returns the next job; if there is none, how long the first rest takes, 0 if nothing
// rests.
func (q *Queue) next() (name string, job Job, pause time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.rests) > 0 {
		if pause = time.Until(q.rests[0].end); pause > 0 && q.rush == 0 {
			break
		}
		pause = 0
		q.endFirstRest()
	}
	if len(q.order) == 0 {
		q.busy = false
		q.idle.Broadcast()
		return "", nil, pause
	}
	q.busy = true
	name, q.order = q.order[0], q.order[1:]
	next := q.jobs[name]
	delete(q.jobs, name)
	if next.paced {
		q.resting[name] = true
		q.rests = append(q.rests, rest{name, time.Now().Add(restTime)})
	}
	return name, next.job, 0
}

func (q *Queue) endFirstRest() {
	name := q.rests[0].name
	q.rests = q.rests[1:]
	delete(q.resting, name)
	if _, waits := q.jobs[name]; waits {
		q.order = append(q.order, name)
	}
}

// Wait returns when no job is waiting or running. Until then no name rests.
func (q *Queue) Wait() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.rush++
	defer func() { q.rush-- }()
	q.notify()
	for q.busy || len(q.jobs) > 0 {
		q.idle.Wait()
	}
}
