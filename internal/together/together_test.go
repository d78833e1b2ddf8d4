package together_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"keyroll/internal/together"
)

// server serves calls whose values are texts. It sends the values of each group to groups,
// and when it then receives from finish, it ends each call with its value as the error.
type server struct {
	t      *testing.T
	calls  *together.Calls[string]
	groups chan string
	finish chan struct{}
}

// limit is how many calls a server serves at a time.
const limit = 3

// run runs a test with a server. Time is that of synctest, and goes on only while the test
// and the server wait. A group that the test does not serve fails the test as a deadlock.
func run(t *testing.T, test func(t *testing.T, s *server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &server{t: t, groups: make(chan string), finish: make(chan struct{})}
		s.calls = together.New(limit, func(calls []*together.Call[string]) {
			var values []string
			for _, one := range calls {
				values = append(values, one.Value)
			}
			s.groups <- fmt.Sprint(values)
			<-s.finish
			for _, one := range calls {
				one.End(errors.New(one.Value))
			}
		})
		test(t, s)
		last := s.do(t.Context(), "last") // whatever came before
		s.serve("[last]")
		s.want(last, "last")
	})
}

// begin waits until a group is served, which must be the one wanted.
func (s *server) begin(want string) {
	s.t.Helper()
	if got := <-s.groups; got != want {
		s.t.Errorf("served %s, want %s", got, want)
	}
}

// end ends the group that is served.
func (s *server) end() {
	s.finish <- struct{}{}
	synctest.Wait()
}

// serve is begin and end.
func (s *server) serve(want string) {
	s.t.Helper()
	s.begin(want)
	s.end()
}

// answer is what a call has returned.
type answer struct {
	returned bool
	err      error
}

// do makes a call, and returns once it waits or is served.
func (s *server) do(ctx context.Context, value string) *answer {
	a := &answer{}
	go func() {
		err := s.calls.Do(ctx, value)
		*a = answer{true, err}
	}()
	synctest.Wait()
	return a
}

// want checks that a call has returned an error with this text.
func (s *server) want(a *answer, text string) {
	s.t.Helper()
	if !a.returned || fmt.Sprint(a.err) != text {
		s.t.Errorf("it has returned: %v, with error %v, want %s", a.returned, a.err, text)
	}
}

func (s *server) wantWaiting(n int) {
	s.t.Helper()
	if got := s.calls.Waiting(); got != n {
		s.t.Errorf("%d calls wait, want %d", got, n)
	}
}

func TestACallWithoutOthersIsServedAtOnce(t *testing.T) {
	run(t, func(t *testing.T, s *server) {
		began := time.Now()
		for _, value := range []string{"a", "b", "c"} {
			a := s.do(t.Context(), value)
			s.wantWaiting(0)
			s.serve("[" + value + "]")
			s.want(a, value)
		}
		if !time.Now().Equal(began) {
			t.Errorf("it waited %v", time.Since(began))
		}
	})
}

func TestCallsThatArriveWhileOneIsServedAreServedTogether(t *testing.T) {
	run(t, func(t *testing.T, s *server) {
		first := s.do(t.Context(), "first")
		s.begin("[first]")
		values := []string{"a", "b", "c", "d", "e"}
		var answers []*answer
		for _, value := range values {
			answers = append(answers, s.do(t.Context(), value))
		}
		s.wantWaiting(5)
		if first.returned {
			t.Error("a call returned before it was ended")
		}
		s.end()
		s.want(first, "first")
		s.begin("[a b c]")
		s.wantWaiting(2)
		s.end()
		s.serve("[d e]")
		for i, a := range answers {
			s.want(a, values[i])
		}
		s.wantWaiting(0)
	})
}

// After several calls were served together, those that come next are too, although none is
// being served when the first of them arrives.
func TestCallsAreGatheredAfterSeveralWereServedTogether(t *testing.T) {
	run(t, func(t *testing.T, s *server) {
		s.do(t.Context(), "first")
		s.begin("[first]")
		s.do(t.Context(), "a")
		s.do(t.Context(), "b")
		s.end()
		s.serve("[a b]")
		c, d := s.do(t.Context(), "c"), s.do(t.Context(), "d")
		s.wantWaiting(2)
		began := time.Now()
		s.begin("[c d]")
		if waited := time.Since(began); waited > time.Millisecond {
			t.Errorf("they waited %v", waited)
		}
		s.end()
		s.want(c, "c")
		s.want(d, "d")
	})
}

func TestACallWhoseContextEndedBeforeItWasServedIsNeverServed(t *testing.T) {
	run(t, func(t *testing.T, s *server) {
		ctx, cancel := context.WithCancel(t.Context())
		s.do(t.Context(), "first")
		s.begin("[first]")
		kept, ended := s.do(t.Context(), "kept"), s.do(ctx, "ended")
		also := s.do(t.Context(), "also kept")
		cancel()
		synctest.Wait()
		s.want(ended, context.Canceled.Error()) // while another one is served
		s.wantWaiting(2)
		s.end()
		s.serve("[kept also kept]")
		s.want(kept, "kept")
		s.want(also, "also kept")
	})
	run(t, func(t *testing.T, s *server) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s.want(s.do(ctx, "late"), context.Canceled.Error()) // although no other one is served
	})
}

// If all calls that wait are withdrawn, the next call is served as if there had been none.
func TestACallIsServedAfterAllThatWaitedWereWithdrawn(t *testing.T) {
	run(t, func(t *testing.T, s *server) {
		ctx, cancel := context.WithCancel(t.Context())
		s.do(t.Context(), "first")
		s.begin("[first]")
		ended := s.do(ctx, "ended")
		cancel()
		synctest.Wait()
		s.want(ended, context.Canceled.Error())
		s.end()
		next := s.do(t.Context(), "next")
		s.serve("[next]")
		s.want(next, "next")
	})
}

func TestDoWaitsForACallThatIsBeingServed(t *testing.T) {
	run(t, func(t *testing.T, s *server) {
		ctx, cancel := context.WithCancel(t.Context())
		a := s.do(ctx, "a")
		s.begin("[a]")
		cancel()
		synctest.Wait()
		if a.returned {
			t.Errorf("it returned %v", a.err)
		}
		s.end()
		s.want(a, "a") // not that its context ended
	})
}

func TestContextEndsWhenAllCallersHaveGone(t *testing.T) {
	type key struct{}
	synctest.Test(t, func(t *testing.T) {
		var calls []*together.Call[string]
		var leave []func()
		for i := range 3 {
			ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, i))
			defer cancel()
			calls, leave = append(calls, &together.Call[string]{Ctx: ctx}), append(leave, cancel)
		}
		ctx, stop := together.Context(calls)
		if v := ctx.Value(key{}); v != 0 {
			t.Errorf("it has the values of call %v, not of the first", v)
		}
		for i, gone := range []int{0, 2, 1} {
			if ctx.Err() != nil {
				t.Errorf("it ended after %d of 3 callers had gone", i)
			}
			leave[gone]()
			synctest.Wait()
		}
		if ctx.Err() == nil {
			t.Error("it has not ended")
		}
		stop()

		ctx, stop = together.Context([]*together.Call[string]{{Ctx: t.Context()}})
		stop()
		if ctx.Err() == nil {
			t.Error("it has not ended with stop")
		}
	})
}
