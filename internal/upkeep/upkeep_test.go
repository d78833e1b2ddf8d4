package upkeep_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"keyroll/internal/upkeep"
)

// run runs a test in a bubble: its clock goes on only while all goroutines wait.
func run(t *testing.T, test func(q *upkeep.Queue, log *bytes.Buffer)) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		q := upkeep.New(slog.New(slog.NewTextHandler(&log, nil)))
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { defer close(ended); q.Run(ctx) }()
		test(q, &log)
		cancel()
		<-ended
	})
}

func TestJobsRunOneAfterAnotherInOrder(t *testing.T) {
	run(t, func(q *upkeep.Queue, _ *bytes.Buffer) {
		var did []string
		running := 0
		for _, name := range []string{"a", "b", "c"} {
			q.Add(name, func(context.Context) error {
				if running++; running != 1 {
					t.Error("two jobs at once")
				}
				did = append(did, name)
				running--
				return nil
			})
		}
		q.Wait()
		if !slices.Equal(did, []string{"a", "b", "c"}) {
			t.Errorf("did %v", did)
		}
	})
}

// A job may be added again while a job of its name runs: the data that it has read may
// have changed since. Of the waiting ones only the newest is run.
func TestNewestWaitingJobOfANameRuns(t *testing.T) {
	run(t, func(q *upkeep.Queue, _ *bytes.Buffer) {
		var did []int
		begun, goOn := make(chan struct{}), make(chan struct{})
		q.Add("a", func(context.Context) error { close(begun); <-goOn; did = append(did, 0); return nil })
		<-begun
		for i := 1; i <= 3; i++ {
			q.Add("a", func(context.Context) error { did = append(did, i); return nil })
		}
		close(goOn)
		q.Wait()
		if !slices.Equal(did, []int{0, 3}) {
			t.Errorf("did %v, want the running one and the newest that waited", did)
		}
	})
}

func TestFailedJobIsLoggedAndDelaysNoOther(t *testing.T) {
	run(t, func(q *upkeep.Queue, log *bytes.Buffer) {
		did := false
		q.Add("breaks", func(context.Context) error { return errors.New("out of order") })
		q.Add("next", func(context.Context) error { did = true; return nil })
		q.Wait()
		if !did || !strings.Contains(log.String(), "breaks") || !strings.Contains(log.String(), "out of order") {
			t.Errorf("did %v, logged %q", did, log)
		}
	})
}

func TestJobMayQueueAnother(t *testing.T) {
	run(t, func(q *upkeep.Queue, _ *bytes.Buffer) {
		did := false
		q.Add("a", func(context.Context) error {
			q.Add("b", func(context.Context) error { did = true; return nil })
			return nil
		})
		q.Wait()
		if !did {
			t.Error("Wait returned before what the job queued had run")
		}
		q.Wait() // with nothing to do it returns at once
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	run(t, func(q *upkeep.Queue, _ *bytes.Buffer) {
		q.Add("waits for the end", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		synctest.Wait()
	})
}

// A job that follows each of many requests runs at once, and then once for those of a second.
func TestAJobThatFollowsManyRequestsRunsOnceASecond(t *testing.T) {
	run(t, func(q *upkeep.Queue, _ *bytes.Buffer) {
		var runs, last atomic.Int64
		follow := func(i int64) {
			q.AddPaced("follow", func(context.Context) error { runs.Add(1); last.Store(i); return nil })
		}
		for i := range int64(30) { // three seconds of requests
			follow(i)
			if synctest.Wait(); i == 0 && runs.Load() != 1 {
				t.Error("the first one had to wait")
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := runs.Load(); n < 3 || n > 4 {
			t.Errorf("it ran %d times", n)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if last.Load() != 29 {
			t.Errorf("it ran for request %d last, not after the last request", last.Load())
		}
		follow(30)
		begin := time.Now()
		q.Wait()
		if last.Load() != 30 || time.Since(begin) > 0 {
			t.Errorf("it ran for request %d last, after %v: Wait waits for jobs, not for their time", last.Load(), time.Since(begin))
		}
	})
}

func TestAJobThatWaitsDelaysNoOther(t *testing.T) {
	run(t, func(q *upkeep.Queue, _ *bytes.Buffer) {
		var did []string
		add := func(queue func(string, upkeep.Job), name string) {
			queue(name, func(context.Context) error { did = append(did, name); return nil })
		}
		add(q.AddPaced, "paced")
		synctest.Wait()
		add(q.AddPaced, "paced")
		add(q.Add, "other")
		synctest.Wait()
		if !slices.Equal(did, []string{"paced", "other"}) {
			t.Errorf("did %v", did)
		}
		q.Wait()
		if !slices.Equal(did, []string{"paced", "other", "paced"}) {
			t.Errorf("did %v", did)
		}
	})
}
